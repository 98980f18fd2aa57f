"""Sends requests that were recorded with MLflow's own server, and compares the answers with the recorded ones.

A pair is a recorded request and its answer. Each pair runs in its own tenant (pair-1, pair-2, …), after the script has
created through the API the state that the recorded answer shows. So the server must be new: these tenants must be
empty. The comparison ignores ids and names that the server generates, and times. Pairs for traces are skipped, because
traces are not served.
"""

import argparse
import itertools
import json
import pathlib
import re
import sys
import urllib.parse

from state import prepare
from tenant import Tenant

TIMES = {
    "creation_timestamp", "last_updated_timestamp", "creation_timestamp_ms", "last_updated_timestamp_ms",
    "creation_time", "last_update_time", "creationTime", "lastUpdateTime", "last_update_timestamp",
}
# Fields whose values the server generates.
GENERATED = {"next_page_token", "page_token", "sqlstate", "error_class"}
# Pairs that are skipped because the answer is different on purpose: a part of the path, and the reason.
EXCEPTIONS = {
    "server-info": "presigned uploads and the gateway are not served, so the answer does not list them",
    "assistant/providers": "the assistant is not served",
    "webhooks/test": "the message comes from another HTTP client, and some machines cannot reach the address",
}


def normalised(value, generated_names):
    """Returns an answer without times, tokens and generated names, and with lists in a fixed order."""
    if isinstance(value, dict):
        kept = {}
        for name, inner in value.items():
            if name in TIMES or name in GENERATED or name in generated_names:
                kept[name] = "generated"
            else:
                kept[name] = normalised(inner, generated_names)
        for name in ("sqlstate", "error_class"):
            kept.pop(name, None)
        return kept
    if isinstance(value, list):
        values = [normalised(inner, generated_names) for inner in value]
        if values and all(isinstance(inner, dict) and ("key" in inner or "current_stage" in inner) for inner in values):
            values.sort(key=lambda inner: json.dumps(inner, sort_keys=True))
        elif values and all(isinstance(inner, dict) and "model_id" in inner for inner in values):
            values.sort(key=lambda inner: inner["model_id"])
        elif values and all(isinstance(inner, dict) and "start_time" in inner.get("info", {}) for inner in values):
            # Runs with equal start times are in the order of their ids, which the server generates.
            for _, group in itertools.groupby(list(values), key=lambda run: run["info"]["start_time"]):
                group = list(group)
                at = values.index(group[0])
                values[at : at + len(group)] = sorted(group, key=lambda run: run["info"]["run_id"])
        return values
    return value


def body_of(answer, kind, is_file):
    """Returns the JSON value of a body, or the length and the beginning of a body that is not JSON."""
    if not answer:
        return None
    # The recording has the JSON value of a file with JSON, also if its content type is text/plain.
    if kind and (kind.startswith("application/json") or is_file and kind.startswith("text/plain")):
        try:
            return json.loads(answer)
        except ValueError:
            pass
    return {"__nonjson__": True, "len": len(answer), "head": answer.decode(errors="replace")}


def same_content(recorded, got):
    """Returns whether two bodies that are not JSON have the same length and the same beginning."""
    if not isinstance(got, dict) or "len" not in got:
        return recorded in (None, {}) and got in (None, {})
    return got["len"] == recorded["len"] and got["head"].startswith(recorded["head"][:100])


def request_of(tenant, pair):
    """Returns the body of the request, with the ids of this server, and its content type."""
    request = pair["req"]
    if isinstance(request, dict) and request.get("__nonjson__"):
        return request["head"].encode(), request["content_type"]
    if pair["method"] == "GET" or request is None:
        return None, "application/json"
    return tenant.with_server_ids(json.dumps(request)).encode(), "application/json"


