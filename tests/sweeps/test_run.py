"""Sweeps from the recipe to the leaderboard, on a tiny simulated corpus: programs, resuming, failures, memory."""

import collections
import csv
import logging
import os
import re
import shutil
import signal
import subprocess
import sys

import jax
import pytest
from absl import flags
from absl.testing import flagsaver

from configs import simulated
from launch import sweep as launcher
from seremo_jax.core.artefacts import ArtefactError, read_json, write_json
from seremo_jax.core.config import from_config_dict
from seremo_jax.evaluation import evaluate
from seremo_jax.evaluation import records as result_records
from seremo_jax.sweeps import plan, run
from seremo_jax.sweeps.algebra import SweepError, axis, product, zipped
from seremo_jax.training import train
from tests.support.prepared import extracted

RECIPE = """
from configs import simulated
from seremo_jax.sweeps.algebra import axis, product

def get_config(arg=""):
    config = simulated.get_config("tiny")
    config.ensemble.class_targets, config.ensemble.seeds = (), (0,)
    config.train.max_epochs = 1
    config.model.gru_layers, config.model.gru_units, config.model.embedding_size = 1, 4, 4
    config.eval.num_resamples, config.eval.num_permutations = 20, 20
    return config

def sweep_shapes():
    yield from axis("model.gru_units", (4, 6))
"""
_recipe = {}
exec(RECIPE, _recipe)
BASE = from_config_dict(_recipe["get_config"]())
EVERY_SPEAKER = zipped(
    axis("loss.speaker_balance", (0.0, 1.0, 0.0, 0.5, 1.0)),
    axis("loss.group_balance", (0.0, 0.0, 0.5, 1.0, 0.5)),
    axis("loss.objective", ("mean", "cvar", "group_dro", "vrex", "mean")),
    axis("loss.closeness_weight", (0.0, 0.5, 0.0, 0.2, 0.5)),
    axis("train.mixup", (0.0, 0.2, 0.4, 0.0, 0.4)),
    axis("model.speaker_kappa_s", ("inf", 10.0, 0.0, "inf", 2.5)),
)
VALUES = product(
    EVERY_SPEAKER,
    axis("optim.learning_rate", (1e-3, 2e-3)),
    axis("loss.class_kind", ("ccc", "kl")),
    axis("train.seed", (3, 4)),
)
SHAPES = axis("model.gru_units", (4, 6))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Workdir with tables, store and saliency, made by `run.prepare`."""
    return extracted(tmp_path_factory, from_config_dict(simulated.get_config("tiny")), "simulated-tiny")


@pytest.fixture
def workdir(prepared, tmp_path):
    """A copy of it."""
    return shutil.copytree(prepared, tmp_path / "w")


@pytest.fixture(scope="module")
def swept(prepared, tmp_path_factory):
    """Folder of a finished sweep over values, what was compiled for it, and the splits that were scored."""
    workdir = shutil.copytree(prepared, tmp_path_factory.mktemp("swept") / "w")
    lines, splits, split = [], [], evaluate._Job.split
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())

    def noted(self, name, folder):
        splits.append(name)
        return split(self, name, folder)

    with pytest.MonkeyPatch.context() as patch, jax.log_compiles():
        patch.setattr(evaluate._Job, "split", noted)
        logging.getLogger("jax").addHandler(handler)
        assert _sweep(workdir, VALUES) == []
        logging.getLogger("jax").removeHandler(handler)
    return workdir, re.findall(r"Finished XLA compilation of jit\((\w+)\)", "\n".join(lines)), splits


def _sweep(workdir, points, indices=None):
    manifest = run.record(workdir, "test", plan.plan(BASE, points))
    return run.run(workdir, manifest, indices, is_quiet=True)


def _rows(workdir):
    with open(workdir / "sweep" / "leaderboard.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _status(workdir, index=0):
    return read_json(workdir / "sweep" / "runs" / f"{index:03d}" / "status.json", "")


def test_40_points_of_different_values_compile_one_training(swept):
    workdir, compiled, _ = swept
    assert len(VALUES) == 40
    counts = collections.Counter(compiled)
    assert (counts["_train_step"], counts["_predict_step"]) == (1, 2)  # once while training, once to evaluate
    rows = _rows(workdir)
    assert len(rows) == 20
    assert {row["seeds"] for row in rows} == {"3 4"}
    fields = [path for path in VALUES[0] if path != "train.seed"]
    asked = {tuple(str(point[path]) for path in fields) for point in VALUES}
    assert {tuple(row[path] for path in fields) for row in rows} == asked


def test_the_leaderboard_is_sorted_by_the_development_split_alone(swept):
    workdir, _, splits = swept
    assert splits == ["development"]
    scores = [float(row["UAR value"]) for row in _rows(workdir)]
    assert scores == sorted(scores, reverse=True)
    text = (workdir / "sweep/leaderboard.md").read_text()
    assert "Split development, sorted by UAR" in text
    assert len(re.findall(r"^\|.*\b(?:ccc|kl)\b.*\|$", text, re.MULTILINE)) == 20
    assert text.count("\n| one human rater ") == 1
    figure = (workdir / "sweep/leaderboard.svg").read_text()
    for word in ("Sweep test", "learning_rate", "development split"):
        assert word in figure


def test_what_killed_tasks_left_half_written_goes_with_the_next_one(swept):
    folder = swept[0] / "sweep"
    names = (".manifest.new.ab.tmp", ".leaderboard.md.ab.tmp", "best/.recipe.py.ab.tmp", "runs/000/.store.ab.tmp")
    for name in names:
        (folder / name).mkdir()
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    (folder / "manifest.new").touch()
    assert _sweep(swept[0], VALUES) == []
    assert [name for name in (*names, "manifest.new") if (folder / name).exists()] == []
    # A finished sweep may be read-only, so nothing is written again.
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == before


def test_the_best_system_trained_alone_scores_what_it_scored_in_company(swept):
    workdir, _, _ = swept
    best, folder, recipe = _rows(workdir)[0], workdir / "sweep" / "best", {}
    exec((folder / "recipe.py").read_text(), recipe)
    config = from_config_dict(recipe["get_config"]())
    assert (str(config.optim.learning_rate), config.loss.class_kind) == (
        best["optim.learning_rate"],
        best["loss.class_kind"],
    )
    assert (config.ensemble.seeds, config.eval.splits) == ((3, 4), ("test",))
    train.run(config, folder, is_quiet=True)
    alone, together = (read_json(path / "train/finished.json", "") for path in (folder, workdir / "sweep/runs/000"))
    scores = {tuple(m.values()): score for m, score in zip(together["members"], together["best_score"], strict=True)}
    for member, score in zip(alone["members"], alone["best_score"], strict=True):
        assert score == pytest.approx(scores[tuple(member.values())], abs=1e-6)
    # A later look at the test split changes no leaderboard.
    before = (workdir / "sweep/leaderboard.md").read_text()
    evaluate.run(config, folder, is_quiet=True)
    assert _sweep(workdir, VALUES) == []
    assert (workdir / "sweep/leaderboard.md").read_text() == before


def _launch(tmp_path, workdir, *options):
    recipe = tmp_path / "recipe.py"
    recipe.write_text(RECIPE)
    with flagsaver.flagsaver(), pytest.MonkeyPatch.context() as patch:
        flags.FLAGS(["sweep", *options])
        patch.setattr(launcher.cli, "recipe", lambda: recipe)
        launcher.main(BASE, str(workdir))


@pytest.fixture(scope="module")
def shapes(prepared, tmp_path_factory):
    """Folder of a finished sweep of two programs."""
    workdir = shutil.copytree(prepared, tmp_path_factory.mktemp("shapes") / "w")
    _launch(workdir.parent, workdir, "--sweep=shapes")
    return workdir


def test_all_systems_of_a_program_are_scored_on_the_test_split_by_its_own_recipe(shapes):
    # A program of its own, so that no other test finds records of the test split in its folder.
    folder, recipe = shapes / "sweep" / "runs" / "001", {}
    exec((folder / "recipe.py").read_text(), recipe)
    config, trained = from_config_dict(recipe["get_config"]()), read_json(folder / "train/finished.json", "")
    assert (config.model.gru_units, config.eval.splits) == (6, ("test",))
    records = result_records.read(evaluate.run(config, folder, is_quiet=True))
    assert {record.split for record in records} == {"test"}
    assert f"--config={folder / 'recipe.py'}".replace("001", "000") in (shapes / "sweep/leaderboard.md").read_text()
    assert read_json(folder / "train/finished.json", "") == trained
    (folder / "results.jsonl").unlink()


@pytest.mark.parametrize("how", ["asked to stop", "killed"])
def test_what_was_cut_off_goes_on_and_what_is_finished_stays(tmp_path, workdir, shapes, monkeypatch, how):
    class KilledError(BaseException):
        pass

    original, calls = train._summary, []

    def cut(*arguments):
        calls.append(None)
        if len(calls) == 2 and how == "killed":
            raise KilledError
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(train, "_summary", cut)
        with pytest.raises((KilledError, SystemExit)) as caught:
            _launch(tmp_path, workdir, "--sweep=shapes")
    assert how == "killed" or caught.value.code == 75
    assert [_status(workdir, i)["status"] for i in (0, 1)] == ["finished", "waiting"]
    assert "program 1: waiting" in (workdir / "sweep/leaderboard.md").read_text()
    assert len(_rows(workdir)) == 1
    stamp = workdir / "sweep/runs/000/train/finished.json"
    before = stamp.stat().st_mtime_ns
    _launch(tmp_path, workdir)
    assert stamp.stat().st_mtime_ns == before
    assert _rows(workdir) == _rows(shapes)


def test_tasks_of_an_array_share_the_programs(tmp_path, shapes, monkeypatch):
    ran = []
    monkeypatch.setattr(run, "run", lambda workdir, manifest, numbers: ran.append(list(numbers)) or [])
    for options in ([], ["--index=1"], *([f"--index={i}", "--num_tasks=3"] for i in (1, 2, 3))):
        _launch(tmp_path, shapes, *options)
    assert ran == [[0, 1], [1], [1], [], [0]]


def test_a_dry_run_prints_the_plan_and_starts_nothing(tmp_path, prepared, capsys):
    for workdir in (tmp_path / "nothing", prepared):
        _launch(tmp_path, workdir, "--sweep=shapes", "--dry-run")
        printed = capsys.readouterr().out
        assert "2 points, 2 members, 2 programs (3 large compilations each" in printed
        assert re.search(r"program 1: 1 members of [\d,]+ parameters, about \d+ MiB", printed)
        assert ("time: not known before" in printed) == (workdir != prepared)
        assert ("trained one after the other: at most" in printed) == (workdir == prepared)
        assert not (workdir / "sweep").exists()
    _launch(tmp_path, prepared, "--sweep=shapes", "--dry-run", "--max-members=1")


def test_a_failure_is_tried_once_more_reported_and_does_not_stop_the_others(workdir, shapes, monkeypatch):
    original, calls = train.train, []

    def fail(config, *arguments, **options):
        calls.append(config.model.gru_units)
        if config.model.gru_units == 4:
            raise RuntimeError("the bus is full")
        return original(config, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(train, "train", fail)
        assert _sweep(workdir, SHAPES) == ["program 0: RuntimeError: the bus is full"]
    assert calls == [4, 4, 6]
    assert "- program 0: failed RuntimeError: the bus is full" in (workdir / "sweep/leaderboard.md").read_text()
    assert [row["program"] for row in _rows(workdir)] == ["1"]
    assert _sweep(workdir, SHAPES) == []
    assert _rows(workdir) == _rows(shapes)


def test_members_that_do_not_fit_into_memory_fail_and_the_flag_is_named(workdir, monkeypatch):
    sizes = []

    def needs_room(*arguments, members, **options):
        sizes.append(len(members))
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 123 bytes")

    monkeypatch.setattr(train, "train", needs_room)
    (failure,) = _sweep(workdir, axis("optim.learning_rate", (1e-3, 2e-3)))
    assert "RESOURCE_EXHAUSTED" in failure
    assert "a smaller --max_members" in failure
    assert sizes == [2, 2]


def test_a_status_of_earlier_versions_is_read_and_one_in_parts_is_refused(workdir, swept):
    run_folder = shutil.copytree(swept[0] / "sweep", workdir / "sweep", symlinks=True) / "runs/000"
    whole = {"parts": [{"folder": ".", "members": list(range(40))}], "left_out": [], "status": "finished", "error": ""}
    write_json(run_folder / "status.json", whole)
    assert _sweep(workdir, VALUES) == []
    assert _rows(workdir) == _rows(swept[0])
    parts = [{"folder": f"part{number:03d}", "members": [number]} for number in range(40)]
    write_json(run_folder / "status.json", whole | {"parts": parts})
    with pytest.raises(ArtefactError, match=r"runs/000: an earlier version .* delete the folder of this program"):
        _sweep(workdir, VALUES)


def test_members_whose_loss_is_not_finite_are_left_out_and_named(workdir, monkeypatch):
    original = train.train

    def diverges(config, *arguments, members, **options):
        if bad := [i for i, member in enumerate(members) if member.learning_rate > 1]:
            raise train.NothingToKeepError("never had a score", bad)
        return original(config, *arguments, members=members, **options)

    monkeypatch.setattr(train, "train", diverges)
    (failure,) = _sweep(workdir, axis("optim.learning_rate", (1e-3, 1e30)))
    assert "learning_rate1e+30" in failure
    assert "lower optim.learning_rate" in failure
    assert [row["optim.learning_rate"] for row in _rows(workdir)] == ["0.001"]
    assert "1 members left out" in (workdir / "sweep/leaderboard.md").read_text()


def test_two_tasks_never_train_one_program(workdir, monkeypatch):
    inner = []

    def train_again(*arguments, **options):
        inner.append(_in_another_process(workdir / "sweep/runs/000/.sweep.lock"))
        raise RuntimeError("enough")

    monkeypatch.setattr(train, "train", train_again)
    assert len(_sweep(workdir, SHAPES[:1])) == 1
    assert inner == ["taken", "taken"]
    assert _in_another_process(workdir / "sweep/runs/000/.sweep.lock") == "free"


def _in_another_process(path):
    code = "import fcntl, sys\nfile = open(sys.argv[1], 'a')\ntry: fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
    code += "except BlockingIOError: print('taken')\nelse: print('free')"
    return subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True).stdout.strip()


def test_another_sweep_in_the_same_folder_is_refused_and_another_packing_is_not(workdir):
    points = axis("optim.learning_rate", (1e-3, 2e-3, 3e-3))
    planned, repacked = plan.plan(BASE, points), plan.plan(BASE, points, lambda _: 1)
    assert (len(planned.programs), len(repacked.programs)) == (1, 3)
    run.record(workdir, "test", planned)
    assert len(run.record(workdir, "test", repacked)["programs"]) == 1
    with pytest.raises(ArtefactError, match="sweep: 'test' there, 'other' asked for"):
        run.record(workdir, "other", planned)
    with pytest.raises(ArtefactError, match="fingerprint"):
        run.record(workdir, "test", plan.plan(BASE, points[:2]))
    with pytest.raises(SweepError, match="program 1: the sweep has the programs 0 to 0"):
        run.run(workdir, run.record(workdir, "test", planned), [1])
