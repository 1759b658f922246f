"""Packing: every utterance once, nothing overlaps, fill, determinism, batches joined by row."""

import numpy as np
import pytest

from seremo_jax.core.artefacts import ArtefactError
from seremo_jax.data.targets import Targets
from seremo_jax.training import loader

pytestmark = pytest.mark.stack


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
        for item, row, start, length in zip(*batch, strict=True):
            assert length == lengths[item]
            assert start + length <= shape.num_frames
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


def _source(epoch=1, **options):
    lengths = np.array([5, 3, 7, 4, 6, 2, 8])
    # Planned utterances are rows 6, 5, ... of the store and rows 1, 2, ... of the table: joined by row, never by place.
    store_rows, target_rows = np.arange(6, 0, -1), np.arange(1, 7)
    shape = loader.plan_shape(lengths[store_rows], 3)
    stream = loader.Stream(loader.plan_epoch(lengths[store_rows], shape, 0, epoch), store_rows, target_rows)
    source = loader.BatchSource(
        [stream],
        shape,
        shape.num_rows + 1,
        store=_Frames(lengths),
        views=[(0, 4), (0, 9)],
        num_features=1 if "columns" in options else 2,
        **options,
    )
    return source, lengths


def _utterances(batch, stream=0):
    """Slot, table row, first and last frame, row of each utterance of a batch."""
    for i in np.flatnonzero(batch.utterance[stream] >= 0):
        frame, row = divmod(int(batch.last_frame[stream, i]), batch.reset.shape[2])
        yield i, batch.utterance[stream, i], frame, row


def test_batches_hold_the_frames_of_the_utterance_they_name():
    source, lengths = _source()
    seen = []
    for batch in loader.batches(source):
        for i, table_row, frame, row in _utterances(batch):
            store_row = 7 - table_row
            first = frame - lengths[store_row] + 1
            assert batch.reset[0, first, row]
            assert batch.reset[0, first : frame + 1, row].sum() == 1
            assert np.all(batch.slot[0, first : frame + 1, row] == i)
            assert np.all(batch.features[0, first : frame + 1, row] == 100 * store_row + 4)
            assert np.all(batch.features[1, first : frame + 1, row] == 100 * store_row + 9)
            seen.append(table_row)
        assert np.all(batch.features[:, batch.slot[0] < 0] == 0)
        assert np.all(batch.slot[0, :, -1] == -1)
        used = batch.utterance[0][batch.utterance[0] >= 0]
        assert (batch.slot >= 0).sum() == sum(lengths[7 - row] for row in used)
    assert sorted(seen) == [1, 2, 3, 4, 5, 6]


def test_a_process_reads_only_the_utterances_of_its_rows():
    whole, _ = _source()
    part, lengths = _source(rows=range(1, 2))
    reads = []
    read = part.store.read
    part.store.read = lambda layer, rows: reads.extend(rows) or read(layer, rows)
    for number in range(len(whole)):
        np.testing.assert_array_equal(part[number].features, whole[number].features[:, :, 1:2])
    in_row = [7 - row for n in range(len(whole)) for _, row, _, place in _utterances(whole[n]) if place == 1]
    assert set(in_row) <= set(reads)
    assert len(reads) < 2 * len(lengths)


def test_columns_are_picked_and_places_in_memory_point_at_the_frames():
    source, lengths = _source(columns={4: np.array([1]), 9: np.array([0])})
    assert source[0].features.shape[-1] == 1
    first_frames = np.cumsum(lengths) - lengths
    cached, _ = _source(first_frames=first_frames)
    for number in range(len(cached)):
        batch = cached[number]
        for _, table_row, frame, row in _utterances(batch):
            store_row = 7 - table_row
            places = batch.frame[0, frame - lengths[store_row] + 1 : frame + 1, row]
            np.testing.assert_array_equal(places, first_frames[store_row] + np.arange(lengths[store_row]))


def test_a_stream_that_has_run_out_gives_empty_batches():
    source, _ = _source()
    short = loader.Stream(source.streams[0].plan[:1], source.streams[0].store_rows, source.streams[0].label_rows)
    both = loader.BatchSource(
        [source.streams[0], short],
        source.shape,
        source.num_rows,
        store=source.store,
        views=[(0, 4), (1, 4)],
        num_features=2,
    )
    assert len(both) == len(source) > 1
    last = both[len(both) - 1]
    assert (last.utterance[1] == -1).all()
    assert (last.slot[1] == -1).all()
    assert (last.features[1] == 0).all()
    np.testing.assert_array_equal(last.features[0], source[len(source) - 1].features[0])


def test_starting_late_gives_the_same_later_batches():
    source, _ = _source()
    whole = list(loader.batches(source))
    late = list(loader.batches(source, start=1, num_threads=1))
    assert len(whole) > 1
    assert len(late) == len(whole) - 1
    for a, b in zip(whole[1:], late, strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y)
