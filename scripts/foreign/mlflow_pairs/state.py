"""What must be there before a recorded pair is called: what its answer shows, but for what the call itself makes."""

import json
import re
import urllib.parse

from world import ID


def before(world, pair):
    """Makes it; the names of fields that the server draws in the answer."""
    path, request, answer = pair["path"], pair["req"] or {}, pair["resp"] or {}
    query = dict(urllib.parse.parse_qsl(pair["query"]))
    for pattern, make in STATES:
        if re.search(pattern, f"{pair['method']} {path}"):
            asked = {**query, "__query": pair["query"], **(request if isinstance(request, dict) else {})}
            return make(world, path, asked, answer) or set()
    raise AssertionError(f"nobody knows what {pair['method']} {path} needs")


def nothing(world, path, request, answer):
    return set()


def experiments(world, path, request, answer):
    for number in request.get("experiment_ids", []):
        world.experiment(number)


def made_experiment(world, path, request, answer):
    if "experiment_id" in answer:
        before_it = str(int(answer["experiment_id"]) - 1)
        world.experiment(before_it, {"name": "the one before"})
    else:
        world.post("experiments/create", {"name": request["name"]})


def changed_experiment(world, path, request, answer):
    number = request["experiment_id"]
    world.experiment(number, {"name": "before", "tags": [{"key": request.get("key", "k"), "value": "before"}]})
    if path.endswith("restore"):
        world.post("experiments/delete", {"experiment_id": number})


def shown_experiment(world, path, request, answer):
    if "experiment" in answer:
        world.experiment(answer["experiment"]["experiment_id"], answer["experiment"])


def shown_experiments(world, path, request, answer):
    found = sorted(answer["experiments"], key=lambda shown: int(shown["experiment_id"]))
    if "next_page_token" in answer and found[0]["experiment_id"] != "0":
        world.experiment(str(int(found[0]["experiment_id"]) - 1), {"name": "many-before"})
    for shown in found:
        if shown["experiment_id"] != "0":
            world.experiment(shown["experiment_id"], shown)
    for number in range(world.offset(request.get("page_token"))):
        world.experiment(world.next(), {"name": f"on an earlier page {number}"})


def shown_run(world, path, request, answer):
    if "run" in answer:
        world.run(answer["run"]["info"]["run_id"], answer["run"])


def shown_runs(world, path, request, answer):
    for number in request["experiment_ids"]:
        world.experiment(number)
    found = answer.get("runs", [])
    times = [shown["info"]["start_time"] for shown in found] or [1]
    # Those that start at one time go by their drawn ids.
    for number in range(world.offset(request.get("page_token"))):
        world.post("runs/create", {"experiment_id": "10", "start_time": max(times) + 1 + number})
    if "next_page_token" in answer:
        world.post("runs/create", {"experiment_id": "10", "start_time": min(times) - 1})
    for shown in found:
        world.run(shown["info"]["run_id"], shown)


def run_of_call(world, path, request, answer):
    run_id = request.get("run_id") or request.get("run_uuid")
    info = dict(answer.get("run_info", {}))
    info.update(status="RUNNING")
    if "run_name" in request:
        info["run_name"] = "before"
    info.pop("end_time", None)
    tags = [{"key": request["key"], "value": "x"}] if path.endswith("delete-tag") else []
    world.run(run_id, {"info": info, "data": {"tags": tags}})
    for named in ID.findall(json.dumps(request.get("metrics", [])) + json.dumps(request.get("models", []))):
        if named.startswith("m-"):
            world.logged_model(named)
    if "model_id" in request:
        world.logged_model(request["model_id"])
    if "message" in answer and "Changing param" in answer["message"]:
        world.post("runs/log-parameter", {"run_id": run_id, "key": request["key"], "value": "1"})
    if path.endswith("restore"):
        world.post("runs/delete", {"run_id": run_id})


def made_run(world, path, request, answer):
    world.experiment(request["experiment_id"])
    if "run_name" not in request:
        # The tag mirrors the name that the server draws.
        name = {"key": "mlflow.runName", "value": answer["run"]["info"]["run_name"]}
        request.setdefault("tags", []).append(name)
    return set()


def metrics(world, path, request, answer):
    named = {metric.get("run_id", request.get("run_id")) for metric in answer.get("metrics", [])}
    for run_id in named:
        world.run(run_id)
        own = [metric for metric in answer["metrics"] if metric.get("run_id", run_id) == run_id]
        own = [{"key": request.get("metric_key"), **metric} for metric in own]
        world.post("runs/log-batch", {"run_id": run_id, "metrics": own})


