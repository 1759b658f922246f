"""The walls of the house: twelve rooms in a straight line, one owner a library, no JAX where it is not needed, sizes.

A file belongs to the room (folder) it lies in: nothing here lists files, so a new module needs no entry.
`python -m tests.support.house` prints what these tests hold.
"""

import ast
import subprocess
import sys

from tests.support.house import (
    PACKAGE,
    ROOMS,
    ROOT,
    dotted,
    functions_of,
    imports_of,
    inner_imports,
    modules,
    num_arguments,
    python_files,
    reachable,
    room_of,
    tree_of,
)

ALONE = {"core", "metrics"}  # rooms that import nothing of ours
ROOMS_WITHOUT_JAX = ("data", "conditions", "reports")
# Library -> modules, or whole rooms, that may import it. Nobody imports torch; launch and tests/ may.
OWNERS = {
    "flax": ("training.model", "backbones"),
    "grain": ("training.loader",),
    "array_record": ("features.store",),
    "orbax": ("training.checkpoint",),
    "optax": ("training.optim", "training.steps"),
    "transformers": ("backbones",),
    "huggingface_hub": ("backbones", "predict.hub_folder"),
    "safetensors": ("backbones", "predict.model_folder"),
    "ml_collections": ("core.config",),
    "torch": (),
    "crowdkit": ("data.reliability",),
    "krippendorff": ("data.agreement",),
    "sklearn": ("evaluation.regression",),
    "pyroomacoustics": ("conditions.rooms",),
    "onnx": ("predict.onnx_graph",),
    "onnxruntime": ("predict.onnx_graph",),
    "etils": ("core.artefacts",),
    "fsspec": ("core.artefacts",),
}
# A compiled pass lives in a room that runs one; statistics, labels and pages never compile.
ROOMS_THAT_COMPILE = {"saliency", "features", "training", "evaluation", "predict"}
FORBIDDEN = {"jax.pmap", "nnx.jit", "nnx.vmap", "nnx.pmap", "nnx.Optimizer"}

NUM_LINES, NUM_FUNCTION_LINES, NUM_LAUNCHER_LINES, NUM_ARGUMENTS, NUM_INIT_LINES = 350, 70, 60, 8, 10
HAND_NAMES_ON = {"seremo_jax", "seremo_jax.backbones", "seremo_jax.data.corpora", "seremo_jax.predict"}
NOT_A_LAUNCHER = {"cli.py", "walkthrough.py"}  # the second reads as a notebook, top to bottom


def test_rooms_import_only_from_rooms_before_them():
    wrong = []
    for path in modules().values():
        room = room_of(dotted(path))
        for name, line in imports_of(path):
            if name.split(".")[0] in ("configs", "launch", "tests"):
                wrong.append(f"{dotted(path)}:{line} imports {name}: the package stands on its own")
            other = room_of(name)
            if not name.startswith(f"{PACKAGE}.") or other not in ROOMS or other == room:
                continue
            if room in ALONE or ROOMS.index(other) > ROOMS.index(room):
                wrong.append(f"{dotted(path)}:{line} ({room}) imports {name} ({other}), a later room")
    assert not wrong, "\n".join(wrong)
    assert {room_of(name) for name in modules()} - {""} == set(ROOMS)


def test_no_module_reaches_itself():
    edges = inner_imports()
    assert not [name for name in edges if name in reachable(name, edges)]


def test_a_room_begins_with_what_it_is_for():
    for path in python_files(PACKAGE):
        if path.name == "__init__.py" and dotted(path) not in HAND_NAMES_ON:
            tree = tree_of(path)
            assert ast.get_docstring(tree), path
            assert len(tree.body) == 1, f"{path} holds more than its docstring"
            assert len(path.read_text(encoding="utf-8").splitlines()) <= NUM_INIT_LINES, path