def differs(pair, tenant):
    """Sends a request. Returns the difference to the recorded answer, or None."""
    generated_names = prepare(tenant, pair)
    body, kind = request_of(tenant, pair)
    query = urllib.parse.quote(tenant.with_server_ids(pair["query"]), safe="=&%/'")
    path = urllib.parse.quote(tenant.with_server_ids(pair["path"]))
    status, answer, headers = tenant.send(pair["method"], path, body, query, kind)
    if status != pair["status"]:
        return f"{status} {answer[:300]!r}"
    recorded = pair["resp"]
    got = body_of(answer, headers.get("Content-Type"), "/artifacts/" in pair["path"])
    if isinstance(recorded, dict) and recorded.get("__nonjson__"):
        return None if same_content(recorded, got) or status == 404 else f"{str(got)[:200]}"
    if status >= 400:
        # Messages that list a set of names differ in order, so only their beginning is compared.
        code, message = recorded["error_code"], re.split(r" Error:|\n|'\{", recorded["message"])[0]
        wrong = got["error_code"] != code or not tenant.with_recorded_ids(got["message"]).startswith(message)
        return f"{got}" if wrong else None
    learn_ids(tenant, recorded, got)
    expected = normalised(recorded or {}, generated_names)
    ours = normalised(json.loads(tenant.with_recorded_ids(json.dumps(got or {}))), generated_names)
    return None if ours == expected else difference(expected, ours)


def learn_ids(tenant, recorded, got):
    """Maps the recorded id of the object that the request created to the id in our answer."""
    for outer, inner, name in (("run", "info", "run_id"), ("model", "info", "model_id"), ("webhook", None, "webhook_id")):
        theirs, ours = recorded.get(outer) if recorded else None, got.get(outer) if got else None
        theirs, ours = (value.get(inner, value) if isinstance(value, dict) and inner else value for value in (theirs, ours))
        if theirs and ours and name in theirs and name in ours:
            tenant.ids.setdefault(theirs[name], ours[name])


def difference(expected, ours, where=""):
    """Returns the path of the first difference between two answers, and both values."""
    if isinstance(expected, dict) and isinstance(ours, dict):
        for name in sorted(set(expected) | set(ours)):
            if expected.get(name) != ours.get(name):
                return difference(expected.get(name), ours.get(name), f"{where}.{name}")
    if isinstance(expected, list) and isinstance(ours, list) and len(expected) == len(ours):
        for at, (left, right) in enumerate(zip(expected, ours)):
            if left != right:
                return difference(left, right, f"{where}[{at}]")
    return f"{where}: {str(ours)[:300]}, expected {str(expected)[:300]}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tracking-uri", required=True, metavar="URL", help="the server")
    parser.add_argument("--only", default="", metavar="TEXT", help="send only requests whose path contains this text")
    parser.add_argument("recordings", type=pathlib.Path, metavar="FOLDER", help="the folder of the recorded pairs")
    arguments = parser.parse_args()
    sent = wrong = 0
    for file in sorted(arguments.recordings.glob("*.json")):
        for number, pair in enumerate(json.loads(file.read_text(encoding="utf-8"))):
            if "trace" in file.name or pair["path"] == "/" or arguments.only not in pair["path"]:
                continue
            name = f"{file.stem} #{number}"
            if any(re.search(part.replace("/", ".*/"), pair["path"]) for part in EXCEPTIONS):
                continue
            sent += 1
            tenant = Tenant(arguments.tracking_uri.rstrip("/"), f"pair-{sent}")
            try:
                difference_text = differs(pair, tenant)
            except (AssertionError, KeyError, TypeError) as error:
                difference_text = f"cannot create the state: {error!r}"
            if difference_text:
                wrong += 1
                print(f"differs: {name} ({pair['flow']})\n    {difference_text}")
    print(f"{sent - wrong} of {sent} answers are as recorded; skipped: {', '.join(EXCEPTIONS)}")
    sys.exit(1 if wrong or not sent else 0)


if __name__ == "__main__":
    main()
