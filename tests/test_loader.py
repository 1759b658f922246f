"""Packing: every utterance once, nothing overlaps, fill, determinism, batches joined by row."""

import numpy as np
import pytest

from seremo_jax import loader
from seremo_jax.artefacts import ArtefactError
from seremo_jax.targets import Targets


def _podcast_lengths(num=4000):
    rng = np.random.default_rng(0)
    seconds = np.clip(rng.gamma((5.7 / 2.35) ** 2, 2.35**2 / 5.7, num), 2, 11.9)
    return (seconds * 50).astype(int)


def test_every_utterance_once_and_none_overlaps():
    lengths = _podcast_lengths(500)
    shape = loader.plan_shape(lengths, 64)
    plan = loader.plan_epoch(lengths, shape, data_seed=3, epoch=2)
    assert sorted(np.concatenate([batch.item for batch in plan])) == list(range(500))
    for batch in plan:
        taken = np.zeros((shape.num_rows, shape.num_frames + 1), int)
        for item, row, start in zip(*batch, strict=True):
            assert start + lengths[item] <= shape.num_frames
            taken[row, start : start + lengths[item] + 1] += 1  # the zero frame behind it belongs to it
        assert taken.max() == 1
        assert len(batch.item) <= shape.num_utterances


def test_rows_are_more_than_ninety_percent_full():
    lengths = _podcast_lengths()
    shape = loader.plan_shape(lengths, 64)
    plan = loader.plan_epoch(lengths, shape, data_seed=0, epoch=1)[:-1]
    fill = sum(lengths[batch.item].sum() for batch in plan) / (len(plan) * shape.num_rows * shape.num_frames)
    assert fill > 0.9
    assert 55 < np.mean([len(batch.item) for batch in plan]) < 73


def test_plan_depends_on_seed_and_epoch_alone():
    lengths = _podcast_lengths(300)
    shape = loader.plan_shape(lengths, 32)

    def order(seed, epoch):
        return np.concatenate([batch.item for batch in loader.plan_epoch(lengths, shape, seed, epoch)]).tolist()

    assert order(0, 1) == order(0, 1)
    assert order(0, 1) != order(0, 2)
    assert order(0, 1) != order(1, 1)
    assert order(0, None) == list(range(300))


def test_too_long_utterance_is_refused_with_the_field():
    with pytest.raises(ArtefactError, match=r"train.frames_per_row"):
        loader.plan_shape([10, 50], 2, frames_per_row=40)
    with pytest.raises(ArtefactError, match=r"train.frames_per_row"):
        loader.plan_epoch([10, 50], loader.Shape(40, 2, 4), 0, 0)


class _Frames:
    """A store whose frames tell where they came from: 100 * row + layer in every feature."""

    def __init__(self, lengths):
        self.lengths = lengths

    def read(self, layer, rows):
        return [np.full((self.lengths[row], 2), 100 * row + layer, np.float32) for row in rows]


def _targets(num):
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(3), num).astype(np.float32)
    return Targets(
        ids=np.array([f"u{i}" for i in range(num)]),
        votes=np.ones((num, 3), np.int32),
        distribution=p,
        has_votes=np.ones(num, bool),
        consensus_index=p.argmax(1).astype(np.int32),
        consensus=np.eye(3, dtype=np.float32)[p.argmax(1)],
        has_consensus=np.arange(num) % 2 == 0,
        attributes=rng.normal(size=(num, 2)).astype(np.float32),
        has_attribute=np.ones((num, 2), bool),
        attribute_variance=np.zeros((num, 2), np.float32),
        has_variance=np.zeros((num, 2), bool),
        class_names=("a", "b", "c"),
        attribute_names=("valence", "activation"),
        attribute_ranges={},
        counts={},
    )


def _source(epoch=1):
    lengths = np.array([5, 3, 7, 4, 6, 2, 8])
    # Planned utterances are rows 6, 5, ... of the store and rows 1, 2, ... of the table: joined by row, never by place.
    store_rows, target_rows = np.arange(6, 0, -1), np.arange(1, 7)
    shape = loader.plan_shape(lengths[store_rows], 3)
    plan = loader.plan_epoch(lengths[store_rows], shape, 0, epoch)
    targets = _targets(7)
    return loader.BatchSource(_Frames(lengths), (4, 9), store_rows, target_rows, targets, plan, shape), targets, lengths


def test_batches_hold_the_frames_and_labels_of_the_same_utterance():
    source, targets, lengths = _source()
    seen = []
    for batch in loader.batches(source):
        for i in np.flatnonzero(batch.is_used):
            table_row = batch.utterance[i]
            store_row = 7 - table_row
            frame, row = divmod(int(batch.last_frame[i]), batch.reset.shape[1])
            first = frame - lengths[store_row] + 1
            assert batch.reset[first, row]
            assert batch.reset[first : frame + 1, row].sum() == 1
            assert batch.is_valid[first : frame + 1, row].all()
            assert np.all(batch.features[0, first : frame + 1, row] == 100 * store_row + 4)
            assert np.all(batch.features[1, first : frame + 1, row] == 100 * store_row + 9)
            np.testing.assert_array_equal(batch.distribution[i], targets.distribution[table_row])
            np.testing.assert_array_equal(batch.attributes[i], targets.attributes[table_row])
            assert batch.has_consensus[i] == targets.has_consensus[table_row]
            seen.append(table_row)
        assert np.all(batch.features[:, ~batch.is_valid] == 0)
        assert np.all(batch.utterance[~batch.is_used] == -1)
        assert batch.is_valid.sum() == sum(lengths[7 - row] for row in batch.utterance[batch.is_used])
    assert sorted(seen) == [1, 2, 3, 4, 5, 6]


def test_starting_late_gives_the_same_later_batches():
    source, _, _ = _source()
    whole = list(loader.batches(source))
    late = list(loader.batches(source, start=1, num_threads=1))
    assert len(whole) > 1
    assert len(late) == len(whole) - 1
    for a, b in zip(whole[1:], late, strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y)