def test_each_library_has_its_owners():
    wrong = []
    for name, path in modules().items():
        place = name.removeprefix(f"{PACKAGE}.")
        for imported, line in imports_of(path):
            owners = OWNERS.get(imported.split(".")[0])
            if owners is not None and not {place, place.split(".")[0]} & set(owners):
                wrong.append(f"{name}:{line} imports {imported}; only {owners} do")
    for path in python_files("configs"):
        for imported, line in imports_of(path):
            if imported.split(".")[0] not in {PACKAGE, "ml_collections", "configs"} | sys.stdlib_module_names:
                wrong.append(f"{dotted(path)}:{line} imports {imported}; recipes import no more than the config")
    assert not wrong, "\n".join(wrong)


def test_compilation_has_its_places():
    wrong = []
    for name, path in modules().items():
        nodes = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.Attribute)]
        used = {ast.unparse(node) for node in nodes} | {imported for imported, _ in imports_of(path)}
        if "jax.jit" in used and room_of(name) not in ROOMS_THAT_COMPILE:
            wrong.append(f"{name} uses jax.jit; only {sorted(ROOMS_THAT_COMPILE)} compile")
        wrong += [f"{name} uses {other}" for other in used if other.removeprefix("flax.") in FORBIDDEN]
    assert not wrong, "\n".join(wrong)


def test_labels_conditions_reports_and_recipes_work_without_jax():
    edges = inner_imports()
    with_jax = {name for name, path in modules().items() if any(n.split(".")[0] == "jax" for n, _ in imports_of(path))}
    light = [name for name in modules() if room_of(name) in ROOMS_WITHOUT_JAX]
    through = {name: sorted(({name} | reachable(name, edges)) & with_jax) for name in light}
    assert not any(through.values()), {name: actual for name, actual in through.items() if actual}

    # Libraries of others might bring it in, too.
    code = (
        "import importlib, sys\n"
        f"for name in {light + [dotted(path) for path in python_files('configs')]!r}:\n"
        "    importlib.import_module(name)\n"
        "    assert 'jax' not in sys.modules, name + ' brings jax in'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_sizes():
    wrong = []
    for path in python_files(PACKAGE, "configs", "launch", "tests"):
        name = path.relative_to(ROOT).as_posix()
        num_lines = len(path.read_text(encoding="utf-8").splitlines())
        if num_lines > NUM_LINES and not path.name.startswith("test_"):
            wrong.append(f"{name} has {num_lines} lines, over {NUM_LINES}: split it")
        if path.parent == ROOT / "launch" and path.name not in NOT_A_LAUNCHER and num_lines >= NUM_LAUNCHER_LINES:
            wrong.append(f"{name} has {num_lines} lines: a launcher stays under {NUM_LAUNCHER_LINES}")
        if path.name in ("utils.py", "helpers.py", "common.py"):
            wrong.append(f"{name}: a helper lives beside its first user, and in core once there is a second")
        for function in functions_of(path):
            num_function_lines = function.end_lineno - function.lineno + 1
            if num_function_lines > NUM_FUNCTION_LINES:
                wrong.append(f"{name}:{function.lineno} {function.name} is {num_function_lines} lines long")
            if name.startswith(PACKAGE) and num_arguments(function) > NUM_ARGUMENTS:
                wrong.append(f"{name}:{function.lineno} {function.name} has {num_arguments(function)} arguments")
    assert not wrong, "\n".join(wrong)


def test_the_first_page_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def _undocumented(node: ast.AST, prefix: str):
    for child in getattr(node, "body", []):
        if isinstance(child, ast.FunctionDef | ast.ClassDef) and not child.name.startswith("_"):
            if ast.get_docstring(child) is None:
                yield f"{prefix}.{child.name}"
            if isinstance(child, ast.ClassDef):
                yield from _undocumented(child, f"{prefix}.{child.name}")


def test_public_names_say_what_they_are():
    trees = {dotted(path): tree_of(path) for path in python_files(PACKAGE, "configs", "launch")}
    wrong = [name for name, tree in trees.items() if ast.get_docstring(tree) is None]
    wrong += [public for name, tree in trees.items() for public in _undocumented(tree, name)]
    assert not wrong, "no docstring: " + ", ".join(wrong)
