"""Text from outside in files that other programs open: no spreadsheet computes it, and no Markdown viewer runs it."""

import re
from typing import TypeVar

T = TypeVar("T")

_FORMULA = re.compile(r"[\s\x00]*[=+\-@＝＋－＠]")
_NUMBER = r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?"
_ARE_NUMBERS = re.compile(
    rf"{_NUMBER}(?: ± {_NUMBER})?(?: \[{_NUMBER}, {_NUMBER}\])?|{_NUMBER}(?: {_NUMBER})*|[+-](?:inf|nan)"
)
_HTML = re.compile(r"<(?=[A-Za-z/!?])")


def disarmed(value: T) -> T | str:
    """A cell of a CSV file, with an apostrophe before what a spreadsheet would take for a formula.

    Numbers stay as they are, with a sign, with a standard deviation and an interval behind them, or several of them.

    Args:
      value: The cell; only texts are changed.
    """
    if isinstance(value, str) and _FORMULA.match(value) and not _ARE_NUMBERS.fullmatch(value):
        return f"'{value}"
    return value


def one_line(text: str) -> str:
    """Text for Markdown: on one line, so that it begins no block, with neither HTML nor the target of a link."""
    return _HTML.sub("&lt;", " ".join(text.splitlines())).replace("](", "]&#40;")
