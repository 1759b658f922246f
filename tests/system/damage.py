"""Flipped bits and lost ends in every kind of artefact.

    python -m tests.system.damage --flips=300

What reads an artefact in production must refuse a damaged one by its name, make it again, or give the numbers that it
gave before. The exit code is 1 where it does none of these.
"""

import argparse
import collections
import dataclasses
import functools
import shutil
import sys
import tempfile
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging

from seremo_jax.core import compiled_programs, ensemble, sharding
from seremo_jax.core.artefacts import read_json
from seremo_jax.core.config import read_config
from seremo_jax.data import audio_batches, ingest, tables
from seremo_jax.evaluation import calibration_fit, records
from seremo_jax.features import store
from seremo_jax.features.manifest import Settings
from seremo_jax.predict import files as prediction
from seremo_jax.predict import heard_parts, model_folder
from seremo_jax.predict.predictor import Predictor
from seremo_jax.predict.result import Result
from seremo_jax.reports import report, validation
from seremo_jax.saliency import ranking
from seremo_jax.sweeps import leaderboard, plan, run
from seremo_jax.sweeps.algebra import axis
from seremo_jax.sweeps.status import FINISHED, Status, write_status
from seremo_jax.training import predictions
from seremo_jax.training.checkpoint import Checkpoints, Position
from seremo_jax.training.dataset import Data
from tests.support import prepared

REFUSED, AGAIN, EQUAL, ACCEPTED, RAISED = "refused", "made again", "equal", "ACCEPTED", "RAISED"
_TRUNCATED = 4
"""One in so many tries cuts the file off, and the others flip one bit of it."""
_RUN = {"optim.learning_rate": 0.1}
_LAYERS, _IDS = (0, 3), [f"u{number}" for number in range(10)]


class MadeAgainError(Exception):
    """The stage noticed the damage, and makes the artefact again."""


class Try(NamedTuple):
    """What became of one damaged file: the outcome, and the damage with what was said, in words."""

    outcome: str
    words: str


def prepare(folder: Path, finished: Path) -> Path:
    """A folder with every kind of artefact.

    Args:
      folder: The folder to be.
      finished: What `prepared.finished` gave, which is copied.
    """
    shutil.copytree(finished, folder)
    writer = _writer(folder)
    for shard in range(2):
        with writer.shard(shard) as writing:
            for row in writer.shards[shard]:
                frames = np.random.default_rng(row).normal(size=(2, row + 1, 5))
                writing.add(_IDS[row], frames.astype(np.float32))
            writing.sums = {"total": np.arange(shard + 1.0)}
    with Checkpoints(folder / "checkpoints", _RUN) as checkpoints:
        for epoch in (1, 2):
            checkpoints.save(Position(epoch), {"w": jax.numpy.full((4, 3), epoch, np.float32)})
    _predict(
        folder, lambda paths, **_: [Result(1.0, {"sad": 1.0}, None, {}, None, ("sad",), None, (), -20.0)] * len(paths)
    )
    for block in range(2):
        drawn = np.random.default_rng(block).random((2, 3, 5), np.float32)
        _parts(folder).write(block, drawn[:, :, :3], drawn)
    _sweep(folder, folder / "sweep")
    (folder / "compiled").mkdir()
    for number in range(3):
        program = np.random.default_rng(number).bytes(1000)
        (folder / "compiled" / f"jit_{number}-cache").write_bytes(program)
    compiled_programs.remove_damaged(folder / "compiled")
    return folder


def _writer(folder: Path) -> store.Writer:
    settings = Settings("0", "toy", "1", False, _LAYERS, 5, 50.0, "float16", "clean", 4, {})
    return store.Writer(folder / "begun", _IDS, settings)


class _Told(Predictor):
    """A model that says what it is told to."""

    def __init__(self, files: Callable[..., list[Result]]):
        self.about, self.windows_s, self._told = {"model": 1}, (10.0, 5.0), files
        self.speaker, self.is_transductive = None, False

    def files(self, *arguments: Any, **options: Any) -> list[Result]:
        """The results."""
        return self._told(*arguments, **options)


def _predict(folder: Path, files: Callable[..., list[Result]]) -> prediction.Outcome:
    found = prediction.find(folder / "workdir" / "audio")
    (folder / "scores").mkdir(exist_ok=True)
    return prediction.run(_Told(files), found, folder / "scores" / "out.csv", "csv", is_quiet=True)


def _sweep(folder: Path, sweep: Path) -> None:
    """A sweep of one program, with the training and the results of the workdir."""
    config = prepared.smallest()
    run.record(sweep, "one", plan.plan(config, axis("optim.learning_rate", (config.optim.learning_rate,))))
    program = sweep / run.FOLDER / leaderboard.run_folder(0)
    (program / "train").mkdir(parents=True)
    members = (folder / "workdir" / "train" / "members.json").read_bytes()
    (program / "train" / "members.json").write_bytes(members)
    scored = records.read(folder / "workdir" / records.FILE)
    of_development = [dataclasses.replace(record, split="development") for record in scored]
    records.write(program / leaderboard.RESULTS_FILE, of_development)
    write_status(program, Status(FINISHED))