def intervals(world, path, request, answer):
    for run_id in urllib.parse.parse_qs(request["__query"])["run_ids"]:
        world.run(run_id)
    metrics(world, path, request, answer)


def datasets(world, path, request, answer):
    world.experiment("10")
    for number, shown in enumerate(answer["dataset_summaries"]):
        context = [{"key": "mlflow.data.context", "value": shown["context"]}] if "context" in shown else []
        dataset = {"name": shown["name"], "digest": shown["digest"], "source_type": "local", "source": "s"}
        run = world.post("runs/create", {"experiment_id": shown["experiment_id"], "start_time": number})["run"]
        inputs = [{"tags": context, "dataset": dataset}]
        world.post("runs/log-inputs", {"run_id": run["info"]["run_id"], "datasets": inputs})


def shown_logged_models(world, path, request, answer):
    for number in request.get("experiment_ids", []):
        world.experiment(number)
    # The newest comes first.
    for shown in reversed(answer.get("models", [])):
        world.logged_model(shown["info"]["model_id"], shown)


def made_logged_model(world, path, request, answer):
    world.experiment(request["experiment_id"])
    if request.get("source_run_id"):
        world.run(request["source_run_id"])


def logged_model_of_call(world, path, request, answer):
    model_id = ID.search(path).group()
    shown = answer.get("model")
    if shown and shown["info"]["model_id"] == model_id:
        shown = json.loads(json.dumps(shown))
        if "status" in request:
            shown["info"]["status"] = "LOGGED_MODEL_PENDING"
        world.logged_model(model_id, shown)
    elif "error_code" not in answer:
        world.logged_model(model_id)
        if "/tags/" in path:
            world.post(f"logged-models/{model_id}/tags", {"tags": [{"key": path.rsplit("/", 1)[1], "value": "1"}]}, "PATCH")
        if "files" in answer:
            world.listing(f"10/models/{model_id}/artifacts", answer["files"])


def run_files(world, path, request, answer):
    if ids := ID.search(path + str(request)):
        world.run(ids.group())
    if path.endswith("artifacts/list"):
        world.listing(answer["root_uri"].split(":/", 1)[1], answer.get("files", []))
    elif path.endswith("/artifacts"):
        world.listing(request["path"], answer["files"])
    elif "get-artifact" in path:
        world.file(f"10/{request['run_uuid']}/artifacts/{request['path']}", answer["head"].encode())


def put_file(world, path, request, answer):
    for named in ID.findall(path):
        world.logged_model(named) if named.startswith("m-") else world.run(named)


def got_file(world, path, request, answer):
    put_file(world, path, request, answer)
    if "error_code" not in answer:
        world.file(path.split("/artifacts/", 1)[1], json.dumps(answer).encode())


def file_of_version(world, path, request, answer):
    if "error_code" in answer:
        return
    model_id = ID.search(answer["head"]).group()
    world.logged_model(model_id)
    content = answer["head"].encode().ljust(answer["len"], b" ")
    world.file(f"10/models/{model_id}/artifacts/{request['path']}", content)
    world.version({"name": request["name"], "version": request["version"], "source": f"models:/{model_id}"})


def copies(model):
    return any(re.match(r"models:/[^/]+/\d", version["source"]) for version in model.get("latest_versions", []))


def shown_models(world, path, request, answer):
    found = answer.get("registered_models", [answer["registered_model"]] if "registered_model" in answer else [])
    # What others are copied from comes first.
    for shown in sorted(found, key=copies):
        world.model(shown)


def made_model(world, path, request, answer):
    if "error_code" in answer:
        world.model({"name": request["name"]})


def changed_model(world, path, request, answer):
    shown = json.loads(json.dumps(answer.get("registered_model", {"name": request["name"]})))
    # By its old name; a rename says the new one in its versions too.
    shown["name"] = request["name"]
    for version in shown.get("latest_versions", []):
        version["name"] = request["name"]
    world.model(shown)
    if "version" in request:
        world.version({"name": request["name"], "version": request["version"], "source": "s3://models/x"})


