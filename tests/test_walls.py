"""The house as DESIGN.md draws it: ranks, library owners, words, sizes; read from the syntax trees."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "seremo_jax"

_BY_RANK = (
    "abstention artefacts calibration conformal goodput lines moments progress resampling scale_terms sweep vocab",
    "channels condition_ids config_limits config_sections confusions manifest noises published rooms schema "
    "significance step_trace trackers votes",
    "attribute_means audio conditions config feature_norm gru layer_choice losses member_map metrics optim preemption "
    "probe reliability result_records roofline saliency semantic_scores sharding splits store tables",
    "account arrangement backbones checks condition_sources config_file corpora ensemble intervals member_states "
    "model page partitions pieces policies predicted score_settings targets",
    "agreement alignment audio_batches calibrated checkpoint comparison explain gathered group_gaps loader look "
    "mean_heads objectives predictions_file protocol ranking speaker_states sweep_plan system_differences "
    "system_scores table_text writer",
    "calibrated_sums calibration_figures condition_scores figures forward ingest label_figures layer_curves "
    "score_tables scoring stability sweep_figure table_rows timeline training_data training_state",
    "baseline benchmark_parts calibrated_scores calibration_section condition_figures condition_frames data_section "
    "extract failure_signs gradients listening speaker_section sweep_cost validation",
    "benchmark condition_section head steps sweep_table",
    "feeding sections",
    "evaluate report scale",
    "model_folder scale_table training_loop",
    "predict train",
    "predict_files sweep_run",
)
RANKS = {name: rank for rank, names in enumerate(_BY_RANK) for name in names.split()}
WITHOUT_JAX = {
    *("abstention", "account", "agreement", "arrangement", "artefacts", "attribute_means", "audio", "benchmark"),
    *("benchmark_parts", "calibrated", "calibration", "calibration_figures", "calibration_section", "channels"),
    *("checks", "condition_figures", "condition_ids", "condition_scores", "condition_section"),
    *("condition_sources", "conditions", "config", "config_file", "config_limits", "config_sections", "conformal"),
    *("corpora", "data_section", "ensemble", "explain", "failure_signs", "figures", "gathered", "ingest"),
    *("label_figures", "layer_choice", "lines", "listening", "look", "manifest", "noises", "page", "partitions"),
    *("pieces", "policies", "predicted", "predictions_file", "progress", "published", "reliability", "report"),
    *("resampling", "result_records", "rooms", "schema", "score_tables", "significance", "speaker_section"),
    *("splits", "store", "sweep", "sweep_figure", "sweep_plan", "sweep_table", "table_rows", "table_text"),
    *("tables", "targets", "timeline", "trackers", "validation", "vocab", "votes", "writer"),
}
PLAIN_ARGUMENTS = {
    *("channels", "conditions", "noises", "rooms", "moments", "confusions", "semantic_scores"),
    *("abstention", "calibration", "conformal"),
    *("targets", "gru", "model", "losses", "metrics", "objectives", "probe", "saliency"),
}
OWNERS = {
    "flax": {"gru", "model", "backbones"},
    "grain": {"loader"},
    "array_record": {"store"},
    "orbax": {"checkpoint"},
    "optax": {"optim", "steps"},
    "transformers": {"backbones"},
    "huggingface_hub": {"backbones"},
    "safetensors": {"backbones", "model_folder"},
    "ml_collections": {"config"},
    "torch": set(),
    "crowdkit": {"reliability"},
    "sklearn": {"baseline"},
    "krippendorff": {"agreement"},
    "pyroomacoustics": {"rooms"},
    "etils": {"artefacts"},
    "fsspec": {"artefacts"},
    "wandb": set(),
    "mlflow": set(),
    "trackio": set(),
}
JITTED_IN = {"steps", "forward", "extract", "evaluate", "training_data", "roofline", "head", "layer_curves", "predict"}
FORBIDDEN = {"jax.pmap", "nnx.jit", "nnx.vmap", "nnx.pmap", "nnx.Optimizer"}

NUM_LINES, NUM_FUNCTION_LINES, NUM_LAUNCHER_LINES = 350, 70, 60
NOT_A_LAUNCHER = {"cli.py", "walkthrough.py"}  # the second reads as a notebook, top to bottom

# Word -> (pattern, files that may write it, and why).
WORDS = {
    # The synonym is accepted on input, so what reads names from outside must know it.
    "arousal": (r"arousal", {"vocab.py", "config.py", "targets.py", "corpora/", "test_tabular", "corpus_writers"}),
    "annotator": (r"annotators?\b", set()),
    "soft label": (r"soft[-_ ]labels?", set()),
    "ground truth": (r"ground[-_ ]truth", set()),
    "upstream": (r"\bupstream\b", set()),
    "replica": (r"\breplicas?\b", set()),
    "top-k": (r"(?<!lax\.)\btop[-_ ]?k\b", set()),  # lax.top_k is its name
    "clip (of speech)": (r"\b(?:audio|speech|voice|training|test|each|every|per)[ -]clips?\b", set()),
    "classifier": (r"\bclassifiers?\b", set()),
    "augmentation": (r"\baugmentation", set()),
}


def _python(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def _house_name(path: Path) -> str:
    """`seremo_jax/corpora/crema_d.py` -> `corpora`; `seremo_jax/gru.py` -> `gru`."""
    return path.relative_to(ROOT / PACKAGE).parts[0].removesuffix(".py")


def _dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def _imports(path: Path) -> Iterator[tuple[str, int]]:
    """Dotted names of everything imported anywhere in a file, `from a import b` as `a.b`, with the line."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import; write the full name"
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def _modules() -> list[Path]:
    return [path for path in _python(PACKAGE) if path != ROOT / PACKAGE / "__init__.py"]


