"""Flows that upload, list and download artifacts."""

import hashlib
import json
import os
import tempfile
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from requests import HTTPError

from . import equal, flow, unique


def artifact_run():
    """Returns a client and the id of a run in a new experiment."""
    client = MlflowClient()
    return client, client.create_run(client.create_experiment(unique("artifacts"))).info.run_id


def listing(client, run_id, path=None):
    """Returns the size of each file in a folder, and "dir" for each subfolder."""
    # The server can omit the size of an empty file.
    return {each.path: "dir" if each.is_dir else each.file_size or 0 for each in client.list_artifacts(run_id, path)}


@flow
def artifacts():
    client, run_id = artifact_run()
    equal(listing(client, run_id), {})
    client.log_text(run_id, "héllo\n", "notes/a.txt")
    client.log_text(run_id, "", "empty.txt")
    client.log_dict(run_id, {"a": [1, 2], "b": "ü"}, "conf/deep/er/c.json")
    client.log_dict(run_id, {"a": 1}, "conf/c.yaml")
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder, "tree")
        (tree / "sub" / "subsub").mkdir(parents=True)
        (tree / "top.bin").write_bytes(bytes(range(256)))
        (tree / "sub" / "one.csv").write_text("a,b\n1,2\n")
        (tree / "sub" / "subsub" / "two.parquet").write_bytes(b"PAR1\x00\xff")
        client.log_artifacts(run_id, tree, "data")
        client.log_artifact(run_id, tree / "top.bin")
        client.log_artifact(run_id, tree / "sub", "whole")

    equal(listing(client, run_id), {"conf": "dir", "data": "dir", "empty.txt": 0, "notes": "dir", "top.bin": 256,
                                    "whole": "dir"})
    equal(listing(client, run_id, "notes"), {"notes/a.txt": 7})
    equal(listing(client, run_id, "conf"), {"conf/c.yaml": 5, "conf/deep": "dir"})
    equal(listing(client, run_id, "data/sub"), {"data/sub/one.csv": 8, "data/sub/subsub": "dir"})
    equal(listing(client, run_id, "whole/sub"), {"whole/sub/one.csv": 8, "whole/sub/subsub": "dir"})
    # The client uses a listing to find out whether a path is a folder.
    equal(listing(client, run_id, "empty.txt"), {})
    equal(listing(client, run_id, "absent"), {})

    uri = client.get_run(run_id).info.artifact_uri
    equal(mlflow.artifacts.load_text(f"{uri}/notes/a.txt"), "héllo\n")
    equal(mlflow.artifacts.load_dict(f"{uri}/conf/deep/er/c.json"), {"a": [1, 2], "b": "ü"})
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(client.download_artifacts(run_id, "", folder))
        files = {str(path.relative_to(whole)): path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    equal(sorted(files), ["conf/c.yaml", "conf/deep/er/c.json", "data/sub/one.csv", "data/sub/subsub/two.parquet",
                          "data/top.bin", "empty.txt", "notes/a.txt", "top.bin", "whole/sub/one.csv",
                          "whole/sub/subsub/two.parquet"])
    equal((files["top.bin"], files["empty.txt"]), (bytes(range(256)), b""))
    equal(files["data/sub/subsub/two.parquet"], b"PAR1\x00\xff")
    equal(json.loads(files["conf/deep/er/c.json"])["b"], "ü")
    with tempfile.TemporaryDirectory() as folder:
        path = mlflow.artifacts.download_artifacts(artifact_uri=f"runs:/{run_id}/data/sub/one.csv", dst_path=folder)
        equal(Path(path).read_text(), "a,b\n1,2\n")

    # A second upload to the same path replaces the file.
    client.log_text(run_id, "short", "notes/a.txt")
    equal(mlflow.artifacts.load_text(f"{uri}/notes/a.txt"), "short")
    equal(listing(client, run_id, "notes"), {"notes/a.txt": 5})
    try:
        client.download_artifacts(run_id, "absent.txt")
    except (MlflowException, OSError) as error:
        assert "absent.txt" in str(error), error
    else:
        raise AssertionError("the download of a missing file succeeded")
    for outside in ("../../x", "/etc/passwd", "a/../../x"):
        try:
            client.list_artifacts(run_id, outside)
        except HTTPError as error:
            answer = error.response.json()
            equal((error.response.status_code, answer["error_code"]), (400, "INVALID_PARAMETER_VALUE"))
        else:
            raise AssertionError(f"the listing of {outside} succeeded")


@flow
def artifact_table():
    client, run_id = artifact_run()
    client.log_table(run_id, {"question": ["a", "b"], "answer": [1, 2]}, "table.json")
    client.log_table(run_id, {"question": ["c"], "answer": [3]}, "table.json")  # appended
    experiment_id = client.get_run(run_id).info.experiment_id
    table = client.load_table(experiment_id, "table.json", run_ids=[run_id])
    equal((list(table["question"]), list(table["answer"])), (["a", "b", "c"], [1, 2, 3]))


@flow
def artifact_names():
    client, run_id = artifact_run()
    names = ["with space.txt", "ünïcode 天气.txt", "plus+and&amp=.txt", "brackets[1](2){3}.txt", "semi;colon,.txt",
             "quote'.txt", "tilde~at@.txt", ".hidden", "UPPER.TXT", "upper.txt", "no-extension", "a.tar.gz"]
    for number, name in enumerate(names):
        client.log_text(run_id, f"content {number}", f"some folder/ünter/{name}")
    equal(listing(client, run_id, "some folder/ünter"),
          {f"some folder/ünter/{name}": len(f"content {number}") for number, name in enumerate(names)})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(client.download_artifacts(run_id, "some folder", folder))
        files = {each.name: each.read_text() for each in path.rglob("*") if each.is_file()}
    equal(files, {name: f"content {number}" for number, name in enumerate(names)})


@flow
def artifact_percent():
    """The client escapes a `%` only if no two hexadecimal digits follow, so the server stores `a%20b` as `a b`."""
    client, run_id = artifact_run()
    stored = {"100%.txt": "100%.txt", "5% of it.txt": "5% of it.txt", "50%zz": "50%zz", "a%20b": "a b"}
    for name in stored:
        client.log_text(run_id, name, name)
    equal(listing(client, run_id), {at: len(name) for name, at in stored.items()})
    with tempfile.TemporaryDirectory() as folder:
        for name in stored:
            equal(Path(client.download_artifacts(run_id, name, folder)).read_text(), name)


@flow
def artifact_large():
    client, run_id = artifact_run()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "large.bin")
        path.write_bytes(os.urandom(20 * 1000 * 1000))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        client.log_artifact(run_id, path, "big")
        path.unlink()
        equal(listing(client, run_id, "big"), {"big/large.bin": 20_000_000})
        back = Path(client.download_artifacts(run_id, "big/large.bin", folder))
        equal(hashlib.sha256(back.read_bytes()).hexdigest(), digest)
