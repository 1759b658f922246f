"""Devices that programs are compiled for without owning them: their figures as published, and the names of topologies.

A target is `v5e:2x4` (a slice of TPUs), `h100` (one GPU), `h100:8` (the GPUs of a host) or `h100:8x8` (hosts x GPUs).
The compilers come with two extras, `aot-tpu` and `aot-cuda`. They need no accelerator, but a process of their own,
since JAX takes its platforms at its start.
"""

import dataclasses
import difflib
import importlib.metadata
import importlib.util
import os
import re
from collections.abc import Sequence
from typing import Any

TPU, GPU = "tpu", "gpu"
GPU_SHARE = 0.9
"""Of a GPU's memory, that launchers let JAX hand out, whose own default is 0.75; CUDA and its libraries take the rest.
A TPU's compiler refuses by itself what its own memory does not hold."""


class TargetError(ValueError):
    """There is no such target, or its compiler is not installed."""


@dataclasses.dataclass(frozen=True)
class Figures:
    """What the maker says of a device.

    Attributes:
      platform: `tpu` or `gpu`.
      flops_per_s: Peak of dense bfloat16 products.
      memory_bytes: Its own memory.
      bytes_per_s: Of that memory.
      link_bytes_per_s: To the other devices of its slice or host, in one direction, all links together.
      source: Where these figures stand.
    """

    platform: str
    flops_per_s: float
    memory_bytes: float
    bytes_per_s: float
    link_bytes_per_s: float
    source: str


_CLOUD, _NVIDIA = "docs.cloud.google.com/tpu/docs/", "nvidia.com, data sheet of "
FIGURES = {
    "v4": Figures(TPU, 275e12, 32.0 * 2**30, 1_200e9, 300e9, f"{_CLOUD}v4; links: arXiv 2304.01433"),
    "v5e": Figures(TPU, 197e12, 16.0 * 2**30, 819e9, 200e9, f"{_CLOUD}v5e"),
    "v5p": Figures(TPU, 459e12, 95.0 * 2**30, 2_765e9, 600e9, f"{_CLOUD}v5p"),
    "v6e": Figures(TPU, 918e12, 32.0 * 2**30, 1_638e9, 400e9, f"{_CLOUD}v6e"),
    "a100": Figures(GPU, 312e12, 80e9, 2_039e9, 300e9, f"{_NVIDIA}the A100 80GB SXM"),
    "h100": Figures(GPU, 989e12, 80e9, 3_350e9, 450e9, f"{_NVIDIA}the H100 SXM"),
    "h200": Figures(GPU, 989e12, 141e9, 4_800e9, 450e9, f"{_NVIDIA}the H200 SXM"),
}
"""Peaks without sparsity. Of links, half of the published sum of both directions."""

_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8")
_ON_ONE_HOST = (2, 4)
"""Eight chips of v5e and v6e are one machine; those of larger slices are machines of four, which a compiler takes for
smaller ones, too. Source: docs.cloud.google.com/tpu/docs/v5e and v6e."""
TOPOLOGIES = {"v4": _CUBES, "v5e": _FLAT, "v5p": _CUBES, "v6e": _FLAT}
"""Slices that can be had of each kind of TPU, up to 512 chips."""

_GPU_FIGURES: dict[str, dict[str, Any]] = {
    "a100": {
        "name": "NVIDIA A100-SXM4-80GB", "major": 8, "cores": 108, "units": 64, "shared": 167_936, "optin": 166_912,
        "cache": 40 << 20, "clock": 1.41,
    },
    "h100": {
        "name": "NVIDIA H100 80GB HBM3", "major": 9, "cores": 132, "units": 128, "shared": 233_472, "optin": 232_448,
        "cache": 50 << 20, "clock": 1.98,
    },
}  # fmt: skip
_GPU_FIGURES["h200"] = _GPU_FIGURES["h100"] | {"name": "NVIDIA H200"}
"""What else the compiler for GPUs asks of a device: the maker's papers on the architecture, CUDA's table of limits."""

_DEVICE_INFO = """
gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_core: {shared} shared_memory_per_block_optin: {optin}
  core_count: {cores} fpus_per_core: {units} clock_rate_ghz: {clock} l2_cache_size: {cache}
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  thread_dim_limit_x: 1024 thread_dim_limit_y: 1024 thread_dim_limit_z: 64
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  memory_bandwidth: {bandwidth:.0f} device_memory_size: {memory:.0f}
  device_vendor: "NVIDIA Corporation" device_address_bits: 64 ecc_enabled: true name: "{name}"
  driver_version: "13.0.0" runtime_version: "13.0.0" compile_time_toolkit_version: "13.0.0"
  cuda_compute_capability {{ major: {major} minor: 0{extension} }}
}}
platform_name: "CUDA"
device_description_str: "{name}"
dnn_version_info {{ major: 9 minor: 10 patch: 0 }}
"""

_EXTRAS = {TPU: ("aot-tpu", ("libtpu",)), GPU: ("aot-cuda", ("jax_plugins.xla_cuda13",))}
_MESH = re.compile(r"\d+(x\d+){0,2}")


