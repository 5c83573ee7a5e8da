"""Runs the check_* functions of a script and writes {name: traceback, or "" when it passed} for test_hub.py."""

import json
import re
import sys
import traceback


def run(namespace):
    """Every check runs, in the order of the file, also after one has failed."""
    results = {}
    for name, function in list(namespace.items()):
        if name.startswith("check_"):
            try:
                function()
                results[name] = ""
            except BaseException:
                results[name] = traceback.format_exc()
    with open(sys.argv[1], "w") as file:
        json.dump(results, file)


def error_of(kind, call, *args, **kwargs):
    """The message of the error that `call` must raise: of exactly this class and, if it is ours, one sentence."""
    try:
        call(*args, **kwargs)
    except Exception as error:
        assert type(error).__name__ == kind, f"{type(error).__name__}: {error}"
        message = str(error)
        if kind == "ExplainerError":
            assert "\n" not in message and not re.search(r"[.!?] [A-Z]", message), message
        return message
    raise AssertionError(f"no {kind} was raised")
