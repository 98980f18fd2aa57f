"""Flows for experiments."""

import mlflow
from mlflow import MlflowClient
from mlflow.entities import ViewType

from . import equal, flow, pages, expect_error, unique

ABSENT = "2147483000"


@flow
def experiments():
    client, name = MlflowClient(), unique("experiment")
    # `%`, quotes and non-ASCII characters must not change.
    tags = {"team": "gas", "note": "it's 100% ünï 天"}
    experiment_id = client.create_experiment(name, tags=tags)
    assert experiment_id.isdecimal(), experiment_id
    known = client.get_experiment(experiment_id)
    equal((known.experiment_id, known.name, known.lifecycle_stage), (experiment_id, name, "active"))
    equal(known.tags, tags)
    assert known.artifact_location.endswith(f"/{experiment_id}"), known.artifact_location
    assert 0 < known.creation_time <= known.last_update_time, (known.creation_time, known.last_update_time)
    equal(client.get_experiment_by_name(name).experiment_id, experiment_id)
    equal(client.get_experiment("0").name, "Default")

    equal(client.get_experiment_by_name(unique("none")), None)
    with expect_error("RESOURCE_DOES_NOT_EXIST", f"No Experiment with id={ABSENT} exists"):
        client.get_experiment(ABSENT)
    with expect_error("INVALID_PARAMETER_VALUE"):
        client.get_experiment("word")
    with expect_error("RESOURCE_ALREADY_EXISTS", name):
        client.create_experiment(name)
    with expect_error("INVALID_PARAMETER_VALUE", "500"):
        client.create_experiment("n" * 501)
    with expect_error("INVALID_PARAMETER_VALUE"):
        client.create_experiment("")

    placed = client.create_experiment(unique("placed"), artifact_location="s3://bucket/there")
    equal(client.get_experiment(placed).artifact_location, "s3://bucket/there")

    # The first call of many scripts: set_experiment creates the experiment if it does not exist.
    equal(mlflow.set_experiment(name).experiment_id, experiment_id)
    equal(mlflow.set_experiment(unique("fresh")).lifecycle_stage, "active")


@flow
def experiment_tags():
    client = MlflowClient()
    experiment_id = client.create_experiment(unique("tags"))
    client.set_experiment_tag(experiment_id, "stage", "draft")
    client.set_experiment_tag(experiment_id, "mlflow.note.content", "# A note\n\nof two paragraphs")
    client.set_experiment_tag(experiment_id, "stage", "final")
    expected = {"stage": "final", "mlflow.note.content": "# A note\n\nof two paragraphs"}
    equal(client.get_experiment(experiment_id).tags, expected)
    client.delete_experiment_tag(experiment_id, "stage")
    expected.pop("stage")
    equal(client.get_experiment(experiment_id).tags, expected)
    with expect_error("RESOURCE_DOES_NOT_EXIST", "No tag with name: stage"):
        client.delete_experiment_tag(experiment_id, "stage")
    with expect_error("RESOURCE_DOES_NOT_EXIST"):
        client.set_experiment_tag(ABSENT, "a", "b")


