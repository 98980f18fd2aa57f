"""The flows of mlflow_flows.py and their helpers. The name `mlflow` would hide MLflow's own package."""

import uuid
from contextlib import contextmanager

from mlflow.exceptions import MlflowException

# Flows by name, in the order in which they run.
FLOWS = {}


def flow(function):
    """Registers a flow: a function without arguments that raises if the server gives a wrong answer."""
    FLOWS[function.__name__] = function
    return function


def unique(prefix):
    """Returns a name with this prefix that no other call returns."""
    return f"{prefix}-{uuid.uuid4().hex[:16]}"


def equal(actual, expected):
    """Raises an error with both values if they are not equal."""
    if actual != expected:
        raise AssertionError(f"{actual!r}, expected {expected!r}")


@contextmanager
def expect_error(code, *texts):
    """The block must raise an MlflowException with this error code and all of these texts in its message."""
    try:
        yield
    except MlflowException as error:
        equal(error.error_code, code)
        for text in texts:
            if text not in error.message:
                raise AssertionError(f"{text!r} is not in {error.message!r}") from error
    else:
        raise AssertionError(f"no error, expected {code}")


def pages(search):
    """Returns all pages of a search. `search` takes a page token, None for the first page."""
    token, found = None, []
    while True:
        page = search(token)
        found.append(list(page))
        token = page.token
        if not token:
            return found
        if len(found) > 1000:
            raise AssertionError("the search has more than 1000 pages")


# Each module registers its flows when it is imported.
from . import experiments, runs, search, artifacts, models, registry, webhooks  # noqa: E402, F401
