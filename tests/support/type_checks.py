"""The checker of annotations that `pyproject.toml` names to jaxtyping's hook."""

import functools
from collections.abc import Callable
from typing import Any

import beartype


def at_first_call(function: Callable[..., Any]) -> Callable[..., Any]:
    """`beartype.beartype`, whose work is done when the function is called for the first time.

    Most of the time that a test process takes to import the package is beartype's, and a process calls only some of
    the functions that it imports.
    """
    checked = None

    @functools.wraps(function)
    def check(*arguments: Any, **named: Any) -> Any:
        nonlocal checked
        if checked is None:
            checked = beartype.beartype(function)
        return checked(*arguments, **named)

    return check
