"""HTTP/1.1 over a kept connection: no more than a load generator needs.

A request through `requests` or `httpx` costs this process 0.5 to 1.5 ms, and one through `http.client` some 0.15 ms: as
much as what is measured. This one costs about 0.02 ms.
"""

import json
import socket
from urllib.parse import urlsplit

PATIENCE_S = 120
# What the client library sends, so that a server that compresses for it compresses for us.
CLIENT = ("User-Agent: mlflow-python-client/3.17.2\r\nAccept-Encoding: gzip, deflate\r\nAccept: */*\r\n"
          "Connection: keep-alive\r\n")


class Refused(Exception):
    """An answer other than 200."""

    def __init__(self, status, body):
        super().__init__(f"{status} {body[:300].decode(errors='replace')}")
        self.status = status


class Connection:
    """One at a time; opened again where the server closed it between two requests."""

    def __init__(self, url):
        parts = urlsplit(url)
        self.address = (parts.hostname, parts.port or 80)
        self.base = parts.path.rstrip("/")
        self.host = f"Host: {parts.netloc}\r\n"
        self.socket, self.buffer = None, bytearray()

    def prepare(self, method, path, compressed=True):
        """The head of a request, up to its length: made once, used many times."""
        client = CLIENT if compressed else CLIENT.replace("gzip, deflate", "identity")
        kind = "Content-Type: application/json\r\n" if method != "GET" else ""
        return f"{method} {self.base}{path} HTTP/1.1\r\n{self.host}{client}{kind}".encode()

    def send(self, head, body=b""):
        """The status and body of the answer to a prepared request."""
        message = b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body) if body else head + b"\r\n"
        fresh = self.socket is None
        try:
            return self._exchange(message)
        except ConnectionError:
            self.close()
            if fresh or self.buffer:
                raise
            return self._exchange(message)

    def call(self, method, path, value=None):
        """As `send`, with JSON both ways; raises where the status is not 200."""
        body = json.dumps(value).encode() if value is not None else b""
        status, answer = self.send(self.prepare(method, path, compressed=False), body)
        if status != 200:
            raise Refused(status, answer)
        return json.loads(answer)

    def close(self):
        if self.socket is not None:
            self.socket.close()
            self.socket = None

    def _exchange(self, message):
        if self.socket is None:
            self.socket = socket.create_connection(self.address, PATIENCE_S)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer.clear()
        self.socket.sendall(message)
        end = self._until(b"\r\n\r\n", 0)
        head = bytes(self.buffer[:end]).lower()
        status = int(head[9:12])
        at = head.find(b"\r\ncontent-length:")
        if at >= 0:
            rest = head[at + 17 :].split(b"\r\n", 1)[0]
            length = end + 4 + int(rest)
            while len(self.buffer) < length:
                self._more()
            body = bytes(self.buffer[end + 4 : length])
        elif b"\r\ntransfer-encoding: chunked" in head:
            body = self._chunks(end + 4)
        else:
            raise ConnectionError("an answer that says no length")
        if b"\r\nconnection: close" in head:
            self.close()
        return status, body

    def _more(self):
        received = self.socket.recv(262144)
        if not received:
            raise ConnectionResetError("closed by the server")
        self.buffer += received

    def _until(self, mark, start):
        """Where the mark lies."""
        while (at := self.buffer.find(mark, start)) < 0:
            self._more()
        return at

    def _chunks(self, at):
        body = bytearray()
        while True:
            end = self._until(b"\r\n", at)
            size = int(bytes(self.buffer[at:end]).split(b";")[0], 16)
            while len(self.buffer) < end + 2 + size + 2:
                self._more()
            body += self.buffer[end + 2 : end + 2 + size]
            at = end + 2 + size + 2
            if size == 0:
                return bytes(body)
