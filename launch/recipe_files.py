"""Recipes by their names: files of the current folder, then those that come with the package."""

import ast
import os
from pathlib import Path

FOLDER = "configs"
PACKAGED = Path(__file__).resolve().parents[1] / FOLDER


def find(path: str) -> str:
    """File of a recipe, with the variant behind a colon as it was given.

    Args:
      path: `FILE[:VARIANT]`.

    Returns:
      The same; for `configs/NAME.py`, where the current folder has no such file, that of the package, if it has one.
    """
    file, colon, variant = path.partition(":")
    packaged = PACKAGED / os.path.basename(file)
    if os.path.dirname(os.path.normpath(file)) == FOLDER and not os.path.isfile(file) and packaged.is_file():
        return f"{packaged}{colon}{variant}"
    return path


def names() -> list[str]:
    """Recipes that `find` finds below `configs`, as `configs/NAME.py`, in the order of their names."""
    files = [*Path(FOLDER).glob("*.py"), *PACKAGED.glob("*.py")]
    return sorted({f"{FOLDER}/{file.name}" for file in files if not file.name.startswith("_")})


def first_line(file: str | os.PathLike) -> str:
    """First line of the docstring of a Python file, which is not run; empty where it has none or cannot be read."""
    try:
        docstring = ast.get_docstring(ast.parse(Path(file).read_text(encoding="utf-8")))
    except (OSError, SyntaxError, ValueError):
        return ""
    return (docstring or "").partition("\n")[0]
