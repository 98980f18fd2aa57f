"""Flows for the model registry."""

import mlflow
import numpy as np
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from . import equal, flow, pages, expect_error, unique
from .models import logged, ridge

SOURCE = "s3://bucket/model"


def registered(count, **more):
    """Returns a client and the name of a new registered model with `count` versions."""
    client, name = MlflowClient(), unique("model")
    client.create_registered_model(name, **more)
    for number in range(1, count + 1):
        equal(client.create_model_version(name, f"{SOURCE}/{number}").version, str(number))
    return client, name


@flow
def registered_models():
    client, name = MlflowClient(), unique("model with spaces & ünï")
    made = client.create_registered_model(name, tags={"team": "gas"}, description="of *gas*")
    equal((made.name, made.tags, made.description), (name, {"team": "gas"}, "of *gas*"))
    known = client.get_registered_model(name)
    equal((known.tags, known.description, known.latest_versions, known.aliases), ({"team": "gas"}, "of *gas*", [], {}))
    assert 0 < known.creation_timestamp <= known.last_updated_timestamp, known
    with expect_error("RESOURCE_ALREADY_EXISTS", name):
        client.create_registered_model(name)
    for wrong in ("a/b", "a:b", ""):
        with expect_error("INVALID_PARAMETER_VALUE"):
            client.create_registered_model(wrong)
    absent = unique("none")
    for call in (
        lambda: client.get_registered_model(absent),
        lambda: client.update_registered_model(absent, "x"),
        lambda: client.rename_registered_model(absent, unique("x")),
        lambda: client.set_registered_model_tag(absent, "a", "b"),
        lambda: client.get_latest_versions(absent),
        lambda: client.create_model_version(absent, SOURCE),
        lambda: client.delete_registered_model(absent),
        lambda: client.delete_registered_model_alias(absent, "x"),
    ):
        with expect_error("RESOURCE_DOES_NOT_EXIST", f"Registered Model with name={absent} not found"):
            call()

    client.set_registered_model_tag(name, "team", "power")
    client.set_registered_model_tag(name, "long", "x" * 5000)
    equal(client.get_registered_model(name).tags, {"team": "power", "long": "x" * 5000})
    client.delete_registered_model_tag(name, "long")
    client.delete_registered_model_tag(name, "long")  # repeating is allowed
    equal(client.update_registered_model(name, "other").description, "other")
    client.create_model_version(name, SOURCE)
    client.set_registered_model_alias(name, "best", "1")

    renamed, taken = unique("renamed"), registered(0)[1]
    with expect_error("RESOURCE_ALREADY_EXISTS", taken):
        client.rename_registered_model(name, taken)
    client.rename_registered_model(name, renamed)
    known = client.get_registered_model(renamed)
    equal((known.tags, known.description, known.aliases), ({"team": "power"}, "other", {"best": "1"}))
    version = client.get_model_version(renamed, "1")
    equal((version.name, version.source, version.aliases), (renamed, SOURCE, ["best"]))
    with expect_error("RESOURCE_DOES_NOT_EXIST"):
        client.get_registered_model(name)
    client.delete_registered_model(renamed)
    with expect_error("RESOURCE_DOES_NOT_EXIST"):
        client.get_registered_model(renamed)
    with expect_error("RESOURCE_DOES_NOT_EXIST"):
        client.get_model_version(renamed, "1")
    # The name is free again, and version numbers start at 1.
    client.create_registered_model(renamed)
    equal(client.create_model_version(renamed, SOURCE).version, "1")
    client.delete_registered_model(renamed)


@flow
def model_versions():
    client, name = registered(2)
    made = client.create_model_version(name, f"{SOURCE}/3", tags={"a": "b"}, description="third", run_link="http://run")
    equal((made.name, made.version, made.source, made.status), (name, "3", f"{SOURCE}/3", "READY"))
    equal((made.current_stage, made.tags, made.description), ("None", {"a": "b"}, "third"))
    known = client.get_model_version(name, "3")
    equal((known.version, known.tags, known.description, known.run_link, known.aliases),
          ("3", {"a": "b"}, "third", "http://run", []))
    assert 0 < known.creation_timestamp <= known.last_updated_timestamp, known
    equal(client.get_model_version_download_uri(name, "3"), f"{SOURCE}/3")
    client.set_model_version_tag(name, "3", "a", "c")
    client.set_model_version_tag(name, "3", "ünï", "天 %")
    client.delete_model_version_tag(name, "3", "a")
    client.delete_model_version_tag(name, "3", "a")  # repeating is allowed
    equal(client.get_model_version(name, "3").tags, {"ünï": "天 %"})
    equal(client.update_model_version(name, "3", "other").description, "other")

    # A version number is never used twice.
    client.delete_model_version(name, "3")
    client.delete_model_version(name, "1")
    equal(client.create_model_version(name, SOURCE).version, "4")
    equal(client.create_model_version(name, SOURCE).version, "5")
    equal([each.version for each in client.search_model_versions(f"name = '{name}'", order_by=["version_number ASC"])],
          ["2", "4", "5"])
    for call in (
        lambda: client.get_model_version(name, "9"),
        lambda: client.update_model_version(name, "9", "x"),
        lambda: client.delete_model_version(name, "9"),
        lambda: client.set_model_version_tag(name, "9", "a", "b"),
        lambda: client.transition_model_version_stage(name, "9", "Staging"),
        lambda: client.get_model_version_download_uri(name, "9"),
    ):
        with expect_error("RESOURCE_DOES_NOT_EXIST", f"Model Version (name={name}, version=9) not found"):
            call()
    with expect_error("INVALID_PARAMETER_VALUE", "must be an integer"):
        client.get_model_version(name, "word")
    for outside in ("/etc/passwd", "file:///etc/passwd", "mlflow-artifacts:/0/../../x", "models:/m-0/"):
        with expect_error("INVALID_PARAMETER_VALUE"):
            client.create_model_version(name, outside)
    copy = client.copy_model_version(f"models:/{name}/2", unique("copy"))
    equal((copy.version, copy.source), ("1", f"models:/{name}/2"))
    equal(client.get_model_version_download_uri(copy.name, "1"), f"{SOURCE}/2")


