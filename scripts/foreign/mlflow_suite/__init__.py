"""The flows of mlflow_flows.py, and what they share. Its name must not be `mlflow`: it would hide the client's."""

import uuid
from contextlib import contextmanager

from mlflow.exceptions import MlflowException

# By name, in the order in which they run.
FLOWS = {}


def flow(function):
    """A function that takes nothing and raises where the server is not as it should be; its name is the flow's."""
    FLOWS[function.__name__] = function
    return function


def unique(what):
    """A name that no other run has."""
    return f"{what}-{uuid.uuid4().hex[:16]}"


def equal(actual, expected):
    """`assert ==` that says both sides."""
    if actual != expected:
        raise AssertionError(f"{actual!r} is not {expected!r}")


@contextmanager
def refused(code, *texts):
    """What is within must be refused with this error code and with all of these texts in its message."""
    try:
        yield
    except MlflowException as error:
        equal(error.error_code, code)
        for text in texts:
            if text not in error.message:
                raise AssertionError(f"{text!r} is not in {error.message!r}") from error
    else:
        raise AssertionError(f"it went through, and should be refused with {code}")


def pages(search):
    """The pages of a search to the end: `search` takes a token, None at first."""
    token, found = None, []
    while True:
        page = search(token)
        found.append(list(page))
        token = page.token
        if not token:
            return found
        if len(found) > 1000:
            raise AssertionError("the pages do not end")


# They register themselves.
from . import experiments, runs, search, artifacts, models, registry, webhooks  # noqa: E402, F401
