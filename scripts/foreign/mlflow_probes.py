"""Sends recorded bad requests to a server and compares its answers: the same status and error code, but for a table.

A recording is text: a request a line (` METHOD path body`), under it `   -> status content-type body`, the body perhaps cut;
and searches, `filter-expression status count`. Ids that the recorded server drew are replaced by those that this one draws.
"""

import argparse
import json
import re
import sys
import urllib.error
import urllib.request

REQUEST = re.compile(r"^ ?(GET|POST|PUT|PATCH|DELETE) (/\S*) ?(.*)$")
ANSWER = re.compile(r"^ +-> (\d{3}) (\S*?(?:; charset=\S+)?) ?(.*)$")
SEARCH = re.compile(r"^ *(?:filter )?(.+) (\d{3}) (.*)$")
DRAWN = re.compile(r'"(run_uuid|run_id|model_id)": "((?:m-)?[0-9a-f]{32})')
CODE = re.compile(r'"error_code": "([A-Z_]+)"')

# What is answered otherwise, and why: a part of the path, a part of the body, the status, the error code.
DROPPED = "a value that MLflow drops silently is refused"
CALLERS = "a caller's mistake is no 5xx: clients try those again for over a minute"
TRACES = "there are no traces"
PAGES = "an unknown route is answered in JSON"
EXCEPTIONS = [
    ("experiments/search", "BOGUS", 400, "INVALID_PARAMETER_VALUE", DROPPED),
    ("runs/log-metric", '"timestamp": 1.5', 400, "INVALID_PARAMETER_VALUE", DROPPED),
    ("runs/update", '"status": "BOGUS"', 400, "INVALID_PARAMETER_VALUE", DROPPED),
    ("runs/update", '"status": 3', 400, "INVALID_PARAMETER_VALUE", DROPPED),
    ("logged-models/", '"status": "BOGUS"', 400, "INVALID_PARAMETER_VALUE", DROPPED),
    ("experiments/update", '"new_name": "q"', 400, "INVALID_PARAMETER_VALUE", CALLERS),
    ("runs/search", '"order_by": ["metrics.a", "metrics.a"]', 400, "INVALID_PARAMETER_VALUE", CALLERS),
    ("runs/create", "{}", 400, "INVALID_PARAMETER_VALUE", "it names the parameter, where MLflow answers with its SQL"),
    ("registered-models/search?filter=tags.k%20IS%20NULL", "", 200, None, "the grammar takes it; MLflow fails with 500"),
    ("/api/2.0/mlflow/traces/search", "", 404, "ENDPOINT_NOT_FOUND", TRACES),
    ("/api/3.0/mlflow/traces/tr-none", "", 404, "ENDPOINT_NOT_FOUND", TRACES),
    ("/nope/nope", "", 404, "ENDPOINT_NOT_FOUND", PAGES),
    ("/users/current", "", 404, "ENDPOINT_NOT_FOUND", PAGES),
    ("/workspaces", "", 404, "ENDPOINT_NOT_FOUND", "there are no workspaces; MLflow says so with 503"),
]
# Searches whose number of hits hangs on a state that the recording does not have.
UNKNOWN_STATE = ["metrics.a != 3"]