def shown_versions(world, path, request, answer):
    found = answer.get("model_versions", [answer["model_version"]] if "model_version" in answer else [])
    if "name" in request:
        world.model({"name": request["name"]})
    for shown in sorted(found, key=lambda shown: int(shown["version"])):
        world.version(shown)
    if "version" in request and not found and "error_code" not in answer:
        world.version({"name": request["name"], "version": request["version"], "source": "s3://models/x"})
    if "next_page_token" in answer:
        # The page begins with what changed last.
        world.model({"name": "changed before"})
        world.version({"name": "changed before", "version": "1", "source": "s3://models/x"})
        last = found[-1]
        world.post("model-versions/update", {"name": last["name"], "version": last["version"], "description": last["description"]}, "PATCH")


def made_version(world, path, request, answer):
    shown = answer.get("model_version")
    if not shown:
        return
    world.model({"name": request["name"]})
    if request.get("run_id"):
        world.run(request["run_id"])
    world.source(shown)
    number = int(shown["version"])
    if number > 1:
        world.version({"name": request["name"], "version": str(number - 1), "source": "s3://models/x"})


def version_of_call(world, path, request, answer):
    shown = answer.get("model_version") or {"name": request["name"], "version": request["version"], "source": "s3://models/x"}
    world.version(shown)


def download_uri(world, path, request, answer):
    model_id = ID.search(answer["artifact_uri"]).group()
    world.logged_model(model_id)
    world.version({"name": request["name"], "version": request["version"], "source": f"models:/{model_id}"})


def snake(name):
    return re.sub(r"([A-Z])", lambda letter: "_" + letter[1].lower(), name)


def graphql(world, path, request, answer):
    def rest(value):
        if isinstance(value, dict):
            return {snake(name): rest(inner) for name, inner in value.items() if name != "__typename"}
        return [rest(inner) for inner in value] if isinstance(value, list) else value

    data = rest(answer["data"])
    if "mlflow_get_experiment" in data:
        shown = data["mlflow_get_experiment"]["experiment"]
        return world.experiment(shown["experiment_id"], shown)
    shown = data["mlflow_get_run"]["run"]
    world.experiment(shown["experiment"]["experiment_id"], shown["experiment"])
    info = shown["info"]
    info.update(start_time=int(info["start_time"]), end_time=int(info["end_time"]))
    for metric in shown["data"]["metrics"]:
        metric["value"] = "NaN" if metric["value"] is None else metric["value"]
    world.run(info["run_uuid"], {"info": info, "data": shown["data"]})


def webhooks(world, path, request, answer):
    shown = answer.get("webhooks", [answer["webhook"]] if "webhook" in answer else [])
    named = ID.search(path)
    if named and not shown:
        shown = [{"webhook_id": named.group(), "name": "w", "url": "https://93.184.216.34/h", "events": [{"entity": "REGISTERED_MODEL", "action": "CREATED"}]}]
    if not named and "url" in request:
        return
    for webhook in shown:
        made = {name: webhook[name] for name in ("name", "description", "url", "events", "status") if name in webhook}
        world.ids[webhook["webhook_id"]] = world.post("webhooks", made)["webhook"]["webhook_id"]


STATES = [
    (r"experiments/create", made_experiment),
    (r"POST .*experiments/(delete|restore|update|set-|delete-)", changed_experiment),
    (r"experiments/get", shown_experiment),
    (r"experiments/search-datasets", datasets),
    (r"experiments/search", shown_experiments),
    (r"runs/create", made_run),
    (r"runs/get", shown_run),
    (r"runs/search", shown_runs),
    (r"POST .*runs/", run_of_call),
    (r"get-history-bulk-interval", intervals),
    (r"metrics/get-history", metrics),
    (r"POST .*logged-models$", made_logged_model),
    (r"logged-models/search", shown_logged_models),
    (r"logged-models/", logged_model_of_call),
    (r"GET /model-versions/get-artifact", file_of_version),
    (r"GET (/get-artifact|.*artifacts/list|.*mlflow-artifacts/artifacts$)", run_files),
    (r"GET .*mlflow-artifacts/", got_file),
    (r"PUT ", put_file),
    (r"registered-models/(get-latest-versions|alias)$", shown_versions),
    (r"registered-models/create", made_model),
    (r"GET .*registered-models/", shown_models),
    (r"registered-models/", changed_model),
    (r"model-versions/create", made_version),
    (r"get-download-uri", download_uri),
    (r"GET .*model-versions/", shown_versions),
    (r"model-versions/", version_of_call),
    (r"graphql", graphql),
    (r"webhooks", webhooks),
    (r"datasets/search|scorers|gateway-proxy|server-info|ui-telemetry|users/current|/version|assistant", nothing),
]
