"""A few flipped bits and lost ends in every kind of artefact; `python -m tests.system.damage` makes hundreds."""

import pytest

from tests.support import prepared
from tests.system import damage


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Every kind of artefact."""
    return damage.prepare(tmp_path_factory.mktemp("damage") / "folder", prepared.finished(tmp_path_factory))


@pytest.mark.parametrize("name", damage.KINDS)
def test_damage_is_refused_by_name_or_made_again_or_changes_no_number(folder, name):
    made = list(damage.tries(folder, damage.KINDS[name], 8))
    assert [item.words for item in made if item.outcome in (damage.ACCEPTED, damage.RAISED)] == []
    assert sum(item.outcome != damage.EQUAL for item in made) >= 2
