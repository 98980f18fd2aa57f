"""Flows for searching runs, and for their datasets."""

import math

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import DatasetInput, InputTag, Metric, Param, RunTag, ViewType

from . import equal, flow, pages, expect_error, unique


def fill(count):
    """Creates an experiment with runs R0, R1, … by start time. Returns client, experiment id and run ids."""
    client = MlflowClient()
    experiment_id, ids = client.create_experiment(unique("search")), []
    for n in range(count):
        run = client.create_run(experiment_id, start_time=1_700_000_000_000 + n, run_name=f"R{n}")
        ids.append(run.info.run_id)
        metrics = [Metric("acc", n / 10, 1, 0), Metric("acc", n / 10 + 0.05, 2, 1)]
        if n % 2 == 0:
            metrics.append(Metric("half", math.nan if n == 4 else 9.0 - n, 1, 0))
        params = [Param("model", "ridge" if n < 3 else "Forest"), Param("depth", str(n))]
        tags = [RunTag("kind", "a%b" if n == 1 else "a_b" if n == 2 else "axb"), RunTag("with space", str(n))]
        if n == 0:
            tags.append(RunTag("only", "here"))
        client.log_batch(run.info.run_id, metrics=metrics, params=params, tags=tags)
    return client, experiment_id, ids


@flow
def search_runs_filters():
    client, experiment_id, ids = fill(6)
    client.set_terminated(ids[1], end_time=1_700_000_009_000)
    client.set_terminated(ids[2], status="FAILED", end_time=1_700_000_010_000)

    def found(filter_string, order_by=("attributes.start_time ASC",)):
        runs = client.search_runs([experiment_id], filter_string, order_by=list(order_by))
        return "".join(run.info.run_name[1:] for run in runs)

    expected = {
        "": "012345",
        # Metric filters use the latest value.
        "metrics.acc > 0.25": "345", "metrics.acc >= 0.25": "2345", "metrics.acc < 0.25": "01",
        "metrics.acc = 0.05": "0", "metrics.acc != 0.05": "12345", "metrics.acc > -1e3": "012345",
        "metric.acc > .3 AND metrics.acc <= 0.45": "34",
        # NaN matches only `!=`. A run without the metric never matches.
        "metrics.half > 0": "02", "metrics.half < 100": "02", "metrics.half != 9": "24", "metrics.half = 7": "2",
        "metrics.absent != 1": "",
        "params.model = 'ridge'": "012", 'params.model = "ridge"': "012", "params.model != 'ridge'": "345",
        "params.model LIKE 'F%'": "345", "params.model LIKE 'f%'": "", "params.model ILIKE 'f%T'": "345",
        "params.depth = '3' and params.model = 'Forest'": "3", "parameters.`depth` = '4'": "4",
        "params.depth LIKE '_'": "012345", "params.absent != 'x'": "",
        # `_` and `%` are wildcards in LIKE and literals in `=`.
        "tags.kind = 'a%b'": "1", "tags.kind LIKE 'a%b'": "012345", "tags.kind LIKE 'a_b'": "012345",
        "tags.kind = 'a_b'": "2", "tags.`with space` = '5'": "5", 'tag."with space" IN (\'1\')': None,
        "tags.only IS NULL": "12345", "tags.only IS NOT NULL": "0", "params.nothing IS NULL": "012345",
        "tags.mlflow.runName = 'R2'": "2", "tags.`mlflow.runName` LIKE 'R%'": "012345",
        "attributes.status = 'RUNNING'": "0345", "status != 'RUNNING'": "12", "status = 'FAILED'": "2",
        "attributes.run_name = 'R3'": "3", "run_name LIKE 'r%'": "", "run_name ILIKE 'r%'": "012345",
        f"run_id = '{ids[2]}'": "2", f"attributes.run_id IN ('{ids[0]}', '{ids[5]}')": "05",
        f"run_id NOT IN ('{ids[0]}', '{ids[5]}')": "1234", f"run_id != '{ids[0]}'": "12345",
        "start_time > 1700000000003": "45", "attributes.start_time <= 1700000000001": "01",
        "end_time > 1700000009000": "2", "end_time < 1700000009001": "1", "created = 1700000000002": "2",
        f"artifact_uri LIKE '%{ids[4]}%'": "4",
        "metrics.acc > 0.1 and params.model = 'ridge' AND tags.kind = 'a_b' And status = 'FAILED'": "2",
    }
    for text, runs in expected.items():
        if runs is None:
            with expect_error("INVALID_PARAMETER_VALUE"):
                found(text)
        elif found(text) != runs:
            raise AssertionError(f"{text}: {found(text)}, expected {runs}")
    for wrong in ("metrics.acc = '1'", "metrics.acc == 1", "params.model = ridge", "params.depth > '1'", "nonsense",
                  "status = 'RUNNING' OR status = 'FAILED'", "(status = 'RUNNING')", "attributes.color = 'x'",
                  "weather.acc > 1", "status IN ('RUNNING')", "metrics.acc > 1 -- end", "params.model = 'x"):
        with expect_error("INVALID_PARAMETER_VALUE"):
            print(wrong, found(wrong))


