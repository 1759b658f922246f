"""Every stage killed at random moments and run again: the files at the end are those of a run that nobody disturbed.

    python -m tests.system.kills --kills=26

Half of the kills come right before a change of the files or a few milliseconds into it, the others at any time.
Compared are the names of all files and their bytes. Excepted is what tells of time and host: seconds and speeds in
`train/log.jsonl`; the events of TensorBoard, which have both in the names of their files; and the names that Orbax
draws for its files, whose arrays are compared instead. Hashes of these files in `train/finished.json` differ with them.
"""

import argparse
import collections
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

ROOT = Path(__file__).resolve().parents[2]
HOOK = Path(__file__).parent / "kill_hook"
RECIPE = '''"""A corpus, a head and a sweep that take seconds."""
from configs import simulated
from seremo_jax.sweeps.algebra import axis

def get_config(arg=""):
    config = simulated.get_config("tiny")
    config.corpus.num_speakers, config.corpus.utterances_per_speaker = 6, 1
    config.extract.shard_utterances = 2
    config.model.gru_units = config.model.embedding_size = 8
    config.train.max_epochs, config.ensemble.class_targets = 2, ("votes",)
    config.eval.num_resamples = config.eval.num_permutations = 20
    return config

def sweep_seeds():
    yield from axis("train.seed", (3, 4))
'''
_HERE = ("--config=recipe.py", "--workdir=w")
STAGES = {
    "ingest": ("ingest", *_HERE),
    "validate": ("validate", *_HERE),
    "extract": ("extract", *_HERE),
    "saliency": ("saliency", *_HERE),
    "train": ("train", *_HERE),
    "evaluate": ("evaluate", *_HERE),
    "report": ("report", *_HERE),
    "export": ("export", "--workdir=w", "--to=model", "--member=best"),
    "predict": ("predict", "--model=model", "w/audio", "--out=scores.csv", "--format=csv"),
    "transfer": ("evaluate", "--config=recipe.py", "--config.corpus.seed=1", "--model=model", "--workdir=on"),
    "sweep": ("sweep", *_HERE, "--sweep=seeds"),
}
_LONGEST_S = 600
_TIMED = re.compile(r"_s$|_per_|^goodput_|share_of_peak|seconds")
_DRAWN = re.compile(r"(?<=/d/)[0-9a-f]{32}$|(?<=/)events\.out\.tfevents\..*$")


class Moment(NamedTuple):
    """When a process is killed.

    Attributes:
      change: Change of the files that it is killed before, from 1; 0 waits from the start.
      after_s: Seconds to wait from there on; None waits for nothing.
    """

    change: int
    after_s: float | None

    def __str__(self) -> str:
        start = f"change {self.change}" if self.change else "the start"
        return start if self.after_s is None else f"{1000 * self.after_s:.0f} ms after {start}"


class Done(NamedTuple):
    """A stage that ended: its exit code, what it said, its changes of the files, and its seconds."""

    code: int
    output: str
    num_changes: int
    seconds: float


def run(folder: Path, stage: str, moment: Moment | None = None) -> Done:
    """Runs a stage in a folder as a user would, and kills it at the moment."""
    count = folder.parent / "count"
    count.unlink(missing_ok=True)
    variables = {"PYTHONPATH": f"{HOOK}{os.pathsep}{ROOT}", "KILLS_ROOT": str(folder), "CUDA_VISIBLE_DEVICES": ""}
    variables |= {"JAX_COMPILATION_CACHE_DIR": str(folder.parent / "compiled"), "JAX_PLATFORMS": "cpu"}
    if moment is None:
        variables["KILLS_COUNT"] = str(count)
    else:
        variables["KILLS_CHANGE"] = str(moment.change)
        if moment.after_s is not None:
            variables["KILLS_AFTER_S"] = str(moment.after_s)
    module, *arguments = STAGES[stage]
    began_s = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", f"launch.{module}", *arguments],
        cwd=folder, env={**os.environ, **variables}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=_LONGEST_S, check=False,
    )  # fmt: skip
    num_changes = int(count.read_text()) if count.exists() else 0
    return Done(done.returncode, done.stdout, num_changes, time.monotonic() - began_s)


def moment_of(rng: np.random.Generator, undisturbed: Done) -> Moment:
    """A moment of a stage, drawn: before or inside of one of its changes of the files, or at any time."""
    kind, change = rng.integers(4), int(rng.integers(1, max(undisturbed.num_changes, 1) + 1))
    if kind == 0:
        return Moment(change, None)
    if kind == 1:
        return Moment(change, float(rng.uniform(0, 0.005)))
    return Moment(0, float(rng.uniform(0.2, 1) * undisturbed.seconds))


