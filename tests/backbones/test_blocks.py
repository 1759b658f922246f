"""Blocks: what is left out where only the first frames are kept changes no number."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seremo_jax.backbones.blocks import Block, BlockSpec, hidden_states
from seremo_jax.backbones.layers import Stack, walk


def _filled(spec: BlockSpec, depth: int) -> Stack:
    """Blocks with random numbers."""
    stack, rng = Stack(Block(spec), depth), np.random.default_rng(0)
    for leaf in walk(stack.module):
        shape = leaf.param.get_value().shape
        leaf.param.set_value(jnp.asarray(rng.standard_normal(shape) / 4, jnp.float32))
    return stack


@pytest.mark.parametrize("has_gate", [False, True])
@pytest.mark.parametrize("is_pre_norm", [False, True])
def test_frames_that_are_not_kept_are_heard_but_not_computed_in_the_highest_block(is_pre_norm, has_gate):
    spec = BlockSpec(width=16, num_heads=2, hidden_width=32, is_pre_norm=is_pre_norm, has_gate=has_gate)
    stack, rng = _filled(spec, 3), np.random.default_rng(1)
    x = jnp.asarray(rng.standard_normal((2, 9, 16)), jnp.float32)
    is_kept = jnp.arange(9)[None, :] < jnp.array([4, 3])[:, None]
    bias = jnp.asarray(rng.standard_normal((2, 9, 9)), jnp.float32) if has_gate else None
    for layers in ((0, 1, 2, 3), (2, 0), (1,), (0,)):
        whole = hidden_states(stack, x, layers, is_kept, positions=bias)
        kept = hidden_states(stack, x, layers, is_kept, positions=bias, num_kept_frames=4)
        np.testing.assert_allclose(kept, whole[:, :, :4], rtol=0, atol=2e-6)
        # Frames beyond those kept still reach these by attention.
        other = hidden_states(stack, x.at[:, 4:].multiply(-1.0), layers, is_kept, positions=bias, num_kept_frames=4)
        assert (np.abs(other - kept).max() > 1e-3) == (max(layers) > 0)


def test_the_highest_block_takes_fewer_operations_where_few_frames_are_kept():
    stack = _filled(BlockSpec(width=16, num_heads=2, hidden_width=32), 1)
    is_kept = jnp.ones((1, 256), bool)

    def flops(num_kept_frames: int) -> float:
        definition, params = nnx.split(stack.module)

        def states(params, x):
            filled = Stack(Block(BlockSpec(width=16, num_heads=2, hidden_width=32)), 1)
            filled.module = nnx.merge(definition, params)
            return hidden_states(filled, x, (1,), is_kept, num_kept_frames=num_kept_frames)

        compiled = jax.jit(states).lower(params, jnp.zeros((1, 256, 16))).compile()
        return compiled.cost_analysis()["flops"]

    assert flops(32) < 0.6 * flops(256)
