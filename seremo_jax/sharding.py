"""The mesh `("member", "data")` and the specs of what lives on it."""

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

MEMBER, DATA = "member", "data"


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
