"""What is equal bit by bit: a member in company and alone, on more devices, and with frames in device memory."""

import dataclasses
import functools
import types

import jax
import numpy as np
import pytest

from seremo_jax.core import ensemble
from seremo_jax.training import steps
from tests.support import toy_training as toy
from tests.support.compiler import LOOPS_AS_IN_PRODUCTION


@pytest.fixture(scope="module", autouse=True)
def loops_as_in_production():
    """Compiles the steps as a user's are, whatever other files compiled in this process."""
    jit = functools.partial(jax.jit, compiler_options=LOOPS_AS_IN_PRODUCTION)
    steps.compile_steps.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "jax", types.SimpleNamespace(**vars(jax) | {"jit": jit}))
        yield
    steps.compile_steps.cache_clear()


@pytest.fixture(scope="module")
def company():
    """All eight members on one device."""
    return toy.run(toy.config(), toy.mesh(1), 2)


def _require_same(ours, theirs):
    for a, b in zip(toy.params_of(ours), toy.params_of(theirs), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("number", [0, 5])
def test_member_equals_itself_alone_bit_by_bit(company, number):
    config = toy.config()
    alone, lines = toy.run(config, toy.mesh(1), 2, members=[ensemble.members(config, None)[number]])
    assert [line["train_loss"][0] for line in lines] == [line["train_loss"][number] for line in company[1]]
    for in_company, by_itself in zip(toy.params_of(company[0]), toy.params_of(alone), strict=True):
        np.testing.assert_array_equal(in_company[number], by_itself[0])


def test_a_value_axis_member_equals_itself_alone_bit_by_bit():
    axes = {
        "class_kinds": ("ccc", "kl"), "label_smoothings": (0.0, 0.2), "speaker_balances": (0.0, 1.0),
        "group_balances": (0.0, 0.5), "closeness_weights": (0.0, 0.7), "objectives": ("mean", "cvar"),
        "mixups": (0.0, 0.4), "speaker_kappas_s": ("inf", 0.3), "learning_rates": (0.01, 0.03),
        "weight_decays": (0.0, 0.1), "dropouts": (0.0, 0.3), "data_seeds": (0, 1),
    }  # fmt: skip
    # The first two members have both values of each axis between them; the third differs from the first in the order
    # of its batches alone.
    every = 2 ** len(axes) - 1
    first = [0b011001100110, 0b100110011001]
    assert sum(first) == every
    others = [first[0] ^ 1, *np.random.default_rng(0).choice(every + 1, 10, replace=False).tolist()]
    one, optim = {"layers": (2,), "class_targets": ("votes",), "seeds": (0,)}, {"schedule": "cosine", "warmup_steps": 2}
    config = toy.config(ensemble=axes | one | {"only": tuple({0, *first, *others})}, optim=optim)
    members = ensemble.members(config, None)
    together, _ = toy.run(config, toy.mesh(1))
    num = len(members)
    stacked = np.stack([leaf.reshape(num, -1)[:, :3] for leaf in toy.params_of(together)], axis=1).reshape(num, -1)
    assert len(np.unique(stacked, axis=0)) == num > 12
    for number in map(config.ensemble.only.index, first):
        alone, _ = toy.run(config, toy.mesh(1), members=[members[number]])
        for in_company, by_itself in zip(toy.params_of(together), toy.params_of(alone), strict=True):
            np.testing.assert_array_equal(in_company[number], by_itself[0])
    # What nobody asked for changes nothing, wherever somebody else asks for it.
    plain, _ = toy.run(toy.config(ensemble=one, optim=optim | {"learning_rate": 0.01}), toy.mesh(1))
    for in_company, by_itself in zip(toy.params_of(together), toy.params_of(plain), strict=True):
        np.testing.assert_allclose(in_company[config.ensemble.only.index(0)], by_itself[0], atol=1e-6)


def test_members_on_more_devices_agree_bit_by_bit(company):
    _require_same(toy.run(toy.config(), toy.mesh(2), 2)[0], company[0])


def test_stopped_members_are_compacted_away_and_change_nobody():
    """Members of learning rate 0 never improve and stop; those left are spread anew and train as if alone."""
    axes = {"layers": (2,), "class_targets": ("votes",), "learning_rates": (0.0, 0.02), "seeds": (0, 1)}
    config = toy.config(ensemble=axes, train={"patience": 2})
    loop, lines = toy.run(config, toy.mesh(2), 6)
    assert loop.is_active.tolist() == [False, False, True, True]
    assert loop._current.num_running == 1
    still = dataclasses.replace(config, ensemble=dataclasses.replace(config.ensemble, learning_rates=(0.02,)))
    alone, _ = toy.run(still, toy.mesh(2), 6)
    for in_company, by_itself in zip(toy.params_of(loop), toy.params_of(alone), strict=True):
        np.testing.assert_array_equal(in_company[2:], by_itself)
    assert loop.values("best_epoch").tolist()[2:] == alone.values("best_epoch").tolist()
    # The first evaluation is the best so far; two without improvement follow, and the fourth is not made.
    is_scored = [bool(np.isfinite(line["development_score"][0])) for line in lines]
    assert is_scored == [True, True, True, False, False, False]


def test_frames_in_device_memory_give_the_same_bits_without_reading(company):
    store = toy.ToyStore(toy.targets())
    loop = toy.loop(toy.config(train={"device_cache": "on"}), toy.mesh(1), store=store)
    before = store.num_reads
    cached, _ = toy.run(None, None, 2, loop=loop)
    assert store.num_reads == before
    _require_same(cached, company[0])