@dataclasses.dataclass(frozen=True)
class Target:
    """Devices to compile for.

    Attributes:
      name: As it was asked for.
      kind: Name of the device, a key of `FIGURES`.
      layout: Devices along each axis of a slice; hosts and devices a host for GPUs.
    """

    name: str
    kind: str
    layout: tuple[int, ...]

    @property
    def figures(self) -> Figures:
        """What the maker says of a device."""
        return FIGURES[self.kind]

    @property
    def platform(self) -> str:
        """`tpu` or `gpu`."""
        return self.figures.platform

    @property
    def usable_bytes(self) -> float:
        """Memory of a device that programs can have."""
        return self.figures.memory_bytes * (GPU_SHARE if self.platform == GPU else 1)

    def devices(self) -> list[Any]:
        """The devices of the slice, by JAX's own numbers. Run `prepare` before JAX is imported.

        Raises:
          TargetError: The compiler does not know the slice.
        """
        from jax.experimental import topologies

        if self.platform == TPU:
            slice_name = f"{self.kind}:{'x'.join(map(str, self.layout))}"
            options = {"platform": "tpu", "topology_name": slice_name}
            if self.layout == _ON_ONE_HOST:
                options["chips_per_host_bounds"] = [*self.layout, 1]
            if self.kind == "v4":
                options["chip_config_name"] = "megacore"  # both cores of a chip are one device, as JAX has them
        else:
            hosts, per_host = self.layout
            options = {
                "platform": "cuda", "topology_name": self.kind, "topology": f"1x{hosts}x{per_host}",
                "target_config": device_info(self.kind),
            }  # fmt: skip
        try:
            return list(topologies.get_topology_desc(**options).devices)
        except RuntimeError as error:
            raise TargetError(f"--target={self.name}: the compiler refuses it: {_first_line(error)}") from error


def parse(name: str) -> Target:
    """The target of a name.

    Raises:
      TargetError: There is none; the message lists those there are.
    """
    kind, _, layout = name.strip().lower().partition(":")
    if kind not in FIGURES:
        near = difflib.get_close_matches(kind, FIGURES, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise TargetError(f"--target={name}: no device is called {kind!r}{hint} Known are {', '.join(known())}")
    if FIGURES[kind].platform == TPU:
        if layout not in TOPOLOGIES[kind]:
            slices = ", ".join(f"{kind}:{layout}" for layout in TOPOLOGIES[kind])
            raise TargetError(f"--target={name}: no slice of {kind} has this layout; there are {slices}")
        return Target(name, kind, tuple(map(int, layout.split("x"))))
    sizes = tuple(map(int, layout.split("x"))) if _MESH.fullmatch(layout) else ()
    sizes = (1,) * (2 - len(sizes)) + sizes if layout else (1, 1)
    if len(sizes) != 2 or 0 in sizes or (layout and not _MESH.fullmatch(layout)):
        raise TargetError(f"--target={name}: write {kind}, {kind}:8 for 8 of one host, or {kind}:4x8 for 4 such hosts")
    return Target(name, kind, sizes)


def parse_all(names: Sequence[str]) -> list[Target]:
    """The targets of these names, each once, whose compilers are installed.

    Raises:
      TargetError: No name is given, there is no such target, or its compiler is not installed.
    """
    if not names:
        raise TargetError(f"name a --target, or several; known are {', '.join(known())}")
    wanted = [parse(name) for name in dict.fromkeys(names)]
    for target in wanted:
        require_compiler(target)
    return wanted


def known() -> list[str]:
    """Names of targets, one of each kind of device."""
    return [f"{kind}:{TOPOLOGIES[kind][2]}" if kind in TOPOLOGIES else kind for kind in FIGURES]


def require_compiler(target: Target) -> None:
    """Refuses a target whose compiler is not installed.

    Raises:
      TargetError: It is not; the message names the extra that brings it.
    """
    extra, modules = _EXTRAS[target.platform]
    missing = [module for module in modules if not _is_there(module)]
    if missing:
        raise TargetError(
            f"--target={target.name}: its compiler ({missing[0]}) is not installed. "
            f"pip install -e '.[{extra}]' brings it, on Python 3.12 or newer"
        )


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def prepare() -> None:
    """Sets the environment of a process that compiles for devices that are not there. Call it before importing JAX."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    # Without these libtpu looks for the machine's own TPU, over the network, too.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-8")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Several processes may compile at once: none of them holds a TPU.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    # A program that was compiled for devices elsewhere cannot be read back here, and it must be as fast as theirs.
    os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)
    os.environ.pop("JAX_DISABLE_MOST_OPTIMIZATIONS", None)


def compiler_version(target: Target) -> str:
    """Package and version of the target's compiler."""
    package = "libtpu" if target.platform == TPU else "jax-cuda13-plugin"
    return f"jax {importlib.metadata.version('jax')}, {package} {importlib.metadata.version(package)}"


def device_info(kind: str) -> str:
    """The device of a GPU target as XLA reads it, a text proto of `GpuTargetConfigProto`."""
    figures = FIGURES[kind]
    extension = " feature_extension: ACCELERATED_FEATURES" if _GPU_FIGURES[kind]["major"] >= 9 else ""
    return _DEVICE_INFO.format(
        **_GPU_FIGURES[kind], bandwidth=figures.bytes_per_s, memory=figures.memory_bytes, extension=extension
    )


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0][:300]
