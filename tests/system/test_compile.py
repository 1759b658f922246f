"""`launch.compile` as a command: what is wrong with its flags is told in one line."""

import importlib.util

import pytest

from tests.support import launchers

CONFIG = "--config=configs/simulated.py:tiny"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target=v5e:2x4"], "give either the --workdir of an ingested corpus or a number of --utterances"),
        (["--workdir=w", "--utterances=20", "--target=h100"], "give either the --workdir"),
        (["--utterances=20"], "name a --target, or several; known are v4:"),
        (["--utterances=20", "--target=h10"], "no device is called 'h10'; did you mean h100?"),
        (["--utterances=20", "--target=v5e:3x3"], "no slice of v5e has this layout; there are v5e:1x1, v5e:2x2"),
        (["--utterances=20", "--target=h100:2x2x2"], "write h100, h100:8 for 8 of one host, or h100:4x8"),
        (["--utterances=3", "--target=h100"], "--utterances"),
    ],
)
def test_wrong_flags_are_told_in_one_line(arguments, message):
    status, output = launchers.run("compile", CONFIG, *arguments)
    assert status != 0
    assert message in output
    assert "Traceback" not in output


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is not None, reason="the compiler is installed")
def test_a_missing_compiler_is_named_with_what_brings_it():
    status, output = launchers.run("compile", CONFIG, "--utterances=20", "--target=v5e:2x4")
    assert status != 0
    assert "its compiler (libtpu) is not installed. pip install -e '.[aot-tpu]' brings it" in output
