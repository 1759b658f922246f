"""Who sits where: every member once, active ones spread evenly, views of a shard's own members."""

import hypothesis
import numpy as np
from hypothesis import strategies

from seremo_jax.training.arrangement import arrange, is_worth_compacting, share_out


@hypothesis.given(strategies.integers(1, 30), strategies.integers(1, 9), strategies.randoms())
def test_every_member_has_one_place_and_active_ones_are_spread_evenly(num, num_shards, random):
    is_active = np.array([random.random() < 0.5 for _ in range(num)])
    for current in (arrange(num, num_shards), arrange(num, num_shards, is_active)):
        assert sorted(current.order) == list(range(len(current.order)))
        np.testing.assert_array_equal(current.order[current.places], np.arange(len(current.order)))
    running = current.order[current.running]
    assert set(np.flatnonzero(is_active)) <= set(running)
    assert current.num_running == max(1, -(-int(is_active.sum()) // num_shards))


@hypothesis.given(strategies.integers(1, 30), strategies.integers(1, 9))
def test_each_shard_holds_what_its_members_read(num, num_shards):
    keys = [((m // 5) % 3, "a") for m in range(num)]
    keys = [tuple((k, layer) for layer in range(2)) for k, _ in keys]
    current = arrange(num, num_shards)
    entries, slot = share_out(current, keys)
    assert len({len(shard) for shard in entries}) == 1
    for position in current.running:
        shard = entries[position // current.per_shard]
        assert tuple(shard[slot[position] : slot[position] + 2]) == keys[current.member[position]]


def test_compacting_pays_where_it_halves_a_step_or_a_shard_is_idle():
    eight, active = arrange(8, 2), np.zeros(8, bool)
    assert not is_worth_compacting(eight, active, is_one_by_one=True)
    active[:5] = True
    assert not is_worth_compacting(eight, active, is_one_by_one=False)
    active[:5] = [True, True, True, True, False]
    assert is_worth_compacting(eight, active, is_one_by_one=True)
    assert is_worth_compacting(eight, active, is_one_by_one=False)
    three_and_one = np.array([True, True, True, False, True, False, False, False])
    assert not is_worth_compacting(eight, three_and_one, is_one_by_one=True)
    assert is_worth_compacting(eight, three_and_one, is_one_by_one=False)
