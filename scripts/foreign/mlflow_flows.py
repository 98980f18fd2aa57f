#!/usr/bin/env python3
"""Drives the real MlFlow client against a server, and asserts what it must see.

Each flow makes what it needs under names that nobody else has, so it can run again and beside others on one server.
Prints a line a flow: `ok NAME SECONDS`, or `failed NAME SECONDS` and why, with the traceback on stderr. Exits 1 where
one failed.
"""

import argparse
import os
import sys
import time
import traceback
import warnings
from pathlib import Path

SETTINGS = {
    # Nothing here may want the internet.
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    # What a server answers with 5xx fails at once, where a user's client would try for over a minute. A slow machine
    # is waited for.
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

MLflow's own server, which passes them all; what begins with MLFLOW_WEBHOOK is for the flow `webhooks`:
  export MLFLOW_WEBHOOK_ALLOWED_SCHEMES=http MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS=true MLFLOW_WEBHOOK_CACHE_TTL=1
  export MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY="$(openssl rand -base64 32 | tr +/ -_)"
  $python -m mlflow server --backend-store-uri sqlite:///mlflow.db --artifacts-destination ./artifacts
"""


def flows(arguments):
    """Those that are to run, in their order."""
    from mlflow_suite import FLOWS

    unknown = {*arguments.flow, *arguments.skip} - FLOWS.keys()
    if unknown:
        sys.exit(f"no such flow: {', '.join(sorted(unknown))}; --list names them")
    return {name: run for name, run in FLOWS.items()
            if name not in arguments.skip and (not arguments.flow or name in arguments.flow)}


def place(error):
    """The line of a flow at which it failed."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "mlflow_suite" in frame.filename]
    own = [frame for frame in frames if not frame.filename.endswith("__init__.py")] or frames
    return f"{Path(own[-1].filename).name}:{own[-1].lineno}: " if own else ""


def run(name, function):
    """Whether the flow is as it should be."""
    import mlflow

    began = time.monotonic()
    try:
        function()
    except Exception as error:
        message = str(error).strip().splitlines() or [""]
        print(f"failed {name} {time.monotonic() - began:.2f}s {place(error)}{type(error).__name__}: {message[0][:500]}",
              flush=True)
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
    parser.add_argument("--flow", action="append", default=[], metavar="NAME", help="only this one; may be repeated")
    parser.add_argument("--skip", action="append", default=[], metavar="NAME", help="not this one; may be repeated")
    parser.add_argument("--list", action="store_true", help="print the flows' names, and nothing else")
    arguments = parser.parse_args()
    if not arguments.list and not arguments.tracking_uri:
        parser.error("--tracking-uri, or MLFLOW_TRACKING_URI, is needed")
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
    print(f"{len(chosen) - len(failed)} of {len(chosen)} flows are as they should be")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
