"""Contract of every backbone, and what is particular to each."""

import functools
import itertools

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
from hypothesis import given, settings

from seremo_jax import backbones
from seremo_jax.backbones import logmel
from tests.support.small_models import GOLDEN

WHISPER = GOLDEN.parent / "whisper"
LOADED = {
    "logmel": ("logmel", {}, None),
    "wav2vec2-base": (GOLDEN / "wav2vec2-base", {}, None),
    "wavlm-large": (GOLDEN / "wavlm-large", {"final_norm": True}, None),
    "wavlm-large in windows": (GOLDEN / "wavlm-large", {}, (0.3, 0.1)),
    "w2v-bert": (GOLDEN.parent / "w2v_bert", {}, None),
    "whisper": (WHISPER, {}, None),
    "whisper cut": (WHISPER, {"window": "cut", "final_norm": True}, None),
    "whisper in windows": (WHISPER, {"window": "cut"}, (0.5, 0.3)),
}
"""What the contract is tested on -> what `load` is told, and the lengths of window and overlap in seconds."""
TOLERANCE = {"logmel": 1e-5} | dict.fromkeys(list(LOADED)[1:], 1e-4)
"""Backbone -> largest difference padding and neighbours may make."""
SHAPE = (5, 16_000)
"""Batches of one shape wherever a test is not about shapes: compiling costs more than all else here."""
LENGTHS = (9_000, 15_999, 399)


@pytest.fixture(params=sorted(TOLERANCE))
def name(request):
    return request.param