def _of_tables(folder: Path) -> Any:
    settings = prepared.smallest().results_fields("corpus", "data")
    if (record := ingest.finished(folder / "workdir", settings)) is None:
        raise MadeAgainError
    *pair, fingerprint = tables.read_tables(folder / "workdir")
    return record, [table.to_pydict() for table in pair], fingerprint


def _of_audio(folder: Path) -> Any:
    utterances, _, _ = tables.read_tables(folder / "workdir")
    recordings = audio_batches.Recordings.of(utterances, folder / "workdir" / "audio")
    return [recordings.decode(row) for row in range(len(recordings.ids))]


def _of_store(folder: Path) -> Any:
    reader = store.Reader(folder / "workdir" / "store")
    frames = {layer: reader.read(layer, range(len(reader))) for layer in reader.layers}
    return reader.manifest, reader.utterances, reader.num_frames, frames, reader.arrays("norm")


def _of_begun(folder: Path) -> Any:
    writer = _writer(folder)
    if not all(writer.is_finished(shard) for shard in range(2)):
        raise MadeAgainError
    return [writer.sums(shard) for shard in range(2)]


@functools.cache
def _trained(folder: Path) -> tuple[Any, list[ensemble.Member]]:
    config, workdir = prepared.smallest(), folder / "workdir"
    members = ensemble.members_in(workdir, config)
    utterances, ratings, _ = tables.read_tables(workdir)
    data = Data.of(config, store.Reader(workdir / "store"), (utterances, ratings), members)
    return predictions.settings_of(config, data), members


def _of_parameters(folder: Path) -> Any:
    settings, members = _trained(folder)
    return jax.device_get(
        predictions.load_members(folder / "workdir" / "train", settings, members, sharding.make_mesh(len(members)))
    )


def _of_checkpoints(folder: Path) -> Any:
    like = jax.ShapeDtypeStruct((4, 3), np.float32)
    with warnings.catch_warnings(record=True) as said, Checkpoints(folder / "checkpoints", _RUN) as checkpoints:
        warnings.simplefilter("always")
        position, state = checkpoints.restore(lambda _: {"w": like})
    if any("damaged and skipped" in str(warning.message) for warning in said):
        raise MadeAgainError
    return position, np.asarray(state["w"])


def _of_predictions(folder: Path) -> Any:
    if not records.are_whole(folder / "workdir" / records.FILE):
        raise MadeAgainError
    return ()


def _parts(folder: Path) -> Any:
    """Predictions of blocks that an evaluation on another corpus keeps until it is finished."""
    return heard_parts.Parts(folder / "heard", {"model": "0"}).of("test_clean")


def _of_parts(folder: Path) -> Any:
    blocks = [_parts(folder).read(number, 3) for number in range(2)]
    if None in blocks:
        raise MadeAgainError
    return blocks


def _of_journal(folder: Path) -> Any:
    def again(*_: Any, **options: Any) -> list[Result]:
        raise MadeAgainError

    return _predict(folder, again).records


def _of_calibration(folder: Path) -> Any:
    trained = read_json(folder / "workdir" / "train" / predictions.STAMP_FILE, "")
    names = ensemble.names(_trained(folder)[1])
    return calibration_fit.of_members(folder / "workdir", names, trained["checkpoint_id"])


def _of_sweep(folder: Path) -> Any:
    sweep = folder / "sweep"
    manifest = read_json(sweep / run.FOLDER / leaderboard.MANIFEST_FILE, "")
    return run.name_in(sweep), manifest, leaderboard.entries(sweep / run.FOLDER, manifest)


class Kind(NamedTuple):
    """A kind of artefact.

    Attributes:
      files: Patterns of its files below the folder of `prepare`.
      read: What production reads it by, called with that folder.
    """

    files: tuple[str, ...]
    read: Callable[[Path], Any]


def _of_compiled(folder: Path) -> Any:
    # What is damaged is removed, and the next try needs it.
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(shutil.copytree(folder / "compiled", Path(temporary) / "compiled"))
        if compiled_programs.remove_damaged(copy):
            raise MadeAgainError
        return {path.name: path.read_bytes() for path in sorted(copy.glob("*-cache"))}


