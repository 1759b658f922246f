"""Test-wide settings: 8 virtual CPU devices, no silent rank promotion, no network, the shared real data."""

import collections
import gc
import os
import sys
from pathlib import Path

import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# What a test compiles runs for milliseconds, so the compiler's most expensive optimisations are left out. The processes
# that tests start inherit this.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "true")
# A worker has one core, and so have the processes that it starts: threads of PyTorch and of linear algebra on all cores
# wait for each other by spinning, which took a third of the time of the tests that use them.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# All compiled programs are kept, however fast they compile: tests of many files compile the same small ones.
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

import hypothesis
import jax
import jaxlib
import soundfile

import tests.support.type_checks  # noqa: F401 (named in pyproject.toml)

# A worker compiles on one core, so that a program in one part compiles faster than in many. The older of the compiler's
# two ways to write loops compiles a training in a third of the time; newer compilers no longer have it, and end the
# process at a flag that they do not know.
_flags = {"xla_cpu_parallel_codegen_split_count": "1"}
if jaxlib.version.__version_info__ < (0, 11):
    _flags["xla_cpu_use_fusion_emitters"] = "false"
for _name, _value in _flags.items():
    if _name not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --{_name}={_value}".strip()

NUM_DEVICES = 8
_COMPILING_ROOMS = ("training", "system", "backbones", "sweeps", "predict", "features")
ROOT = Path(__file__).resolve().parent.parent

# Compiled programs are shared by all workers and by the processes that tests start, per Python and jax: compilation is
# most of the time of a test that trains. Launchers take the folder from the environment (`--compilation_cache`).
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    cache = ROOT / ".jax_cache" / f"{sys.version_info.major}.{sys.version_info.minor}-{jax.__version__}"
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(cache)
    jax.config.update("jax_compilation_cache_dir", str(cache))

# Through jax.config and not the environment, so that launchers started by a test as a process of their own run as a
# user would run them. seremo_jax is not imported here: jaxtyping's hook must come first.
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    jax.config.update("jax_num_cpu_devices", NUM_DEVICES)
jax.config.update("jax_numpy_rank_promotion", "raise")

# Waiting for the disk guards files against a loss of power, which no test has.
os.fsync = lambda descriptor: None
soundfile.SoundFile.flush = lambda file: None

# What is imported stays, so it is not searched for garbage: neither meanwhile nor later.
gc.disable()

# The same examples on every machine and no time limit for one: a loaded machine is no bug.
hypothesis.settings.register_profile("seremo", deadline=None, derandomize=True, database=None, max_examples=50)
hypothesis.settings.load_profile("seremo")


def is_ci() -> bool:
    """Whether this is the run that must not skip anything for want of data."""
    return os.environ.get("CI", "").lower() in ("1", "true", "yes")


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of the shared real data: SEREMO_SHARED, else ../shared beside the checkout."""
    folder = Path(os.environ.get("SEREMO_SHARED") or ROOT.parent / "shared")
    if not (folder / "data").is_dir():
        message = f"no shared data at {folder}: set SEREMO_SHARED to the folder that holds data/crema_d"
        if is_ci():
            pytest.fail(message + " (CI=true, so this is no skip)")
        pytest.skip(message)
    return folder


def _has_many_maps() -> bool:
    """Whether this process has used up a third of the memory maps that Linux gives it by default."""
    maps = Path("/proc/self/maps")
    return not maps.exists() or maps.read_bytes().count(b"\n") > 20_000


@pytest.fixture(scope="module", autouse=True)
def _forgotten_programs():
    """Lets go of what files compiled before thousands of programs at once use up the process's memory maps."""
    yield
    if not _has_many_maps():
        return
    if steps := sys.modules.get("seremo_jax.training.steps"):
        steps.compile_steps.cache_clear()
    jax.clear_caches()
    gc.collect()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leaves out files without any of the markers that are asked for, as in `-m "long or statistical"`.

    Importing all files takes a process as long as some of the tests take that are marked.
    """
    markers = config.option.markexpr.split(" or ")
    if not collection_path.match("test_*.py") or not all(map(str.isidentifier, markers)):
        return None
    text = collection_path.read_text(encoding="utf-8")
    return None if any(f"mark.{marker}" in text for marker in markers) else True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts first what takes longest, so that no worker ends with a long file while the others wait.

    These are files with long tests, those with most of them first, then the rooms whose tests compile most.
    """
    is_long = [item.get_closest_marker("long") or item.get_closest_marker("statistical") for item in items]
    num_long = collections.Counter(item.path for item, long in zip(items, is_long, strict=True) if long)
    rooms = {name: place for place, name in enumerate(_COMPILING_ROOMS)}
    items.sort(key=lambda item: (-num_long[item.path], rooms.get(item.path.parent.name, len(rooms))))


def pytest_collection_finish() -> None:
    """From here on there is garbage, but not among what was imported."""
    gc.freeze()
    gc.enable()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips tests marked `gpu` where JAX runs on CPU (run them with JAX_PLATFORMS=cuda)."""
    if item.get_closest_marker("gpu") and jax.default_backend() == "cpu":
        pytest.skip("needs an accelerator: run with JAX_PLATFORMS=cuda")
