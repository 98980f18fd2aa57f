"""Flows for logged models: log explicitly and by autolog, load, search."""

import mlflow
import numpy as np
from mlflow import MlflowClient
from mlflow.models import infer_signature
from sklearn.datasets import make_classification, make_regression
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from . import equal, flow, pages, expect_error, unique

ABSENT = "m-" + "f" * 32


def ridge(seed=1):
    """Returns a fitted model and its training rows."""
    rows, values = make_regression(n_samples=60, n_features=4, noise=1.0, random_state=seed)
    return make_pipeline(StandardScaler(), Ridge(alpha=0.5)).fit(rows, values), rows


def logged(model, rows, **more):
    """Logs the model in a new run. Explicit requirements keep MLflow from inferring them, which is slow."""
    with mlflow.start_run():
        return mlflow.sklearn.log_model(model, name="model", input_example=rows[:2],
                                        pip_requirements=["scikit-learn"], **more)


@flow
def autolog():
    client, experiment = MlflowClient(), mlflow.set_experiment(unique("autolog"))
    rows, labels = make_classification(n_samples=80, n_features=5, random_state=1)
    mlflow.sklearn.autolog()
    try:
        with mlflow.start_run() as run:
            model = RandomForestClassifier(n_estimators=7, max_depth=3, random_state=1).fit(rows, labels)
            score = model.score(rows, labels)
    finally:
        mlflow.sklearn.autolog(disable=True)
    known = client.get_run(run.info.run_id)
    equal({key: known.data.params[key] for key in ("n_estimators", "max_depth", "random_state")},
          {"n_estimators": "7", "max_depth": "3", "random_state": "1"})
    equal(known.data.metrics["training_accuracy_score"], score)
    equal({"training_f1_score", "training_log_loss", "training_roc_auc"} - known.data.metrics.keys(), set())
    equal(known.data.tags["estimator_name"], "RandomForestClassifier")
    ((name, context),) = [(each.dataset.name, {tag.key: tag.value for tag in each.tags})
                          for each in known.inputs.dataset_inputs]
    equal((name, context), ("dataset", {"mlflow.data.context": "train"}))
    paths = {each.path for each in client.list_artifacts(run.info.run_id)}
    assert "estimator.html" in paths, paths
    (output,) = known.outputs.model_outputs
    (found,) = client.search_logged_models([experiment.experiment_id])
    equal((found.model_id, found.source_run_id, str(found.status.value)), (output.model_id, run.info.run_id, "READY"))
    equal(found.params["n_estimators"], "7")
    equal({each.key: each.value for each in found.metrics}["training_accuracy_score"], score)
    np.testing.assert_array_equal(mlflow.sklearn.load_model(found.model_uri).predict(rows), model.predict(rows))


@flow
def sklearn_model():
    client, experiment = MlflowClient(), mlflow.set_experiment(unique("sklearn"))
    model, rows = ridge()
    info = logged(model, rows, params={"alpha": 0.5}, tags={"team": "gas"}, model_type="regressor")
    expected = model.predict(rows)
    for uri in (info.model_uri, f"runs:/{info.run_id}/model"):
        np.testing.assert_array_equal(mlflow.sklearn.load_model(uri).predict(rows), expected)
    np.testing.assert_array_equal(mlflow.pyfunc.load_model(info.model_uri).predict(rows), expected)
    assert mlflow.models.get_model_info(info.model_uri).signature == info.signature is not None

    known = client.get_logged_model(info.model_id)
    equal((known.name, known.experiment_id, known.source_run_id), ("model", experiment.experiment_id, info.run_id))
    equal((known.status.value, known.model_type), ("READY", "regressor"))
    equal((known.params, known.tags["team"]), ({"alpha": "0.5"}, "gas"))
    assert known.artifact_location.endswith(f"/models/{info.model_id}/artifacts"), known.artifact_location
    equal([each.model_id for each in client.get_run(info.run_id).outputs.model_outputs], [info.model_id])
    # The run lists the files of its model in a folder with the name of the model.
    paths = {each.path for each in client.list_artifacts(info.run_id, "model")}
    assert {"model/MLmodel", "model/requirements.txt", "model/input_example.json"} <= paths, paths
    own = {each.path for each in client.list_logged_model_artifacts(info.model_id)}
    assert "MLmodel" in own, own


@flow
def onnx_model():
    from skl2onnx import to_onnx

    mlflow.set_experiment(unique("onnx"))
    rows, values = make_regression(n_samples=120, n_features=4, random_state=2)
    rows = rows.astype(np.float32)
    model = HistGradientBoostingRegressor(max_iter=20).fit(rows, values)
    exported = to_onnx(model, rows[:1])
    with mlflow.start_run():
        info = mlflow.onnx.log_model(exported, name="boosted", pip_requirements=["onnxruntime"],
                                     signature=infer_signature(rows, values))
    loaded = mlflow.onnx.load_model(info.model_uri)
    equal(loaded.SerializeToString(), exported.SerializeToString())
    answer = mlflow.pyfunc.load_model(f"runs:/{info.run_id}/boosted").predict(rows)
    predictions = np.asarray(next(iter(answer.values()))).ravel()
    np.testing.assert_allclose(predictions, model.predict(rows), rtol=1e-4, atol=1e-3)


