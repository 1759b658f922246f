"""The learning rate over the updates of a member, against the schedulers of PyTorch."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seremo_jax.core import ensemble
from seremo_jax.core.config import ConfigError
from seremo_jax.training import loader, optim
from tests.support import toy_training as toy


def _rates(schedule, rate, num_steps, num_updates):
    steps = jnp.arange(num_updates)
    return jax.vmap(lambda step: optim.rate_at(schedule, jnp.float32(rate), step, jnp.int32(num_steps)))(steps)


@pytest.mark.parametrize("warmup", [0, 1, 5])
@pytest.mark.parametrize("kind", ["constant", "cosine"])
def test_rates_are_those_of_torch(kind, warmup):
    torch = pytest.importorskip("torch", reason="parity with torch.optim.lr_scheduler needs torch")
    rate, num_steps, scheduler = 0.3, 17, torch.optim.lr_scheduler
    peer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)
    parts = {
        "constant": lambda: scheduler.ConstantLR(peer, 1.0),
        "cosine": lambda: scheduler.CosineAnnealingLR(peer, num_steps - warmup),
    }
    later = parts[kind]()
    if warmup:
        rise = scheduler.LinearLR(peer, 1 / warmup, 1.0, max(warmup - 1, 1))
        later = scheduler.SequentialLR(peer, [rise, later], [warmup])
    expected = []
    for _ in range(num_steps):
        expected.append(peer.param_groups[0]["lr"])
        peer.step()
        later.step()
    actual = _rates(optim.Schedule(kind, warmup), rate, num_steps, num_steps)
    np.testing.assert_allclose(actual, expected, atol=1e-7)


def test_a_rate_that_has_fallen_stays_at_0_and_one_without_a_schedule_is_untouched():
    rates = _rates(optim.Schedule("cosine", 2), 0.3, 10, 14)
    np.testing.assert_allclose(rates[10:], 0, atol=1e-8)
    rate = jnp.float32(0.3)
    assert optim.rate_at(optim.Schedule(), rate, jnp.int32(3), jnp.int32(0)) is rate


def _planned(lengths, **optim):
    """Planned updates of a member of each fold; fold f trains on `lengths[f]` utterances of 3 to 8 frames."""
    config = toy.config(optim=optim, train={"max_epochs": 3}, ensemble={"class_targets": (), "seeds": ()})
    members = [dataclasses.replace(ensemble.members(config, None)[0], fold=fold) for fold in lengths]
    rows = {fold: np.arange(length) for fold, length in lengths.items()}
    shape = loader.Shape(num_frames=100, num_rows=1, num_utterances=4)
    return toy.data_of(config).planned_steps(members, shape, rows)


def test_each_member_has_the_length_of_its_own_fold():
    """Four utterances a batch."""
    assert _planned({0: 8, 1: 17}, schedule="cosine") == [3 * 2, 3 * 5]
    assert _planned({1: 17}, schedule="cosine", warmup_steps=14) == [15]
    assert _planned({0: 8, 1: 17}) is None


def test_a_warm_up_that_does_not_end_is_refused():
    with pytest.raises(ConfigError, match=r"optim\.warmup_steps = 6: train\.max_epochs = 3 gives a member 6 updates"):
        _planned({0: 8, 1: 17}, warmup_steps=6)