@flow
def stages():
    client, name = registered(4)

    def now():
        versions = client.search_model_versions(f"name = '{name}'", order_by=["version_number"])
        return [each.current_stage for each in versions]

    equal(client.transition_model_version_stage(name, "1", "Production").current_stage, "Production")
    client.transition_model_version_stage(name, "2", "staging")  # upper and lower case are equal
    client.transition_model_version_stage(name, "3", "Production")
    equal(now(), ["Production", "Staging", "Production", "None"])
    latest = {each.current_stage: each.version for each in client.get_latest_versions(name)}
    equal(latest, {"Production": "3", "Staging": "2", "None": "4"})
    equal([each.version for each in client.get_latest_versions(name, ["Production"])], ["3"])
    equal(client.get_latest_versions(name, ["Archived"]), [])
    equal({each.version for each in client.get_registered_model(name).latest_versions}, {"2", "3", "4"})

    client.transition_model_version_stage(name, "4", "Production", archive_existing_versions=True)
    equal(now(), ["Archived", "Staging", "Archived", "Production"])
    client.transition_model_version_stage(name, "1", "None")
    equal(now(), ["None", "Staging", "Archived", "Production"])
    client.set_model_version_tag(name, stage="Staging", key="by", value="stage")
    equal(client.get_model_version(name, "2").tags, {"by": "stage"})
    with expect_error("INVALID_PARAMETER_VALUE", "Bogus"):
        client.transition_model_version_stage(name, "1", "Bogus")
    with expect_error("INVALID_PARAMETER_VALUE", "Bogus"):
        client.get_latest_versions(name, ["Bogus"])
    equal(now(), ["None", "Staging", "Archived", "Production"])


@flow
def aliases():
    client, name = registered(3)
    client.set_registered_model_alias(name, "champion", "1")
    client.set_registered_model_alias(name, "old-one_2", "1")
    client.set_registered_model_alias(name, "rival", "2")
    equal(client.get_model_version_by_alias(name, "champion").version, "1")
    equal(sorted(client.get_model_version(name, "1").aliases), ["champion", "old-one_2"])
    equal(client.get_registered_model(name).aliases, {"champion": "1", "old-one_2": "1", "rival": "2"})
    client.set_registered_model_alias(name, "champion", "2")  # moved
    equal(client.get_model_version_by_alias(name, "champion").version, "2")
    equal(client.get_model_version(name, "1").aliases, ["old-one_2"])
    equal(client.get_model_version_by_alias(name, "latest").version, "3")
    (model,) = client.search_registered_models(f"name = '{name}'")
    equal(model.aliases, {"champion": "2", "old-one_2": "1", "rival": "2"})

    client.delete_registered_model_alias(name, "rival")
    client.delete_registered_model_alias(name, "rival")  # repeating is allowed
    with expect_error("INVALID_PARAMETER_VALUE", "Registered model alias rival not found"):
        client.get_model_version_by_alias(name, "rival")
    client.delete_model_version(name, "1")  # deletes its aliases too
    equal(client.get_registered_model(name).aliases, {"champion": "2"})
    for wrong in ("latest", "Latest", "v1", "V12", "bad alias", "a/b", "a@b", ""):
        with expect_error("INVALID_PARAMETER_VALUE"):
            client.set_registered_model_alias(name, wrong, "2")
    with expect_error("RESOURCE_DOES_NOT_EXIST"):
        client.set_registered_model_alias(name, "x", "9")


