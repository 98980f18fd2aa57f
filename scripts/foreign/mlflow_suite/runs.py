"""Flows for runs: parameters, metrics, tags, batches."""

import math
import sys
import time

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from . import equal, flow, pages, expect_error, unique

ABSENT = "f" * 32


def fresh_run(prefix, **more):
    """Returns a client and the id of a run in a new experiment."""
    client = MlflowClient()
    return client, client.create_run(client.create_experiment(unique(prefix)), **more).info.run_id


@flow
def runs():
    mlflow.set_experiment(unique("runs"))
    before = int(time.time() * 1000) - 60_000
    with mlflow.start_run(run_name="outer", tags={"team": "gas"}, description="a *note*") as outer:
        equal(mlflow.active_run().info.run_id, outer.info.run_id)
        equal(MlflowClient().get_run(outer.info.run_id).info.status, "RUNNING")
        with mlflow.start_run(run_name="inner", nested=True) as inner:
            mlflow.log_metric("m", 1)
        with mlflow.start_run(nested=True) as unnamed:
            pass
    client = MlflowClient()
    known = client.get_run(outer.info.run_id)
    equal((known.info.run_name, known.info.status, known.info.lifecycle_stage), ("outer", "FINISHED", "active"))
    assert before < known.info.start_time <= known.info.end_time, known.info
    assert known.info.artifact_uri.endswith(f"/{outer.info.run_id}/artifacts"), known.info.artifact_uri
    assert len(outer.info.run_id) == 32 and int(outer.info.run_id, 16) >= 0, outer.info.run_id
    equal(known.data.tags["team"], "gas")
    equal(known.data.tags["mlflow.note.content"], "a *note*")
    equal(known.data.tags["mlflow.runName"], "outer")
    assert known.info.user_id and known.data.tags["mlflow.user"] == known.info.user_id, known
    equal(known.data.tags["mlflow.source.type"], "LOCAL")
    equal(client.get_run(inner.info.run_id).data.tags["mlflow.parentRunId"], outer.info.run_id)
    equal(client.get_parent_run(inner.info.run_id).info.run_id, outer.info.run_id)
    # A run without a name gets a generated name.
    named = client.get_run(unnamed.info.run_id)
    assert named.info.run_name.count("-") >= 2, named.info.run_name
    equal(named.data.tags["mlflow.runName"], named.info.run_name)

    try:
        with mlflow.start_run() as failed:
            raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    equal(client.get_run(failed.info.run_id).info.status, "FAILED")
    # A finished run can be resumed.
    with mlflow.start_run(run_id=outer.info.run_id):
        equal(client.get_run(outer.info.run_id).info.status, "RUNNING")
        mlflow.log_metric("again", 2)
    known = client.get_run(outer.info.run_id)
    equal((known.info.status, known.data.metrics), ("FINISHED", {"again": 2.0}))

    with expect_error("RESOURCE_DOES_NOT_EXIST", f"Run with id={ABSENT} not found"):
        client.get_run(ABSENT)
    with expect_error("RESOURCE_DOES_NOT_EXIST"):
        client.create_run("2147483000")


