"""Creates experiments, runs, files and models through the API as a recorded answer shows them."""

import base64
import json
import re
import urllib.error
import urllib.parse
import urllib.request

API = "/api/2.0/mlflow/"
FILES = "/api/2.0/mlflow-artifacts/artifacts/"
ID = re.compile(r"m-[0-9a-f]{32}|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9a-f]{32}")


class Tenant:
    """A tenant on the server. `ids` maps recorded ids to the ids that this server generated."""

    def __init__(self, uri, tenant):
        self.uri = f"{uri}/tenants/{tenant}"
        self.ids = {}
        self.experiments = {"0"}
        self.models = {}

    def with_server_ids(self, text):
        """Replaces recorded ids by the ids of this server."""
        return ID.sub(lambda match: self.ids.get(match.group(), match.group()), text)

    def with_recorded_ids(self, text):
        """Replaces ids of this server by the recorded ids."""
        recorded = {server_id: recorded_id for recorded_id, server_id in self.ids.items()}
        return ID.sub(lambda match: recorded.get(match.group(), match.group()), text)

    def send(self, method, path, body=None, query="", content_type="application/json"):
        """Sends a request. Returns the status, the body and the headers of the answer."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        url = self.uri + path + (f"?{query}" if query else "")
        request = urllib.request.Request(url, data=data, method=method)
        if data is not None:
            request.add_header("Content-Type", content_type)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read(), answer.headers
        except urllib.error.HTTPError as error:
            return error.code, error.read(), error.headers

    def post(self, path, body, method="POST"):
        """Sends a request whose body and path have recorded ids. Returns the JSON answer; the status must be 200."""
        body = json.loads(self.with_server_ids(json.dumps(body)))
        status, answer, _ = self.send(method, API + self.with_server_ids(path), body)
        assert status == 200, f"{method} {path} {json.dumps(body)[:300]}: {status} {answer[:300]}"
        return json.loads(answer)

    def experiment(self, number, shown=None):
        """Creates an experiment with this id. Ids are consecutive, so it creates and deletes those before it."""
        if number in self.experiments:
            return
        made = None
        shown = shown or {}
        while made != number:
            last = made is not None and int(made) + 1 == int(number) or made is None and number == self.next()
            name = shown.get("name", f"experiment {number}") if last else f"filler before {number} after {made}"
            made = self.post("experiments/create", {"name": name, "tags": shown.get("tags", []) if last else []})["experiment_id"]
            assert int(made) <= int(number), f"experiment {number} must be created before {made}"
            if made != number:
                self.post("experiments/delete", {"experiment_id": made})
            self.experiments.add(made)

    def next(self):
        """Returns the id of the next experiment."""
        return str(max(int(number) for number in self.experiments) + 1)

    def run(self, run_id, shown=None, experiment="10"):
        """Creates a run with its metrics, parameters, tags, inputs, outputs and state."""
        if run_id in self.ids or not ID.fullmatch(run_id):
            return
        shown = shown or {}
        info, data = shown.get("info", {}), shown.get("data", {})
        self.experiment(info.get("experiment_id", experiment))
        made = {"experiment_id": info.get("experiment_id", experiment), "start_time": info.get("start_time", 1)}
        made |= {"user_id": info.get("user_id", ""), "run_name": info.get("run_name", "run"), "tags": data.get("tags", [])}
        self.ids[run_id] = self.post("runs/create", made)["run"]["info"]["run_id"]
        for metric in data.get("metrics", []):
            if metric.get("model_id"):
                self.logged_model(metric["model_id"])
        logged = {"metrics": data.get("metrics", []), "params": data.get("params", [])}
        if logged["metrics"] or logged["params"]:
            self.post("runs/log-batch", {"run_id": run_id, **logged})
        inputs, outputs = shown.get("inputs", {}), shown.get("outputs", {})
        models = inputs.get("model_inputs", [])
        for model in models + outputs.get("model_outputs", []):
            self.logged_model(model["model_id"])
        if inputs:
            datasets = inputs.get("dataset_inputs", [])
            self.post("runs/log-inputs", {"run_id": run_id, "datasets": datasets, "models": models})
        if outputs:
            self.post("runs/outputs", {"run_id": run_id, "models": outputs.get("model_outputs", [])})
        if info.get("status", "RUNNING") != "RUNNING":
            update = {"run_id": run_id, "status": info["status"]}
            update |= {"end_time": info["end_time"]} if "end_time" in info else {}
            self.post("runs/update", update)
        if info.get("lifecycle_stage") == "deleted":
            self.post("runs/delete", {"run_id": run_id})

    def logged_model(self, model_id, shown=None, source_run=None):
        """Creates a logged model with its status, parameters, tags and metrics."""
        if model_id in self.ids or not ID.fullmatch(model_id):
            return
        shown = shown or {"info": {"experiment_id": "10", "name": "model", "source_run_id": source_run or ""}}
        info, data = shown["info"], shown.get("data", {})
        self.experiment(info["experiment_id"])
        if info.get("source_run_id"):
            self.run(info["source_run_id"], experiment=info["experiment_id"])
        made = {name: info[name] for name in ("experiment_id", "name", "model_type", "source_run_id", "tags") if name in info}
        made["params"] = data.get("params", [])
        self.ids[model_id] = self.post("logged-models", made)["model"]["info"]["model_id"]
        if info.get("status", "LOGGED_MODEL_PENDING") != "LOGGED_MODEL_PENDING":
            self.post(f"logged-models/{model_id}", {"status": info["status"]}, "PATCH")
        for metric in data.get("metrics", []):
            self.run(metric["run_id"], experiment=info["experiment_id"])
            self.post("runs/log-batch", {"run_id": metric["run_id"], "metrics": [metric]})

    def file(self, path, content):
        """Uploads a file to a path with recorded ids."""
        status, answer, _ = self.send("PUT", FILES + urllib.parse.quote(self.with_server_ids(path)), content)
        assert status == 200, f"PUT {path}: {answer[:200]}"

    def listing(self, root, files):
        """Uploads files with the paths (relative to `root`) and sizes of a recorded listing."""
        for file in files:
            path = f"{root}/{file['path']}"
            self.file(f"{path}/inside" if file["is_dir"] else path, b"x" * file.get("file_size", 1))

    def source(self, version):
        """Creates the logged model or the version that a version was created from. Returns its field of the request."""
        source = version["source"]
        if model := re.fullmatch(r"models:/(m-[0-9a-f]{32})", source):
            self.logged_model(model[1], source_run=version.get("run_id"))
            return {"model_id": model[1]}
        if copied := re.fullmatch(r"models:/([^/]+)/(\d+)", source):
            self.version({"name": copied[1], "version": copied[2], "source": "s3://models/x"})
        return {}

    def version(self, shown):
        """Creates a version of a model. Version numbers are consecutive, so it creates and deletes missing ones."""
        known = self.models.setdefault(shown["name"], set())
        if not known:
            self.model({"name": shown["name"]})
        number = int(shown["version"])
        if number in known:
            return
        run_id = shown.get("run_id", "")
        if run_id:
            self.run(run_id)
        made = {"name": shown["name"], "source": shown["source"], "tags": shown.get("tags", []), **self.source(shown)}
        made |= {name: shown[name] for name in ("description", "run_link") if shown.get(name)}
        made |= {"run_id": run_id} if run_id else {}
        for below in range(max(known, default=0) + 1, number):
            self.post("model-versions/create", {"name": shown["name"], "source": "s3://models/x"})
            self.post("model-versions/delete", {"name": shown["name"], "version": str(below)}, "DELETE")
            known.add(below)
        created = self.post("model-versions/create", made)["model_version"]["version"]
        assert created == shown["version"], f"{shown['name']}: version {created}, expected {shown['version']}"
        known.add(number)
        if shown.get("current_stage", "None") != "None":
            self.post("model-versions/transition-stage", {"name": shown["name"], "version": created, "stage": shown["current_stage"]})
        for alias in shown.get("aliases", []):
            self.post("registered-models/alias", {"name": shown["name"], "alias": alias, "version": created})

    def model(self, shown):
        """Creates a registered model with its latest versions and aliases."""
        made = {name: shown[name] for name in ("name", "description", "tags") if name in shown}
        status, answer, _ = self.send("POST", API + "registered-models/create", made)
        assert status == 200 or b"RESOURCE_ALREADY_EXISTS" in answer, answer
        self.models.setdefault(shown["name"], set())
        versions = shown.get("latest_versions", [])
        for version in sorted(versions, key=lambda version: int(version["version"])):
            self.version(version)
        for alias in shown.get("aliases", []):
            self.post("registered-models/alias", {"name": shown["name"], **alias})

    def offset(self, token):
        """Returns the number of items before the page of this page token."""
        return json.loads(base64.b64decode(token))["offset"] if token else 0
