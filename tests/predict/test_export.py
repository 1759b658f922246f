"""Heads on padded batches, and the same as a StableHLO module without flax and without this package."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from seremo_jax.predict import export as head
from seremo_jax.training import model
from tests.support.small_heads import OPTIONS, SIZES, heads_of, one_head

UNITS = ((4.0, 3.0), (0.5, 0.25), (0.0, 1.0))
HAS_UNITS = (True, False, True)


def states(lengths, longest, filler=np.nan):
    """Hidden states [2, B, T, 6] with `filler` beyond each length."""
    hidden = np.full((2, len(lengths), longest, 6), filler, np.float32)
    for row, length in enumerate(lengths):
        hidden[:, row, :length] = np.random.default_rng(length).standard_normal((2, length, 6))
    return jnp.asarray(hidden), jnp.asarray(lengths, jnp.int32)


def alone(sizes, heads, member, frames):
    """Outputs of one member for the frames [T, 6] of one utterance, nothing padded."""
    slot = int(heads.layer_slot[member])
    scaled = ((np.asarray(frames) - heads.mean[slot]) / heads.sd[slot])[:, None]
    reset = np.arange(len(frames))[:, None] == 0
    inputs = scaled, reset, np.zeros(reset.shape, np.int32), np.array([len(frames) - 1])
    return model.apply(sizes, one_head(heads.params, member), *map(jnp.asarray, inputs))


@pytest.mark.parametrize(("member_map", "sizes"), [("map", SIZES), ("vmap", SIZES), ("vmap", OPTIONS)])
def test_padding_and_neighbours_change_nothing(member_map, sizes):
    heads = heads_of(sizes, 3, 2)
    hidden, num_frames = states([7, 1, 20, 13], 24)
    out = head.apply(sizes, heads, hidden, num_frames, member_map)
    for member in range(3):
        for row, length in enumerate(num_frames):
            expected = alone(sizes, heads, member, hidden[heads.layer_slot[member], row, :length])
            for ours, theirs in zip(jax.tree.leaves(out), jax.tree.leaves(expected), strict=True):
                np.testing.assert_allclose(ours[member, row], theirs[0], rtol=1e-6, atol=2e-6)


@pytest.fixture(scope="module")
def exported():
    """Heads, and their module."""
    heads = heads_of(SIZES, 3, 2)
    return heads, head.to_stablehlo(SIZES, heads, 6, UNITS, HAS_UNITS)


@pytest.mark.stack
@pytest.mark.parametrize("sizes", [SIZES, OPTIONS], ids=["defaults", "options"])
def test_the_module_is_the_model_at_every_shape(exported, sizes):
    heads, content = exported
    if sizes is OPTIONS:
        heads = heads_of(OPTIONS, 1, 2)
        content = head.to_stablehlo(OPTIONS, heads, 6, UNITS, HAS_UNITS)
    module = export.deserialize(bytearray(content))
    assert set(module.platforms) == set(head.PLATFORMS)
    for lengths, longest in (([9], 9), ([7, 1, 20], 24)):
        hidden, num_frames = states(lengths, longest)
        expected, exported = head.apply(sizes, heads, hidden, num_frames), module.call(hidden, num_frames)
        np.testing.assert_allclose(exported["distribution"], expected.distribution, rtol=0, atol=1e-6)
        raw = np.asarray(expected.attributes)
        scaled = np.stack([3 * raw[:, :, 0] + 4, raw[:, :, 2]], axis=-1)
        np.testing.assert_allclose(exported["attributes"], scaled, rtol=0, atol=4e-6)


@pytest.mark.stack
def test_the_module_runs_without_flax_and_without_this_package(exported, tmp_path):
    heads, content = exported
    hidden, num_frames = states([5, 8], 8, filler=0)
    (tmp_path / "head.stablehlo").write_bytes(content)
    np.savez(tmp_path / "in.npz", hidden=hidden, num_frames=num_frames)
    code = """
import sys
sys.modules["flax"] = sys.modules["seremo_jax"] = None
import numpy as np
from jax import export
inputs = np.load("in.npz")
with open("head.stablehlo", "rb") as file:
    module = export.deserialize(bytearray(file.read()))
np.savez("out.npz", **module.call(inputs["hidden"], inputs["num_frames"]))
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    expected = head.apply(SIZES, heads, hidden, num_frames).distribution
    np.testing.assert_allclose(np.load(tmp_path / "out.npz")["distribution"], expected, rtol=0, atol=1e-6)


@pytest.mark.stack
def test_parameters_by_name_and_what_does_not_fit():
    heads = heads_of(SIZES, 2, 1)
    arrays = head.flatten(heads.params)
    assert arrays["grus.0.w_i"].shape == (2, 12, 24)
    back = head.unflatten(SIZES, arrays, 2)
    jax.tree.map(np.testing.assert_array_equal, back, heads.params)
    wrong = {name: array for name, array in arrays.items() if name != "conv.b"} | {"stray": np.zeros(1)}
    with pytest.raises(ValueError, match=r"conv\.b is missing; stray is not expected; .* has shape \(2, .* \(3, "):
        head.unflatten(SIZES, wrong, 3)