@flow
def logged_models():
    client = MlflowClient()
    experiment_id = client.create_experiment(unique("models"))
    run_id = client.create_run(experiment_id).info.run_id
    models = [client.create_logged_model(
        experiment_id, name=f"M{n}", source_run_id=run_id if n < 2 else None, model_type="tree" if n % 2 else "line",
        tags={"parity": "odd" if n % 2 else "even"}, params={"depth": str(n)}) for n in range(5)]
    ids = [model.model_id for model in models]
    assert all(each.startswith("m-") and len(each) == 34 for each in ids), ids
    equal({model.status.value for model in models}, {"PENDING"})
    client.finalize_logged_model(ids[0], "READY")
    client.finalize_logged_model(ids[1], "FAILED")
    equal([client.get_logged_model(each).status.value for each in ids[:3]], ["READY", "FAILED", "PENDING"])

    client.log_model_params(ids[0], {"more": "1", "ünï": "天 %"})
    equal(client.get_logged_model(ids[0]).params, {"depth": "0", "more": "1", "ünï": "天 %"})
    client.set_logged_model_tags(ids[0], {"parity": "none", "a b": "x"})
    equal(client.get_logged_model(ids[0]).tags, {"parity": "none", "a b": "x"})
    client.delete_logged_model_tag(ids[0], "a b")
    equal(client.get_logged_model(ids[0]).tags, {"parity": "none"})
    with expect_error("RESOURCE_DOES_NOT_EXIST", "'a b'"):
        client.delete_logged_model_tag(ids[0], "a b")
    for n, value in enumerate([0.5, 0.9, 0.1]):
        client.log_metric(run_id, "acc", 0.0, step=0, timestamp=1, model_id=ids[n])
        client.log_metric(run_id, "acc", value, step=1, timestamp=2, model_id=ids[n])
    equal({each.key: (each.value, each.step, each.run_id) for each in client.get_logged_model(ids[1]).metrics},
          {"acc": (0.9, 1, run_id)})

    def found(filter_string=None, order_by=None, **more):
        order_by = order_by or [{"field_name": "name"}]
        hits = client.search_logged_models([experiment_id], filter_string, order_by=order_by, **more)
        return "".join(each.name[1:] for each in hits)

    for text, expected in {
        None: "01234", "name = 'M3'": "3", "name LIKE 'M%'": "01234", "name ILIKE 'm%'": "01234",
        "attributes.name != 'M3'": "0124", "tags.parity = 'odd'": "13", "tags.parity IN ('even', 'none')": "024",
        "params.depth = '2'": "2", "params.more = '1'": "0", "metrics.acc > 0.3": "01", "metrics.acc = 0.1": "2",
        "metrics.acc >= 0.1 AND tags.parity = 'odd'": "1", "model_type = 'tree'": "13",
        f"source_run_id = '{run_id}'": "01", f"model_id IN ('{ids[2]}', '{ids[4]}')": "24",
        "creation_timestamp > 5": "01234",
    }.items():
        if found(text) != expected:
            raise AssertionError(f"{text}: {found(text)}, not {expected}")
    equal(found(order_by=[{"field_name": "metrics.acc", "ascending": False}])[:3], "102")
    equal(found(order_by=[{"field_name": "metrics.acc", "ascending": True}])[:3], "201")
    equal(found(order_by=[{"field_name": "name", "ascending": False}]), "43210")
    equal(found(max_results=2), "01")
    hits = pages(lambda token: client.search_logged_models(
        [experiment_id], order_by=[{"field_name": "name"}], max_results=2, page_token=token))
    equal([each.model_id for page in hits for each in page], ids)
    for wrong in ("nonsense", "weather.x = '1'", "name = 'a' OR name = 'b'"):
        with expect_error("INVALID_PARAMETER_VALUE"):
            found(wrong)

    client.delete_logged_model(ids[4])
    equal(found(), "0123")
    for call in (lambda: client.get_logged_model(ids[4]), lambda: client.get_logged_model(ABSENT)):
        with expect_error("RESOURCE_DOES_NOT_EXIST", "Logged model with ID"):
            call()
    with expect_error("INVALID_PARAMETER_VALUE", "bad/name"):
        client.create_logged_model(experiment_id, name="bad/name")
    with expect_error("RESOURCE_DOES_NOT_EXIST"):
        client.create_logged_model("2147483000", name="x")
