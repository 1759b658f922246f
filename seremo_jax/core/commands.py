"""The command `seremo`: where the launchers lie, in a checkout or in an installed package, and how they are called."""

import os
import re
import runpy
import sys
import types
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
# Where pyproject.toml puts launch/ and configs/ in a wheel: two names that common must not lie beside other packages.
_BUNDLED = _PACKAGE / "bundled"
_RECIPES = "configs"
_as_seremo = _BUNDLED.is_dir()


def is_checkout() -> bool:
    """Whether the package runs from a checkout, and not from an installed wheel."""
    return not _BUNDLED.is_dir()


def place() -> Path:
    """Folder that holds `launch` and `configs`: the checkout, or the one that a wheel brings for them."""
    return _PACKAGE.parent if is_checkout() else _BUNDLED


def as_called(text: str) -> str:
    """A text for the user, with its commands as they are called here.

    Args:
      text: Any text; commands stand in it as `python -m launch.STAGE`.

    Returns:
      The text with `seremo STAGE` instead, where `seremo` was called or where there is no checkout; else unchanged.
    """
    return re.sub(r"(?<![\w/.])(?:python\s+-m\s+)?launch\.(?=[a-z])", "seremo ", text) if _as_seremo else text


def main() -> None:
    """Runs `seremo`: `launch/__main__.py`, with the path of modules that it needs."""
    global _as_seremo
    _as_seremo = True
    # Before everything else, so that no other package of these names is taken for them.
    sys.path.insert(0, os.fspath(place()))
    # Last, so that a file of the current folder is no library's stand-in; recipes may import what lies beside them.
    if not sys.flags.safe_path:
        sys.path.append("")
    # A recipe of the current folder comes before the package's own of the same name, as with --config.
    recipes = types.ModuleType(_RECIPES, "Recipes of the current folder, then those of the package.")
    recipes.__path__ = [os.path.abspath(_RECIPES), os.fspath(place() / _RECIPES)]
    sys.modules[_RECIPES] = recipes
    runpy.run_module("launch", run_name="__main__", alter_sys=True)