def speechlike(num_samples, seed=0):
    """Noise bursts and a hum over room noise, at the resolution of 16-bit audio."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(num_samples) / 16_000
    wave = 0.1 * rng.standard_normal(num_samples) * (np.sin(2 * np.pi * 3 * time_s) > 0)
    wave += 3e-3 * rng.standard_normal(num_samples)
    wave += 0.2 * np.sin(2 * np.pi * 140 * time_s) * np.exp(-3 * (time_s % 0.7))
    return (np.round(wave * 32_768) / 32_768).astype(np.float32)


@functools.cache
def load(name, layers=None):
    path, options, windows = LOADED[name]
    backbone = backbones.load(path, layers, **options)
    return backbones.windowed(backbone, *windows) if windows else backbone


@functools.cache
def compiled():
    return jax.jit(lambda backbone, waveforms, num_samples: backbone(waveforms, num_samples))


def run(name, waves, layers=None, shape=SHAPE, filler=0.0):
    """Hidden states and frames of the waveforms, in a batch filled up with empty rows."""
    batch, num_samples = np.full(shape, filler, np.float32), np.zeros(shape[0], np.int32)
    for row, wave in enumerate(waves):
        batch[row, : len(wave)], num_samples[row] = wave, len(wave)
    hidden, num_frames = compiled()(load(name, layers), jnp.asarray(batch), jnp.asarray(num_samples))
    return np.asarray(hidden), np.asarray(num_frames)


def test_a_backbone_is_what_the_protocol_says(name):
    backbone = load(name)
    assert isinstance(backbone, backbones.Backbone)
    assert backbone.name == getattr(LOADED[name][0], "name", name)
    assert backbone.revision
    assert backbone.revision == load(name, layers=(0,)).revision
    assert backbone.layers == tuple(range(backbone.num_layers))
    hidden, num_frames = run(name, [speechlike(16_000), speechlike(9_000)])
    frames = [backbone.num_frames(length) for length in (16_000, 9_000, 0, 0, 0)]
    assert hidden.shape == (backbone.num_layers, 5, frames[0], backbone.num_features)
    assert hidden.dtype == np.float32
    assert num_frames.dtype == np.int32
    assert num_frames.tolist() == frames
    assert abs(frames[0] / backbone.frame_rate_hz - 16_000 / backbone.sample_rate_hz) < 2 / backbone.frame_rate_hz


def test_batched_equals_alone_whatever_the_padding_holds(name):
    waves = [speechlike(length, seed) for seed, length in enumerate(LENGTHS)]
    together, num_frames = run(name, waves, filler=np.nan)
    # All but a sample of the batch's length, and less than a frame: each length alone is a program to compile.
    for row in (1, 2):
        wave = waves[row]
        alone, frames = run(name, [wave], shape=(1, len(wave)))
        assert frames[0] == num_frames[row] == alone.shape[2]
        np.testing.assert_allclose(together[:, row, : frames[0]], alone[:, 0], rtol=0, atol=TOLERANCE[name])
        assert (together[:, row, frames[0] :] == 0).all()


@pytest.mark.parametrize("name", ["logmel", "wavlm-large in windows", "whisper cut"])
def test_it_can_be_called_as_it_is_and_compiled_as_it_is(name):
    backbone, waves, lengths = load(name), jnp.asarray(speechlike(15_999))[None], jnp.asarray([15_999])
    expected = run(name, [speechlike(15_999)], shape=(1, 15_999))[0]
    for call in (backbone, jax.jit(backbone)):
        np.testing.assert_allclose(call(waves, lengths)[0], expected, rtol=0, atol=TOLERANCE[name])


def test_order_in_the_batch_changes_nothing(name):
    waves = [speechlike(length, seed) for seed, length in enumerate((9_000, 15_999, 399, 4_000, 16_000))]
    forward, backward = run(name, waves)[0], run(name, waves[::-1])[0]
    np.testing.assert_allclose(forward, backward[:, ::-1], rtol=0, atol=TOLERANCE[name])


def test_a_choice_of_layers_gives_those_layers_in_that_order_and_costs_less(name):
    everything = load(name)
    wanted = (everything.num_layers // 2, 0)
    some = load(name, layers=wanted)
    assert some.layers == wanted
    assert some.num_layers == everything.num_layers
    waves = [speechlike(length) for length in LENGTHS]
    np.testing.assert_allclose(
        run(name, waves, wanted)[0], run(name, waves)[0][list(wanted)], rtol=0, atol=TOLERANCE[name]
    )

    def cost(backbone):
        # XLA counts a loop's body once, whatever its length; a block that is not held cannot be computed.
        shapes = jax.ShapeDtypeStruct(SHAPE, jnp.float32), jax.ShapeDtypeStruct(SHAPE[:1], jnp.int32)
        num_weights = sum(leaf.size for leaf in jax.tree.leaves(backbone))
        return compiled().lower(backbone, *shapes).cost_analysis()["flops"] + num_weights

    assert cost(load(name, layers=(0,))) < cost(some) < cost(everything)


def test_odd_audio_stays_finite_and_empty_rows_stay_zero(name):
    odd = [np.zeros(8_000), np.ones(8_000), np.tile([1.0, -1.0], 4_000), np.eye(1, 8_000)[0]]
    hidden, num_frames = run(name, odd)
    assert np.isfinite(hidden).all()
    assert num_frames[4] == 0
    assert (hidden[:, 4] == 0).all()
    assert num_frames[:4].min() > 0


def test_num_frames_takes_any_kind_of_integer(name):
    num_frames = load(name).num_frames
    lengths = [0, 1, 399, 400, 719, 720, 1_039, 1_040, 91_040]
    one_by_one = [int(num_frames(length)) for length in lengths]
    assert one_by_one[0] == 0
    assert min(one_by_one[1:]) >= 1
    assert num_frames(np.array(lengths, np.int32)).tolist() == one_by_one
    assert num_frames(jnp.asarray(lengths, jnp.int32)).tolist() == one_by_one


def test_load_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match=r"unknown backbone 'log-mel': known are .*logmel.*did you mean 'logmel'"):
        backbones.load("log-mel")
    with pytest.raises(ValueError, match="choose float32 or bfloat16"):
        backbones.load("logmel", dtype="float64")
    with pytest.raises(ValueError, match="layer 7 is out of range; this backbone has layers 0 to 6"):
        backbones.load("logmel", layers=(0, 7))


@pytest.mark.parametrize(
    ("layers", "message"),
    [((), "no layer"), ((-1,), "out of range"), ((5,), "0 to 4"), ((1, 1), "twice"), ((1.0,), "no layer number")],
)
def test_pick_layers_names_what_is_wrong(layers, message):
    assert backbones.pick_layers(None, 5) == (0, 1, 2, 3, 4)
    assert backbones.pick_layers([4, np.int64(2)], 5) == (4, 2)
    with pytest.raises(ValueError, match=message):
        backbones.pick_layers(layers, 5)


@settings(max_examples=25)
@given(st.lists(st.integers(1, 3_200), min_size=1, max_size=20), st.integers(1, 4))
def test_bucket_lengths_pad_as_little_as_possible(lengths, num_buckets):
    def padded_total(tops):
        return sum(min(top for top in tops if top >= length) for length in lengths)

    buckets = backbones.bucket_lengths(np.array(lengths), num_buckets, hop_samples=320)
    candidates = sorted({-(-length // 320) * 320 for length in lengths})
    assert len(buckets) <= num_buckets
    assert list(buckets) == sorted(set(buckets))
    assert set(buckets) <= set(candidates)
    rivals = itertools.chain.from_iterable(itertools.combinations(candidates[:-1], n) for n in range(num_buckets))
    assert padded_total(buckets) == min(padded_total((*rival, candidates[-1])) for rival in rivals)


@pytest.mark.parametrize("longest", range(960_000, 960_000 + 6 * 320, 320))
def test_bucket_lengths_of_a_large_corpus(longest):
    """More lengths than candidates: thinning them out must not lose the longest utterance."""
    lengths = np.append(np.random.default_rng(0).integers(16_000, 960_000, 50_000), longest)
    buckets = backbones.bucket_lengths(lengths, 8)
    assert len(buckets) == 8
    assert not np.any(np.array(buckets) % 320)
    assert buckets[-1] == longest
    padded = np.array(buckets)[np.searchsorted(buckets, lengths)].sum() / lengths.sum()
    assert padded < 1.122  # eight buckets of equal width pad by 12 % on average


@pytest.mark.parametrize(("lengths", "num_buckets"), [([], 2), ([400, 0], 2), ([400], 0)])
def test_bucket_lengths_refuse_nothing_to_do(lengths, num_buckets):
    with pytest.raises(ValueError, match="at least"):
        backbones.bucket_lengths(np.array(lengths, int), num_buckets)


# ---- logmel


@functools.cache
def slaney_filters():
    """Mel filters bin by bin, from the mel scale's definition: 15 mels a kHz, then 27 mels for a factor of 6.4."""

    def to_mel(hz):
        return 3 * hz / 200 if hz < 1_000 else 15 + 27 * np.log(hz / 1_000) / np.log(6.4)

    grid_hz = np.linspace(0, 8_000, 800_001)
    edges_hz = np.interp(np.linspace(0, to_mel(8_000), 82), [to_mel(hz) for hz in grid_hz], grid_hz)
    filters = np.zeros((80, 201))
    for band, (low, centre, high) in enumerate(zip(edges_hz, edges_hz[1:], edges_hz[2:], strict=False)):
        filters[band] = np.interp(np.arange(201) * 40.0, [low, centre, high], [0, 2 / (high - low), 0])
    return filters


