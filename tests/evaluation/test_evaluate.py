"""Members of folds stand for one system, whose predictions cover every utterance; what is finished and whole stays."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from seremo_jax.core import ensemble
from seremo_jax.core.config_fields import DataConfig
from seremo_jax.data import tables
from seremo_jax.data.screening import in_fold
from seremo_jax.evaluation import evaluate
from seremo_jax.training.selection import Predicted
from tests.support import prepared, toy_training


@pytest.mark.parametrize("chosen", [None, {0: 5, 1: 2}])
def test_members_of_folds_are_pooled_into_one_that_covers_every_utterance(chosen):
    """Also where each fold reads the layer that was chosen for it."""
    axes = {"layers": (2,) if chosen is None else (), "class_targets": ("votes",), "folds": (0, 1)}
    config = toy_training.config(data={"split_kind": "kfold"}, model={"layer": "saliency"}, ensemble=axes)
    members = ensemble.members(config, chosen)
    assert [(m.fold, m.seed) for m in members] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    ids = np.array([f"u{i}" for i in range(6)], dtype=object)
    parts = [(np.array([0, 1]), np.array([4, 0])), (np.array([2, 3]), np.array([1, 3, 2]))]
    predicted = []
    for ours, rows in parts:
        rows = np.sort(rows)
        value = (10 * ours[:, None] + rows)[..., None].astype(np.float32)
        predicted.append(Predicted(ours, rows, value, value))
    predictions, pooled = evaluate.pool_folds(predicted, members, ids)
    layer = 2 if chosen is None else ensemble.BY_FOLD
    assert [(m.fold, m.layer, m.seed) for m in pooled] == [(None, layer, 0), (None, layer, 1)]
    assert predictions.utterances.tolist() == ["u0", "u1", "u2", "u3", "u4"]
    np.testing.assert_array_equal(predictions.attributes[0, :, 0], [0, 21, 22, 23, 4])
    np.testing.assert_array_equal(predictions.attributes[1, :, 0], [10, 31, 32, 33, 14])


def test_no_part_of_a_fold_has_an_utterance_that_its_members_were_trained_on(tmp_path_factory):
    """Babble for an utterance is of its own part, whatever the column of the table says."""
    utterances = tables.read_tables(prepared.finished(tmp_path_factory) / "workdir")[0]
    data = DataConfig(split_kind="kfold", num_folds=3)
    splits = {fold: np.array(in_fold(utterances, data, fold)["split"].to_pylist()) for fold in range(3)}
    parts = {f"test {fold}": np.flatnonzero(of_fold == "test") for fold, of_fold in splits.items()}
    words = evaluate.with_words(utterances, parts)["split"].to_pylist()
    assert set(words) == set(parts)
    for row, word in enumerate(words):
        assert splits[int(word.removeprefix("test "))][row] == "test"
    assert utterances["split"].to_pylist() != words
    assert evaluate.with_words(utterances, {"test": np.array([1])})["split"].to_pylist()[:3] == ["", "test", ""]


@pytest.mark.parametrize("name", ["predictions/test_clean.parquet", "calibration.json", "results.jsonl"])
def test_a_finished_evaluation_is_up_to_date_until_one_of_its_files_is_damaged(
    tmp_path_factory, tmp_path, capsys, monkeypatch, name
):
    class AgainError(Exception):
        """It is evaluated again."""

    def again(*_):
        raise AgainError

    workdir = Path(shutil.copytree(prepared.finished(tmp_path_factory) / "workdir", tmp_path / "w"))
    monkeypatch.setattr(evaluate.Data, "of", again)
    config, path = prepared.smallest(), workdir / name
    evaluate.run(config, workdir)
    assert "up to date" in capsys.readouterr().out
    whole = path.read_bytes()
    middle = len(whole) // 2
    for damaged in (whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :], whole[:middle]):
        path.write_bytes(damaged)
        with pytest.raises(AgainError):
            evaluate.run(config, workdir)