@flow
def run_updates():
    client, run_id = fresh_run("updates", run_name="first", start_time=1_700_000_000_000)
    equal(client.get_run(run_id).info.start_time, 1_700_000_000_000)
    equal(client.get_run(run_id).info.end_time, None)
    # The name and the tag mlflow.runName always have the same value.
    client.update_run(run_id, name="second")
    known = client.get_run(run_id)
    equal((known.info.run_name, known.data.tags["mlflow.runName"]), ("second", "second"))
    client.set_tag(run_id, "mlflow.runName", "third")
    known = client.get_run(run_id)
    equal((known.info.run_name, known.data.tags["mlflow.runName"]), ("third", "third"))
    with expect_error("INVALID_PARAMETER_VALUE", "mlflow.runName"):
        client.create_run(known.info.experiment_id, run_name="a", tags={"mlflow.runName": "b"})
    tagged = client.create_run(known.info.experiment_id, tags={"mlflow.runName": "by tag"})
    equal(tagged.info.run_name, "by tag")

    client.update_run(run_id, status="SCHEDULED")
    equal(client.get_run(run_id).info.status, "SCHEDULED")
    client.set_terminated(run_id, status="KILLED", end_time=1_700_000_001_000)
    known = client.get_run(run_id).info
    equal((known.status, known.end_time, known.run_name), ("KILLED", 1_700_000_001_000, "third"))

    client.set_tag(run_id, "k", "one")
    client.set_tag(run_id, "k", "two")
    client.set_tag(run_id, "empty", "")
    client.set_tag(run_id, "words/with spaces: and.dots", "ünï % ' \" 天\nnext")
    tags = client.get_run(run_id).data.tags
    equal((tags["k"], tags["empty"]), ("two", ""))
    equal(tags["words/with spaces: and.dots"], "ünï % ' \" 天\nnext")
    client.delete_tag(run_id, "k")
    assert "k" not in client.get_run(run_id).data.tags
    with expect_error("RESOURCE_DOES_NOT_EXIST", "No tag with name: k"):
        client.delete_tag(run_id, "k")
    with expect_error("INVALID_PARAMETER_VALUE"):
        client.set_tag(run_id, "bad*key", "v")


@flow
def run_deletion():
    client, run_id = fresh_run("deletion")
    client.log_metric(run_id, "m", 1)
    experiment_id = client.get_run(run_id).info.experiment_id
    client.delete_run(run_id)
    equal(client.get_run(run_id).info.lifecycle_stage, "deleted")
    equal(list(client.search_runs([experiment_id])), [])
    writes = [
        lambda: client.log_metric(run_id, "m", 2),
        lambda: client.log_param(run_id, "p", 1),
        lambda: client.set_tag(run_id, "t", "v"),
        lambda: client.log_batch(run_id, tags=[RunTag("t", "v")]),
    ]
    for write in writes:
        with expect_error("INVALID_PARAMETER_VALUE", f"The run {run_id} must be in the 'active' state"):
            write()
    client.delete_run(run_id)  # repeating is allowed
    client.restore_run(run_id)
    client.restore_run(run_id)
    known = client.get_run(run_id)
    equal((known.info.lifecycle_stage, known.data.metrics, known.data.params), ("active", {"m": 1.0}, {}))
    assert "t" not in known.data.tags
    for call in (client.delete_run, client.restore_run):
        with expect_error("RESOURCE_DOES_NOT_EXIST", ABSENT):
            call(ABSENT)


@flow
def params():
    client, run_id = fresh_run("params")
    values = {"rate": "0.1", "empty": "", "ünï": "天 % '", "a/b c:d-e.f": "x"}
    for key, value in values.items():
        client.log_param(run_id, key, value)
        client.log_param(run_id, key, value)  # repeating the same value is allowed
    client.log_batch(run_id, params=[Param("rate", "0.1"), Param("more", "1")])
    values["more"] = "1"
    equal(client.get_run(run_id).data.params, values)
    with expect_error("INVALID_PARAMETER_VALUE", "Changing param values is not allowed", "'rate'", "'0.1'", "'0.2'"):
        client.log_param(run_id, "rate", 0.2)
    with expect_error("INVALID_PARAMETER_VALUE", "Changing param values is not allowed", "'rate'"):
        client.log_batch(run_id, params=[Param("rate", "0.2")])
    equal(client.get_run(run_id).data.params, values)

    client.log_param(run_id, "k" * 250, "v" * 6000)
    equal(client.get_run(run_id).data.params["k" * 250], "v" * 6000)
    with expect_error("INVALID_PARAMETER_VALUE", "250"):
        client.log_param(run_id, "k" * 251, "v")
    for wrong in ("bad*key", "../up", "a//b", "/top", "."):
        with expect_error("INVALID_PARAMETER_VALUE"):
            client.log_param(run_id, wrong, "v")
    with expect_error("RESOURCE_DOES_NOT_EXIST", ABSENT):
        client.log_param(ABSENT, "a", "b")


