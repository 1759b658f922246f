"""One field of a section of the config: its default, its meaning and the values it takes."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any


def field(
    default: Any,
    doc: str,
    *,
    choices: Sequence[str] | Mapping[str, str] = (),
    lowest: int | float | None = None,
    changes_results: bool = True,
    is_silent: bool = False,
) -> Any:
    """A field of a section.

    Args:
      default: Its default.
      doc: Its meaning, for `--help`.
      choices: Words it takes, or word -> what the word stands for; empty where it takes others. Where the field holds
        several values, this holds for each, and so does `lowest`.
      lowest: The lowest number it takes.
      changes_results: Whether results depend on it. It is then part of fingerprints.
      is_silent: Whether results say nothing of it where it has its default, so that those made before there was the
        field stay what they are.
    """
    meanings = dict(choices) if isinstance(choices, Mapping) else dict.fromkeys(choices, "")
    facts = {"doc": doc, "choices": meanings, "lowest": lowest, "changes_results": changes_results}
    facts["is_silent"] = is_silent
    return dataclasses.field(default=default, metadata=facts)
