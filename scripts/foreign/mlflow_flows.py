#!/usr/bin/env python3
"""Runs the real MLflow client against a server and checks the answers.

A flow is one test. Each flow creates its own experiments and models under unique names, so flows can be repeated and
can run concurrently on one server. Prints one line per flow: `ok NAME SECONDS`, or `failed NAME SECONDS` and the error,
with the traceback on stderr. Exits with 1 if a flow failed.
"""

import argparse
import os
import sys
import time
import traceback
import warnings
from pathlib import Path

SETTINGS = {
    # The client must not use the internet.
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    # A 5xx answer fails at once; with its defaults the client would retry for more than 1 min. The timeout is long for
    # slow machines.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "300",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "GIT_PYTHON_REFRESH": "quiet",
}
EXAMPLES = """
examples:
  python="$(scripts/python_env.sh -r scripts/foreign/mlflow.txt)"
  $python scripts/foreign/mlflow_flows.py --tracking-uri http://127.0.0.1:5000
  $python scripts/foreign/mlflow_flows.py --flow metrics --flow log_batch
  $python scripts/foreign/mlflow_flows.py --list
  $python scripts/foreign/mlflow_flows.py --skip webhooks

MLflow's own server passes all flows. The MLFLOW_WEBHOOK_* variables are for the flow `webhooks`:
  export MLFLOW_WEBHOOK_ALLOWED_SCHEMES=http MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS=true MLFLOW_WEBHOOK_CACHE_TTL=1
  export MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY="$(openssl rand -base64 32 | tr +/ -_)"
  $python -m mlflow server --backend-store-uri sqlite:///mlflow.db --artifacts-destination ./artifacts
"""


def flows(arguments):
    """Returns the selected flows by name, in the order in which they run."""
    from mlflow_suite import FLOWS

    unknown = {*arguments.flow, *arguments.skip} - FLOWS.keys()
    if unknown:
        sys.exit(f"unknown flow: {', '.join(sorted(unknown))}; --list prints the names")
    return {name: run for name, run in FLOWS.items()
            if name not in arguments.skip and (not arguments.flow or name in arguments.flow)}


def location(error):
    """Returns `file:line: ` of the line of a flow that raised the error, or an empty string."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "mlflow_suite" in frame.filename]
    flow_frames = [frame for frame in frames if not frame.filename.endswith("__init__.py")] or frames
    return f"{Path(flow_frames[-1].filename).name}:{flow_frames[-1].lineno}: " if flow_frames else ""


def run(name, function):
    """Runs a flow and prints its line. Returns whether it passed."""
    import mlflow

    began = time.monotonic()
    try:
        function()
    except Exception as error:
        message = str(error).strip().splitlines() or [""]
        reason = f"{location(error)}{type(error).__name__}: {message[0][:500]}"
        print(f"failed {name} {time.monotonic() - began:.2f}s {reason}", flush=True)
        traceback.print_exc()
        return False
    finally:
        while mlflow.active_run():
            mlflow.end_run()
    print(f"ok {name} {time.monotonic() - began:.2f}s", flush=True)
    return True


def main():
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLES,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tracking-uri", default=os.environ.get("MLFLOW_TRACKING_URI"), metavar="URL",
                        help="[MLFLOW_TRACKING_URI]")
    parser.add_argument("--flow", action="append", default=[], metavar="NAME", help="run only this flow; repeatable")
    parser.add_argument("--skip", action="append", default=[], metavar="NAME", help="do not run this flow; repeatable")
    parser.add_argument("--list", action="store_true", help="print the names of the flows and exit")
    arguments = parser.parse_args()
    if not arguments.list and not arguments.tracking_uri:
        parser.error("--tracking-uri or MLFLOW_TRACKING_URI is required")
    os.environ.update(SETTINGS)
    if arguments.tracking_uri:
        os.environ["MLFLOW_TRACKING_URI"] = arguments.tracking_uri
    for other in ("MLFLOW_REGISTRY_URI", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_ID"):
        os.environ.pop(other, None)
    warnings.simplefilter("ignore")
    chosen = flows(arguments)
    if arguments.list:
        print("\n".join(chosen))
        return 0
    failed = [name for name, function in chosen.items() if not run(name, function)]
    print(f"{len(chosen) - len(failed)} of {len(chosen)} flows passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