@flow
def metrics():
    client, run_id = fresh_run("metrics")

    def history(key):
        return [(each.timestamp, each.step, each.value) for each in client.get_metric_history(run_id, key)]

    written = [(30, 1, 0.3), (10, 2, 0.1), (20, 0, 0.2), (10, 1, 0.5), (10, 1, 0.4), (40, -3, 9.0)]
    for timestamp, step, value in written + written[:3]:  # exact duplicates are stored once
        client.log_metric(run_id, "loss", value, timestamp=timestamp, step=step)
    equal(history("loss"), sorted(written))
    # The latest point has the greatest step, then timestamp, then value. Arrival order does not matter.
    equal(client.get_run(run_id).data.metrics["loss"], 0.1)
    client.log_metric(run_id, "loss", 0.05, timestamp=10, step=2)
    equal(client.get_run(run_id).data.metrics["loss"], 0.1)
    client.log_metric(run_id, "loss", 0.07, timestamp=11, step=2)
    equal(client.get_run(run_id).data.metrics["loss"], 0.07)

    most = sys.float_info.max
    for key, value in {"nan": math.nan, "up": math.inf, "down": -math.inf, "tiny": 5e-324, "third": 1 / 3}.items():
        client.log_metric(run_id, key, value, timestamp=1, step=0)
    latest = client.get_run(run_id).data.metrics
    assert math.isnan(latest.pop("nan")) and math.isnan(history("nan")[0][2])
    equal(latest, {"loss": 0.07, "up": most, "down": -most, "tiny": 5e-324, "third": 1 / 3})
    equal(history("up") + history("down"), [(1, 0, most), (1, 0, -most)])
    equal(history("absent"), [])

    before = int(time.time() * 1000) - 60_000
    client.log_metric(run_id, "now", True)
    ((timestamp, step, value),) = history("now")
    assert timestamp > before and (step, value) == (0, 1.0), (timestamp, step, value)
    client.log_metric(run_id, "a/b c:d-e.f", 2, timestamp=2**62, step=2**62)
    equal(history("a/b c:d-e.f"), [(2**62, 2**62, 2.0)])

    for key in ("bad*key", "../up", "a//b", "k" * 251):
        with expect_error("INVALID_PARAMETER_VALUE"):
            client.log_metric(run_id, key, 1)
    with expect_error("INVALID_PARAMETER_VALUE", "nonnegative"):
        client.log_metric(run_id, "m", 1, timestamp=-1)
    with expect_error("RESOURCE_DOES_NOT_EXIST", ABSENT):
        client.log_metric(ABSENT, "m", 1)

    mlflow.set_experiment(experiment_id=client.get_run(run_id).info.experiment_id)
    with mlflow.start_run(run_id=run_id):
        for step in range(50):
            mlflow.log_metric("behind", step * 2, step=step, synchronous=False)
        mlflow.flush_async_logging()
    equal([(step, value) for _, step, value in history("behind")], [(step, step * 2.0) for step in range(50)])


@flow
def metric_history_pages():
    """A history with more points than the 25,000 that the client requests per page."""
    client, run_id = fresh_run("history")
    count = 25_500
    for first in range(0, count, 1000):
        points = [Metric("m", float(n), n, n) for n in range(first, min(first + 1000, count))]
        client.log_batch(run_id, metrics=points)
    history = client.get_metric_history(run_id, "m")
    equal(len(history), count)
    equal([each.step for each in history], list(range(count)))
    store = client._tracking_client.store
    found = pages(lambda token: store.get_metric_history(run_id, "m", max_results=10_000, page_token=token))
    equal([each.step for page in found for each in page], list(range(count)))
    equal(max(map(len, found)), 10_000)


