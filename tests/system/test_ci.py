"""`.ci/run` itself: what it calls, and its exit code, with every command replaced by one that ends as told."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# What stands for every command: writes down how it was called, and fails where the call holds $FAILS.
STAND_IN = """#!/bin/bash
printf '%s\\n' "$(basename "$0") $*" >>"$CALLS"
if [ -n "$FAILS" ] && [[ "$0 $*" == *"$FAILS"* ]]; then exit 3; fi
"""
COMMANDS = (
    *("launch/test.sh", "launch/quickstart.sh", "tests/system/slurm/cluster.sh"),
    *(".venv/bin/python", "bin/python3.12"),
)


def _run(folder: Path, *options: str, fails: str = "") -> tuple[int, list[str]]:
    """Exit code and the calls of `.ci/run` in `folder`, in their order."""
    for name in (*COMMANDS, ".ci/run"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(STAND_IN)
        (folder / name).chmod(0o755)
    shutil.copy(ROOT / ".ci" / "run", folder / ".ci" / "run")
    for name in ("data/crema_d", "weights"):
        (folder / "shared" / name).mkdir(parents=True)
    (folder / "bin" / "python3.12").write_text(STAND_IN.replace("printf", "echo .venv-3.12; printf", 1))
    environment = os.environ | {
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYENV_ROOT": str(folder / "none"),
        "SEREMO_SHARED": str(folder / "shared"),
        "TMPDIR": str(folder),
        "CALLS": str(folder / "calls"),
        "FAILS": fails,
        "CI": "true",
    }
    done = subprocess.run(["bash", ".ci/run", *options], cwd=folder, env=environment, check=False, capture_output=True)
    assert not list(folder.glob("tmp.*")), "the scratch folder is left behind"
    calls = folder / "calls"
    return done.returncode, [
        line for line in calls.read_text().splitlines() if " -c " not in line
    ] if calls.exists() else []


def test_ends_with_zero_when_everything_passes(tmp_path):
    """Its last command once was a `kill` of jobs that were over, whose exit code became that of the whole run."""
    code, calls = _run(tmp_path)
    assert code == 0
    assert "test.sh " in calls, "the tests as the README calls them"
    assert sum(call.startswith("quickstart.sh") for call in calls) == 2


@pytest.mark.parametrize(
    "fails",
    [
        "cluster.sh",
        "test.sh --long",
        "test.sh -m stack",
        "ruff format",
        "launch.bench",
        "--corpus crema_d",
        "/simulated",
    ],
)
def test_ends_with_the_exit_code_of_the_command_that_failed(tmp_path, fails):
    assert _run(tmp_path, fails=fails)[0] == 3


def test_refuses_an_option_that_it_lacks(tmp_path):
    assert _run(tmp_path, "--everything") == (2, [])