def log_mel_alone(wave):
    """Log-mel bands in float64, frame by frame."""
    window, filters, frames = scipy.signal.get_window("hann", 400), slaney_filters(), []
    wave = np.pad(wave.astype(np.float64), (0, max(0, 400 - len(wave))))
    for start in range(0, len(wave) - 399, 160):
        power = np.abs(np.fft.rfft(window * wave[start : start + 400])) ** 2
        frames.append(np.log(np.maximum(filters @ power, 1e-10)))
    return np.array(frames)


def test_mel_filters_equal_those_of_whisper(shared):
    with np.load(shared / "weights" / "mel_filters.npz") as published:
        np.testing.assert_allclose(logmel.mel_filters(80), published["mel_80"], rtol=0, atol=1e-8)


def test_mel_filters_equal_their_definition():
    np.testing.assert_allclose(logmel.mel_filters(80), slaney_filters(), rtol=0, atol=1e-7)


def test_layer_0_equals_a_float64_loop():
    lengths = (16_000, 15_999, 720, 559, 250)
    waves = [speechlike(length) for length in lengths]
    hidden, num_frames = run("logmel", waves)
    assert num_frames.tolist() == [49, 49, 2, 1, 1]
    for row, wave in enumerate(waves):
        np.testing.assert_allclose(hidden[0, row, : num_frames[row]], log_mel_alone(wave)[::2], rtol=0, atol=1e-4)


