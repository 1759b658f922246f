"""A corpus of which lengths alone are known, and the programs that are lowered for it."""

import dataclasses
import os

import jax
import numpy as np
import pytest

from seremo_jax.core import ensemble
from seremo_jax.core.config import ConfigError, from_config_dict
from seremo_jax.data import ingest, tables
from seremo_jax.features import extract
from seremo_jax.features.store import Reader
from seremo_jax.sweeps import programs, workload
from seremo_jax.training import copies, lowering
from seremo_jax.training.dataset import Data
from seremo_jax.training.fitting import Judge
from seremo_jax.training.loop import Loop
from tests.support import prepared, toy_training
from tests.support.own_words import write_tables
from tests.support.small_models import GOLDEN
from tests.support.uncompiled import Uncompiled


def _config(**sections):
    tree = {
        "backbone": {"name": os.fspath(GOLDEN / "wav2vec2-base")},
        "model": {"gru_units": 6, "gru_layers": 1, "embedding_size": 5},
        "train": {"batch_size": 8},
        "ensemble": {"seeds": (0, 1, 2)},
    }
    return from_config_dict({name: tree.get(name, {}) | sections.get(name, {}) for name in {*tree, *sections}})


def test_lengths_are_drawn_between_their_ends():
    lengths = workload.draw_lengths(20_000, 5.7, 2.75, 11.0) / 16_000
    assert 2.75 <= lengths.min() < lengths.max() <= 11.0
    assert lengths.mean() == pytest.approx(5.7, rel=0.01)


@pytest.mark.parametrize("ends", [(5, 1.0, 2.0), (100, 3.0, 2.0), (100, 0.0, 2.0)])
def test_lengths_that_cannot_be_are_refused(ends):
    num, shortest_s, longest_s = ends
    with pytest.raises(ConfigError, match="at least 10 utterances"):
        workload.drawn(_config(), num, 1.5, shortest_s, longest_s)


def test_splits_have_their_shares_and_the_highest_layer_stands_for_the_chosen_one():
    work = workload.drawn(_config(data={"split_shares": (0.5, 0.3, 0.2)}), 1_000, 0.04, 0.02, 0.06)
    data = work.data("cpu")
    words, counts = np.unique(data.splits[None].astype(str), return_counts=True)
    assert dict(zip(words.tolist(), counts.tolist(), strict=True)) == {"train": 500, "development": 300, "test": 200}
    assert {member.layer for member in work.members} == {3}
    assert data.store.layers == (3,)
    assert "layer 3" in work.notes[0]


def test_folds_share_the_utterances_out():
    config = _config(data={"split_kind": "kfold", "num_folds": 4}, ensemble={"folds": (0, 1), "seeds": (0,)})
    data = workload.drawn(config, 100, 0.04, 0.02, 0.06).data("cpu")
    first, second = data.splits[0], data.splits[1]
    assert (first == "test").sum() == 25
    assert (first == "development").sum() == 25
    assert ((first == "development") == (second == "test")).all()


def test_programs_are_lowered_from_shapes_alone():
    work = workload.drawn(_config(loss={"attribute_kind": "emd"}), 60, 0.04, 0.02, 0.06)
    devices = jax.devices()[:2]
    judge = Judge(Uncompiled(), 1e12, devices[0])
    lowered = programs.training(work, "gpu", devices, judge) | {"extract": programs.extraction(work, "gpu", devices)}
    assert set(lowered) == set(programs.PROGRAMS)
    for name, program in lowered.items():
        assert program.name == name
        assert "module @jit" in program.lower().as_text()
    assert lowered["train"].details["is_cached"]
    assert programs.training_of(work, "gpu", devices, 5).train.state.step.shape == (10,)
    assert programs.extraction(work, "gpu", devices, 3).details["num_slots"] == 6


