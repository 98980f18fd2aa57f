"""Creates the state that a recorded pair needs before its request is sent.

The state is what the recorded answer shows, except for what the request itself creates. Each function below handles one
kind of request: `create_*` creates what the answer of a read shows, `before_*` creates what a write needs. `shown` is an
object as the recorded answer shows it.
"""

import json
import re
import urllib.parse

from tenant import ID


def prepare(tenant, pair):
    """Creates the state. Returns the names of the fields of the answer that the server generates."""
    path, request, answer = pair["path"], pair["req"] or {}, pair["resp"] or {}
    query = dict(urllib.parse.parse_qsl(pair["query"]))
    for pattern, create in STATES:
        if re.search(pattern, f"{pair['method']} {path}"):
            arguments = {**query, "__query": pair["query"], **(request if isinstance(request, dict) else {})}
            return create(tenant, path, arguments, answer) or set()
    raise AssertionError(f"STATES has no entry for {pair['method']} {path}")


def no_state(tenant, path, request, answer):
    return set()


def before_create_experiment(tenant, path, request, answer):
    if "experiment_id" in answer:
        previous = str(int(answer["experiment_id"]) - 1)
        tenant.experiment(previous, {"name": "the previous one"})
    else:
        tenant.post("experiments/create", {"name": request["name"]})


def before_change_experiment(tenant, path, request, answer):
    number = request["experiment_id"]
    tenant.experiment(number, {"name": "before", "tags": [{"key": request.get("key", "k"), "value": "before"}]})
    if path.endswith("restore"):
        tenant.post("experiments/delete", {"experiment_id": number})


def create_experiment(tenant, path, request, answer):
    if "experiment" in answer:
        tenant.experiment(answer["experiment"]["experiment_id"], answer["experiment"])


def create_experiments(tenant, path, request, answer):
    found = sorted(answer["experiments"], key=lambda shown: int(shown["experiment_id"]))
    if "next_page_token" in answer and found[0]["experiment_id"] != "0":
        tenant.experiment(str(int(found[0]["experiment_id"]) - 1), {"name": "many-before"})
    for shown in found:
        if shown["experiment_id"] != "0":
            tenant.experiment(shown["experiment_id"], shown)
    for number in range(tenant.offset(request.get("page_token"))):
        tenant.experiment(tenant.next(), {"name": f"on an earlier page {number}"})


def create_run(tenant, path, request, answer):
    if "run" in answer:
        tenant.run(answer["run"]["info"]["run_id"], answer["run"])


def create_runs(tenant, path, request, answer):
    for number in request["experiment_ids"]:
        tenant.experiment(number)
    found = answer.get("runs", [])
    times = [shown["info"]["start_time"] for shown in found] or [1]
    # Runs with equal start times are in the order of their generated ids, so these get different start times.
    for number in range(tenant.offset(request.get("page_token"))):
        tenant.post("runs/create", {"experiment_id": "10", "start_time": max(times) + 1 + number})
    if "next_page_token" in answer:
        tenant.post("runs/create", {"experiment_id": "10", "start_time": min(times) - 1})
    for shown in found:
        tenant.run(shown["info"]["run_id"], shown)


def before_run_call(tenant, path, request, answer):
    run_id = request.get("run_id") or request.get("run_uuid")
    info = dict(answer.get("run_info", {}))
    info.update(status="RUNNING")
    if "run_name" in request:
        info["run_name"] = "before"
    info.pop("end_time", None)
    tags = [{"key": request["key"], "value": "x"}] if path.endswith("delete-tag") else []
    tenant.run(run_id, {"info": info, "data": {"tags": tags}})
    for named in ID.findall(json.dumps(request.get("metrics", [])) + json.dumps(request.get("models", []))):
        if named.startswith("m-"):
            tenant.logged_model(named)
    if "model_id" in request:
        tenant.logged_model(request["model_id"])
    if "message" in answer and "Changing param" in answer["message"]:
        tenant.post("runs/log-parameter", {"run_id": run_id, "key": request["key"], "value": "1"})
    if path.endswith("restore"):
        tenant.post("runs/delete", {"run_id": run_id})


def before_create_run(tenant, path, request, answer):
    tenant.experiment(request["experiment_id"])
    if "run_name" not in request:
        # The tag repeats the name, which the server generates.
        name = {"key": "mlflow.runName", "value": answer["run"]["info"]["run_name"]}
        request.setdefault("tags", []).append(name)
    return set()


def create_metrics(tenant, path, request, answer):
    named = {metric.get("run_id", request.get("run_id")) for metric in answer.get("metrics", [])}
    for run_id in named:
        tenant.run(run_id)
        own = [metric for metric in answer["metrics"] if metric.get("run_id", run_id) == run_id]
        own = [{"key": request.get("metric_key"), **metric} for metric in own]
        tenant.post("runs/log-batch", {"run_id": run_id, "metrics": own})


