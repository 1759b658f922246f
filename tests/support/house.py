"""The structure of the package, read from its syntax trees: which module imports which, and how large things are.

`python -m tests.support.house` prints files and lines per room, imports per pair of rooms, sizes, shares of docstrings
and comments, and functions with many arguments. `tests/test_walls.py` holds the walls with the same functions.
"""

import ast
import io
import statistics
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "seremo_jax"
ROOMS = (
    *("core", "metrics", "backbones", "data", "conditions", "saliency"),
    *("features", "training", "evaluation", "reports", "predict", "sweeps"),
)
"""In the order in which data flows: a room imports from rooms on its left only."""


def python_files(*folders: str) -> list[Path]:
    """Every Python file of these folders of the checkout."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def dotted(path: Path) -> str:
    """`seremo_jax/core/__init__.py` -> `seremo_jax.core`."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def room_of(module: str) -> str:
    """`seremo_jax.data.corpora.iemocap` -> `data`; empty for the package itself."""
    return [*module.split("."), ""][1]


def tree_of(path: Path) -> ast.Module:
    """Syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"))


def imports_of(path: Path) -> Iterator[tuple[str, int]]:
    """Everything imported anywhere in a file, `from a import b` as `a.b`, with its line."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import; write the full name"
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def modules() -> dict[str, Path]:
    """Dotted name -> file, of every module of the package."""
    return {dotted(path): path for path in python_files(PACKAGE)}


def inner_imports() -> dict[str, set[str]]:
    """Module of the package -> modules of the package it imports."""
    known = modules()
    edges = {}
    for name, path in known.items():
        targets = {other if other in known else other.rpartition(".")[0] for other, _ in imports_of(path)}
        edges[name] = {other for other in targets if other in known and other not in (PACKAGE, name)}
    return edges


def reachable(start: str, edges: dict[str, set[str]]) -> set[str]:
    """Everything that `start` imports, directly or not."""
    seen, pending = set(), [start]
    while pending:
        for name in edges[pending.pop()] - seen:
            seen.add(name)
            pending.append(name)
    return seen


def functions_of(path: Path) -> Iterator[ast.FunctionDef]:
    """Every function and method of a file."""
    yield from (node for node in ast.walk(tree_of(path)) if isinstance(node, ast.FunctionDef))


def num_arguments(function: ast.FunctionDef) -> int:
    """Arguments that a caller may give, `self` and `cls` left out."""
    arguments = function.args
    names = [argument.arg for argument in arguments.posonlyargs + arguments.args + arguments.kwonlyargs]
    return len([name for name in names if name not in ("self", "cls")])


def _shares(path: Path) -> tuple[int, int, int]:
    """Lines of code and text, of docstrings, and of comments; blank lines count nowhere."""
    text = path.read_text(encoding="utf-8")
    num_lines = sum(bool(line.strip()) for line in text.splitlines())
    num_docs = 0
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            first, last = node.body[0].lineno, node.body[0].end_lineno
            num_docs += sum(bool(line.strip()) for line in text.splitlines()[first - 1 : last])
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    num_comments = len({token.start[0] for token in tokens if token.type == tokenize.COMMENT})
    return num_lines, num_docs, num_comments


def main() -> None:
    """Prints the tables."""
    by_room: dict[str, list[Path]] = {room: [] for room in ROOMS}
    for name, path in modules().items():
        if room_of(name):
            by_room[room_of(name)].append(path)
    print("| room | files | lines | median | largest | docstrings | comments |\n|---|---|---|---|---|---|---|")
    for room, paths in by_room.items():
        sizes = [len(path.read_text(encoding="utf-8").splitlines()) for path in paths]
        lines, docs, comments = (sum(column) for column in zip(*map(_shares, paths), strict=True))
        inits = [size for path, size in zip(paths, sizes, strict=True) if path.name != "__init__.py"]
        print(
            f"| {room} | {len(paths)} | {sum(sizes)} | {statistics.median(inits):.0f} | {max(sizes)} "
            f"| {docs / lines:.0%} | {comments / lines:.1%} |"
        )
    pairs = Counter(
        (room_of(name), room_of(other)) for name, others in inner_imports().items() for other in others if room_of(name)
    )
    print("\nImports: a row's room imports from a column's room.\n")
    print("| |", " | ".join(ROOMS), "|\n|---|" + "---|" * len(ROOMS))
    for room in ROOMS:
        print(f"| {room} |", " | ".join(str(pairs[room, other] or "") for other in ROOMS), "|")
    upward = [(a, b) for a, b in pairs if ROOMS.index(b) > ROOMS.index(a)]
    print(f"\nimports against the order: {len(upward)}")
    everything = python_files(PACKAGE)
    sizes = [len(path.read_text(encoding="utf-8").splitlines()) for path in everything if path.name != "__init__.py"]
    print(f"files: {len(sizes)}, median {statistics.median(sizes):.0f} lines, largest {max(sizes)}")
    lines, docs, comments = (sum(column) for column in zip(*map(_shares, everything), strict=True))
    print(f"docstrings {docs / lines:.0%} of lines, comments {comments / lines:.1%}")
    wide = [
        f"{dotted(path)}.{function.name} ({num_arguments(function)})"
        for path in everything
        for function in functions_of(path)
        if num_arguments(function) > 8
    ]
    print(f"functions over 8 arguments: {len(wide)}", *wide, sep="\n  ")


if __name__ == "__main__":
    main()