@flow
def search_runs_order():
    client, experiment_id, ids = fill(6)

    def order(*order_by, filter_string=""):
        runs = client.search_runs([experiment_id], filter_string, order_by=list(order_by))
        return "".join(run.info.run_name[1:] for run in runs)

    # By default the newest run comes first.
    equal(order(), "543210")
    equal(order("metrics.acc DESC"), "543210")
    equal(order("metrics.acc"), "012345")
    equal(order("metric.acc asc"), "012345")
    # In both directions: values, then NaN, then runs without the metric. Ties: the newest run first.
    equal(order("metrics.half ASC"), "204531")
    equal(order("metrics.half DESC"), "024531")
    equal(order("params.model ASC", "metrics.acc DESC"), "543210")
    equal(order("params.model DESC", "metrics.acc ASC"), "012345")
    equal(order("tags.only"), "054321")
    equal(order("attributes.run_name DESC"), "543210")
    equal(order("attributes.start_time"), "012345")
    equal(order("params.model", filter_string="metrics.acc > 0.2"), "5432")
    equal(order("run_id"), "".join(str(ids.index(each)) for each in sorted(ids)))
    for wrong in ("foo", "metrics.acc UP", "metrics.acc, params.model", "attributes.experiment_id"):
        with expect_error("INVALID_PARAMETER_VALUE"):
            order(wrong)


@flow
def search_runs_pages():
    client, experiment_id, ids = fill(14)
    search = client.search_runs
    for size in (1, 4, 7, 14, 15):
        # Many runs have equal sort keys. Each run is returned once only if the order is total.
        found = pages(lambda token: search([experiment_id], "", order_by=["params.model DESC"], max_results=size,
                                           page_token=token))
        assert all(len(page) == size for page in found[:-1] if page), [len(page) for page in found]
        names = [run.info.run_name for page in found for run in page]
        equal(names, [f"R{n}" for n in (2, 1, 0, *range(13, 2, -1))])
    found = pages(lambda token: search([experiment_id], "metrics.acc > 0.5", order_by=["metrics.acc ASC"],
                                       max_results=4, page_token=token))
    equal([run.info.run_name for page in found for run in page], [f"R{n}" for n in range(5, 14)])
    # A search returns the complete run.
    (run,) = search([experiment_id], f"run_id = '{ids[0]}'")
    known = client.get_run(ids[0])
    equal((run.info.to_proto(), dict(run.data.metrics), dict(run.data.params), dict(run.data.tags)),
          (known.info.to_proto(), dict(known.data.metrics), dict(known.data.params), dict(known.data.tags)))

    client.delete_run(ids[0])
    sizes = {view: len(search([experiment_id], run_view_type=view))
             for view in (ViewType.ACTIVE_ONLY, ViewType.DELETED_ONLY, ViewType.ALL)}
    equal(sizes, {ViewType.ACTIVE_ONLY: 13, ViewType.DELETED_ONLY: 1, ViewType.ALL: 14})
    # Several experiments, one of which does not exist.
    other = client.create_experiment(unique("other"))
    client.create_run(other)
    equal(len(search([experiment_id, other, "2147483000"])), 14)
    equal(list(search(["2147483000"])), [])
    for most in (0, 50_001):
        with expect_error("INVALID_PARAMETER_VALUE", str(most)):
            search([experiment_id], max_results=most)
    with expect_error("INVALID_PARAMETER_VALUE"):
        search([experiment_id], page_token="zzz")

    # mlflow.search_runs returns a data frame.
    frame = mlflow.search_runs([experiment_id], "metrics.acc > 0.5", order_by=["metrics.acc DESC"])
    equal(list(frame["tags.mlflow.runName"]), [f"R{n}" for n in range(13, 4, -1)])
    equal((frame["params.model"].iloc[0], round(frame["metrics.acc"].iloc[0], 9)), ("Forest", 1.35))
    equal(len(mlflow.search_runs([experiment_id], max_results=3)), 3)