def create_intervals(tenant, path, request, answer):
    for run_id in urllib.parse.parse_qs(request["__query"])["run_ids"]:
        tenant.run(run_id)
    create_metrics(tenant, path, request, answer)


def create_datasets(tenant, path, request, answer):
    tenant.experiment("10")
    for number, shown in enumerate(answer["dataset_summaries"]):
        context = [{"key": "mlflow.data.context", "value": shown["context"]}] if "context" in shown else []
        dataset = {"name": shown["name"], "digest": shown["digest"], "source_type": "local", "source": "s"}
        run = tenant.post("runs/create", {"experiment_id": shown["experiment_id"], "start_time": number})["run"]
        inputs = [{"tags": context, "dataset": dataset}]
        tenant.post("runs/log-inputs", {"run_id": run["info"]["run_id"], "datasets": inputs})


def create_logged_models(tenant, path, request, answer):
    for number in request.get("experiment_ids", []):
        tenant.experiment(number)
    # The answer begins with the newest model.
    for shown in reversed(answer.get("models", [])):
        tenant.logged_model(shown["info"]["model_id"], shown)


def before_create_logged_model(tenant, path, request, answer):
    tenant.experiment(request["experiment_id"])
    if request.get("source_run_id"):
        tenant.run(request["source_run_id"])


def before_logged_model_call(tenant, path, request, answer):
    model_id = ID.search(path).group()
    shown = answer.get("model")
    if shown and shown["info"]["model_id"] == model_id:
        shown = json.loads(json.dumps(shown))
        if "status" in request:
            shown["info"]["status"] = "LOGGED_MODEL_PENDING"
        tenant.logged_model(model_id, shown)
    elif "error_code" not in answer:
        tenant.logged_model(model_id)
        if "/tags/" in path:
            tenant.post(f"logged-models/{model_id}/tags", {"tags": [{"key": path.rsplit("/", 1)[1], "value": "1"}]}, "PATCH")
        if "files" in answer:
            tenant.listing(f"10/models/{model_id}/artifacts", answer["files"])


def create_run_files(tenant, path, request, answer):
    if ids := ID.search(path + str(request)):
        tenant.run(ids.group())
    if path.endswith("artifacts/list"):
        tenant.listing(answer["root_uri"].split(":/", 1)[1], answer.get("files", []))
    elif path.endswith("/artifacts"):
        tenant.listing(request["path"], answer["files"])
    elif "get-artifact" in path:
        tenant.file(f"10/{request['run_uuid']}/artifacts/{request['path']}", answer["head"].encode())


def create_file_owners(tenant, path, request, answer):
    for named in ID.findall(path):
        tenant.logged_model(named) if named.startswith("m-") else tenant.run(named)


def create_file(tenant, path, request, answer):
    create_file_owners(tenant, path, request, answer)
    if "error_code" not in answer:
        tenant.file(path.split("/artifacts/", 1)[1], json.dumps(answer).encode())


def create_version_file(tenant, path, request, answer):
    if "error_code" in answer:
        return
    model_id = ID.search(answer["head"]).group()
    tenant.logged_model(model_id)
    content = answer["head"].encode().ljust(answer["len"], b" ")
    tenant.file(f"10/models/{model_id}/artifacts/{request['path']}", content)
    tenant.version({"name": request["name"], "version": request["version"], "source": f"models:/{model_id}"})


def copies(model):
    """Returns whether a version of the model is a copy of a version of another model."""
    return any(re.match(r"models:/[^/]+/\d", version["source"]) for version in model.get("latest_versions", []))


def create_models(tenant, path, request, answer):
    found = answer.get("registered_models", [answer["registered_model"]] if "registered_model" in answer else [])
    # Models that other models are copied from are created first.
    for shown in sorted(found, key=copies):
        tenant.model(shown)


def before_create_model(tenant, path, request, answer):
    if "error_code" in answer:
        tenant.model({"name": request["name"]})


def before_change_model(tenant, path, request, answer):
    shown = json.loads(json.dumps(answer.get("registered_model", {"name": request["name"]})))
    # The model has its old name before the request. After a rename the answer has the new name, in its versions too.
    shown["name"] = request["name"]
    for version in shown.get("latest_versions", []):
        version["name"] = request["name"]
    tenant.model(shown)
    if "version" in request:
        tenant.version({"name": request["name"], "version": request["version"], "source": "s3://models/x"})