KINDS = {
    "tables": Kind(("workdir/*.parquet",), _of_tables),
    "ingest": Kind(("workdir/ingest.json",), _of_tables),
    "findings": Kind(("workdir/validation/validation.json",), lambda folder: validation.read(folder / "workdir")),
    "audio": Kind(("workdir/audio/**/*.flac",), _of_audio),
    "store": Kind(("workdir/store/*.parquet", "workdir/store/*.npz", "workdir/store/manifest.json"), _of_store),
    "shards": Kind(("workdir/store/layer_*/*",), _of_store),
    "unfinished store": Kind(("begun/**/*",), _of_begun),
    "saliency sums": Kind(("workdir/saliency.npz",), lambda folder: ranking.read(folder / "workdir")),
    "saliency": Kind(("workdir/saliency.json",), lambda folder: ensemble.chosen_layer(folder / "workdir")),
    "parameters": Kind(("workdir/train/best/**/*",), _of_parameters),
    "checkpoints": Kind(("checkpoints/**/*",), _of_checkpoints),
    "training": Kind(("workdir/train/finished.json",), _of_parameters),
    "settings": Kind(("workdir/train/config.json",), lambda folder: read_config(folder / "workdir" / "train")),
    "log": Kind(("workdir/train/log.jsonl", "workdir/train/members.json"), lambda f: report.load(f / "workdir")),
    "predictions": Kind(("workdir/predictions/*.parquet",), _of_predictions),
    "calibration": Kind(("workdir/calibration.json",), _of_calibration),
    "results": Kind(("workdir/results.jsonl",), lambda folder: records.read(folder / "workdir" / records.FILE)),
    "model": Kind(("model/*",), lambda folder: model_folder.read(folder / "model")),
    "heard parts": Kind(("heard/*.npz",), _of_parts),
    "journal": Kind(("scores/out.csv.journal.jsonl",), _of_journal),
    "sweep": Kind(("sweep/sweep/*.json", "sweep/sweep/runs/**/*.json*"), _of_sweep),
    "compiled programs": Kind(("compiled/*",), _of_compiled),
}


def frozen(value: Any) -> Any:
    """A value as something that can be compared bit by bit."""
    if isinstance(value, dict):
        return [(str(key), frozen(item)) for key, item in value.items()]
    if dataclasses.is_dataclass(value):
        return [frozen(getattr(value, field.name)) for field in dataclasses.fields(value)]
    if isinstance(value, list | tuple):
        return [frozen(item) for item in value]
    if hasattr(value, "__array__"):
        array = np.asarray(value)
        return array.dtype.str, array.shape, array.tobytes()
    return repr(value)


def tries(folder: Path, kind: Kind, num_tries: int, seed: int = 0) -> Iterator[Try]:
    """Damages one file after the other at random, reads it, and puts it back."""
    files = sorted({path for pattern in kind.files for path in folder.glob(pattern) if path.is_file()})
    files = [path for path in files if path.stat().st_size]
    rng, whole = np.random.default_rng(seed), frozen(kind.read(folder))
    for number in range(num_tries):
        path = files[rng.integers(len(files))]
        content = path.read_bytes()
        place, bit = int(rng.integers(len(content))), int(rng.integers(8))
        where = f"{path.relative_to(folder)}, {len(content)} bytes, cut off at {place}"
        damaged = content[:place]
        if number % _TRUNCATED:
            where = f"{path.relative_to(folder)}, byte {place} of {len(content)}, bit {bit}"
            damaged = damaged + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]
        path.write_bytes(damaged)
        try:
            yield _outcome(folder, path, kind, whole, where)
        finally:
            path.write_bytes(content)


def _outcome(folder: Path, path: Path, kind: Kind, whole: Any, where: str) -> Try:
    try:
        return Try(EQUAL, where) if frozen(kind.read(folder)) == whole else Try(ACCEPTED, f"{where}: other numbers")
    except MadeAgainError:
        return Try(AGAIN, where)
    except Exception as error:
        if not type(error).__module__.startswith("seremo_jax"):
            return Try(RAISED, f"{where}: {type(error).__name__}: {error}")
        is_named = str(path) in str(error)
        return Try(REFUSED if is_named else RAISED, f"{where}: {'' if is_named else 'not named: '}{error}")


def main(arguments: list[str]) -> int:
    """Prints the outcomes of each kind, and each damage that was not noticed; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flips", type=int, default=300, help="damages a kind")
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=list(KINDS), help="which kinds")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    logging.set_verbosity(logging.FATAL)
    wrong = []
    with tempfile.TemporaryDirectory() as temporary:
        factory = types.SimpleNamespace(getbasetemp=lambda: Path(temporary))
        folder = prepare(Path(temporary) / "damage", prepared.finished(factory))
        print(f"{'kind':18s}" + "".join(f"{name:>12s}" for name in (REFUSED, AGAIN, EQUAL, ACCEPTED, RAISED)))
        for name in options.kinds:
            made = list(tries(folder, KINDS[name], options.flips, options.seed))
            number = collections.Counter(item.outcome for item in made)
            print(f"{name:18s}" + "".join(f"{number[word]:12d}" for word in (REFUSED, AGAIN, EQUAL, ACCEPTED, RAISED)))
            wrong += [f"{name}: {item.words}" for item in made if item.outcome in (ACCEPTED, RAISED)]
            sys.stdout.flush()
    print("\n".join(wrong))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
