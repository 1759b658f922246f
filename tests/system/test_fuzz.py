"""The short form of `tests.system.fuzz`: some inputs for each reader."""

import pytest

from tests.system import fuzz

NUM_INPUTS = {
    "config": 5,
    "pickle": 30,
    "wav": 30,
    "checkpoint-index": 50,
    "table": 15,
    "votes": 15,
    "json-lines": 15,
    "corpus-json": 15,
}


@pytest.mark.parametrize("name", fuzz.READERS)
def test_damaged_files_are_read_or_refused_by_name(name):
    failures, num_refused = fuzz.run(name, NUM_INPUTS.get(name, 100))
    assert failures == {}
    assert num_refused > 0
