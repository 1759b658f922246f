"""Lays the pages out for Zensical, diagrams drawn and the API room by room, and has it build the site."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "seremo_jax"
GUIDES = (
    "README.md", "launch/README.md", "seremo_jax/METHOD.md", "seremo_jax/data/LABELS.md", "configs/RESULTS.md",
    "seremo_jax/README.md",
)  # fmt: skip
"""Every Markdown page of the checkout, in the order in which the site lists them."""
_ROOM = re.compile(r"^\| `(\w+)` \|", re.MULTILINE)
_DIAGRAM = re.compile(r"^```mermaid\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_TITLE = re.compile(r'^ *title "(.*)"$', re.MULTILINE)
_WIDTH = re.compile(r'viewBox="\S+ \S+ (\S+) ')
SCALE = 0.75
"""Of diagrams, whose letters then have about the size of the page's."""
_COLOUR = re.compile(r"\x1b\[[\d;]*m")


class SiteError(Exception):
    """The site has warnings, or a diagram that cannot be drawn."""


SiteError.__module__ = "seremo_jax.site"


def build(folder: Path) -> Path:
    """Builds the site from `folder/pages`, where the gallery and the notebook lie already; returns its folder.

    Raises:
      SiteError: The tool warned of something or failed; the message has its words.
    """
    pages = folder / "pages"
    for guide in GUIDES:
        _write(pages / guide, _drawn((ROOT / guide).read_text(encoding="utf-8"), pages / guide))
    (pages / "style.css").write_bytes((Path(__file__).parent / "style.css").read_bytes())
    api = [_write_api(pages, room) for room in rooms()]
    settings = yaml.safe_load((Path(__file__).parent / "zensical.yml").read_text(encoding="utf-8"))
    settings |= {
        "docs_dir": "pages",
        "site_dir": "site",
        "nav": [
            {"Overview": GUIDES[0]}, *GUIDES[1:], {"Walk-through": "notebook/walkthrough.md"},
            {"Gallery": "gallery/index.md"}, {"API": api},
        ],
    }  # fmt: skip
    settings["plugins"][1]["mkdocstrings"]["handlers"]["python"]["paths"] = [str(ROOT)]
    _write(folder / "zensical.yml", yaml.safe_dump(settings, sort_keys=False))
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--config-file", "zensical.yml"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode or not (folder / "site" / "index.html").is_file():
        # What follows a warning is the trace of an exception that says no more.
        words = done.stdout if "Warning" in done.stdout else done.stdout + done.stderr
        raise SiteError(f"the site was not built, for its pages have warnings:\n{_COLOUR.sub('', words)}")
    return folder / "site"


def rooms() -> list[str]:
    """Names of the package's rooms in the order of the pipeline, which is that of the table in their page."""
    text = (PACKAGE / "README.md").read_text(encoding="utf-8")
    return [name for name in _ROOM.findall(text) if (PACKAGE / name / "__init__.py").is_file()]


def _write_api(pages: Path, room: str) -> dict[str, Any]:
    """Writes the page of a room, and of its inner folders; returns its place in the list of pages."""
    written = []
    for package in sorted(path.parent for path in (PACKAGE / room).rglob("__init__.py")):
        name = ".".join(package.relative_to(PACKAGE).parts)
        dotted = f"seremo_jax.{name}"
        modules = [f"{dotted}.{path.stem}" for path in sorted(package.glob("*.py")) if path.stem != "__init__"]
        blocks = "\n\n".join(f"::: {module}" for module in (dotted, *modules))
        _write(pages / "api" / f"{name}.md", f"# {name}\n\n{blocks}\n")
        written.append({name: f"api/{name}.md"})
    return written[0] if len(written) == 1 else {room: written}


def _drawn(text: str, page: Path) -> str:
    """The page with a picture in place of each Mermaid diagram, so that a browser needs no script of 3 MB for it."""

    def draw(match: re.Match) -> str:
        name = f"{page.stem}-diagram-{match.string.count('```mermaid', 0, match.start()) + 1}.svg"
        page.parent.mkdir(parents=True, exist_ok=True)
        # In a process of its own, for the library prints what it leaks as its process ends.
        command = [sys.executable, "-m", "mermaidx", "--input", "-", "--output", name]
        done = subprocess.run(command, cwd=page.parent, input=match[1], capture_output=True, text=True, check=False)
        if done.returncode:
            raise SiteError(f"{page.name} has a diagram that Mermaid cannot draw: {match[1]}\n{done.stderr}")
        title = _TITLE.search(match[1])
        width = round(SCALE * float(_WIDTH.search(page.with_name(name).read_text(encoding="utf-8"))[1]))
        return f"![{title[1] if title else 'Diagram'}]({name}){{ .diagram width={width} }}"

    return _DIAGRAM.sub(draw, text)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
