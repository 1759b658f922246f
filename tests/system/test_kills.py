"""Killed stages, run again; `python -m tests.system.kills` kills all of them, some dozens of times."""

import pytest

from tests.system import kills

pytestmark = pytest.mark.long


def test_stages_that_were_killed_end_with_the_files_of_those_that_were_not(tmp_path):
    assert kills.kill_all(tmp_path, {"extract": 1, "train": 1}, seed=0) == []