@flow
def datasets():
    client = MlflowClient()
    mlflow.set_experiment(unique("datasets"))
    frame = pd.DataFrame({"x": [1.0, 2.0, 3.0], "y": [0, 1, 0]})
    data = mlflow.data.from_pandas(frame, source="s3://bucket/data.csv", name="prices", targets="y")
    with mlflow.start_run() as run:
        mlflow.log_input(data, context="training", tags={"version": "7"})
        mlflow.log_input(data, context="training")  # repeating changes nothing
    with mlflow.start_run() as other:
        mlflow.log_input(data, context="validation")
    (known,) = client.get_run(run.info.run_id).inputs.dataset_inputs
    equal((known.dataset.name, known.dataset.digest, known.dataset.source_type), ("prices", data.digest, "s3"))
    equal(mlflow.data.get_source(known.dataset).uri, "s3://bucket/data.csv")
    assert '"num_rows": 3' in known.dataset.profile and '"mlflow_colspec"' in known.dataset.schema, known.dataset
    equal({tag.key: tag.value for tag in known.tags}, {"mlflow.data.context": "training", "version": "7"})
    (second,) = client.get_run(other.info.run_id).inputs.dataset_inputs
    equal([(tag.key, tag.value) for tag in second.tags], [("mlflow.data.context", "validation")])

    experiment = [run.info.experiment_id]

    def found(filter_string):
        return {each.info.run_id for each in client.search_runs(experiment, filter_string)}

    one, both = {run.info.run_id}, {run.info.run_id, other.info.run_id}
    for text, runs in {
        "datasets.name = 'prices'": both, "dataset.name LIKE 'pr%'": both, "datasets.name = 'none'": set(),
        "datasets.context = 'training'": one, "dataset.context ILIKE 'TRAIN%'": one,
        f"datasets.digest IN ('{data.digest}', 'x')": both, f"dataset.digest = '{data.digest}'": both,
        "datasets.name = 'prices' AND datasets.context = 'training'": one,
    }.items():
        if found(text) != runs:
            raise AssertionError(f"{text}: {found(text)}, expected {runs}")
    with expect_error("INVALID_PARAMETER_VALUE"):
        found("datasets.color = 'x'")
    # A search returns the inputs of the runs too.
    (hit,) = client.search_runs(experiment, "datasets.context = 'training'")
    equal([each.dataset.name for each in hit.inputs.dataset_inputs], ["prices"])
    client.log_inputs(other.info.run_id, [DatasetInput(known.dataset, [InputTag("mlflow.data.context", "again")])])
    equal(len(client.get_run(other.info.run_id).inputs.dataset_inputs), 1)
    with expect_error("RESOURCE_DOES_NOT_EXIST"):
        client.log_inputs("f" * 32, [DatasetInput(known.dataset, [])])
