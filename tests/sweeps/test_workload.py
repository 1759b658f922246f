"""A corpus of which lengths alone are known, and the programs that are lowered for it."""

import os

import jax
import numpy as np
import pytest

from seremo_jax.core import ensemble
from seremo_jax.core.config import ConfigError, from_config_dict
from seremo_jax.sweeps import programs, workload
from seremo_jax.training.fitting import Judge
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
