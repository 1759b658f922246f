"""A few bad inputs of each kind; `python -m tests.system.bad_inputs` runs all of them."""

import pytest

from tests.system.bad_inputs import run
from tests.system.bad_inputs.every import cases

CASES = cases()
_OF_EACH = {
    "setting": 6, "flag": 3, "table": 3, "corpus": 1, "audio": 2, "list": 1, "noises": 1, "workdir": 2, "model": 2
}  # fmt: skip


def _some():
    for kind, number in _OF_EACH.items():
        # Pages and predictions take seconds; tests of these rooms have such cases of their own.
        slow = ("validate", "predict") if kind == "audio" else ("validate",)
        of_kind = [case for case in CASES if case.kind == kind and case.launcher not in slow]
        yield from of_kind[:: -(-len(of_kind) // number)]


def test_there_are_hundreds_and_each_has_its_name():
    assert len({case[:3] for case in CASES}) == len(CASES) >= 300
    assert {case.kind for case in CASES} == set(_OF_EACH)


@pytest.mark.parametrize("case", [*_some()], ids=lambda case: f"{case.kind}-{case.launcher}-{case.name}")
def test_what_is_wrong_is_told(case, tmp_path):
    outcome, output = run(case, tmp_path)
    assert outcome == "told", output
