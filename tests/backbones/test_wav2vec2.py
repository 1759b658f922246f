"""The wav2vec 2.0 family: every hidden state against transformers' PyTorch models, and against golden files without."""

import functools
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seremo_jax import backbones
from seremo_jax.backbones import layers
from seremo_jax.backbones.wav2vec2_front import RelativeBias, SpectralConv
from tests.support import small_models

HAS_TORCH = importlib.util.find_spec("torch") is not None
LENGTHS = (1_500, 900, 411, 37)
"""Samples; the last is too short for one frame and is padded to one."""
ODD = {"hidden_act": "gelu_new", "feat_extract_activation": "silu", "layer_norm_eps": 1e-2, "adapter_attn_dim": 6}
"""Settings unlike those of any published model. Blocks with norms behind take no adapter, whatever a config says."""
ODD_VARIANTS = (
    "wav2vec2-base",
    "xls-r",
    "hubert-large",
    "wavlm-base",
    "unispeech",
    "data2vec-audio",
    "conformer-rotary",
)
FOREIGN = {"do_stable_layer_norm": True, "feat_proj_layer_norm": False, "conv_pos_batch_norm": True, "num_buckets": 1}
"""Settings that `data2vec-audio` does not have; the published code passes over them."""


@pytest.fixture(scope="module", params=sorted(small_models.VARIANTS))
def variant(request):
    return request.param


@functools.cache
def compiled():
    return jax.jit(lambda backbone, waveforms, num_samples: backbone(waveforms, num_samples))


def run(backbone, waves, num_samples=1_600):
    """Hidden states [K, B, T, D] and frames of waveforms in one batch, NaN beyond each."""
    batch = np.full((len(waves), num_samples), np.nan, np.float32)
    for row, wave in enumerate(waves):
        batch[row, : len(wave)] = wave
    lengths = jnp.asarray([len(wave) for wave in waves], jnp.int32)
    hidden, num_frames = compiled()(backbone, jnp.asarray(batch), lengths)
    return np.asarray(hidden), np.asarray(num_frames)


def test_every_layer_equals_pytorch(variant, tmp_path):
    """Batched and padded here; alone there. Tolerances of the issue: 1e-4 max abs and 1e-5 in norm."""
    pytest.importorskip("torch", reason="needs PyTorch")
    model = small_models.make_torch(
        variant,
        tmp_path,
        **(ODD if variant in ODD_VARIANTS else {}),
        **(FOREIGN if variant == "data2vec-audio" else {}),
    )
    waves = small_models.waves(LENGTHS)
    hidden, num_frames = run(backbones.load(tmp_path), waves)
    normed, _ = run(backbones.load(tmp_path, final_norm=True), waves)
    for row, wave in enumerate(waves):
        states, last_block, last_hidden = small_models.torch_states(model, wave)
        assert num_frames[row] == len(last_block)
        if variant == "sew":
            last_hidden = last_block  # what is published beyond is a map back to the frames before they were squeezed
        ours = hidden[:, row, : num_frames[row]]
        for layer, theirs in enumerate([*states[:-1], last_block]):
            assert_close(ours[layer], theirs)
        assert_close(normed[-1, row, : num_frames[row]], last_hidden)


def assert_close(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)
    assert np.linalg.norm(ours - theirs) <= 1e-5 * np.linalg.norm(theirs)


@pytest.mark.stack
@pytest.mark.skipif(HAS_TORCH and jax.default_backend() == "cpu", reason="compared with PyTorch itself")
def test_every_layer_equals_the_golden_files(variant):
    """The same where PyTorch is not installed, and on a GPU."""
    golden = small_models.golden(variant)
    hidden, num_frames = run(backbones.load(golden.folder), small_models.waves(golden.lengths))
    for row, frames in enumerate(num_frames):
        for layer in range(len(hidden)):
            assert_close(hidden[layer, row, :frames], golden.states[row][layer])


@pytest.mark.parametrize("variant", ["data2vec-audio", "hubert-batch-norm", "conformer-relative"])
def test_batched_equals_alone_on_every_layer(variant):
    backbone = backbones.load(small_models.golden(variant).folder)
    waves = small_models.waves(LENGTHS)
    together, num_frames = run(backbone, waves)
    for row, wave in enumerate(waves):
        alone, frames = run(backbone, [wave], num_samples=len(wave))
        assert frames[0] == num_frames[row] == alone.shape[2]
        np.testing.assert_allclose(together[:, row, : frames[0]], alone[:, 0], rtol=0, atol=1e-5)
        assert (together[:, row, frames[0] :] == 0).all()