@flow
def experiment_lifecycle():
    client, name, other = MlflowClient(), unique("lifecycle"), unique("other")
    experiment_id, other_id = client.create_experiment(name), client.create_experiment(other)
    created = client.get_experiment(experiment_id)
    renamed = unique("renamed")
    client.rename_experiment(experiment_id, renamed)
    known = client.get_experiment(experiment_id)
    equal((known.name, known.artifact_location), (renamed, created.artifact_location))
    assert known.last_update_time >= created.last_update_time
    equal(client.get_experiment_by_name(name), None)
    equal(client.get_experiment_by_name(renamed).experiment_id, experiment_id)
    with expect_error("RESOURCE_DOES_NOT_EXIST"):
        client.rename_experiment(ABSENT, unique("name"))

    kept, dropped = client.create_run(experiment_id).info.run_id, client.create_run(experiment_id).info.run_id
    client.delete_experiment(experiment_id)
    for deleted in (client.get_experiment(experiment_id), client.get_experiment_by_name(renamed)):
        equal((deleted.experiment_id, deleted.lifecycle_stage), (experiment_id, "deleted"))
    equal(client.get_run(kept).info.lifecycle_stage, "deleted")
    # A deleted experiment still owns its name.
    with expect_error("RESOURCE_ALREADY_EXISTS", renamed):
        client.create_experiment(renamed)
    with expect_error("INVALID_PARAMETER_VALUE", "deleted experiment"):
        mlflow.set_experiment(renamed)
    with expect_error("INVALID_PARAMETER_VALUE", "must be in the 'active' state"):
        client.create_run(experiment_id)
    with expect_error("INVALID_PARAMETER_VALUE", "must be in the 'active' state"):
        client.set_experiment_tag(experiment_id, "a", "b")
    with expect_error("RESOURCE_DOES_NOT_EXIST", f"No Experiment with id={experiment_id} exists"):
        client.delete_experiment(experiment_id)

    client.restore_experiment(experiment_id)
    equal(client.get_experiment(experiment_id).lifecycle_stage, "active")
    equal({client.get_run(run).info.lifecycle_stage for run in (kept, dropped)}, {"active"})
    with expect_error("RESOURCE_DOES_NOT_EXIST"):
        client.restore_experiment(experiment_id)
    equal(client.get_experiment(other_id).lifecycle_stage, "active")


@flow
def experiments_search():
    client, base = MlflowClient(), unique("search")
    ids = {}
    for n in range(7):
        tags = {"parity": "even" if n % 2 == 0 else "odd", "base": base}
        ids[n] = client.create_experiment(f"{base}-E{n}", tags=tags)
    client.delete_experiment(ids[6])

    def names(filter_string, **more):
        return [each.name.rsplit("-E")[-1] for each in client.search_experiments(filter_string=filter_string, **more)]

    ours = f"name LIKE '{base}%'"
    # By default the experiment with the newest update comes first.
    equal(sorted(names(ours)), list("012345"))
    equal(names(ours, order_by=["name ASC"]), list("012345"))
    equal(names(ours, order_by=["name DESC"]), list("543210"))
    equal(names(ours, order_by=["experiment_id DESC"]), list("543210"))
    equal(names(f"name ILIKE '{base.upper()}%'", order_by=["name"]), list("012345"))
    equal(names(f"name LIKE '{base.upper()}%'"), [])
    equal(names(f"{ours} AND tags.parity = 'odd'", order_by=["name"]), list("135"))
    equal(names(f"{ours} AND tags.parity != 'odd'", order_by=["name"]), list("024"))
    equal(names(f"tag.base = '{base}' and tags.parity ILIKE 'EV%'", order_by=["name"]), list("024"))
    equal(names(f"name = '{base}-E3'"), ["3"])
    equal(names(f"experiment_id IN ('{ids[1]}', '{ids[4]}')", order_by=["name"]), list("14"))
    moment = client.get_experiment(ids[3]).creation_time
    equal(names(f"{ours} AND creation_time < {moment - 60_000}"), [])
    assert "3" in names(f"{ours} AND creation_time >= {moment}")

    equal(names(ours, view_type=ViewType.DELETED_ONLY), ["6"])
    equal(names(ours, view_type=ViewType.ALL, order_by=["name"]), list("0123456"))

    found = pages(lambda token: client.search_experiments(
        view_type=ViewType.ALL, filter_string=ours, order_by=["name"], max_results=3, page_token=token))
    equal([len(page) for page in found if page], [3, 3, 1])
    equal([each.experiment_id for page in found for each in page], [ids[n] for n in range(7)])

    for wrong in ("lifecycle_stage = 'active'", f"name = '{base}' OR name = 'x'", "name IN ('a')", "nonsense"):
        with expect_error("INVALID_PARAMETER_VALUE"):
            client.search_experiments(filter_string=wrong)
    with expect_error("INVALID_PARAMETER_VALUE"):
        client.search_experiments(max_results=0)
    with expect_error("INVALID_PARAMETER_VALUE", "50000"):
        client.search_experiments(max_results=50_001)
    with expect_error("INVALID_PARAMETER_VALUE"):
        client.search_experiments(page_token="zzz")
