"""Saliency of every layer: against NumPy pair by pair, against a one-pass NumPy product, and the memory's speed."""

import time
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from launch.bench.machine import read_gbps
from launch.bench.suite import Part, Row, Session
from launch.bench.timing import join
from seremo_jax.saliency import correlation

SHAPE, QUICK_SHAPE = (25, 30_000, 1_024, 8), (3, 600, 32, 4)
"""Layers, utterances, features, targets."""
BLOCK, QUICK_BLOCK = 1_000, 200
NUM_PAIRS = 400
OFFSET_SD, MOST_ERROR = 500, 1e-6
_PRECISION_SHAPE = (2, 6_000, 64, 8)


def parts(session: Session) -> list[Part]:
    """All rows."""
    num_layers, num, num_features, num_targets = shape = QUICK_SHAPE if session.is_quick else SHAPE
    what = f"saliency, {num:,} utterances x {num_layers} layers x {num_features} features x {num_targets} targets"
    names = (
        f"{what}: against one-pass NumPy products",
        f"{what}: against numpy.corrcoef of each pair",
        f"{what}: share of the read bandwidth",
    )
    precision = f"saliency, float32 against float64, mean/sd = {OFFSET_SD}"
    gpu = "saliency, share of a GPU's memory bandwidth"
    wanted = [
        Part(names, lambda: _speed(shape, names, session)),
        Part((precision,), lambda: [_precision(precision)]),
    ]
    if jax.default_backend() != "gpu":
        wanted.append(Part((gpu,), lambda: [Row(gpu, note="no GPU here: not measured")]))
    return wanted


