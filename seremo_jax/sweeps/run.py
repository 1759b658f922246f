"""Walks the programs of a sweep: shared extraction, training, evaluation; what is finished is skipped.

WORKDIR/sweep/manifest.json   the plan: every program with its settings and its folder, written once
WORKDIR/sweep/stages/NN/      tables, hidden states, saliency, where they are not those of the workdir itself
WORKDIR/sweep/runs/NNN/       a program: a workdir like any other, whose first artefacts are links; status.json
WORKDIR/sweep/best/           the same for the best system, with a recipe for it, to train and to evaluate
"""

import contextlib
import dataclasses
import gc
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from seremo_jax.core import ensemble, lock, sharding
from seremo_jax.core.artefacts import atomic_path, read_json, remove_leftovers, require_same, sealed, to_json
from seremo_jax.core.config import Config, ConfigError, from_config_dict
from seremo_jax.core.preemption import PreemptedError
from seremo_jax.data import ingest
from seremo_jax.evaluation import evaluate
from seremo_jax.features import extract
from seremo_jax.features.manifest import MANIFEST_FILE
from seremo_jax.saliency import ranking
from seremo_jax.sweeps import leaderboard, plan
from seremo_jax.sweeps.algebra import SweepError
from seremo_jax.sweeps.status import FAILED, FINISHED, Status, read_status, write_status
from seremo_jax.training import memory, train

FOLDER = "sweep"
_NUM_TRIES = 2
_LINKS = (
    "utterances.parquet",
    "ratings.parquet",
    "ingest.json",
    "store",
    "copies",
    "saliency*.npz",
    "saliency.json",
    "audio",
    memory.FILE,
)
_REMEDY = "Use another --workdir, or delete the folder sweep of this one."


def record(workdir: str | os.PathLike, name: str, planned: plan.Plan) -> dict[str, Any]:
    """The manifest of a sweep: written where there is none, else the one that is there, however it was packed.

    Raises:
      ArtefactError: The workdir holds another sweep, or the same one under other settings.
    """
    path = Path(workdir) / FOLDER / leaderboard.MANIFEST_FILE
    with _locked(path.parent):
        if sharding.is_first_process():
            remove_leftovers(path.parent)
            if not path.exists():
                _write_manifest(path, name, planned)
            path.with_suffix(".new").unlink(missing_ok=True)
    sharding.wait_for_all("sweep: manifest")
    manifest = read_json(path, _REMEDY)
    expected = {"sweep": name, "fingerprint": planned.fingerprint}
    require_same(f"the sweep in {path}", {key: manifest[key] for key in expected}, expected, _REMEDY)
    return manifest


def _write_manifest(path: Path, name: str, planned: plan.Plan) -> None:
    content = {"sweep": name, "fingerprint": planned.fingerprint, "points": planned.points}
    content |= {"swept": planned.swept, "eval": planned.evaluation}
    content["programs"] = [dataclasses.asdict(program) for program in planned.programs]
    with atomic_path(path.with_suffix(".new")) as temporary:
        temporary.write_text(to_json(sealed(content), indent=2) + "\n", encoding="utf-8")
        # Tasks of an array may come at once where no lock is, and see other devices: the first one's packing is
        # everyone's.
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)


def name_in(workdir: str | os.PathLike) -> str:
    """Name of the sweep that a workdir holds.

    Raises:
      ArtefactError: It holds none.
    """
    remedy = "say which sweep of the recipe: --sweep=NAME"
    return read_json(Path(workdir) / FOLDER / leaderboard.MANIFEST_FILE, remedy)["sweep"]