def _inner_edges() -> dict[str, set[str]]:
    """Dotted module -> dotted modules of the package it imports."""
    names = {_dotted(path) for path in _python(PACKAGE)}
    edges = {}
    for path in _python(PACKAGE):
        found = {name if name in names else name.rpartition(".")[0] for name, _ in _imports(path)}
        edges[_dotted(path)] = {name for name in found if name in names and name != PACKAGE}
    return edges


def _reachable(start: str, edges: dict[str, set[str]]) -> set[str]:
    seen, todo = set(), [start]
    while todo:
        for name in edges[todo.pop()] - seen:
            seen.add(name)
            todo.append(name)
    return seen


def test_every_module_has_a_rank_and_imports_only_from_lower_ones():
    unknown = {_house_name(path) for path in _modules()} - RANKS.keys()
    assert not unknown, f"new in the house: {sorted(unknown)}; give each a rank here and a line in seremo_jax/README.md"
    wrong = []
    for path in _modules():
        own = _house_name(path)
        for name, line in _imports(path):
            top, _, rest = name.partition(".")
            other = rest.split(".")[0]
            if top in ("configs", "launch", "tests"):
                wrong.append(f"{_dotted(path)}:{line} imports {name}: the package stands on its own")
            if top == PACKAGE and other in RANKS and other != own and RANKS[other] >= RANKS[own]:
                wrong.append(f"{_dotted(path)}:{line} (rank {RANKS[own]}) imports {name} (rank {RANKS[other]})")
    assert not wrong, "\n".join(wrong)


def test_no_module_reaches_itself():
    edges = _inner_edges()
    assert not [name for name in edges if name in _reachable(name, edges)]


def test_each_library_has_its_owners():
    wrong = []
    for path in _modules():
        for name, line in _imports(path):
            if _house_name(path) not in OWNERS.get(name.split(".")[0], {_house_name(path)}):
                wrong.append(f"{_dotted(path)}:{line} imports {name}")
            if name.startswith("seremo_jax.config") and _house_name(path) in PLAIN_ARGUMENTS:
                wrong.append(f"{_dotted(path)}:{line} takes the config; numeric modules take plain arguments")
    for path in _python("configs"):
        for name, line in _imports(path):
            if name.split(".")[0] not in {PACKAGE, "ml_collections", "configs"} | sys.stdlib_module_names:
                wrong.append(f"{_dotted(path)}:{line} imports {name}; recipes import no more than the config")
    assert not wrong, "\n".join(wrong)


