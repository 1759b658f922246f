"""The mesh `("member", "data")` and the specs of what lives on it."""

from typing import Any

import jax
import numpy as np
from jax._src import distributed
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

MEMBER, DATA = "member", "data"
_LONGEST_WAIT_MS = 7 * 24 * 3_600_000


def make_mesh(num_members: int, num_data: int = 1) -> Mesh:
    """A mesh over the devices at hand; members are spread as far as they divide evenly.

    Args:
      num_members: E, members of the ensemble.
      num_data: Devices that share each batch.

    Raises:
      ValueError: Fewer devices than `num_data`.
    """
    devices = jax.devices()
    if num_data > len(devices):
        raise ValueError(f"{num_data} devices wanted for the data axis, {len(devices)} at hand")
    most = len(devices) // num_data
    num_member_shards = max(n for n in range(1, most + 1) if num_members % n == 0)
    return jax.make_mesh(
        (num_member_shards, num_data),
        (MEMBER, DATA),
        axis_types=(AxisType.Auto, AxisType.Auto),
        devices=devices[: num_member_shards * num_data],
    )


def by_member(mesh: Mesh) -> NamedSharding:
    """Leading axis over members: training state, member settings, outputs of members."""
    return NamedSharding(mesh, PartitionSpec(MEMBER))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def make_data_mesh() -> Mesh:
    """A mesh over the devices of this process alone, which share every batch of audio."""
    devices = np.array(jax.local_devices()).reshape(1, -1)
    return Mesh(devices, (MEMBER, DATA), axis_types=(AxisType.Auto, AxisType.Auto))


def by_utterance(mesh: Mesh) -> NamedSharding:
    """Leading axis over the utterances of a batch."""
    return NamedSharding(mesh, PartitionSpec(DATA))


def spread(mesh: Mesh, tree: Any) -> Any:
    """Arrays laid over the data axis, each along its last axis that divides evenly."""
    size = mesh.shape[DATA]

    def sharding(array: jax.Array) -> NamedSharding:
        for axis in reversed(range(array.ndim)):
            if array.ndim > 1 and array.shape[axis] % size == 0:
                return NamedSharding(mesh, PartitionSpec(*[None] * axis, DATA))
        return replicated(mesh)

    return jax.device_put(tree, jax.tree.map(sharding, tree))


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