def _speed(shape: tuple[int, int, int, int], names: tuple[str, ...], session: Session) -> Iterator[Row]:
    num_layers, num, num_features, num_targets = shape
    block = QUICK_BLOCK if session.is_quick else BLOCK
    rng = np.random.default_rng(0)
    targets = rng.standard_normal((num, num_targets)).astype(np.float32)
    blocks = [rng.standard_normal((num_layers, block, num_features), np.float32) for _ in range(num // block)]
    on_device, block_targets = [jax.device_put(values) for values in blocks], np.split(targets, len(blocks))
    if jax.default_backend() == "cpu":
        blocks = [np.asarray(values) for values in on_device]
    cases = {
        "ours s": lambda: ours(on_device, block_targets),
        "NumPy, one pass s": lambda: one_pass(blocks, block_targets),
    }
    timed = session.interleave(names[0], cases)
    s = timed.seconds
    yield Row(names[0], s, s["NumPy, one pass s"] / s["ours s"], 1.0, timed.note)
    pair_s, error = pairs(blocks, targets, np.asarray(ours(on_device, block_targets).correlation))
    every_pair_s = pair_s * num_layers * num_features * num_targets
    figures = {"ours s": s["ours s"], "numpy.corrcoef s": every_pair_s, "largest difference": error}
    about = f"numpy.corrcoef timed on {NUM_PAIRS} pairs, times all pairs"
    yield Row(names[1], figures, every_pair_s / s["ours s"], 100, join(timed.note, about))
    is_gpu = jax.default_backend() == "gpu"
    bandwidth = _gpu_read_gbps() if is_gpu else read_gbps(1 << (20 if session.is_quick else 30))
    gigabytes = num_layers * num * num_features * 4 / 1e9
    figures = {"GB": gigabytes, "GB/s": gigabytes / s["ours s"], "read GB/s": bandwidth}
    share = gigabytes / s["ours s"] / bandwidth
    yield Row(names[2], figures, share, 0.6 if is_gpu else 0.4, join(timed.note, "ratio: share of the bandwidth"))


_update = jax.jit(correlation.update)
_compute = jax.jit(correlation.compute)


def ours(blocks: Sequence[jax.Array], targets: Sequence[np.ndarray]) -> correlation.Saliency:
    """Saliency of all blocks [K, N, D] and targets [N, Y], one after the other."""
    state = correlation.empty(blocks[0].shape[0], blocks[0].shape[2], targets[0].shape[1])
    mask = np.ones(targets[0].shape, bool)
    for values, block_targets in zip(blocks, targets, strict=True):
        state = _update(state, values, block_targets, mask)
    return jax.block_until_ready(_compute(state))


def one_pass(blocks: Sequence[np.ndarray], targets: Sequence[np.ndarray]) -> np.ndarray:
    """[K, D, Y] absolute correlations from sums of one pass: products by BLAS, no mask, no shift."""
    num_layers, num_block, num_features = blocks[0].shape
    num, num_targets = num_block * len(blocks), targets[0].shape[1]
    sums = np.zeros((num_layers, 1 + num_targets, num_features), np.float32)
    squares = np.zeros((num_layers, num_features), np.float32)
    squared, ones = np.empty((num_block, num_features), np.float32), np.ones(num_block, np.float32)
    for values, block_targets in zip(blocks, targets, strict=True):
        columns = np.concatenate([ones[:, None], block_targets], axis=1).T.copy()
        for layer, features in enumerate(values):
            sums[layer] += columns @ features
            squares[layer] += ones @ np.square(features, out=squared)
    target = np.concatenate(targets).astype(np.float64)
    covariance = sums[:, 1:] / num - sums[:, :1] / num * target.mean(0)[None, :, None]
    sd = np.sqrt(squares / num - np.square(sums[:, 0] / num))
    return np.abs(covariance / sd[:, None] / target.std(0)[None, :, None]).transpose(0, 2, 1)


def pairs(blocks: Sequence[np.ndarray], targets: np.ndarray, ours: np.ndarray) -> tuple[float, float]:
    """Median seconds of `numpy.corrcoef` of one feature of one layer with one target; largest difference to `ours`."""
    rng, times, error = np.random.default_rng(1), [], 0.0
    for _ in range(NUM_PAIRS):
        layer, feature, target = (int(rng.integers(size)) for size in ours.shape)
        column = np.concatenate([values[layer, :, feature] for values in blocks])
        start = time.perf_counter()
        expected = abs(np.corrcoef(column, targets[:, target])[0, 1])
        times.append(time.perf_counter() - start)
        error = max(error, abs(expected - ours[layer, feature, target]))
    return float(np.median(times)), float(error)


def _precision(name: str) -> Row:
    """The largest error of float32 against two passes in float64, means far from 0."""
    num_layers, num, num_features, num_targets = _PRECISION_SHAPE
    rng = np.random.default_rng(2)
    targets = rng.standard_normal((num, num_targets)).astype(np.float32)
    means = rng.standard_normal((num_layers, num, num_features)) + 0.3 * targets[None, :, :1] + OFFSET_SD
    means = means.astype(np.float32)
    blocks = [jnp.asarray(part) for part in np.split(means, 6, axis=1)]
    correlations = np.asarray(ours(blocks, np.split(targets, 6)).correlation)
    exact, target = means.astype(np.float64), targets.astype(np.float64)
    exact, target = exact - exact.mean(1, keepdims=True), target - target.mean(0)
    spread = np.sqrt(np.square(exact).sum(1)[..., None] * np.square(target).sum(0))
    error = np.abs(correlations - np.abs(np.einsum("knd,ny->kdy", exact, target)) / spread).max()
    note = f"limit {MOST_ERROR:g}: " + ("kept" if error <= MOST_ERROR else "BROKEN")
    return Row(name, {"largest error": float(error)}, note=note)


def _gpu_read_gbps() -> float:
    """What a sum over 2 GB reads in a second on the device."""
    values, total = jnp.ones(1 << 29, jnp.float32), jax.jit(jnp.sum)
    best_s = float("inf")
    for _ in range(6):
        start = time.perf_counter()
        total(values).block_until_ready()
        best_s = min(best_s, time.perf_counter() - start)
    return values.nbytes / best_s / 1e9
