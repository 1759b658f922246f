"""The whole chain on a tiny simulated corpus: learning, resuming bit by bit, skipping, refusing, evaluating."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from configs import simulated
from seremo_jax.core import ensemble, goodput, sharding
from seremo_jax.core.artefacts import ArtefactError
from seremo_jax.core.config import from_config_dict
from seremo_jax.data import ingest, tables
from seremo_jax.evaluation import baseline, evaluate
from seremo_jax.features import extract, store
from seremo_jax.metrics import catalogue
from seremo_jax.reports import report
from seremo_jax.saliency import ranking
from seremo_jax.training import log as writer_module
from seremo_jax.training import protocol, timing, train
from seremo_jax.training.dataset import Data
from tests.support import prepared


@pytest.fixture(scope="module")
def config():
    recipe = simulated.get_config("tiny")
    recipe.train.max_epochs = 3
    return from_config_dict(recipe)


@pytest.fixture(scope="module")
def extracted(tmp_path_factory):
    """Workdir with tables, store and saliency."""
    return prepared.extracted(tmp_path_factory, from_config_dict(simulated.get_config("tiny")), "simulated-tiny")


def _split_rows(utterances, split):
    return np.flatnonzero(np.array(utterances["split"].to_pylist()) == split)


def _train(config, workdir, is_quiet=True, **options):
    utterances, ratings, _ = tables.read_tables(workdir)
    members = ensemble.members(config, ensemble.chosen_layer(workdir))
    mesh = sharding.make_mesh(len(members))
    reader = store.Reader(workdir / "store")
    return train.train(
        config, reader, (utterances, ratings), mesh, members=members, workdir=workdir, is_quiet=is_quiet, **options
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory, extracted, config):
    """The same, trained without interruption or a look at the test split, and evaluated."""
    workdir = tmp_path_factory.mktemp("trained") / "w"
    shutil.copytree(extracted, workdir)
    in_test, read = set(_split_rows(tables.read_utterances(workdir), "test")), store.Reader.read

    def guarded(self, layer, rows):
        assert not in_test & set(np.asarray(rows).tolist()), "training read the test split"
        return read(self, layer, rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store.Reader, "read", guarded)
        _train(config, workdir)
    evaluate.run(config, workdir, is_quiet=True)
    return workdir


def _results(workdir):
    return (workdir / "results.jsonl").read_text()


@pytest.mark.stack
def test_log_has_a_line_an_epoch_and_a_value_a_member(trained):
    lines = writer_module.read_log(trained / "train" / "log.jsonl")
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert all(len(line["train_loss"]) == len(line["development_score"]) == 4 for line in lines)
    assert np.mean(lines[-1]["train_loss"]) < np.mean(lines[0]["train_loss"])


def test_log_shares_the_wall_time_out(trained):
    for line in writer_module.read_log(trained / "train" / "log.jsonl"):
        assert sum(
            line[f"goodput_{name}"] for name in (*timing.PHASES, goodput.COMPILE, goodput.REST)
        ) == pytest.approx(1)
        assert line["wall_s"] >= line["epoch_s"] > 0
        assert all(line[f"goodput_{name}"] > 0 for name in ("steps", "input", "evaluation", "rest"))


def test_profile_leaves_a_trace_and_changes_nothing(tmp_path, extracted, trained, config, capsys, monkeypatch):
    monkeypatch.setattr(timing, "FIRST", 2)
    monkeypatch.setattr(timing, "LAST", 3)
    workdir = tmp_path / "w"
    shutil.copytree(extracted, workdir)
    for _ in range(2):
        _train(config, workdir, is_quiet=False, is_profiled=True)
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("goodput: steps ")
    assert said[1].endswith("is up to date, so no step was traced")
    (space,) = workdir.glob("train/profile/plugins/profile/*/*.xplane.pb")
    assert space.stat().st_size > 0
    ours, others = (writer_module.read_log(place / "train" / "log.jsonl") for place in (workdir, trained))
    assert [line["train_loss"] for line in ours] == [line["train_loss"] for line in others]


@pytest.mark.stack
@pytest.mark.parametrize("moment", ["before the checkpoint", "after the checkpoint"])
def test_cut_off_training_goes_on_and_gives_identical_results(
    tmp_path, monkeypatch, extracted, trained, config, moment
):
    workdir = tmp_path / "w"
    shutil.copytree(extracted, workdir)

    class CutOffError(Exception):
        pass

    with monkeypatch.context() as patch:
        owner, name = (train.Writer, "write") if moment.startswith("before") else (train, "_summary")
        original, calls = getattr(owner, name), []

        def cut(*arguments):
            calls.append(None)
            if len(calls) == 2:
                raise CutOffError
            return original(*arguments)

        patch.setattr(owner, name, cut)
        with pytest.raises(CutOffError):
            _train(config, workdir)
    assert not (workdir / "train" / "finished.json").exists()
    _train(config, workdir)
    evaluate.run(config, workdir, is_quiet=True)
    assert _results(workdir) == _results(trained)
    assert [line["epoch"] for line in writer_module.read_log(workdir / "train" / "log.jsonl")] == [1, 2, 3]


@pytest.mark.stack
def test_finished_work_is_left_alone_and_other_settings_are_refused(trained, config):
    before = (trained / "train" / "finished.json").stat().st_mtime_ns
    _train(config, trained)
    assert (trained / "train" / "finished.json").stat().st_mtime_ns == before
    other = dataclasses.replace(config, optim=dataclasses.replace(config.optim, learning_rate=0.5))
    with pytest.raises(ArtefactError, match=r"optim\.learning_rate: 0\.001 there, 0\.5 asked for"):
        _train(other, trained)
    with pytest.raises(ArtefactError, match=r"optim\.learning_rate"):
        evaluate.run(other, trained, is_quiet=True)


@pytest.mark.stack
def test_predictions_are_distributions_of_every_member(trained, config):
    arrow = pq.read_table(trained / "predictions" / "test_clean.parquet")
    shares = np.stack([arrow[name].to_numpy() for name in arrow.column_names if name.startswith("p_")], axis=1)
    np.testing.assert_allclose(shares.sum(1), 1, atol=1e-5)
    num_test = len(_split_rows(tables.read_utterances(trained), "test"))
    assert len(arrow) == 4 * num_test
    assert {"valence", "activation", "dominance"} <= set(arrow.column_names)


@pytest.mark.stack
def test_best_parameters_belong_to_the_best_epoch(trained):
    stamp = json.loads((trained / "train" / "finished.json").read_text())
    lines = writer_module.read_log(trained / "train" / "log.jsonl")
    for member, (score, epoch) in enumerate(zip(stamp["best_score"], stamp["best_epoch"], strict=True)):
        curve = [line["development_score"][member] for line in lines]
        assert score == max(curve)
        assert epoch == 1 + int(np.argmax(curve))


@pytest.mark.stack
def test_results_carry_their_protocol(trained, config):
    records = [json.loads(line) for line in _results(trained).splitlines()]
    assert {record["system"] for record in records} == {"votes", "consensus"}
    assert {record["group"] for record in records} >= {"all", "female", "male"}
    card = records[0]["protocol"]
    assert card["is_simulated"]
    assert card["settings"]["targets.class_set"] == "crema6"
    assert protocol.is_card_of(card, trained / "results.jsonl")
    assert not protocol.is_card_of(card | {"checkpoint": "x"}, trained / "results.jsonl")


def test_report_is_one_page(trained):
    report.run(trained)
    page = (trained / "report" / "index.html").read_text()
    assert "simulated" in page.lower()
    assert "vote distribution" in report.markdown_summary(trained)


def _with(config, changes):
    tree = dataclasses.asdict(config)
    for path, value in changes.items():
        section, name = path.split(".")
        tree[section][name] = value
    return from_config_dict(tree)


@pytest.mark.parametrize(
    "changes",
    [
        {"corpus.name": "table", "corpus.root": "elsewhere"},
        {"corpus.num_speakers": 14},
        {"data.split_seed": 7},
        {"data.min_seconds": 2.0},
        {"data.split_kind": "kfold", "data.fold": 1},
    ],
)
def test_a_workdir_of_other_tables_is_refused_by_every_stage(tmp_path, trained, config, changes):
    asked, before = _with(config, changes), _results(trained)
    (path, value), *_ = changes.items()
    section, name = path.split(".")
    sides = re.escape(f"{path}: {getattr(getattr(config, section), name)!r} there, {value!r} asked for")
    if path == "corpus.name":
        # Stages after ingest say how a model is scored on another corpus.
        sides += "|holds the corpus simulated, and --config asks for table: .* launch.evaluate --model="
    for stage in (ingest.run, extract.run, ranking.summarise, train.run, evaluate.run, baseline.run):
        arguments = (trained, asked) if stage is ranking.summarise else (asked, trained)
        with pytest.raises(ArtefactError, match=sides):
            stage(*arguments)
    assert _results(trained) == before


@pytest.mark.parametrize(
    ("path", "value"), [("backbone.name", "org/other"), ("backbone.window_seconds", 20.0), ("extract.dtype", "float32")]
)
def test_a_store_of_other_settings_is_refused_by_the_stages_behind_it(trained, config, path, value):
    for stage in (train.run, evaluate.run, baseline.run):
        with pytest.raises(ArtefactError, match=rf"the store .*{path}: .* there, {value!r} asked for"):
            stage(_with(config, {path: value}), trained)


def test_a_layer_that_the_store_lacks_is_named(tmp_path, trained, config):
    with pytest.raises(ArtefactError, match=r"members read layer 99, but the store .* has the layers \d.*model\.layer"):
        Data.of(config, store.Reader(trained / "store"), tables.read_tables(trained)[:2], [_member(config, layer=99)])


def test_a_layer_chosen_under_other_settings_is_refused(trained, config):
    with pytest.raises(ArtefactError, match=r"the choice of layer .*saliency\.seed: 0 there, 5 asked for"):
        ensemble.members_in(trained, _with(config, {"saliency.seed": 5}))


def test_the_protocol_says_what_the_tables_say_of_themselves(trained, config):
    settings = json.loads(_results(trained).splitlines()[0])["protocol"]["settings"]
    ingested = json.loads((trained / "ingest.json").read_text())["settings"]
    assert ingested.items() <= settings.items()


def test_an_evaluation_is_up_to_date_until_something_of_it_is_missing(tmp_path, trained, config, monkeypatch, capsys):
    workdir = shutil.copytree(trained, tmp_path / "w")
    files = [workdir / "calibration.json", workdir / "predictions" / "test_clean.parquet"]
    before = _results(workdir)
    with monkeypatch.context() as patch:
        patch.setattr(evaluate._Job, "split", None)
        evaluate.run(config, workdir)
        assert "up to date" in capsys.readouterr().out
        patch.setitem(catalogue.KINDS, "new", catalogue.Kind("new", "new metric", "further"))
        with pytest.raises(TypeError):  # of the split that it evaluates anew
            evaluate.run(config, workdir, is_quiet=True)
    for path in files:
        path.unlink()
        evaluate.run(config, workdir, is_quiet=True)
        assert path.exists()
    assert _results(workdir) == before


def _member(config, **changes):
    return dataclasses.replace(ensemble.members(config, 0)[0], **changes)


def test_votes_without_a_consensus_count_in_the_training_part_of_each_fold(trained, config):
    """Nothing may depend on the table's own column of splits, which is that of one fold."""
    folds = {"data.split_kind": "kfold", "data.num_folds": 3, "ensemble.folds": (0, 1, 2)}
    reader = store.Reader(trained / "store")
    layer = {"model.layer": reader.layers[0]}
    asked = _with(config, folds | layer | {"data.keep_no_agreement": "train_only"})
    members = [_member(config, layer=reader.layers[0], fold=fold) for fold in range(3)]
    data = Data.of(asked, reader, tables.read_tables(trained)[:2], members)
    is_tie = data.training_targets.has_votes & ~data.training_targets.has_consensus
    is_rated = data.training_targets.has_attribute.any(axis=1)
    assert is_tie.sum() > 3
    for fold in range(3):
        split = data.splits[fold]
        learned = data.labelled_rows(fold, "train")
        assert set(np.flatnonzero(is_tie & (split == "train"))) <= set(learned)
        assert set(data.labelled_rows(fold, "development")) == set(
            np.flatnonzero((split == "development") & (data.targets.has_votes | is_rated))
        )
    assert not (data.targets.has_votes & is_tie).any()
    np.testing.assert_array_equal(data.labels().has_votes, data.training_targets.has_votes)


def test_split_without_labels_is_named(tmp_path, extracted, config):
    workdir = tmp_path / "w"
    shutil.copytree(extracted, workdir)
    utterances, ratings, _ = tables.read_tables(workdir)
    development = {utterances["id"][int(row)].as_py() for row in _split_rows(utterances, "development")}
    keeps = [utterance not in development for utterance in ratings["utterance"].to_pylist()]
    members = ensemble.members(config, ensemble.chosen_layer(workdir))
    with pytest.raises(ArtefactError, match="development split has"):
        train.train(
            config,
            store.Reader(workdir / "store"),
            (utterances, ratings.filter(keeps)),
            sharding.make_mesh(len(members)),
            members=members,
            workdir=workdir,
            is_quiet=True,
        )
