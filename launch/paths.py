"""Flags that name a folder or a file: `~` is the user's folder, and an empty value is an error."""

import os
from typing import Any

from absl import flags


class _PathParser(flags.ArgumentParser):
    """Reads one path."""

    syntactic_help = "a folder or a file"

    def parse(self, argument: str) -> str:
        """The path; raises ValueError, which absl shows with the name of the flag, where it is empty."""
        if not argument:
            raise ValueError("it is empty: name a folder or a file")
        return os.path.expanduser(argument)


def define(name: str, default: str | None, text: str, *, required: bool = False) -> flags.FlagHolder[Any]:
    """Defines a flag that takes a path.

    Args:
      name: Name of the flag.
      default: Its value where it is not given.
      text: What `--help` says.
      required: Whether the command needs it.
    """
    return flags.DEFINE(_PathParser(), name, default, text, required=required)
