"""Shapes of what the steps are compiled with, against the arrays that a loop calls them with."""

import jax
import pytest

from seremo_jax.core import ensemble
from seremo_jax.training import lowering
from tests.support import toy_training


def _described(tree):
    return jax.tree.map(lambda x: (x.shape, str(x.dtype)), tree)


def _bytes_on_a_device(tree):
    return sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(tree))


@pytest.mark.parametrize("device_cache", ["on", "off"])
@pytest.mark.parametrize("num_data", [1, 2])
@pytest.mark.parametrize("kind", ["ccc", "emd"])
def test_shapes_are_those_of_a_loop(device_cache, num_data, kind):
    config = toy_training.config(
        model={"speaker_kappa_s": "inf" if kind == "ccc" else 1.0},
        train={"device_cache": device_cache, "data_shards": num_data, "micro_batches": 3}
        | ({"group_by": "kmeans:2"} if kind == "emd" else {}),
        ensemble={"data_seeds": (0, 1), "seeds": (0,), "objective_groups": ("speaker", "group")},
        loss={"attribute_kind": kind, "speaker_balance": 0.5, "objective": "mean" if kind == "ccc" else "cvar"},
    )
    mesh = toy_training.mesh(2, num_data)
    loop = toy_training.loop(config, mesh)
    is_cached = device_cache == "on"
    planned = lowering.training_on(loop._data, ensemble.members(config, None), mesh, "cpu", is_cached)
    for feed, arguments in ((loop._train, planned.train), (loop._development, planned.development)):
        batch = next(iter(feed.batches(None if feed is loop._development else 1)))
        called_with = lowering.Arguments(loop._state, feed.members, batch, feed.inputs)
        assert _described(called_with) == _described(arguments)
    assert planned.steps is loop._steps
    assert planned.num_batches == loop._train.num_batches()
    assert (planned.cache is not None) == is_cached
    assert planned.batch_bytes == _bytes_on_a_device(next(iter(loop._train.batches(1))))
    assert planned.state_bytes == _bytes_on_a_device(loop._state)


def test_the_platform_decides_how_members_are_computed():
    config = toy_training.config(train={"member_map": "auto"})
    loop = toy_training.loop(config, toy_training.mesh(1))
    maps = {
        platform: lowering.training_on(
            loop._data, loop.members, toy_training.mesh(1), platform, False
        ).settings.member_map
        for platform in ("cpu", "gpu", "tpu")
    }
    assert maps == {"cpu": "map", "gpu": "vmap", "tpu": "vmap"}
    assert set(lowering.training_on(loop._data, loop.members, toy_training.mesh(1), "cpu", False).lower()) == {
        "train", "predict", "finish",
    }  # fmt: skip


def test_members_that_are_computed_together_share_the_frames_in_device_memory():
    config = toy_training.config(train={"device_cache": "on", "member_map": "vmap"}, ensemble={"seeds": (0, 1, 2)})
    mesh = toy_training.mesh(1)
    data = toy_training.loop(config, mesh)._data
    planned = lowering.training_on(data, ensemble.members(config, None), mesh, "tpu", is_cached=True)
    shape = "x".join(map(str, planned.train.inputs.frames.shape))
    text = planned.lower()["train"]().as_text()
    assert f"tensor<{shape}x" in text
    assert f"x{shape}x" not in text