@pytest.mark.parametrize("variant", ["data2vec-audio", "hubert-batch-norm", "wavlm-large", "conformer-rotary"])
def test_a_choice_of_layers_reads_and_computes_no_more_than_it_needs(variant):
    folder = small_models.golden(variant).folder
    everything, some, first = (backbones.load(folder, layers) for layers in (None, (1, 0), (0,)))
    waves = small_models.waves(LENGTHS)
    np.testing.assert_allclose(run(some, waves)[0], run(everything, waves)[0][[1, 0]], rtol=0, atol=1e-5)
    num_weights = [sum(x.size for x in jax.tree.leaves(backbone)) for backbone in (first, some, everything)]
    assert num_weights == sorted(num_weights)
    assert num_weights[0] < num_weights[2]
    assert first.revision == some.revision == everything.revision


def test_bfloat16_keeps_the_direction_of_every_frame_through_24_layers(tmp_path):
    """Cosine with float32 >= 0.999 at every frame and layer, for the depth and norms of WavLM-large."""
    small_models.write_deep(tmp_path, num_layers=24)
    waves = small_models.waves(LENGTHS[:3])
    exact, num_frames = run(backbones.load(tmp_path), waves)
    rounded, _ = run(backbones.load(tmp_path, dtype="bfloat16"), waves)
    assert rounded.dtype == jnp.bfloat16
    assert len(exact) == 25
    for row, frames in enumerate(num_frames):
        a, b = exact[:, row, :frames], rounded[:, row, :frames].astype(np.float32)
        cosine = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
        assert cosine.min() >= 0.999


@pytest.mark.stack
@pytest.mark.parametrize(("kernel", "num_frames"), [(1, 5), (8, 3), (9, 40), (19, 64), (128, 129), (128, 400)])
def test_spectral_convolution_equals_the_direct_one(kernel, num_frames):
    rng = np.random.default_rng(kernel)
    conv, weight = SpectralConv(12, kernel, 3, "none"), rng.standard_normal((12, 4, kernel))
    conv.spectrum.set_value(jnp.asarray(conv._spectrum_of([weight])))
    conv.b.set_value(jnp.zeros(12))
    x = rng.standard_normal((2, num_frames, 12)).astype(np.float32)
    padded = np.pad(x, ((0, 0), (kernel // 2, kernel), (0, 0)))
    expected = np.zeros_like(x)
    for t in range(num_frames):
        for out in range(12):
            group = out // 4
            seen = padded[:, t : t + kernel, 4 * group : 4 * group + 4]
            expected[:, t, out] = np.einsum("btd,dt->b", seen, weight[out])
    np.testing.assert_allclose(conv(jnp.asarray(x)), expected, rtol=0, atol=1e-4)


def test_relative_position_buckets_are_those_published():
    """By the definition in float64, away from the boundaries that rounding decides."""
    buckets = RelativeBias(320, 800, 12).buckets(1_500)
    assert buckets[1_499] == 0
    distance = np.arange(-1_499, 1_500)
    near = np.abs(distance) < 80
    np.testing.assert_array_equal(buckets[near], np.abs(distance[near]) + 160 * (distance[near] > 0))
    assert buckets.max() == 319
    assert (buckets[distance > 800] == 319).all()
    assert (buckets[distance < -800] == 159).all()


@pytest.mark.stack
@pytest.mark.parametrize("is_biased", [False, True])
def test_attention_by_head_is_attention_of_all_heads(is_biased):
    """The form for CPU and the form for accelerators; a row of padding alone stays finite."""
    rng = np.random.default_rng(0)
    q, k, v = (jnp.asarray(rng.standard_normal((3, 2, 7, 4)), jnp.float32) for _ in range(3))
    mask = jnp.where(jnp.arange(7)[None, :] < jnp.asarray([7, 3, 0])[:, None], 0.0, -1e9)
    bias = jnp.asarray(rng.standard_normal((2, 7, 7)), jnp.float32) if is_biased else None
    gate = jnp.asarray(rng.standard_normal((3, 2, 7)), jnp.float32) if is_biased else None
    by_head, all_heads = (form(q, k, v, mask, bias, gate) for form in (layers._head_by_head, layers._all_heads))
    assert np.isfinite(all_heads).all()
    np.testing.assert_allclose(by_head[:2], all_heads[:2], rtol=0, atol=1e-5)
    scores = np.einsum("bhtd,bhsd->bhts", q, k) + (0 if bias is None else gate[..., None] * bias[None])
    weights = np.exp(scores[1, ..., :3] - scores[1, ..., :3].max(axis=-1, keepdims=True))
    expected = (weights / weights.sum(axis=-1, keepdims=True)) @ np.asarray(v)[1, :, :3]
    np.testing.assert_allclose(all_heads[1], expected, rtol=0, atol=1e-5)
