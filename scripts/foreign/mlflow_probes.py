"""Sends recorded invalid requests to a server and compares the status and the error code of each answer with the
recording.

Differences in the table EXCEPTIONS are accepted. A recording is a text file. A request is one line, ` METHOD path
body`, followed by the line `   -> status content-type body`, where the body can be truncated. A search is one line,
`filter-expression status count`. Ids that the recorded server generated are replaced by the ids that this server
generates.
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
GENERATED_ID = re.compile(r'"(run_uuid|run_id|model_id)": "((?:m-)?[0-9a-f]{32})')
CODE = re.compile(r'"error_code": "([A-Z_]+)"')

# Accepted differences: a substring of the path, a substring of the body, our status, our error code, the reason.
DROPPED = "a value that MLflow drops silently is rejected"
CALLERS = "a mistake of the caller is not answered with 5xx, which clients retry for more than 1 min"
TRACES = "traces are not served"
UNKNOWN_ROUTES = "an unknown route is answered in JSON"
EXCEPTIONS = [
    ("experiments/search", "BOGUS", 400, "INVALID_PARAMETER_VALUE", DROPPED),
    ("runs/log-metric", '"timestamp": 1.5', 400, "INVALID_PARAMETER_VALUE", DROPPED),
    ("runs/update", '"status": "BOGUS"', 400, "INVALID_PARAMETER_VALUE", DROPPED),
    ("runs/update", '"status": 3', 400, "INVALID_PARAMETER_VALUE", DROPPED),
    ("logged-models/", '"status": "BOGUS"', 400, "INVALID_PARAMETER_VALUE", DROPPED),
    ("experiments/update", '"new_name": "q"', 400, "INVALID_PARAMETER_VALUE", CALLERS),
    ("runs/search", '"order_by": ["metrics.a", "metrics.a"]', 400, "INVALID_PARAMETER_VALUE", CALLERS),
    ("runs/create", "{}", 400, "INVALID_PARAMETER_VALUE", "the answer names the parameter; MLflow's answer is SQL"),
    ("registered-models/search?filter=tags.k%20IS%20NULL", "", 200, None, "valid here; MLflow answers 500"),
    ("/api/2.0/mlflow/traces/search", "", 404, "ENDPOINT_NOT_FOUND", TRACES),
    ("/api/3.0/mlflow/traces/tr-none", "", 404, "ENDPOINT_NOT_FOUND", TRACES),
    ("/nope/nope", "", 404, "ENDPOINT_NOT_FOUND", UNKNOWN_ROUTES),
    ("/users/current", "", 404, "ENDPOINT_NOT_FOUND", UNKNOWN_ROUTES),
    ("/workspaces", "", 404, "ENDPOINT_NOT_FOUND", "workspaces are not served; MLflow answers 503"),
]
# Searches whose number of hits depends on state that the recording does not contain.
UNKNOWN_STATE = ["metrics.a != 3"]


class Server:
    """The server under test. `ids` maps recorded ids to the ids that this server generated."""

    def __init__(self, uri):
        self.uri = uri
        self.ids = {}
        self.experiment = None

    def with_server_ids(self, text):
        """Replaces recorded ids by the ids of this server."""
        for recorded_id, server_id in self.ids.items():
            text = text.replace(recorded_id, server_id)
        return text

    def send(self, method, path, body, content_type="application/json"):
        """Sends a request. Returns the status and the body of the answer."""
        data = body.encode() if body else None
        headers = {"Content-Type": content_type} if data and content_type else {}
        request = urllib.request.Request(self.uri + path, data=data, method=method, headers=headers)
        if data and not content_type:
            request.add_unredirected_header("Content-Type", "")
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read().decode(errors="replace")
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(errors="replace")

    def search(self, expression):
        """Searches runs, or experiments before the first run exists. Returns the status and the number of hits."""
        if self.experiment is None:
            kind, body = "experiments", {"max_results": 1000, "filter": expression}
        else:
            kind, body = "runs", {"experiment_ids": [self.experiment], "filter": expression}
        status, answered = self.send("POST", f"/api/2.0/mlflow/{kind}/search", json.dumps(body))
        return status, len(json.loads(answered).get(kind, [])) if status == 200 else answered[:200]

    def learn_ids(self, recorded, answered):
        """Maps each id in the recorded answer to the id in the same field of our answer."""
        try:
            ours = json.loads(answered)
        except ValueError:
            return
        for key, recorded_id in GENERATED_ID.findall(recorded):
            server_id = next(values_of(ours, key), None)
            if server_id and recorded_id not in self.ids:
                self.ids[recorded_id] = server_id


def values_of(value, key):
    """Yields all strings under this key, at any depth of a JSON value."""
    if isinstance(value, dict):
        if isinstance(value.get(key), str):
            yield value[key]
        for inner in value.values():
            yield from values_of(inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from values_of(inner, key)


def code_of(text):
    """Returns the MLflow error code in a body, or None."""
    match = CODE.search(text.replace('"error_code":"', '"error_code": "'))
    return match.group(1) if match else None


def is_accepted(path, body, status, code):
    """Returns whether EXCEPTIONS has this answer."""
    for path_part, body_part, expected, expected_code, _ in EXCEPTIONS:
        if path_part in path and body_part in body and status == expected and code == expected_code:
            return True
    return False


def is_truncated(body):
    """Returns whether the recording has only the beginning of a body."""
    if len(body) < 150 or not body.startswith("{"):
        return False
    try:
        json.loads(body)
    except ValueError:
        return True
    return False


def probes(lines):
    """Yields the recorded requests with their answers, and the recorded searches."""
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
    """Sends a recording; prints each difference. Returns the number of requests and of differences."""
    with open(path, encoding="utf-8") as file:
        lines = file.readlines()
    total, differ = 0, 0
    for probe in probes(lines):
        if probe[0] == "request" and is_truncated(probe[3]):
            continue
        total += 1
        if probe[0] == "search":
            _, expression, status, recorded = probe
            got, count = server.search(server.with_server_ids(expression))
            has_count = recorded.isdigit() and expression not in UNKNOWN_STATE
            if got != status or (status == 200 and has_count and count != int(recorded)):
                differ += 1
                print(f"search {expression!r}: {got} {count}, recorded {status} {recorded[:120]}")
            continue
        _, method, target, body, status, _, recorded = probe
        target, body = server.with_server_ids(target), server.with_server_ids(body)
        content_type = None if '"ctx"' in body else "application/json"
        got, answered = server.send(method, target, body, content_type)
        server.learn_ids(recorded, answered)
        if "runs/create" in target and got == 200:
            server.experiment = json.loads(answered)["run"]["info"]["experiment_id"]
        code, recorded_code = code_of(answered), code_of(recorded)
        if (got, code if got >= 400 else None) == (status, recorded_code if status >= 400 else None):
            continue
        if is_accepted(target, body, got, code):
            continue
        differ += 1
        print(f"{method} {target} {body[:160]}\n   {got} {answered[:240]}\n   recorded {status} {recorded[:160]}")
    return total, differ


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tracking-uri", required=True, metavar="URL", help="the server")
    parser.add_argument("recordings", nargs="+", metavar="FILE", help="a recording")
    arguments = parser.parse_args()
    worst = 0
    for path in arguments.recordings:
        total, differ = run(Server(arguments.tracking_uri.rstrip("/")), path)
        print(f"{total - differ} of {total} answers are as recorded: {path}")
        worst = max(worst, differ)
    sys.exit(1 if worst else 0)


if __name__ == "__main__":
    main()
