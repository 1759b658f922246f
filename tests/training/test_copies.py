"""Copies heard in training: which utterances in which epoch, with which frames, and nothing else changed."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import soundfile

from seremo_jax.core import ensemble, vocab
from seremo_jax.core.artefacts import ArtefactError
from seremo_jax.core.condition_names import ConditionError
from seremo_jax.core.config import ConfigError, from_config_dict, to_config_dict
from seremo_jax.evaluation import evaluate, records
from seremo_jax.features import extract
from seremo_jax.predict import model_folder
from seremo_jax.training import feed, train
from seremo_jax.training.arrangement import arrange
from seremo_jax.training.copies import Copies, Frames, heard_as
from seremo_jax.training.loader import Order
from tests.support import prepared, toy_training
from tests.support.toy_training import LAYERS, NUM, ToyStore, targets

NUM_COPIES = 2


def copies_of(change):
    """A clean store, and copies of every utterance whose frames are `change(frames, number)`."""
    clean, store = ToyStore(targets()), ToyStore(targets())
    store.num_frames = np.repeat(clean.num_frames, NUM_COPIES)
    store.utterances = [f"{name}~{number}" for name in clean.utterances for number in range(NUM_COPIES)]
    store._frames = {
        layer: [change(frames, number) for frames in clean._frames[layer] for number in range(NUM_COPIES)]
        for layer in LAYERS
    }
    return clean, Copies(store, NUM + np.arange(NUM * NUM_COPIES).reshape(NUM, NUM_COPIES))


def data_with(config, change):
    clean, copies = copies_of(change)
    frames = Frames(clean, copies)
    data = toy_training.data_of(config, clean)
    return dataclasses.replace(data, frames=frames, num_frames=frames.num_frames, copies=copies)


def config_of(**sections):
    ensemble_axes = {"layers": (LAYERS[0],), "class_targets": ("votes",), "seeds": (0,)}
    heard = {"layers": "all", "conditions": ("gain:-6db",), "num_copies": NUM_COPIES}
    return toy_training.config(**{"ensemble": ensemble_axes, "extract": heard} | sections)


def test_an_epoch_hears_every_utterance_once_clean_or_as_a_copy(monkeypatch):
    """The frames of every batch, against a draw that is written again here."""
    config = config_of()
    data = data_with(config, lambda frames, number: frames + np.float16(number + 1))
    monkeypatch.setattr(data.copies.store, "num_reads", 0)
    rows, shares = np.flatnonzero(data.splits[None] == "train"), []
    for data_seed, epoch, share in ((0, 1, 0.5), (0, 2, 0.5), (3, 1, 0.5), (0, 1, 0.8), (0, 1, 0.0), (0, 1, 1.0)):
        read = data.heard_rows(rows, Order(None, data_seed, share), epoch)
        rng = np.random.default_rng([data_seed, epoch, 1])
        is_copy, number = rng.random(NUM) < share, rng.integers(NUM_COPIES, size=NUM)
        for row, frames in zip(rows, data.frames.read(LAYERS[0], read), strict=True):
            clean = data.store.read(LAYERS[0], [row])[0]
            np.testing.assert_array_equal(frames, clean + np.float16(number[row] + 1 if is_copy[row] else 0))
        shares.append(set(rows[read >= NUM].tolist()))
    assert shares[0] < shares[3] < shares[5] == set(rows.tolist())
    assert shares[0] != shares[1] != shares[2]
    assert not shares[4]
    # Development and test splits are read without an epoch, and clean.
    np.testing.assert_array_equal(data.heard_rows(rows, Order(None, 0, 1.0), None), rows)
    drawn = heard_as(3, 30_000, 0.25, 0, 7)
    np.testing.assert_allclose(np.bincount(drawn + 1) / 30_000, [0.75, *[0.25 / 3] * 3], atol=0.01)


def test_copies_that_are_the_clean_frames_train_the_same_heads():
    """Layout, labels, weights and order of a batch do not know that an utterance is a copy."""
    config = config_of(loss={"class_kind": "balanced_soft_ce", "speaker_balance": 0.5})
    heard = config_of(loss={"class_kind": "balanced_soft_ce", "speaker_balance": 0.5}, train={"copy_share": 1.0})
    mesh, after = toy_training.mesh(1), []
    for asked in (config, heard):
        data = toy_training.data_of(asked)
        if asked is heard:
            data = data_with(asked, lambda frames, number: frames)
        loop = toy_training.Loop(asked, data, ensemble.members(asked, None), mesh, is_cached=False)
        after.append(toy_training.params_of(toy_training.run(asked, mesh, 2, loop=loop)[0]))
    for clean, copy in zip(*after, strict=True):
        np.testing.assert_array_equal(clean, copy)


def test_a_member_that_hears_none_is_the_clean_one_beside_others_that_do():
    config, mesh = config_of(), toy_training.mesh(1)
    alone, _ = toy_training.run(config, mesh, 2)
    axis = {"layers": (LAYERS[0],), "class_targets": ("votes",), "seeds": (0,), "copy_shares": (0.0, 0.5)}
    both = config_of(ensemble=axis)
    members = ensemble.members(both, None)
    assert [name.partition("copy_share")[2] for name in ensemble.names(members)] == ["0.0-seed0", "0.5-seed0"]
    data = data_with(both, lambda frames, number: -frames)
    # Copies that nobody hears change no bit. Beside members of another stream, programs round in another way.
    for wanted, is_cached, atol in ((members[:1], False, 0), (members, True, 1e-6)):
        loop = toy_training.Loop(both, data, wanted, mesh, is_cached=is_cached)
        beside = toy_training.params_of(toy_training.run(both, mesh, 2, loop=loop)[0])
        for clean, together in zip(toy_training.params_of(alone), beside, strict=True):
            np.testing.assert_allclose(clean[0], together[0], rtol=0, atol=atol)
    assert any(np.abs(x[0] - x[1]).max() > 1e-3 for x in beside)


def test_the_rest_of_an_epoch_is_that_of_the_whole_one():
    config = config_of(train={"copy_share": 0.5})
    data = data_with(config, lambda frames, number: frames + np.float16(number + 1))
    members = ensemble.members(config, None)
    rows, _ = feed.rows_of(data)
    shape = feed.shape_of(data, rows, rows)
    placement = feed.Placement(members, toy_training.mesh(1), arrange(1, 1), data.normalisation([None]))
    source = feed.Feed(data, placement, shape, rows, has_own_order=True)
    whole = list(source.batches(5))
    assert len(whole) > 2
    for early, late in zip(whole[2:], source.batches(5, start=2), strict=True):
        np.testing.assert_array_equal(np.asarray(early.features), np.asarray(late.features))


def test_copies_of_other_folds_are_refused():
    _, copies = copies_of(lambda frames, number: frames)
    copies.rows[7] = -1
    copies.require({1: np.arange(7)})
    with pytest.raises(ArtefactError, match="1 utterances of the training split of fold 2 have no copies"):
        copies.require({1: np.arange(7), 2: np.arange(5, 9)})


def test_shares_without_copies_are_refused():
    with pytest.raises(ConfigError, match=r"train\.copy_share = 0\.5, but there are no copies"):
        from_config_dict({"train": {"copy_share": 0.5}})
    with pytest.raises(ConfigError, match=r"ensemble\.copy_shares: a share is at most 1"):
        from_config_dict({"ensemble": {"copy_shares": (1.5,)}, "extract": {"conditions": ("gain:0db",)}})


def _noise(folder, seed):
    (folder / "rain").mkdir(parents=True)
    soundfile.write(folder / "rain" / "it.wav", 0.1 * np.random.default_rng(seed).standard_normal(16_000), 16_000)
    return str(folder)


def test_from_extraction_to_scores(tmp_path, tmp_path_factory):
    """Training on copies, what its stamp, card and model keep of them, and refusals, on the workdir of other tests."""
    workdir = tmp_path / "w"
    shutil.copytree(prepared.finished(tmp_path_factory) / "workdir", workdir)
    before = json.loads((workdir / "train" / "finished.json").read_text())
    assert "copies" not in before
    assert "copies" not in before["run"]
    for name in ("train", "predictions"):
        shutil.rmtree(workdir / name)
    (workdir / "results.jsonl").unlink()
    tree = to_config_dict(prepared.smallest())
    tree.extract.conditions, tree.train.copy_share = ("noise:rain:0..10db", "gain:-20..0db"), 0.5
    tree.extract.noise_dir = _noise(tmp_path / "heard", 0)
    tree.eval.conditions = ("noise:rain:0db",)
    tree.eval.noise_dir = _noise(tmp_path / "kept", 1)
    config = from_config_dict(tree)
    with pytest.raises(ArtefactError, match=r"copies/manifest.json is missing"):
        train.run(config, workdir, is_quiet=True)
    extract.run(config, workdir, is_quiet=True)
    train.run(config, workdir, is_quiet=True)
    # Copies are read in training alone, and may be gone by the time of evaluation.
    (workdir / "copies").rename(tmp_path / "copies")
    tree.eval.noise_dir = _noise(tmp_path / "same", 0)
    with pytest.raises(ConditionError, match=r"rain/it\.wav of extract\.noise_dir is rain/it\.wav of eval\."):
        evaluate.run(from_config_dict(tree), workdir, is_quiet=True)
    read = records.read(evaluate.run(config, workdir, is_quiet=True))
    assert {record.condition for record in read} == {vocab.CLEAN, "noise:rain:0db"}
    card, stamp = read[0].protocol, json.loads((workdir / "train" / "finished.json").read_text())
    assert card["copies"] == stamp["run"]["copies"]
    assert card["settings"]["train.copy_share"] == 0.5
    assert card["settings"]["extract.conditions"] == ["noise:rain:0..10db", "gain:-20..0db"]
    assert list(stamp["copies"]["recordings"].values()) == ["rain/it.wav of extract.noise_dir"]
    assert model_folder.read(workdir).about["copies"] == stamp["copies"]
    # The same training with copies of another noise is another one.
    tree.extract.noise_dir, tree.eval.noise_dir = _noise(tmp_path / "other", 2), ""
    tree.eval.conditions = ("clean",)
    other = from_config_dict(tree)
    extract.run(other, workdir, is_quiet=True)
    with pytest.raises(ArtefactError, match=r"training in .* copies: '\w+' there, '\w+' asked for"):
        train.run(other, workdir, is_quiet=True)