def run(
    workdir: str | os.PathLike, manifest: dict[str, Any], indices: Sequence[int] | None = None, is_quiet: bool = False
) -> list[str]:
    """Runs programs one after the other, those that failed before once more; one that fails does not stop the others.

    Args:
      workdir: Folder of the sweep.
      manifest: What `record` returned.
      indices: Numbers of the programs; None means all.
      is_quiet: Shows no progress.

    Returns:
      What failed, one line a program or member.

    Raises:
      SweepError: There is no program of such a number.
      PreemptedError: A signal asked to stop; the same command goes on from there.
    """
    workdir, programs = Path(workdir), manifest["programs"]
    if wrong := [i for i in indices or () if not 0 <= i < len(programs)]:
        raise SweepError(f"program {wrong[0]}: the sweep has the programs 0 to {len(programs) - 1}")
    failures = []
    for i in range(len(programs)) if indices is None else indices:
        program = _Run(workdir, i, programs[i]["stage"], from_config_dict(programs[i]["config"]), is_quiet)
        failures += program.finish()
        if sharding.is_first_process():
            with _locked(workdir / FOLDER):
                for folder in (workdir / FOLDER, workdir / FOLDER / leaderboard.BEST_FOLDER):
                    remove_leftovers(folder)
                _show(workdir, manifest)
    return failures


def _show(workdir: Path, manifest: dict[str, Any]) -> None:
    """Writes what is known so far, and the folder of the best system."""
    if systems := leaderboard.write(workdir / FOLDER, manifest):
        stage = _stage_folder(workdir, manifest["programs"][systems[0].program]["stage"])
        _link(stage, workdir / FOLDER / leaderboard.BEST_FOLDER)


def _stage_folder(workdir: Path, stage: str) -> Path:
    return workdir if stage == "." else workdir / FOLDER / stage


@dataclasses.dataclass(frozen=True)
class _Run:
    """A program of a sweep, and where it lives."""

    workdir: Path
    index: int
    stage: str
    config: Config
    is_quiet: bool

    @property
    def folder(self) -> Path:
        """Its folder."""
        return self.workdir / FOLDER / leaderboard.run_folder(self.index)

    def finish(self) -> list[str]:
        """Runs what is left of it; returns what failed."""
        with _locked(self.folder, waits=False) as is_ours:
            if not is_ours and jax.process_count() > 1:
                raise SweepError(f"program {self.index}: another job is at it")
            if not is_ours:
                self._say("another process is at it: left to that one")
                return []
            return self._finish()

    def _finish(self) -> list[str]:
        if sharding.is_first_process():
            remove_leftovers(self.folder)
        status = read_status(self.folder)
        if status.word == FINISHED:
            self._say("finished before")
            return self._failures(status)
        status = Status(left_out=status.left_out)
        num_tries = 0
        while True:
            num_tries += 1
            self._write(status)
            try:
                self._attempt(status.trained(len(self._members())))
            except PreemptedError:
                raise
            except train.NothingToKeepError as error:
                # Training without them is another attempt and no further try: nothing went wrong for the others.
                status, num_tries = self._without(status, error.members), num_tries - 1
                if not status.trained(len(self._members())):
                    return self._give_up(status, str(error))
            except Exception as error:
                if jax.process_count() > 1:
                    raise  # the other processes may know nothing of it: the job ends, and may be started again
                if num_tries == _NUM_TRIES or isinstance(error, ConfigError):
                    return self._give_up(status, f"{type(error).__name__}: {error}{_advice(error)}")
                self._say(f"{type(error).__name__}: {error}; tried once more")
            else:
                status = dataclasses.replace(status, word=FINISHED)
                self._write(status)
                return self._failures(status)
            gc.collect()  # what failed leaves arrays behind in its traceback

    def _members(self) -> list[ensemble.Member]:
        return ensemble.members(self.config, 0)

    def _attempt(self, members: Sequence[int]) -> None:
        """Trains and scores these members of the program, unless their scores are there already."""
        stage, folder = _stage_folder(self.workdir, self.stage), self.folder
        with _locked(stage):
            prepare(self.config, stage, self.is_quiet or (stage / "store" / MANIFEST_FILE).exists())
        if (folder / leaderboard.RESULTS_FILE).exists():
            return
        is_whole = len(members) == len(self._members())
        config = self.config if is_whole else plan.keep(self.config, members)
        if sharding.is_first_process():
            _link(stage, folder)
        sharding.wait_for_all(f"sweep: {folder} linked")
        try:
            train.run(config, folder, is_quiet=self.is_quiet)
        except train.NothingToKeepError as error:
            raise train.NothingToKeepError(str(error), [members[i] for i in error.members]) from None
        results = evaluate.run(config, folder, is_quiet=True)
        sharding.wait_for_all(f"sweep: {folder} evaluated")
        if sharding.is_first_process():
            # Another name than that of a later evaluation on the test split, which has no say here.
            os.replace(results, folder / leaderboard.RESULTS_FILE)
        sharding.wait_for_all(f"sweep: {folder} kept")

    def _without(self, status: Status, failed: Sequence[int]) -> Status:
        """The status once these members are left out; their companions start anew, as the ensemble is another one."""
        left_out = plan.in_all_folds(self.config, failed)
        self._say(f"{len(left_out)} members never had a score: left out, and the others trained without them")
        if sharding.is_first_process():
            shutil.rmtree(self.folder / "train", ignore_errors=True)
            (self.folder / leaderboard.RESULTS_FILE).unlink(missing_ok=True)
        sharding.wait_for_all(f"sweep: {self.folder} cleared")
        return dataclasses.replace(status, left_out=(*status.left_out, *left_out))

    def _give_up(self, status: Status, reason: str) -> list[str]:
        status = dataclasses.replace(status, word=FAILED, error=reason)
        self._write(status)
        self._say(f"failed: {reason}")
        return self._failures(status)

    def _failures(self, status: Status) -> list[str]:
        if status.word == FAILED:
            return [f"program {self.index}: {status.error}"]
        names = ensemble.names(self._members())
        advice = "never had a development score: lower optim.learning_rate"
        return [f"program {self.index}, {names[place]}: {advice}" for place in status.left_out]

    def _write(self, status: Status) -> None:
        if sharding.is_first_process():
            write_status(self.folder, status)

    def _say(self, text: str) -> None:
        if not self.is_quiet and sharding.is_first_process():
            print(f"program {self.index}: {text}", file=sys.stderr, flush=True)


