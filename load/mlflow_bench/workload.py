"""What is asked of a server: the calls of the Python client, byte for byte but for the order of header lines."""

import json
import random
import time
from urllib.parse import quote

from .wire import Refused

API = "/api/2.0/mlflow"
METRICS_A_BATCH = 100
PRIMES = (7919, 104729)


def accuracy(number, count):
    """A seeded run's `acc`: all of them differ, and they are not in the order of their numbers."""
    return (number * PRIMES[0] % count) / count


def run_of(experiment_id, name):
    now = int(time.time() * 1000)
    tags = {"mlflow.user": "bench", "mlflow.source.name": "train.py", "mlflow.source.type": "LOCAL",
            "mlflow.runName": name}
    return {"experiment_id": experiment_id, "user_id": "bench", "run_name": name, "start_time": now,
            "tags": [{"key": key, "value": value} for key, value in tags.items()]}


def create_run(connection, experiment_id, name):
    answer = connection.call("POST", f"{API}/runs/create", run_of(experiment_id, name))
    return answer["run"]["info"]["run_id"]


def seed(connection, experiment_id, numbers, count):
    """Makes these runs of `count`; their ids."""
    ids = []
    for number in numbers:
        run_id = create_run(connection, experiment_id, f"seed-{number}")
        now = int(time.time() * 1000)
        values = {"acc": accuracy(number, count), "loss": 1 - accuracy(number, count) / 2, "epoch": float(number % 50),
                  "f1": (number * PRIMES[1] % count) / count, "seconds": number / 7}
        connection.call("POST", f"{API}/runs/log-batch", {
            "run_id": run_id,
            "metrics": [{"key": key, "value": value, "timestamp": now, "step": 0} for key, value in values.items()],
            "params": [{"key": "number", "value": str(number)}, {"key": "rate", "value": "0.01"},
                       {"key": "model", "value": ("ridge", "forest", "boost")[number % 3]}],
            "tags": [{"key": "team", "value": f"team-{number % 10}"}, {"key": "stage", "value": "bench"}],
        })
        ids.append(run_id)
    return ids


def check_seed(connection, experiment_id, count):
    """A search must find exactly the runs that it should, in order: a fast wrong answer is no result."""
    bound, found, token = 0.9, [], None
    while True:
        answer = connection.call("POST", f"{API}/runs/search", {
            "experiment_ids": [experiment_id], "filter": f"metrics.acc > {bound}", "run_view_type": "ACTIVE_ONLY",
            "max_results": 1000, "order_by": ["metrics.acc DESC"], **({"page_token": token} if token else {})})
        for run in answer.get("runs", []):
            found += [int(param["value"]) for param in run["data"]["params"] if param["key"] == "number"]
        token = answer.get("next_page_token")
        if not token:
            break
    expected = [number for number in range(count) if accuracy(number, count) > bound]
    expected.sort(key=lambda number: -accuracy(number, count))
    if found != expected:
        raise AssertionError(f"a search of the {count} seeded runs finds {len(found)}, where {len(expected)} are to be "
                             "found, or has them in another order")


class LogBatch:
    """100 metrics of one run a request; each worker has a run of its own."""

    def __init__(self, connection, context, worker):
        self.connection, self.step = connection, 0
        self.run_id = create_run(connection, context["scratch"], f"batch-{worker}")
        self.head = connection.prepare("POST", f"{API}/runs/log-batch")
        metrics = [{"key": f"m{n}", "value": n / 7, "timestamp": "@T", "step": "@S"} for n in range(METRICS_A_BATCH)]
        body = json.dumps({"run_id": self.run_id, "metrics": metrics}).replace('"@T"', "@T").replace('"@S"', "@S")
        self.body = body.encode()
        self.key = f"m{METRICS_A_BATCH - 1}"

    def next(self):
        self.step += 1
        now = b"%d" % (time.time() * 1000)
        return self.head, self.body.replace(b"@T", now).replace(b"@S", b"%d" % self.step)

    def check(self, acknowledged):
        """What was acknowledged must be there: a key of the batch has as many points."""
        wanted = min(acknowledged, 25_000)
        answer = self.connection.call(
            "GET", f"{API}/metrics/get-history?run_id={self.run_id}&metric_key={self.key}&max_results=25000")
        points = len(answer.get("metrics", []))
        if points < wanted:
            raise AssertionError(f"{points} points of {self.key} are there, and {acknowledged} were acknowledged")


class LogMetric(LogBatch):
    """One metric a request."""

    def __init__(self, connection, context, worker):
        self.connection, self.step, self.key = connection, 0, "loss"
        self.run_id = create_run(connection, context["scratch"], f"metric-{worker}")
        self.head = connection.prepare("POST", f"{API}/runs/log-metric")
        self.body = (f'{{"run_uuid": "{self.run_id}", "key": "loss", "value": 0.25, "timestamp": @T, "step": @S, '
                     f'"run_id": "{self.run_id}"}}').encode()


class CreateRun:
    def __init__(self, connection, context, worker):
        self.head = connection.prepare("POST", f"{API}/runs/create")
        self.body = json.dumps(run_of(context["scratch"], "@N")).encode()
        self.worker, self.number = worker, 0

    def next(self):
        self.number += 1
        return self.head, self.body.replace(b"@N", b"run-%d-%d" % (self.worker, self.number))


class GetRun:
    """Any of the seeded runs."""

    def __init__(self, connection, context, worker):
        self.heads = [connection.prepare("GET", f"{API}/runs/get?run_uuid={each}&run_id={each}")
                      for each in context["ids"]]
        self.random = random.Random(worker)

    def next(self):
        return self.random.choice(self.heads), b""


class SearchRuns:
    """The best 100 above a bound that changes: from a tenth of the runs to nearly all of them pass the filter."""

    def __init__(self, connection, context, worker):
        self.head = connection.prepare("POST", f"{API}/runs/search")
        self.body = json.dumps({
            "experiment_ids": [context["experiment"]], "filter": "metrics.acc > @B", "run_view_type": "ACTIVE_ONLY",
            "max_results": context["search_results"], "order_by": ["metrics.acc DESC"]}).encode()
        self.random = random.Random(worker)

    def next(self):
        return self.head, self.body.replace(b"@B", b"%.4f" % self.random.uniform(0, 0.9))


OPERATIONS = {"log_batch": LogBatch, "log_metric": LogMetric, "create_run": CreateRun, "get_run": GetRun,
              "search_runs": SearchRuns}


def experiment(connection, name):
    return connection.call("POST", f"{API}/experiments/create", {"name": name})["experiment_id"]


def seeded_already(connection, name, count):
    """The experiment that an earlier call with as many runs left, and its runs' ids; None where there is none."""
    try:
        known = connection.call("GET", f"{API}/experiments/get-by-name?experiment_name={quote(name)}")["experiment"]
    except Refused as error:
        if error.status == 404:
            return None
        raise
    ids, token = [], None
    while True:
        answer = connection.call("POST", f"{API}/runs/search", {
            "experiment_ids": [known["experiment_id"]], "max_results": 1000,
            **({"page_token": token} if token else {})})
        ids += [run["info"]["run_id"] for run in answer.get("runs", [])]
        token = answer.get("next_page_token")
        if not token:
            return (known["experiment_id"], ids) if len(ids) == count else None
