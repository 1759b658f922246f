"""Interleaved timing, rounds free of other jobs, the machine's own limits, and rows of a benchmark."""

import dataclasses
import importlib
import importlib.metadata
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

MOST_FOREIGN_SHARE = 0.15
"""Of the cores' time, used by other processes during a round; a round with more is run again."""
_MOST_TRIES = 4


class Options(NamedTuple):
    """How to measure.

    Attributes:
      rounds: Rounds of which the medians are reported.
      is_quick: Small inputs, for a test that everything runs.
      shared: Folder of real data and weights, or None.
    """

    rounds: int = 5
    is_quick: bool = False
    shared: Path | None = None


@dataclasses.dataclass
class Row:
    """One line of the table.

    Attributes:
      name: What is measured.
      figures: Label -> number, seconds unless the label says otherwise.
      ratio: How many times faster ours is than the other, or None.
      target: What the ratio should be at least, or None.
      note: What a reader must know.
    """

    name: str
    figures: dict[str, float] = dataclasses.field(default_factory=dict)
    ratio: float | None = None
    target: float | None = None
    note: str = ""


class Timed(NamedTuple):
    """Medians by case, and how disturbed the rounds were.

    Attributes:
      seconds: Case -> median.
      spread: Case -> (least, most).
      num_disturbed: Rounds thrown away because other processes held the cores.
      is_disturbed: Whether a round that is counted was disturbed, too, for want of a quiet one.
    """

    seconds: dict[str, float]
    spread: dict[str, tuple[float, float]]
    num_disturbed: int
    is_disturbed: bool

    @property
    def note(self) -> str:
        """What the table says of it."""
        if self.is_disturbed:
            return "disturbed: other jobs held the cores"
        return f"{self.num_disturbed} disturbed rounds repeated" if self.num_disturbed else ""


def run_suite(name: str, options: Options) -> tuple[list[Row], dict[str, Any]]:
    """Rows of a suite, and the machine; JAX sees a device a core where the suite spreads members over devices."""
    import jax

    suite = importlib.import_module(f"launch.bench.{name}")
    if getattr(suite, "USES_A_DEVICE_A_CORE", False):
        jax.config.update("jax_num_cpu_devices", num_cores())
    return suite.run(options), machine()


def interleave(cases: Mapping[str, Callable[[], Any]], rounds: int, pids: Sequence[int] = ()) -> Timed:
    """Times every case once a round, in turn, after one round to warm up.

    A round during which other processes used more than `MOST_FOREIGN_SHARE` of the cores is run again, a few times.

    Args:
      cases: Name -> what to time.
      rounds: Rounds counted.
      pids: Processes that work for a case; what they use is no disturbance.
    """
    for case in cases.values():
        case()
    times: dict[str, list[float]] = {name: [] for name in cases}
    num_disturbed, is_disturbed = 0, False
    for _ in range(rounds):
        for attempt in range(_MOST_TRIES):
            before, foreign_before = time.perf_counter(), _foreign_s(pids)
            taken = {}
            for name, case in cases.items():
                start = time.perf_counter()
                case()
                taken[name] = time.perf_counter() - start
            elapsed = time.perf_counter() - before
            if (_foreign_s(pids) - foreign_before) <= MOST_FOREIGN_SHARE * elapsed * num_cores():
                break
            num_disturbed += 1
            is_disturbed |= attempt == _MOST_TRIES - 1
        for name, seconds in taken.items():
            times[name].append(seconds)
    medians = {name: statistics.median(values) for name, values in times.items()}
    return Timed(medians, {name: (min(v), max(v)) for name, v in times.items()}, num_disturbed, is_disturbed)


def num_cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _foreign_s(pids: Sequence[int]) -> float:
    """Core seconds that processes other than this and `pids` have used so far; 0 where that cannot be told."""
    try:
        fields = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:]
    except (OSError, IndexError):
        return 0.0
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[:8])
    ticks = user + nice + system + irq + softirq + steal
    for pid in pids:
        # Fields 14 and 15 are its user and system time; the second one, its name, may hold spaces.
        of_process = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        ticks -= int(of_process[11]) + int(of_process[12])
    busy_s = ticks / os.sysconf("SC_CLK_TCK")
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return busy_s - sum(usage.ru_utime + usage.ru_stime for usage in (own, children))


def peak_gflops(repeats: int = 7) -> float:
    """The best float32 matrix product XLA does here, in GFLOP/s."""
    import jax
    import jax.numpy as jnp

    product = jax.jit(lambda a, b: a @ b)
    best = 0.0
    for rows, inner, columns in ((2_048, 1_024, 4_096), (4_096, 2_048, 2_048), (2_048, 4_096, 1_024)):
        a, b = jnp.ones((rows, inner)), jnp.ones((inner, columns))
        product(a, b).block_until_ready()
        for _ in range(repeats):
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


def machine() -> dict[str, Any]:
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


def to_markdown(about: Mapping[str, Any], suites: Mapping[str, list[Row]]) -> str:
    """The rows as tables, with the machine above."""
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    lines = [
        f"{about['processor']}, {about['cores']} cores, devices {', '.join(about['devices'])}; "
        f"Python {about['python']}, {versions}.",
        "Medians of interleaved rounds; a ratio above 1 means that ours is faster.",
    ]
    for suite, rows in suites.items():
        lines += ["", f"## {suite}", "", "| what | figures | ratio | target | note |", "|---|---|---|---|---|"]
        for row in rows:
            figures = ", ".join(f"{label} {number:.4g}" for label, number in row.figures.items())
            ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
            target = "" if row.target is None else f">= {row.target:g}"
            lines.append(f"| {row.name} | {figures} | {ratio} | {target} | {row.note} |")
    return "\n".join(lines) + "\n"