def ingest_tables(config: Config, workdir: str | os.PathLike) -> None:
    """Makes the tables of the recipe's own stage, which lie in the workdir of the sweep."""
    with _locked(Path(workdir)):
        _ingest(config, Path(workdir), "to plan")


def prepare(config: Config, stage: Path, is_quiet: bool) -> None:
    """Tables, hidden states and saliency of a stage; what is there already is left."""
    _ingest(config, stage, "to train")
    extract.run(config, stage, is_quiet=is_quiet, mesh=sharding.make_data_mesh())
    if sharding.is_first_process():
        ranking.summarise(stage, config)
    sharding.wait_for_all(f"sweep: {stage} extracted")


def _ingest(config: Config, stage: Path, why: str) -> None:
    if sharding.is_first_process():
        ingest.run(config, stage, is_quiet=True)
    sharding.wait_for_all(f"sweep: {stage} ingested {why}")


@contextlib.contextmanager
def _locked(folder: Path, waits: bool = True) -> Iterator[bool]:
    """Keeps tasks of an array from working in a folder at once; the system lets go of it when its process ends.

    Yields whether the folder is this task's; without waiting for it, it may be another's.
    """
    if not sharding.is_first_process():
        yield True
        return
    with lock.held(folder / ".sweep.lock", waits, about="sweep") as (is_ours, _):
        yield is_ours


def _link(stage: Path, folder: Path) -> None:
    """Links what a program shares with others into its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (path.name for pattern in _LINKS for path in sorted(stage.glob(pattern))):
        # Relative, so that a workdir can be moved.
        target = os.path.relpath(stage / name, folder)
        if (folder / name).is_symlink() and os.readlink(folder / name) == target:
            continue
        with atomic_path(folder / name) as temporary:
            temporary.symlink_to(target, (stage / name).is_dir())


def _advice(error: Exception) -> str:
    """What to do about an error that more tries cannot mend; empty for all others."""
    is_out_of_memory = isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)
    if not is_out_of_memory or "No space left" in str(error):
        return ""
    return "; the members of this program do not fit into memory: begin the sweep anew with a smaller --max_members"
