"""Operations of a forward pass from a published config, against those that XLA counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seremo_jax import backbones
from seremo_jax.backbones import conformer, costs, layers, wav2vec2


def _count(config, depth, num_samples):
    """Operations that XLA counts in a compiled forward of our backbone with so many blocks."""
    definition, params = nnx.split(nnx.eval_shape(lambda: wav2vec2.Encoder(config, depth, False)))
    backbone = wav2vec2.Wav2Vec2(
        params, definition, "x", "x", (depth,), depth + 1, config.hidden_size, 16_000, 50.0, "float32", False, 0,
        tuple(config.conv_kernel), tuple(config.conv_stride), True,
    )  # fmt: skip
    shapes = jax.ShapeDtypeStruct((1, num_samples), jnp.float32), jax.ShapeDtypeStruct((1,), jnp.int32)
    return jax.jit(lambda b, w, n: b(w, n)[0]).lower(backbone, *shapes).compile().cost_analysis()["flops"]


def test_operations_are_those_that_xla_counts(monkeypatch):
    # XLA counts the body of a loop once: heads at once, as on accelerators, and blocks one by one.
    monkeypatch.setattr(layers, "_head_by_head", layers._all_heads)
    config, num_samples = costs.published_config("microsoft/wavlm-large"), 9 * 16_000
    front, item = (_count(config, depth, num_samples) for depth in (0, 1))
    counted = front + config.num_hidden_layers * (item - front)
    assert costs.forward_flops(config, num_samples) == pytest.approx(counted, rel=0.03)
    config.num_hidden_layers = 0
    estimated_front = costs.forward_flops(config, num_samples)
    assert estimated_front == pytest.approx(front, rel=0.05)
    config.num_hidden_layers = 1
    assert costs.forward_flops(config, num_samples) - estimated_front == pytest.approx(item - front, rel=0.03)


@pytest.mark.parametrize("name", ["facebook/wav2vec2-conformer-rel-pos-large", "facebook/w2v-bert-2.0"])
def test_operations_of_a_conformer_block_are_those_that_xla_counts(name, monkeypatch):
    monkeypatch.setattr(conformer, "_head_by_head", conformer._all_heads)
    shapes = jax.ShapeDtypeStruct((1, 64_000), jnp.float32), jax.ShapeDtypeStruct((1,), jnp.int32)

    def count(depth):
        lowered = jax.jit(lambda b, w, n: b(w, n)[0]).lower(backbones.outline(name, (depth,)), *shapes)
        return lowered.compile().cost_analysis()["flops"]

    config = costs.published_config(name)
    front, item = count(0), count(1)
    config.num_hidden_layers = 0
    estimated_front = costs.forward_flops(config, 64_000)
    assert estimated_front == pytest.approx(front, rel=0.05 if config.model_type == "wav2vec2-conformer" else 0.5)
    config.num_hidden_layers = 1
    assert costs.forward_flops(config, 64_000) - estimated_front == pytest.approx(item - front, rel=0.03)


def test_direct_positions_are_more_work_and_arrays_are_their_entries():
    config = costs.published_config("facebook/wav2vec2-base")
    direct, spectral = (costs.forward_flops(config, 80_000, is_direct=kind) for kind in (True, False))
    assert direct - spectral == pytest.approx(249 * 2 * 128 * 768**2 / 16, rel=0.05)
    both = costs.forward_flops(config, np.array([80_000, 40_000]))
    np.testing.assert_array_equal(both, [spectral, costs.forward_flops(config, 40_000)])
