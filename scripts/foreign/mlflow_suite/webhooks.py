"""Flow for webhooks. The server must be able to send plain HTTP to 127.0.0.1, and must use a new webhook within 2 s."""

import base64
import hashlib
import hmac
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Empty, Queue

from mlflow import MlflowClient

from . import equal, flow, expect_error, unique

TIMEOUT_S = 60


class Listener:
    """An HTTP server that stores the headers and the body of each request."""

    def __init__(self):
        self.calls = calls = Queue()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                # Not as a dict: header names are case-insensitive.
                calls.put((self.headers, self.rfile.read(int(self.headers["Content-Length"])).decode()))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def next_of(self, entity, name):
        """Returns the next delivery about this model; skips deliveries about others."""
        while True:
            try:
                headers, body = self.calls.get(timeout=TIMEOUT_S)
            except Empty:
                raise AssertionError(f"no delivery about {entity} {name} within {TIMEOUT_S} s") from None
            known = json.loads(body)
            if known["entity"] == entity and known["data"].get("name") == name:
                return headers, body, known


@flow
def webhooks():
    client, title, secret = MlflowClient(), unique("hook"), "a-secret-of-some-length"
    with Listener() as listener:
        made = client.create_webhook(title, listener.url, ["registered_model.created", "model_version.created"],
                                     description="d", secret=secret)
        try:
            equal((made.name, made.url, made.description, made.status.value), (title, listener.url, "d", "ACTIVE"))
            equal(sorted(map(str, made.events)), ["model_version.created", "registered_model.created"])
            equal(made.secret, None)
            known = client.get_webhook(made.webhook_id)
            equal((known.name, known.url, known.secret), (title, listener.url, None))
            assert title in {each.name for each in client.list_webhooks()}

            answer = client.test_webhook(made.webhook_id)
            equal((answer.success, answer.response_status), (True, 200))
            listener.calls.get(timeout=TIMEOUT_S)

            time.sleep(2)  # MLflow's workers cache the list of webhooks for MLFLOW_WEBHOOK_CACHE_TTL (1 s)
            name = unique("hooked")
            client.create_registered_model(name, tags={"a": "b"}, description="of gas")
            headers, body, delivered = listener.next_of("registered_model", name)
            equal((delivered["action"], delivered["data"]["tags"], delivered["data"]["description"]),
                  ("created", {"a": "b"}, "of gas"))
            delivery, at = headers["X-MLflow-Delivery-Id"], headers["X-MLflow-Timestamp"]
            digest = hmac.new(secret.encode(), f"{delivery}.{at}.{body}".encode(), hashlib.sha256).digest()
            equal(headers["X-MLflow-Signature"], "v1," + base64.b64encode(digest).decode())
            client.create_model_version(name, "s3://bucket/model")
            _, _, delivered = listener.next_of("model_version", name)
            equal((delivered["action"], delivered["data"]["version"], delivered["data"]["source"]),
                  ("created", "1", "s3://bucket/model"))

            changed = client.update_webhook(made.webhook_id, description="e", status="DISABLED")
            equal((changed.description, changed.status.value, changed.name), ("e", "DISABLED", title))
            for url in ("ftp://127.0.0.1/x", "", "nonsense"):
                with expect_error("INVALID_PARAMETER_VALUE"):
                    client.create_webhook(unique("hook"), url, ["registered_model.created"])
        finally:
            client.delete_webhook(made.webhook_id)
        with expect_error("RESOURCE_DOES_NOT_EXIST"):
            client.get_webhook(made.webhook_id)
