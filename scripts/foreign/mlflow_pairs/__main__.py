"""Asks a server what MLflow's own server was asked, and compares the answers.

Each recorded pair is called in a tenant of its own, after the state that its answer shows has been made through the API.
Answers are equal but for ids that the server draws, names that it draws, and times. Traces are left out: there are none.
"""

import argparse
import itertools
import json
import pathlib
import re
import sys
import urllib.parse

from state import before
from world import World

TIMES = {
    "creation_timestamp", "last_updated_timestamp", "creation_timestamp_ms", "last_updated_timestamp_ms",
    "creation_time", "last_update_time", "creationTime", "lastUpdateTime", "last_update_timestamp",
}
DRAWN = {"next_page_token", "page_token", "sqlstate", "error_class"}
# What is answered otherwise, and why.
EXCEPTIONS = {
    "server-info": "presigned uploads and the gateway are not served, so they are not announced",
    "assistant/providers": "there is no assistant",
    "webhooks/test": "the message is that of another HTTP client, and the address cannot be reached from everywhere",
}


def plain(value, drawn_names):
    """What must be equal: without times, tokens and drawn names; pairs and versions in one order."""
    if isinstance(value, dict):
        kept = {}
        for name, inner in value.items():
            if name in TIMES or name in DRAWN or name in drawn_names:
                kept[name] = "drawn"
            else:
                kept[name] = plain(inner, drawn_names)
        for name in ("sqlstate", "error_class"):
            kept.pop(name, None)
        return kept
    if isinstance(value, list):
        values = [plain(inner, drawn_names) for inner in value]
        if values and all(isinstance(inner, dict) and ("key" in inner or "current_stage" in inner) for inner in values):
            values.sort(key=lambda inner: json.dumps(inner, sort_keys=True))
        elif values and all(isinstance(inner, dict) and "model_id" in inner for inner in values):
            values.sort(key=lambda inner: inner["model_id"])
        elif values and all(isinstance(inner, dict) and "start_time" in inner.get("info", {}) for inner in values):
            # Runs that start at one time go by their ids, which the server draws.
            for _, group in itertools.groupby(list(values), key=lambda run: run["info"]["start_time"]):
                group = list(group)
                at = values.index(group[0])
                values[at : at + len(group)] = sorted(group, key=lambda run: run["info"]["run_id"])
        return values
    return value


def body_of(answer, kind, is_file):
    if not answer:
        return None
    # A file that holds JSON is recorded as such, whatever its type.
    if kind and (kind.startswith("application/json") or is_file and kind.startswith("text/plain")):
        try:
            return json.loads(answer)
        except ValueError:
            pass
    return {"__nonjson__": True, "len": len(answer), "head": answer.decode(errors="replace")}


def same_content(recorded, got):
    """Of what is no JSON: as long, and with the same beginning."""
    if not isinstance(got, dict) or "len" not in got:
        return recorded in (None, {}) and got in (None, {})
    return got["len"] == recorded["len"] and got["head"].startswith(recorded["head"][:100])


def request_of(world, pair):
    request = pair["req"]
    if isinstance(request, dict) and request.get("__nonjson__"):
        return request["head"].encode(), request["content_type"]
    if pair["method"] == "GET" or request is None:
        return None, "application/json"
    return world.ours(json.dumps(request)).encode(), "application/json"


def differs(pair, world):
    """What is wrong with our answer; nothing where it is as recorded."""
    drawn_names = before(world, pair)
    body, kind = request_of(world, pair)
    query = urllib.parse.quote(world.ours(pair["query"]), safe="=&%/'")
    path = urllib.parse.quote(world.ours(pair["path"]))
    status, answer, headers = world.send(pair["method"], path, body, query, kind)
    if status != pair["status"]:
        return f"{status} {answer[:300]!r}"
    recorded = pair["resp"]
    got = body_of(answer, headers.get("Content-Type"), "/artifacts/" in pair["path"])
    if isinstance(recorded, dict) and recorded.get("__nonjson__"):
        return None if same_content(recorded, got) or status == 404 else f"{str(got)[:200]}"
    if status >= 400:
        # Sets of names have no order.
        code, message = recorded["error_code"], re.split(r" Error:|\n|'\{", recorded["message"])[0]
        wrong = got["error_code"] != code or not world.theirs(got["message"]).startswith(message)
        return f"{got}" if wrong else None
    learn(world, recorded, got)
    expected = plain(recorded or {}, drawn_names)
    ours = plain(json.loads(world.theirs(json.dumps(got or {}))), drawn_names)
    return None if ours == expected else difference(expected, ours)


def learn(world, recorded, got):
    """The id of what the call itself made."""
    for outer, inner, name in (("run", "info", "run_id"), ("model", "info", "model_id"), ("webhook", None, "webhook_id")):
        theirs, ours = recorded.get(outer) if recorded else None, got.get(outer) if got else None
        theirs, ours = (value.get(inner, value) if isinstance(value, dict) and inner else value for value in (theirs, ours))
        if theirs and ours and name in theirs and name in ours:
            world.ids.setdefault(theirs[name], ours[name])


def difference(expected, ours, where=""):
    """Where two answers part."""
    if isinstance(expected, dict) and isinstance(ours, dict):
        for name in sorted(set(expected) | set(ours)):
            if expected.get(name) != ours.get(name):
                return difference(expected.get(name), ours.get(name), f"{where}.{name}")
    if isinstance(expected, list) and isinstance(ours, list) and len(expected) == len(ours):
        for at, (left, right) in enumerate(zip(expected, ours)):
            if left != right:
                return difference(left, right, f"{where}[{at}]")
    return f"{where}: {str(ours)[:300]} instead of {str(expected)[:300]}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tracking-uri", required=True)
    parser.add_argument("--only", default="", help="a part of the paths that are asked")
    parser.add_argument("recordings", type=pathlib.Path, help="the folder of recorded pairs")
    arguments = parser.parse_args()
    asked = wrong = 0
    for file in sorted(arguments.recordings.glob("*.json")):
        for number, pair in enumerate(json.loads(file.read_text(encoding="utf-8"))):
            if "trace" in file.name or pair["path"] == "/" or arguments.only not in pair["path"]:
                continue
            name = f"{file.stem} #{number}"
            if any(re.search(part.replace("/", ".*/"), pair["path"]) for part in EXCEPTIONS):
                continue
            asked += 1
            world = World(arguments.tracking_uri.rstrip("/"), f"pair-{asked}")
            try:
                said = differs(pair, world)
            except (AssertionError, KeyError, TypeError) as error:
                said = f"the state cannot be made: {error!r}"
            if said:
                wrong += 1
                print(f"differs: {name} ({pair['flow']})\n    {said}")
    print(f"{asked - wrong} of {asked} pairs are answered as recorded; otherwise, for a reason: {', '.join(EXCEPTIONS)}")
    sys.exit(1 if wrong or not asked else 0)


if __name__ == "__main__":
    main()
