"""The profiler trace: the steps asked for and no other, in files that parse."""

import gzip
import json

import jax
import jax.numpy as jnp
import pytest

from seremo_jax.training.timing import FIRST, LAST, StepTrace


def _steps(folder, num):
    double = jax.jit(lambda x: 2 * x)
    trace, x = StepTrace(folder), jnp.ones(4)
    for _ in range(num):
        x = trace.step(lambda x=x: double(x))
    trace.close()
    return x


def _step_numbers(folder):
    """Numbers of the steps in the JSON file (Perfetto), and how many the XSpace file has (TensorBoard)."""
    (space,) = folder.glob("plugins/profile/*/*.xplane.pb")
    (text,) = folder.glob("plugins/profile/*/*.trace.json.gz")
    events = json.loads(gzip.decompress(text.read_bytes()))["traceEvents"]
    numbers = [int(event["args"]["step_num"]) for event in events if event.get("name") == "train"]
    data = jax.profiler.ProfileData.from_file(str(space))
    names = [event.name for plane in data.planes for line in plane.lines for event in line.events]
    return sorted(numbers), names.count("train")


def test_ten_to_twenty_are_traced(tmp_path):
    assert _steps(tmp_path / "profile", 25)[0] == 2.0**25
    assert _step_numbers(tmp_path / "profile") == (list(range(FIRST, LAST + 1)), LAST - FIRST + 1)


def test_an_early_end_keeps_what_there_is(tmp_path):
    with pytest.warns(UserWarning, match="there were 12 steps, so steps 10 to 12 of steps 10 to 20 was traced"):
        _steps(tmp_path / "profile", 12)
    assert _step_numbers(tmp_path / "profile") == ([10, 11, 12], 3)


def test_too_few_steps_leave_no_folder(tmp_path):
    with pytest.warns(UserWarning, match="there were 9 steps, so nothing of"):
        _steps(tmp_path / "profile", 9)
    assert not any(tmp_path.iterdir())


def test_off_it_only_passes_on(tmp_path):
    assert _steps(None, 30)[0] == 2.0**30
