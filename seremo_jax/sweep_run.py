"""Walks the programs of a sweep: shared extraction, training, evaluation; what is finished is skipped.

WORKDIR/sweep/manifest.json   the plan: every program with its settings and its folder, written once
WORKDIR/sweep/stages/NN/      tables, hidden states, saliency, where they are not those of the workdir itself
WORKDIR/sweep/runs/NNN/       a program: a workdir like any other, whose first artefacts are links; status.json
"""

import contextlib
import dataclasses
import fcntl
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from seremo_jax import ensemble, evaluate, extract, ingest, ranking, sharding, sweep_plan, sweep_table, tables, train
from seremo_jax.artefacts import atomic_path, read_json, require_same, to_json, write_json
from seremo_jax.config import Config, ConfigError, from_config_dict
from seremo_jax.manifest import MANIFEST_FILE
from seremo_jax.preemption import PreemptedError
from seremo_jax.store import Reader
from seremo_jax.sweep import SweepError

FOLDER, STATUS_FILE = "sweep", "status.json"
WAITING, FINISHED, FAILED = "waiting", "finished", "failed"
_NUM_TRIES = 2
_LINKS = ("utterances.parquet", "ratings.parquet", "ingest.json", "store", "saliency.npz", "saliency.json", "audio")
_REMEDY = "Use another --workdir, or delete the folder sweep of this one."


def record(workdir: str | os.PathLike, name: str, made: sweep_plan.Plan) -> dict[str, Any]:
    """The manifest of a sweep: written where there is none, else the one that is there, however it was packed.

    Raises:
      ArtefactError: The workdir holds another sweep, or the same one under other settings.
    """
    path = Path(workdir) / FOLDER / sweep_table.MANIFEST_FILE
    if not path.exists() and sharding.is_first_process():
        content = {"sweep": name, "fingerprint": made.fingerprint, "points": made.points, "swept": made.swept}
        content["programs"] = [dataclasses.asdict(program) for program in made.programs]
        with atomic_path(path.with_suffix(".new")) as temporary:
            temporary.write_text(to_json(content, indent=2) + "\n", encoding="utf-8")
            # Tasks of an array may come at once, and see other devices: the first one's packing is everyone's.
            with contextlib.suppress(FileExistsError):
                os.link(temporary, path)
        path.with_suffix(".new").unlink(missing_ok=True)
    sharding.wait_for_all("sweep: manifest")
    found = read_json(path, _REMEDY)
    mine = {"sweep": name, "fingerprint": made.fingerprint}
    require_same(f"the sweep in {path}", {key: found[key] for key in mine}, mine, _REMEDY)
    return found