def test_compilation_has_its_places():
    wrong = []
    for path in _modules():
        text = path.read_text(encoding="utf-8")
        nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Attribute)]
        used = {ast.unparse(node) for node in nodes} | {name for name, _ in _imports(path)}
        if "jax.jit" in used and _house_name(path) not in JITTED_IN:
            wrong.append(f"{_dotted(path)} uses jax.jit; only {sorted(JITTED_IN)} compile")
        forbidden = sorted(name for name in used if name.removeprefix("flax.") in FORBIDDEN)
        wrong += [f"{_dotted(path)} uses {name} (DESIGN.md, section 5)" for name in forbidden]
    assert not wrong, "\n".join(wrong)


def test_labels_and_tables_work_without_jax():
    edges = _inner_edges()
    direct = {_dotted(path) for path in _modules() if any(name.split(".")[0] == "jax" for name, _ in _imports(path))}
    light = [_dotted(path) for path in _modules() if _house_name(path) in WITHOUT_JAX]
    wrong = {name: sorted(({name} | _reachable(name, edges)) & direct) for name in light}
    assert not any(wrong.values()), {name: through for name, through in wrong.items() if through}

    names = light + [_dotted(path) for path in _python("configs")]
    code = (
        "import importlib, sys\n"
        f"for name in {names!r}:\n"
        "    importlib.import_module(name)\n"
        "    assert 'jax' not in sys.modules, name + ' brings jax in'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _written_by_us() -> Iterator[Path]:
    yield from ROOT.glob("*.md")
    yield ROOT / "pyproject.toml"
    for folder in (PACKAGE, "configs", "launch", "tests", "docs", ".ci"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".md", ".sh", ".html", ".css", ".yaml", ".yml", ".jinja") or path.name == "run":
                yield path


@pytest.mark.parametrize("word", WORDS)
def test_words(word: str):
    pattern, allowed = WORDS[word]
    wrong = []
    for path in _written_by_us():
        name = path.relative_to(ROOT).as_posix()
        if path == Path(__file__).resolve() or path.is_dir() or any(part in name for part in allowed):
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if re.search(pattern, line, re.IGNORECASE):
                wrong.append(f"{name}:{number}: {line.strip()}")
    assert not wrong, f"this project has another word for {word!r} (DESIGN.md, section 4):\n" + "\n".join(wrong)


def test_sizes_and_names_of_files():
    wrong = []
    for path in _python(PACKAGE, "configs", "launch", "tests"):
        name, text = path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
        num_lines = len(text.splitlines())
        if num_lines > NUM_LINES and path.parent != ROOT / "tests":
            wrong.append(f"{name} has {num_lines} lines, over {NUM_LINES}: split it")
        is_launcher = path.parent == ROOT / "launch" and path.name not in NOT_A_LAUNCHER
        if is_launcher and num_lines >= NUM_LAUNCHER_LINES:
            wrong.append(f"{name} has {num_lines} lines: a launcher stays under {NUM_LAUNCHER_LINES}")
        if path.name in ("utils.py", "helpers.py", "common.py"):
            wrong.append(f"{name}: a helper lives beside its first user")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= NUM_FUNCTION_LINES:
                wrong.append(f"{name}:{node.lineno} {node.name} is {node.end_lineno - node.lineno + 1} lines long")
    assert not wrong, "\n".join(wrong)


def _undocumented(node: ast.AST, prefix: str) -> Iterator[str]:
    for child in getattr(node, "body", []):
        if isinstance(child, ast.FunctionDef | ast.ClassDef) and not child.name.startswith("_"):
            if ast.get_docstring(child) is None:
                yield f"{prefix}.{child.name}"
            if isinstance(child, ast.ClassDef):
                yield from _undocumented(child, f"{prefix}.{child.name}")


def test_public_names_say_what_they_are():
    paths = _python(PACKAGE, "configs", "launch")
    trees = {_dotted(path): ast.parse(path.read_text(encoding="utf-8")) for path in paths}
    wrong = [name for name, tree in trees.items() if ast.get_docstring(tree) is None]
    wrong += [public for name, tree in trees.items() for public in _undocumented(tree, name)]
    assert not wrong, "no docstring: " + ", ".join(wrong)