@flow
def log_batch():
    client, run_id = fresh_run("batch")
    # MlflowClient.log_batch splits large batches; the store's log_batch sends one request.
    batch = client._tracking_client.store.log_batch

    def state():
        data = client.get_run(run_id).data
        return dict(data.metrics), dict(data.params), dict(data.tags)

    points = [Metric(f"m{n}", n / 2, 1000 + n, n) for n in range(800)]
    keys = [Param(f"p{n}", str(n)) for n in range(100)]
    tags = [RunTag(f"t{n}", str(n)) for n in range(100)]
    batch(run_id, metrics=points, params=keys, tags=tags)
    found, expected = state(), {f"t{n}": str(n) for n in range(100)}
    equal(found[0], {f"m{n}": n / 2 for n in range(800)})
    equal(found[1], {f"p{n}": str(n) for n in range(100)})
    equal({key: value for key, value in found[2].items() if not key.startswith("mlflow.")}, expected)
    batch(run_id, metrics=[], params=[], tags=[])
    batch(run_id, metrics=points, params=keys, tags=tags)  # repeating changes nothing
    equal(state(), found)
    equal(len(client.get_metric_history(run_id, "m7")), 1)

    valid = {"metrics": [Metric("new", 1.0, 1, 1)], "params": [Param("new", "1")], "tags": [RunTag("new", "1")]}
    rejected = [
        ({"metrics": [Metric(f"x{n}", 1.0, 1, 1) for n in range(1001)]}, "1000"),
        ({"params": [Param(f"x{n}", "1") for n in range(101)]}, "100"),
        ({"tags": [RunTag(f"x{n}", "1") for n in range(101)]}, "100"),
        ({"metrics": [Metric(f"x{n}", 1.0, 1, 1) for n in range(950)],
          "params": [Param(f"x{n}", "1") for n in range(51)], "tags": []}, "1000"),
        ({"params": [Param("p1", "other")]}, "Changing param values is not allowed"),
        ({"params": [Param("y", "1"), Param("p1", "other"), Param("z", "1")]}, "Changing param values"),
        ({"params": [Param("y", "1"), Param("y", "2")]}, "Duplicate parameter keys"),
        ({"params": [Param("y", "1"), Param("y", "1")]}, "Duplicate parameter keys"),
        ({"metrics": [Metric("good", 1.0, 1, 1), Metric("bad*key", 1.0, 1, 1)]}, "bad*key"),
        ({"metrics": [Metric("good", 1.0, 1, 1), Metric("late", 1.0, -1, 1)]}, "nonnegative"),
        ({"params": [Param("good", "1"), Param("k" * 251, "1")]}, "250"),
        ({"tags": [RunTag("good", "1"), RunTag("../up", "1")]}, "../up"),
    ]
    for invalid, text in rejected:
        with expect_error("INVALID_PARAMETER_VALUE", text):
            batch(run_id, **{**valid, **invalid})
        # A rejected batch stores nothing, not even its valid items.
        if state() != found:
            raise AssertionError(f"a batch that was rejected because of {text!r} stored data")
    with expect_error("RESOURCE_DOES_NOT_EXIST", ABSENT):
        batch(ABSENT, **valid)

    # MlflowClient.log_batch splits this into several requests.
    client.log_batch(run_id, metrics=[Metric("many", float(n), n, n) for n in range(2500)],
                     params=[Param(f"q{n}", "1") for n in range(250)])
    equal(len(client.get_metric_history(run_id, "many")), 2500)
    equal(len(client.get_run(run_id).data.params), 350)
    # The latest of several points of one key in one batch follows the same rule, with NaN and infinity.
    batch(run_id, metrics=[Metric("mix", 1.0, 5, 2), Metric("mix", math.nan, 5, 1), Metric("mix", math.inf, 1, 3)],
          params=[], tags=[RunTag("twice", "1"), RunTag("twice", "2")])
    equal(client.get_run(run_id).data.metrics["mix"], sys.float_info.max)
    equal(client.get_run(run_id).data.tags["twice"], "2")