def name_in(workdir: str | os.PathLike) -> str:
    """Name of the sweep that a workdir holds.

    Raises:
      ArtefactError: It holds none.
    """
    remedy = "say which sweep of the recipe: --sweep=NAME"
    return read_json(Path(workdir) / FOLDER / sweep_table.MANIFEST_FILE, remedy)["sweep"]


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
        one = _Run(workdir, i, programs[i]["stage"], from_config_dict(programs[i]["config"]), is_quiet)
        failures += one.finish()
    if sharding.is_first_process():
        sweep_table.write(workdir / FOLDER, manifest)
    return failures


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
        return self.workdir / FOLDER / sweep_table.run_folder(self.index)

    def finish(self) -> list[str]:
        """Runs what is left of it; returns what failed."""
        path = self.folder / STATUS_FILE
        status = read_json(path, _REMEDY) if path.exists() else {"parts": [self._all()], "left_out": []}
        if status.get("status") == FINISHED:
            self._say("finished before")
            return self._failures(status)
        num_tries, has_split = 0, len(status["parts"]) > 1
        while True:
            num_tries += 1
            self._write(status, WAITING)
            try:
                self._attempt(status["parts"])
                self._write(status, FINISHED)
                return self._failures(status)
            except PreemptedError:
                raise
            except train.NothingToKeepError as error:
                status = self._without(status, error)
                if not status["parts"]:
                    return self._give_up(status, str(error))
                num_tries -= 1
            except Exception as error:
                if jax.process_count() > 1:
                    raise  # the other processes may know nothing of it: the job ends, and may be started again
                if _is_out_of_memory(error) and not has_split and len(status["parts"][0]) > 1:
                    self._say("out of device memory: its members train in two halves")
                    self._clear(status["parts"])
                    middle = -(-len(status["parts"][0]) // 2)
                    status["parts"] = [status["parts"][0][:middle], status["parts"][0][middle:]]
                    num_tries, has_split = 0, True
                elif num_tries == _NUM_TRIES or isinstance(error, ConfigError):
                    return self._give_up(status, f"{type(error).__name__}: {error}")
                else:
                    self._say(f"{type(error).__name__}: {error}; tried once more")

    def _all(self) -> list[int]:
        chosen = self._members(0)
        return list(range(len(chosen)))

    def _members(self, chosen_layer: int | None) -> list[ensemble.Member]:
        return ensemble.members(self.config, chosen_layer)

    def _parts(self, parts: Sequence[Sequence[int]]) -> list[tuple[Path, list[int]]]:
        """Folder and members of each training of this program."""
        if len(parts) == 1:
            return [(self.folder, list(parts[0]))]
        return [(self.folder / f"part{i}", list(part)) for i, part in enumerate(parts)]

    def _attempt(self, parts: Sequence[Sequence[int]]) -> None:
        stage = self.workdir if self.stage == "." else self.workdir / FOLDER / self.stage
        with _locked(stage):
            prepare(self.config, stage, self.is_quiet or (stage / "store" / MANIFEST_FILE).exists())
        for folder, members in self._parts(parts):
            if (folder / sweep_table.RESULTS_FILE).exists():
                continue
            is_whole = len(members) == len(self._all())
            config = self.config if is_whole else sweep_plan.keep(self.config, members)
            if sharding.is_first_process():
                _link(stage, folder)
            sharding.wait_for_all(f"sweep: {folder} linked")
            try:
                self._train(config, folder)
            except train.NothingToKeepError as error:
                raise train.NothingToKeepError(str(error), [members[i] for i in error.members]) from None
            results = evaluate.run(config, folder, is_quiet=True)
            if sharding.is_first_process():
                # Another name than that of a later evaluation on the test split, which has no say here.
                os.replace(results, folder / sweep_table.RESULTS_FILE)
            sharding.wait_for_all(f"sweep: {folder} evaluated")

    def _train(self, config: Config, folder: Path) -> None:
        utterances, ratings, fingerprint = tables.read_tables(folder)
        reader = Reader(folder / "store")
        reader.require(tables_fingerprint=fingerprint)
        members = ensemble.members(config, ensemble.chosen_layer(folder))
        mesh = sharding.make_mesh(len(members), config.train.data_shards)
        options = {"members": members, "workdir": folder, "is_quiet": self.is_quiet}
        train.train(config, reader, (utterances, ratings), mesh, **options)

    def _without(self, status: dict[str, Any], error: train.NothingToKeepError) -> dict[str, Any]:
        """The status once these members are left out; their companions start anew, as they are no part of another."""
        self._say(f"{len(error.members)} members never had a score: left out, and the others trained without them")
        parts = self._parts(status["parts"])
        for folder, members in parts:
            if set(members) & set(error.members):
                self._clear([members], folder)
        kept = [[i for i in part if i not in error.members] for part in status["parts"]]
        if len(parts) > 1 and not all(kept):
            self._clear(status["parts"])
        return {"parts": [part for part in kept if part], "left_out": [*status["left_out"], *error.members]}

    def _clear(self, parts: Sequence[Sequence[int]], only: Path | None = None) -> None:
        if sharding.is_first_process():
            for folder in [only] if only else [folder for folder, _ in self._parts(parts)]:
                shutil.rmtree(folder / "train", ignore_errors=True)
                (folder / sweep_table.RESULTS_FILE).unlink(missing_ok=True)
        sharding.wait_for_all(f"sweep: {self.folder} cleared of {parts}")

    def _give_up(self, status: dict[str, Any], reason: str) -> list[str]:
        self._write(status, FAILED, reason)
        self._say(f"failed: {reason}")
        return self._failures(status | {"status": FAILED, "error": reason})

    def _failures(self, status: dict[str, Any]) -> list[str]:
        if status.get("status") == FAILED:
            return [f"program {self.index}: {status['error']}"]
        names = ensemble.names(self._members(0))
        advice = "never had a development score: lower optim.learning_rate"
        return [f"program {self.index}, {names[i]}: {advice}" for i in status["left_out"]]

    def _write(self, status: dict[str, Any], word: str, error: str = "") -> None:
        if sharding.is_first_process():
            write_json(self.folder / STATUS_FILE, status | {"status": word, "error": error})

    def _say(self, text: str) -> None:
        if not self.is_quiet and sharding.is_first_process():
            print(f"program {self.index}: {text}", file=sys.stderr, flush=True)


def prepare(config: Config, stage: Path, is_quiet: bool) -> None:
    """Tables, hidden states and saliency of a stage; what is there already is left."""
    if sharding.is_first_process():
        ingest.run(config, stage, is_quiet=True)
    sharding.wait_for_all(f"sweep: {stage} ingested")
    extract.run(config, stage, is_quiet=is_quiet, mesh=sharding.make_data_mesh())
    if sharding.is_first_process():
        ranking.summarise(stage, config)
    sharding.wait_for_all(f"sweep: {stage} extracted")


@contextlib.contextmanager
def _locked(stage: Path) -> Iterator[None]:
    """Keeps tasks of an array from preparing a stage at once; the system lets go of it when its process ends."""
    if not sharding.is_first_process():
        yield
        return
    stage.mkdir(parents=True, exist_ok=True)
    with open(stage / ".sweep.lock", "w", encoding="utf-8") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        yield


def _link(stage: Path, folder: Path) -> None:
    """Links what a program shares with others into its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in _LINKS:
        if (stage / name).exists() and not (folder / name).is_symlink():
            (folder / name).symlink_to(os.path.relpath(stage / name, folder), (stage / name).is_dir())


def _is_out_of_memory(error: Exception) -> bool:
    text = str(error)
    return isinstance(error, MemoryError) or ("RESOURCE_EXHAUSTED" in text and "No space left" not in text)