@pytest.mark.parametrize("layer", range(1, 7))
def test_modulation_layers_equal_scipy(layer):
    sd_frames, wave = logmel.SCALES_S[layer - 1] * 100, speechlike(14_000)
    reach = int(np.ceil(4 * sd_frames))
    impulse, squares = np.eye(1, 2 * reach + 1, reach)[0], 0.0
    for order in (1, 2):
        # The impulse response or its mirror image: the same up to a sign.
        kernel = scipy.ndimage.gaussian_filter1d(impulse, sd_frames, order=order, radius=reach, mode="constant")
        kernel -= kernel.mean()
        kernel /= np.abs(scipy.signal.freqz(kernel, worN=4_096)[1]).max()
        squares += scipy.ndimage.correlate1d(log_mel_alone(wave), kernel, axis=0, mode="nearest") ** 2
    hidden, num_frames = run("logmel", [wave], filler=np.nan)
    np.testing.assert_allclose(hidden[layer, 0, : num_frames[0]], np.sqrt(squares)[::2], rtol=0, atol=1e-4)


def test_a_rate_of_modulation_shows_in_the_layer_of_its_time_scale():
    """Bands whose log energy swings by +-1 neper have a depth of about 1 in that layer, and less in the others."""
    time_s = np.arange(80_000) / 16_000
    tones = sum(np.sin(2 * np.pi * hz * time_s + hz**2) for hz in range(1_000, 3_000, 40))
    rates_hz = (12.0, 6.0, 3.0, 1.5, 0.75, 0.4)
    waves = [0.002 * tones * np.exp(0.5 * np.cos(2 * np.pi * rate_hz * time_s)) for rate_hz in rates_hz]
    hidden, _ = run("logmel", waves, shape=(6, 80_000))
    depth = hidden[1:, :, 50:-50, 30:45].mean(axis=(2, 3))
    assert np.argmax(depth, axis=0).tolist() == [0, 1, 2, 3, 4, 5]
    assert depth.max(axis=0).min() > 0.7
    assert depth.max() < 1.15


def test_loudness_moves_layer_0_and_no_other():
    wave = 1e-3 * np.random.default_rng(0).standard_normal(16_000).astype(np.float32)
    hidden, _ = run("logmel", [wave, 16 * wave])
    np.testing.assert_allclose(hidden[0, 1] - hidden[0, 0], 2 * np.log(16), rtol=0, atol=1e-4)
    np.testing.assert_allclose(hidden[1:, 1], hidden[1:, 0], rtol=0, atol=1e-4)


def test_a_steady_sound_has_no_modulation_not_even_at_its_ends():
    time_s = np.arange(16_000) / 16_000
    steady = sum(np.sin(2 * np.pi * hz * time_s) for hz in range(100, 8_000, 100))
    hidden, _ = run("logmel", [steady, steady[:9_000]], filler=1.0)
    assert np.abs(hidden[1:]).max() < 1e-3