class Server:
    def __init__(self, uri):
        self.uri = uri
        self.ids = {}
        self.experiment = None

    def translated(self, text):
        for theirs, ours in self.ids.items():
            text = text.replace(theirs, ours)
        return text

    def send(self, method, path, body, content_type="application/json"):
        data = body.encode() if body else None
        headers = {"Content-Type": content_type} if data and content_type else {}
        request = urllib.request.Request(self.uri + path, data=data, method=method, headers=headers)
        if data and not content_type:
            request.add_unredirected_header("Content-Type", "")
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read().decode(errors="replace")
        except urllib.error.HTTPError as refused:
            return refused.code, refused.read().decode(errors="replace")

    def search(self, expression):
        """Of experiments, until there is a run; the status and the number of hits."""
        if self.experiment is None:
            kind, body = "experiments", {"max_results": 1000, "filter": expression}
        else:
            kind, body = "runs", {"experiment_ids": [self.experiment], "filter": expression}
        status, answered = self.send("POST", f"/api/2.0/mlflow/{kind}/search", json.dumps(body))
        return status, len(json.loads(answered).get(kind, [])) if status == 200 else answered[:200]

    def learn(self, recorded, answered):
        """Ids of the recorded answer are those at the same place of ours."""
        try:
            ours = json.loads(answered)
        except ValueError:
            return
        for key, theirs in DRAWN.findall(recorded):
            own = next(found(ours, key), None)
            if own and theirs not in self.ids:
                self.ids[theirs] = own


def found(value, key):
    if isinstance(value, dict):
        if isinstance(value.get(key), str):
            yield value[key]
        for inner in value.values():
            yield from found(inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from found(inner, key)


def code_of(text):
    match = CODE.search(text.replace('"error_code":"', '"error_code": "'))
    return match.group(1) if match else None


def excepted(path, body, status, code):
    for of, part, expected, expected_code, _ in EXCEPTIONS:
        if of in path and part in body and status == expected and code == expected_code:
            return True
    return False


def is_cut(body):
    """Whether the recording has only the beginning of a body."""
    if len(body) < 150 or not body.startswith("{"):
        return False
    try:
        json.loads(body)
    except ValueError:
        return True
    return False


def probes(lines):
    """Requests with what was answered, and searches."""
    at = 0
    while at < len(lines):
        line = lines[at].rstrip("\n")
        at += 1
        request = REQUEST.match(line)
        if request:
            answer = ANSWER.match(lines[at].rstrip("\n")) if at < len(lines) else None
            if answer:
                at += 1
                yield ("request", *request.groups(), int(answer.group(1)), answer.group(2), answer.group(3))
            continue
        search = SEARCH.match(line)
        if search and not line.startswith("#") and not line.startswith("   ->"):
            yield ("search", search.group(1).strip(), int(search.group(2)), search.group(3))


def run(server, path):
    with open(path, encoding="utf-8") as file:
        lines = file.readlines()
    total, differ = 0, 0
    for probe in probes(lines):
        if probe[0] == "request" and is_cut(probe[3]):
            continue
        total += 1
        if probe[0] == "search":
            _, expression, status, said = probe
            got, count = server.search(server.translated(expression))
            counted = said.isdigit() and expression not in UNKNOWN_STATE
            if got != status or (status == 200 and counted and count != int(said)):
                differ += 1
                print(f"search {expression!r}: {got} {count}, recorded {status} {said[:120]}")
            continue
        _, method, target, body, status, _, recorded = probe
        target, body = server.translated(target), server.translated(body)
        content_type = None if '"ctx"' in body else "application/json"
        got, answered = server.send(method, target, body, content_type)
        server.learn(recorded, answered)
        if "runs/create" in target and got == 200:
            server.experiment = json.loads(answered)["run"]["info"]["experiment_id"]
        code, theirs = code_of(answered), code_of(recorded)
        if (got, code if got >= 400 else None) == (status, theirs if status >= 400 else None):
            continue
        if excepted(target, body, got, code):
            continue
        differ += 1
        print(f"{method} {target} {body[:160]}\n   {got} {answered[:240]}\n   recorded {status} {recorded[:160]}")
    return total, differ


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tracking-uri", required=True)
    parser.add_argument("recordings", nargs="+")
    arguments = parser.parse_args()
    worst = 0
    for path in arguments.recordings:
        total, differ = run(Server(arguments.tracking_uri.rstrip("/")), path)
        print(f"{total - differ} of {total} as recorded: {path}")
        worst = max(worst, differ)
    sys.exit(1 if worst else 0)


if __name__ == "__main__":
    main()
