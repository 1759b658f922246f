"""The device mesh with its axes `member` and `data`, and how arrays are laid over it."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax._src import distributed
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

MEMBER, DATA = "member", "data"
_LONGEST_WAIT_MS = 7 * 24 * 3_600_000


class ShardingError(ValueError):
    """The devices at hand cannot be laid out as asked."""


def make_mesh(num_members: int, num_data: int = 1, devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh over the devices of all processes, with members spread over as many of them as there are.

    Where members do not divide evenly, the last shards hold inactive copies. Where fewer devices would leave each with
    as many members, fewer are taken, but with several processes all devices are taken.

    Args:
      num_members: E, members of the ensemble.
      num_data: Devices that share each batch.
      devices: Devices, of all processes; None means those that are here.

    Raises:
      ShardingError: Fewer devices than `num_data`, or several processes whose devices it does not divide.
    """
    devices = jax.devices() if devices is None else devices
    num_processes = len({device.process_index for device in devices})
    most = len(devices) // num_data
    if not most or (num_processes > 1 and len(devices) % num_data):
        raise ShardingError(f"train.data_shards = {num_data}: there are {len(devices)} devices")
    num_shards = num_member_shards(num_members, most, num_processes)
    return Mesh(
        np.array(devices[: num_shards * num_data]).reshape(num_shards, num_data),
        (MEMBER, DATA),
        axis_types=(AxisType.Auto, AxisType.Auto),
    )


def num_member_shards(num_members: int, most: int, num_processes: int) -> int:
    """Shards of the member axis, at most `most`; with one process the fewest with as many members on each device."""
    # Members on each device, rounded up, and then as few devices as that many on each need.
    return most if num_processes > 1 else -(-num_members // -(-num_members // most))


def place(mesh: Mesh, spec: PartitionSpec, local: np.ndarray, global_shape: tuple[int, ...] | None = None) -> jax.Array:
    """An array laid over the mesh.

    Args:
      mesh: The mesh.
      spec: How it lies there.
      local: What this process's devices hold: the whole array where there is one process.
      global_shape: Of the whole array; None where `local` is the whole.
    """
    where = NamedSharding(mesh, spec)
    if jax.process_count() == 1:
        return jax.device_put(local, where)
    return jax.make_array_from_process_local_data(where, local, global_shape or local.shape)


def local_part(mesh: Mesh, spec: PartitionSpec, axis: int, size: int) -> range:
    """Indices of one axis, of `size`, that this process's devices hold of an array that lies there by `spec`."""
    shape = tuple(size if i == axis else mesh.size for i in range(max(len(spec), axis + 1)))
    held = NamedSharding(mesh, spec).addressable_devices_indices_map(shape).values()
    bounds = [index[axis].indices(size) for index in held]
    return range(min(start for start, _, _ in bounds), max(stop for _, stop, _ in bounds))


def fetch(tree: Any) -> Any:
    """Arrays as NumPy on every process, whichever devices hold them."""
    if jax.process_count() > 1:
        return multihost_utils.process_allgather(tree, tiled=True)
    return jax.device_get(tree)


def least(value: int | float) -> float:
    """The least of the values that the processes have, the same on every process."""
    return float(np.min(fetch(np.array([value], np.float32)))) if jax.process_count() > 1 else float(value)


def by_member(mesh: Mesh) -> NamedSharding:
    """Leading axis over members: training state, member settings, outputs of members."""
    return NamedSharding(mesh, PartitionSpec(MEMBER))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def make_data_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh over the devices of one process, which share every batch of audio; None means those of this process."""
    devices = jax.local_devices() if devices is None else devices
    return Mesh(np.array(devices).reshape(1, -1), (MEMBER, DATA), axis_types=(AxisType.Auto, AxisType.Auto))


def by_utterance(mesh: Mesh) -> NamedSharding:
    """Leading axis over the utterances of a batch."""
    return NamedSharding(mesh, PartitionSpec(DATA))


def shardings(mesh: Mesh, tree: Any) -> Any:
    """How arrays lie over the data axis: each along its last axis that divides evenly."""
    size = mesh.shape[DATA]

    def sharding(array: jax.Array) -> NamedSharding:
        for axis in reversed(range(array.ndim)):
            # Vectors stay whole: they are small, and each is needed everywhere.
            if array.ndim > 1 and array.shape[axis] % size == 0:
                return NamedSharding(mesh, PartitionSpec(*[None] * axis, DATA))
        return replicated(mesh)

    return jax.tree.map(sharding, tree)


def is_first_process() -> bool:
    """Whether this process is the one that prints, merges and finalises."""
    return jax.process_index() == 0


def wait_for_all(point: str) -> None:
    """Returns once every process has come to `point`, however long it takes; at once where there is one process.

    Args:
      point: A name that no other call of this run has.
    """
    if jax.process_count() > 1:
        # Not by a collective, as multihost_utils does it: that gives up after half a minute, and shards take longer.
        distributed.global_state.client.wait_at_barrier(f"seremo_jax: {point}", timeout_in_ms=_LONGEST_WAIT_MS)
