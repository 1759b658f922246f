"""The machine that a benchmark runs on: its own limits, its processor and its versions."""

import importlib.metadata
import platform
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from launch.cores import num_cores

PRODUCTS = ((2_048, 1_024, 4_096), (4_096, 2_048, 2_048), (2_048, 4_096, 1_024))
"""Rows, inner size and columns of matrix products."""


def peak_gflops(is_quick: bool = False) -> float:
    """The best float32 matrix product XLA does here, in GFLOP/s; one small product where it is to be quick."""
    import jax
    import jax.numpy as jnp

    product = jax.jit(lambda a, b: a @ b)
    best = 0.0
    for rows, inner, columns in ((256, 256, 256),) if is_quick else PRODUCTS:
        a, b = jnp.ones((rows, inner)), jnp.ones((inner, columns))
        product(a, b).block_until_ready()
        for _ in range(1 if is_quick else 7):
            start = time.perf_counter()
            product(a, b).block_until_ready()
            best = max(best, 2 * rows * inner * columns / (time.perf_counter() - start) / 1e9)
    return best


def read_gbps(num_bytes: int = 1 << 30) -> float:
    """The best that XLA or NumPy, a thread a core, does here in reading float32 from memory once, in GB/s."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    # Random: a host may keep equal pages of a virtual machine once, and then they are read from its cache.
    values = np.random.default_rng(0).random(num_bytes // 4, np.float32)
    parts = np.array_split(values, num_cores())
    total, on_device = jax.jit(jnp.sum), jax.device_put(values)
    with ThreadPoolExecutor(num_cores()) as pool:
        cases = (lambda: total(on_device).block_until_ready(), lambda: list(pool.map(np.sum, parts)))
        best_s = float("inf")
        for case in cases:
            for _ in range(5):
                start = time.perf_counter()
                case()
                best_s = min(best_s, time.perf_counter() - start)
    return num_bytes / best_s / 1e9


def describe() -> dict[str, Any]:
    """Processor, cores, memory and versions."""
    import jax

    versions = {}
    for package in ("jax", "jaxlib", "flax", "numpy", "torch", "transformers", "polars", "pyarrow"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "absent"
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    devices = sorted({device.device_kind for device in jax.devices()})
    return {
        "processor": model,
        "cores": num_cores(),
        "devices": devices,
        "python": platform.python_version(),
        "versions": versions,
    }
