"""The launchers as a user runs them: help, plain errors, Ctrl-C."""

import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

from launch import cli
from seremo_jax.data import ingest
from tests.support import launchers

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("ingest", "extract", "saliency", "train", "evaluate", "report")
TINY = "--config=configs/simulated.py:tiny"


def _start(stage, *arguments):
    command = [sys.executable, "-m", f"launch.{stage}", *map(str, arguments)]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def test_help_lists_every_field():
    _, output = launchers.run("ingest", "--help")
    assert "--config.train.patience" in output
    assert "epochs without improvement" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([TINY], "--workdir"),
        ([TINY, "--workdir=W", "--config.train.patience=0"], "train.patience must be at least 1"),
        ([TINY, "--workdir=W", "--config.saliency.targets=vote"], "choose one of attributes, votes"),
        (["--config=configs/simulated.py:huge", "--workdir=W"], "no variant 'huge'"),
        (["--config=configs/crema_d.py", "--workdir=W"], "config.corpus.root"),
        (["--config=configs/crema_d.py", "--workdir=W", "--config.corpus.root=nowhere"], "nowhere"),
        ([TINY, "--workdir=W", "stray"], "stray"),
        ([TINY, "--workdir=ftp://bucket/w"], "begins with gs://, s3://, az://"),
        ([TINY, "--workdir="], "error: flag --workdir=: it is empty"),
        (
            [TINY, "--workdir=W", "--config.trian.patience=3"],
            "error: unknown config field --config.trian.patience; did ",
        ),
    ],
)
def test_wrong_input_is_told_plainly(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(ROOT)
    status, output = launchers.run("ingest", *(argument.replace("W", str(tmp_path / "w"), 1) for argument in arguments))
    assert status != 0
    assert message in output
    assert "Traceback" not in output
    assert not (tmp_path / "w" / "ingest.json").exists()


def test_a_recipe_that_is_not_there_is_told_plainly(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    status, output = launchers.run("ingest", "--config=configs/simulatd.py:tiny", f"--workdir={tmp_path / 'w'}")
    said = "error: --config: there is no file configs/simulatd.py here, and no such recipe in the package; "
    assert (status, output.strip()) == (1, said + "did you mean configs/simulated.py?")


def test_a_full_disk_is_told_plainly_whoever_raises(tmp_path, monkeypatch):
    def run(config, workdir):
        # As Orbax and TensorStore do, with the words of the system somewhere inside.
        raise ValueError("RESOURCE_EXHAUSTED: Failed writing: No space left on device [os_error_code='28']")

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(ingest, "run", run)
    status, output = launchers.run("ingest", TINY, f"--workdir={tmp_path}")
    assert status != 0
    assert "error: no space left on the disk" in output
    assert "the same command goes on from there" in output
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("imports", "flags", "environment", "where"),
    [
        ("import jax", [], {}, "w/compiled"),
        ("", ["--compilation_cache=elsewhere"], {"JAX_COMPILATION_CACHE_DIR": "mine"}, "elsewhere"),
    ],
)
def test_compiled_programs_are_kept(tmp_path, imports, flags, environment, where):
    code = f"""
{imports}
from launch import cli
def main(config, workdir):
    import jax
    print(jax.jit(lambda x: x + 1)(jax.numpy.zeros(3)))
cli.run(main)
"""
    # Without the folder that all tests share (tests/conftest.py), as on a user's machine.
    inherited = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    own = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "PYTHONPATH": str(ROOT)}
    environment = inherited | own | environment
    subprocess.run(
        [sys.executable, "-c", code, f"--config={ROOT}/configs/simulated.py:tiny", "--workdir=w", *flags],
        cwd=tmp_path, env=environment, check=True,
    )  # fmt: skip
    folders = ("w/compiled", "elsewhere", "mine")
    assert [name for name in folders if any((tmp_path / name).glob("jit__lambda*"))] == ([where] if where else [])


@pytest.mark.parametrize(
    ("flag", "variable", "where"),
    [("auto", "", "w/compiled"), ("auto", "mine", "mine"), ("elsewhere", "mine", "elsewhere"), ("off", "mine", None)],
)
def test_where_compiled_programs_are_kept(monkeypatch, flag, variable, where):
    """Both for a JAX that is imported and for one that will be; the test above holds that JAX keeps them there."""
    name, changes = "JAX_COMPILATION_CACHE_DIR", {}
    imported = types.SimpleNamespace(config=types.SimpleNamespace(update=changes.__setitem__))
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "jax", imported)
        patch.setenv(name, variable)
        cli._keep_compiled(flag, "w")
        assert (os.environ.get(name), changes) == (where, {name.lower(): where})


@pytest.mark.parametrize("stage", STAGES[1:])
def test_missing_stage_before_is_named(tmp_path, monkeypatch, stage):
    monkeypatch.chdir(ROOT)
    status, output = launchers.run(stage, TINY, f"--workdir={tmp_path}")
    assert status != 0
    assert "python -m launch." in output
    assert "Traceback" not in output


def test_interrupt_says_how_to_go_on(tmp_path):
    process = _start("ingest", "--config=configs/simulated.py", f"--workdir={tmp_path}")
    deadline_s = time.monotonic() + 120
    while not any(tmp_path.glob("audio/**/*.flac")) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "the same command goes on from here" in output
    assert not (tmp_path / "ingest.json").exists()