def test_more_members_are_other_seeds_of_the_same_layers():
    members = ensemble.members(_config(extract={"layers": "all"}, ensemble={"layers": (1, 2), "seeds": (0,)}), None)
    more = programs._members_of(members, 5)
    assert [member.layer for member in more] == [1, 1, 1, 2, 2]
    assert len(set(more)) == 5


@pytest.fixture(scope="module")
def joint(tmp_path_factory):
    """Members that hear copies, two corpora and features relative to speakers: config, and an extracted workdir."""
    root, workdir = tmp_path_factory.mktemp("mine"), tmp_path_factory.mktemp("joint") / "w"
    write_tables(root, 12, of_a_speaker=2)
    config = prepared.smallest()
    changes = {
        "corpus": {"also": ("table; modality=both",), "also_roots": (os.fspath(root),)},
        "targets": {"class_set": "crema6+msp8"},
        "extract": {"layers": (0,), "conditions": ("gain:-20..-5db",), "num_copies": 2},
        "model": {"layer": 0},
        "train": {"device_cache": "on"},
        "ensemble": {"seeds": (0,), "copy_shares": (0.0, 0.5), "speaker_kappas_s": ("inf", 5.0)},
    }
    config = dataclasses.replace(
        config, **{name: dataclasses.replace(getattr(config, name), **fields) for name, fields in changes.items()}
    ).validate()
    ingest.run(config, workdir, is_quiet=True)
    extract.run(config, workdir, is_quiet=True)
    return config, workdir


def _described(tree):
    return jax.tree.map(lambda x: (x.shape, str(x.dtype)), tree)


def test_programs_of_a_workdir_take_what_its_training_takes(joint):
    config, workdir = joint
    members, store, mesh = ensemble.members_in(workdir, config), Reader(workdir / "store"), toy_training.mesh(1)
    utterances, ratings, _ = tables.read_for(config, workdir)
    heard = copies.read_for(config, store, members)
    data = Data.of(config, store, (utterances, ratings), members, heard)
    loop = Loop(config, data, members, mesh, is_cached=True)
    work = workload.of_workdir(config, workdir)
    assert work.members == tuple(members)
    assert work.data("cpu").training_targets.is_offered is not None
    planned = lowering.training_on(work.data("cpu"), members, mesh, "cpu", is_cached=True)
    for feed, arguments in ((loop._train, planned.train), (loop._development, planned.development)):
        batch = next(iter(feed.batches(None if feed is loop._development else 1)))
        called_with = lowering.Arguments(loop._state, feed.members, batch, feed.inputs)
        assert _described(called_with) == _described(arguments)
    assert planned.steps is loop._steps
    assert planned.train.inputs.frames.shape[1] > data.store.num_frames.sum()
    assert f"{len(heard.store)} copies (extract.conditions) are heard in a pass of their own" in work.notes[-1]


def test_a_drawn_corpus_has_copies_several_corpora_and_speakers_of_one_split(joint):
    config, _ = joint
    for folds, kind in (((), "derived"), ((0, 1), "kfold")):
        data_section = dataclasses.replace(config.data, split_kind=kind, num_folds=3)
        axes = dataclasses.replace(config.ensemble, folds=folds)
        work = workload.drawn(dataclasses.replace(config, data=data_section, ensemble=axes), 600, 1.5, 1.0, 2.0)
        data = work.data("cpu")
        train = np.any([split == "train" for split in data.splits.values()], axis=0)
        np.testing.assert_array_equal(data.copies.rows[:, 0] >= 0, train)
        assert len(data.num_frames) == 600 + 2 * train.sum()
        np.testing.assert_array_equal(data.num_frames[data.copies.rows[train]].T, [data.store.num_frames[train]] * 2)
        assert data.labels().is_offered.shape == data.targets.distribution.shape
        for split in data.splits.values():
            of_speaker = {}
            for speaker, word in zip(data.groups.speaker.tolist(), split.tolist(), strict=True):
                of_speaker.setdefault(speaker, set()).add(word)
            assert max(map(len, of_speaker.values())) == 1
        assert np.bincount(data.groups.speaker).max() == 50