def create_versions(tenant, path, request, answer):
    found = answer.get("model_versions", [answer["model_version"]] if "model_version" in answer else [])
    if "name" in request:
        tenant.model({"name": request["name"]})
    for shown in sorted(found, key=lambda shown: int(shown["version"])):
        tenant.version(shown)
    if "version" in request and not found and "error_code" not in answer:
        tenant.version({"name": request["name"], "version": request["version"], "source": "s3://models/x"})
    if "next_page_token" in answer:
        # The page begins with the version that changed last.
        tenant.model({"name": "changed before"})
        tenant.version({"name": "changed before", "version": "1", "source": "s3://models/x"})
        last = found[-1]
        tenant.post("model-versions/update", {"name": last["name"], "version": last["version"], "description": last["description"]}, "PATCH")


def before_create_version(tenant, path, request, answer):
    shown = answer.get("model_version")
    if not shown:
        return
    tenant.model({"name": request["name"]})
    if request.get("run_id"):
        tenant.run(request["run_id"])
    tenant.source(shown)
    number = int(shown["version"])
    if number > 1:
        tenant.version({"name": request["name"], "version": str(number - 1), "source": "s3://models/x"})


def before_version_call(tenant, path, request, answer):
    shown = answer.get("model_version") or {"name": request["name"], "version": request["version"], "source": "s3://models/x"}
    tenant.version(shown)


def create_download_uri(tenant, path, request, answer):
    model_id = ID.search(answer["artifact_uri"]).group()
    tenant.logged_model(model_id)
    tenant.version({"name": request["name"], "version": request["version"], "source": f"models:/{model_id}"})


def snake(name):
    return re.sub(r"([A-Z])", lambda letter: "_" + letter[1].lower(), name)


def create_graphql(tenant, path, request, answer):
    def rest(value):
        """Returns a GraphQL value with the field names of the REST API."""
        if isinstance(value, dict):
            return {snake(name): rest(inner) for name, inner in value.items() if name != "__typename"}
        return [rest(inner) for inner in value] if isinstance(value, list) else value

    data = rest(answer["data"])
    if "mlflow_get_experiment" in data:
        shown = data["mlflow_get_experiment"]["experiment"]
        return tenant.experiment(shown["experiment_id"], shown)
    shown = data["mlflow_get_run"]["run"]
    tenant.experiment(shown["experiment"]["experiment_id"], shown["experiment"])
    info = shown["info"]
    info.update(start_time=int(info["start_time"]), end_time=int(info["end_time"]))
    for metric in shown["data"]["metrics"]:
        metric["value"] = "NaN" if metric["value"] is None else metric["value"]
    tenant.run(info["run_uuid"], {"info": info, "data": shown["data"]})


def create_webhooks(tenant, path, request, answer):
    shown = answer.get("webhooks", [answer["webhook"]] if "webhook" in answer else [])
    named = ID.search(path)
    if named and not shown:
        shown = [{"webhook_id": named.group(), "name": "w", "url": "https://93.184.216.34/h", "events": [{"entity": "REGISTERED_MODEL", "action": "CREATED"}]}]
    if not named and "url" in request:
        return
    for webhook in shown:
        made = {name: webhook[name] for name in ("name", "description", "url", "events", "status") if name in webhook}
        tenant.ids[webhook["webhook_id"]] = tenant.post("webhooks", made)["webhook"]["webhook_id"]


STATES = [
    (r"experiments/create", before_create_experiment),
    (r"POST .*experiments/(delete|restore|update|set-|delete-)", before_change_experiment),
    (r"experiments/get", create_experiment),
    (r"experiments/search-datasets", create_datasets),
    (r"experiments/search", create_experiments),
    (r"runs/create", before_create_run),
    (r"runs/get", create_run),
    (r"runs/search", create_runs),
    (r"POST .*runs/", before_run_call),
    (r"get-history-bulk-interval", create_intervals),
    (r"metrics/get-history", create_metrics),
    (r"POST .*logged-models$", before_create_logged_model),
    (r"logged-models/search", create_logged_models),
    (r"logged-models/", before_logged_model_call),
    (r"GET /model-versions/get-artifact", create_version_file),
    (r"GET (/get-artifact|.*artifacts/list|.*mlflow-artifacts/artifacts$)", create_run_files),
    (r"GET .*mlflow-artifacts/", create_file),
    (r"PUT ", create_file_owners),
    (r"registered-models/(get-latest-versions|alias)$", create_versions),
    (r"registered-models/create", before_create_model),
    (r"GET .*registered-models/", create_models),
    (r"registered-models/", before_change_model),
    (r"model-versions/create", before_create_version),
    (r"get-download-uri", create_download_uri),
    (r"GET .*model-versions/", create_versions),
    (r"model-versions/", before_version_call),
    (r"graphql", create_graphql),
    (r"webhooks", create_webhooks),
    (r"datasets/search|scorers|gateway-proxy|server-info|ui-telemetry|users/current|/version|assistant", no_state),
]
