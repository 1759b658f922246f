"""The mesh: members over as many devices as keep the work even."""

import jax
import pytest

from seremo_jax.core import sharding

pytestmark = pytest.mark.stack


@pytest.mark.parametrize(
    ("num_members", "num_data", "expected"),
    [(10, 1, (5, 1)), (7, 1, (7, 1)), (25, 1, (7, 1)), (12, 2, (4, 2)), (1, 1, (1, 1))],
)
def test_members_take_the_devices_they_can_use(num_members, num_data, expected):
    mesh = sharding.make_mesh(num_members, num_data)
    assert (mesh.shape["member"], mesh.shape["data"]) == expected
    assert all(kind == jax.sharding.AxisType.Auto for kind in mesh.axis_types)


def test_the_first_devices_are_taken_and_those_that_share_a_batch_are_neighbours():
    mesh = sharding.make_mesh(3, 2)
    assert [[device.id for device in row] for row in mesh.devices] == [[0, 1], [2, 3], [4, 5]]


def test_too_few_devices_are_named():
    with pytest.raises(ValueError, match=r"train.data_shards = 99: there are 8 devices"):
        sharding.make_mesh(2, 99)