@flow
def registry_search():
    client, base = MlflowClient(), unique("find")
    for n in range(5):
        client.create_registered_model(f"{base}-M{n}", tags={"parity": "odd" if n % 2 else "even"})
    for n in (1, 2):
        client.create_model_version(f"{base}-M{n}", f"{SOURCE}/{base}/{n}", tags={"kind": f"k{n}"})
    client.create_model_version(f"{base}-M1", f"{SOURCE}/{base}/again", run_id="e" * 32)

    def names(text, order_by=("name ASC",)):
        return "".join(each.name.rsplit("-M")[-1] for each in client.search_registered_models(text, order_by=order_by))

    ours = f"name LIKE '{base}%'"
    for text, expected in {
        ours: "01234", f"name ILIKE '{base.upper()}%'": "01234", f"name LIKE '{base.upper()}%'": "",
        f"name = '{base}-M3'": "3", f"{ours} AND name != '{base}-M3'": "0124", f"{ours} AND tags.parity = 'odd'": "13",
        f"{ours} and tags.parity != 'odd'": "024", f"{ours} AND tag.parity ILIKE 'EV%'": "024",
    }.items():
        if names(text) != expected:
            raise AssertionError(f"{text}: {names(text)}, expected {expected}")
    equal(names(ours, ["name DESC"]), "43210")
    client.update_registered_model(f"{base}-M2", "touched")
    equal(names(ours, ["last_updated_timestamp DESC"])[0], "2")
    hits = pages(lambda token: client.search_registered_models(
        ours, max_results=2, order_by=["name"], page_token=token))
    equal([each.name[-1] for page in hits for each in page], list("01234"))
    equal([len(page) for page in hits if page], [2, 2, 1])

    def versions(text):
        found = client.search_model_versions(text, order_by=["name ASC", "version_number DESC"])
        return " ".join(f"{each.name[-1]}/{each.version}" for each in found)

    for text, expected in {
        ours: "1/2 1/1 2/1", f"name = '{base}-M1'": "1/2 1/1", f"{ours} AND version_number > 1": "1/2",
        f"{ours} AND tags.kind = 'k2'": "2/1", f"source_path = '{SOURCE}/{base}/2'": "2/1",
        f"source_path LIKE '%{base}/ag%'": "1/2", f"{ours} AND run_id = '{'e' * 32}'": "1/2",
        f"name IN ('{base}-M2', 'x')": "2/1", f"run_id IN ('{'e' * 32}') AND {ours}": "1/2",
    }.items():
        if versions(text) != expected:
            raise AssertionError(f"{text}: {versions(text)}, expected {expected}")
    hits = pages(lambda token: client.search_model_versions(ours, max_results=2, page_token=token))
    equal(sorted((each.name[-1], each.version) for page in hits for each in page), [("1", "1"), ("1", "2"), ("2", "1")])
    for wrong in ("nonsense", "stage = 'Production'", "name > 'x'", f"{ours} OR {ours}"):
        for search in (client.search_registered_models, client.search_model_versions):
            with expect_error("INVALID_PARAMETER_VALUE"):
                search(wrong)
    with expect_error("INVALID_PARAMETER_VALUE"):
        client.search_registered_models(max_results=1001)


@flow
def registry_load():
    client, name = MlflowClient(), unique("loaded")
    experiment = mlflow.set_experiment(unique("loading"))
    fitted = [ridge(seed) for seed in (1, 2)]
    infos = [logged(model, rows) for model, rows in fitted]
    # Register by model URI, and by run URI as older scripts do.
    versions = [mlflow.register_model(infos[0].model_uri, name, tags={"n": "1"}),
                mlflow.register_model(f"runs:/{infos[1].run_id}/model", name)]
    equal([each.version for each in versions], ["1", "2"])
    for version, info in zip(versions, infos):
        known = client.get_model_version(name, version.version)
        equal((known.run_id, known.status), (info.run_id, "READY"))
    equal(client.get_model_version(name, "1").tags, {"n": "1"})
    client.set_registered_model_alias(name, "champion", "2")
    client.transition_model_version_stage(name, "1", "Production")
    for uri, which in {f"models:/{name}/1": 0, f"models:/{name}/2": 1, f"models:/{name}@champion": 1,
                       f"models:/{name}/Production": 0, f"models:/{name}/production": 0, f"models:/{name}/latest": 1,
                       f"models:/{name}/None": 1}.items():
        model, rows = fitted[which]
        np.testing.assert_array_equal(mlflow.sklearn.load_model(uri).predict(rows), model.predict(rows), uri)
    model, rows = fitted[1]
    served = mlflow.pyfunc.load_model(f"models:/{name}@champion")
    np.testing.assert_array_equal(served.predict(rows), model.predict(rows))
    # Log and register in one call: creates version 3 of the same registered model.
    info = logged(model, rows, registered_model_name=name)
    equal(int(info.registered_model_version), 3)
    equal(client.get_model_version(name, "3").run_id, info.run_id)
    equal({each.version for each in client.search_model_versions(f"run_id = '{info.run_id}'")}, {"3"})
    equal(len(client.search_logged_models([experiment.experiment_id])), 3)
    for uri, code in {f"models:/{name}/9": "RESOURCE_DOES_NOT_EXIST", f"models:/{name}@none": "INVALID_PARAMETER_VALUE",
                      f"models:/{unique('none')}/1": "RESOURCE_DOES_NOT_EXIST"}.items():
        with expect_error(code):
            mlflow.sklearn.load_model(uri)
    try:
        mlflow.sklearn.load_model(f"models:/{name}/Staging")
    except MlflowException as error:
        assert "Staging" in error.message, error
    else:
        raise AssertionError("loading a stage without a version succeeded")