def files_of(folder: Path) -> dict[str, Any]:
    """Name of each file below a folder -> what two runs have in common of it."""
    files: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = _DRAWN.sub("*", path.relative_to(folder).as_posix())
        if path.is_symlink():
            files[name] = f"link to {os.readlink(path)}"
        elif path.is_file() and not path.stat().st_size:
            files[name] = b""
        elif path.is_file():
            files[name] = None if "*" in name or _is_of_orbax(name) else _content(path)
        elif path.name == "best" and (path / "_METADATA").exists():
            files[f"{name} (arrays)"] = _arrays(path)
        elif path.name.isdigit() and path.parent.name == "checkpoints":
            files[f"{name} (arrays)"] = _arrays(path / "state")
    return files


def _is_of_orbax(name: str) -> bool:
    return "/best/" in name.removeprefix("w/sweep/best") or "/checkpoints/" in name


def _arrays(folder: Path) -> list[tuple[str, bytes]]:
    """Path of each array of a tree that Orbax wrote, on whatever devices, with its bytes."""
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        shapes = checkpointer.metadata(folder).item_metadata.tree
        plain = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), shapes)
        tree = checkpointer.restore(folder, args=ocp.args.PyTreeRestore(restore_args=plain))
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [(jax.tree_util.keystr(path), np.asarray(leaf).tobytes()) for path, leaf in flat]


def _content(path: Path) -> Any:
    content = path.read_bytes()
    if path.name == "log.jsonl":
        lines = [json.loads(line) for line in content.splitlines()]
        kept = [{key: line[key] for key in line if not _TIMED.search(key)} for line in lines]
        return [{key: value for key, value in line.items() if key != "content_fingerprint"} for line in kept]
    if path.name == "finished.json":
        hashes = ("files", "beside", "content_fingerprint")
        return {key: value for key, value in json.loads(content).items() if key not in hashes}
    return content


def differences(undisturbed: Path, killed: Path) -> Iterator[str]:
    """What two folders differ in, one line each."""
    ours, theirs = files_of(undisturbed), files_of(killed)
    for name in sorted(ours.keys() - theirs.keys()):
        yield f"{name} is missing after the kills"
    for name in sorted(theirs.keys() - ours.keys()):
        yield f"{name} was left behind by the kills"
    for name in sorted(ours.keys() & theirs.keys()):
        if ours[name] != theirs[name]:
            yield f"{name} is not as it was"


def kill_all(root: Path, kills: Mapping[str, int], seed: int) -> list[str]:
    """Runs all stages up to the last that is named in two folders, one of them with kills; returns what is wrong.

    Args:
      root: An empty folder.
      kills: Stage -> how often it is killed.
      seed: Of the moments.
    """
    rng, names = np.random.default_rng(seed), list(STAGES)
    names, wrong = names[: max(names.index(stage) for stage in kills) + 1], []
    folders = [root / "undisturbed", root / "killed"]
    for folder in folders:
        folder.mkdir()
        (folder / "recipe.py").write_text(RECIPE)
    before = root / "before"
    for stage in names:
        undisturbed = run(folders[0], stage)
        print(f"{stage}: {undisturbed.num_changes} changes in {undisturbed.seconds:.0f} s", flush=True)
        if undisturbed.code:
            raise RuntimeError(f"{stage} ended with {undisturbed.code}:\n{undisturbed.output}")
        shutil.copytree(folders[1], before, symlinks=True)
        num_killed = 0
        while num_killed < kills.get(stage, 0):
            moment = moment_of(rng, undisturbed)
            done = run(folders[1], stage, moment)
            if done.code == -signal.SIGKILL:
                num_killed += 1
                print(f"{stage}: killed at {moment}", flush=True)
                continue
            # It was finished before its moment came, and cannot be killed again: from the beginning once more.
            wrong += _faults(stage, done, folders)
            shutil.rmtree(folders[1])
            shutil.copytree(before, folders[1], symlinks=True)
        shutil.rmtree(before)
        wrong += _faults(stage, run(folders[1], stage), folders)
    left = [str(path) for folder in folders for path in folder.rglob("*") if re.search(r"tmp|lock$", path.name)]
    return wrong + [f"{path} was left behind" for path in left]


def _faults(stage: str, done: Done, folders: list[Path]) -> list[str]:
    """What is wrong with a stage that ended after kills."""
    # A model is never written over: an export that was killed when its folder had appeared is refused the next time.
    is_refused = done.code and not (stage == "export" and "is there already" in done.output)
    ended = [f"{stage}, run again after kills, ended with {done.code}:\n{done.output}"] if is_refused else []
    return ended + [f"after {stage}: {line}" for line in differences(*folders)]


def main(arguments: list[str]) -> int:
    """Prints each kill and what is wrong at the end; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=26)
    parser.add_argument("--until", choices=list(STAGES), default="sweep", help="last stage")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    names = list(STAGES)[: list(STAGES).index(options.until) + 1]
    order = np.random.default_rng(options.seed).permutation(len(names))
    kills = collections.Counter(names[order[n % len(names)]] for n in range(options.kills))
    with tempfile.TemporaryDirectory() as root:
        wrong = kill_all(Path(root).resolve(), kills | {options.until: kills[options.until]}, options.seed)
    print("\n".join(dict.fromkeys(wrong)))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
