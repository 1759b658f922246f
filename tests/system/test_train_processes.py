"""Trainings through their launcher: several processes, signals in the middle, another mesh.

That two processes train their own members as one process does is tested on two nodes of a real Slurm, in
tests/system/test_slurm.py.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from configs import simulated
from seremo_jax.core.config import from_config_dict
from seremo_jax.training.log import read_log
from tests.support import prepared

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[2]
RECIPE = "configs/simulated.py:tiny"
FLAGS = ("--config.train.max_epochs=4", "--config.train.batch_size=8", "--config.train.checkpoint_batches=2")


@pytest.fixture(scope="module")
def extracted(tmp_path_factory):
    """Workdir with tables, store and saliency."""
    return prepared.extracted(tmp_path_factory, from_config_dict(simulated.get_config("tiny")), "simulated-tiny")


def _fresh(extracted, tmp_path, name):
    """A workdir that shares tables and store."""
    workdir = tmp_path / name
    workdir.mkdir()
    for path in extracted.iterdir():
        (workdir / path.name).symlink_to(path)
    return workdir


def _start(workdir, *options, devices=2, python=sys.executable, **environment):
    command = [python, "-m", "launch.train", f"--config={RECIPE}", f"--workdir={workdir}", *FLAGS]
    return subprocess.Popen(
        [*command, *options],
        cwd=ROOT,
        env={
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": str(devices),
            # What is equal bit by bit is compiled as a user's programs are, see tests/support/compiler.py.
            "XLA_FLAGS": "",
            **environment,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _end(*runs):
    outputs = [run.communicate(timeout=300)[0] for run in runs]
    assert [run.returncode for run in runs] == [0] * len(runs), "\n".join(outputs)
    return outputs


def _start_two(workdir, *options):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "JAX_NUM_PROCESSES": "2"}
    return [
        _start(workdir, "--distributed", *options, devices=1, JAX_PROCESS_ID=str(number), **address)
        for number in range(2)
    ]


def _curve(workdir):
    return [line["train_loss"] for line in read_log(workdir / "train" / "log.jsonl")]


def _signalled(runs, workdir, number):
    """Sends a signal once a checkpoint is there."""
    until = time.monotonic() + 200
    while not list((workdir / "train" / "checkpoints").glob("[0-9]*")) and time.monotonic() < until:
        time.sleep(0.02)
    for run in runs[:1]:
        run.send_signal(number)
    outputs = _end(*runs)
    assert not (workdir / "train" / "finished.json").exists(), outputs
    return outputs


LONG = ("--config.train.max_epochs=4000", "--config.train.patience=4000")


def _until_epoch(run, workdir, epoch, number=signal.SIGTERM):
    """Lets a run come to an epoch and stops it."""
    until = time.monotonic() + 200
    while len(read_log(workdir / "train" / "log.jsonl")) < epoch and time.monotonic() < until:
        time.sleep(0.05)
    run.send_signal(number)
    return _end(run)


@pytest.fixture(scope="module")
def long(extracted, tmp_path_factory):
    """Loss curve of a long training, stopped by SIGUSR1."""
    workdir = _fresh(extracted, tmp_path_factory.mktemp("long"), "w")
    (output,) = _until_epoch(_start(workdir, *LONG), workdir, 30, signal.SIGUSR1)
    assert "the same command goes on from there" in output
    assert not (workdir / "train" / "finished.json").exists()
    return _curve(workdir)


def test_two_processes_share_batches_each_reading_its_rows(extracted, long, tmp_path):
    workdir = _fresh(extracted, tmp_path, "data")
    _end(*_start_two(workdir, "--config.train.data_shards=2", "--config.train.device_cache=off"))
    curve = _curve(workdir)
    assert len(curve) == 4
    # One process with two devices, which share the members, took the same batches.
    np.testing.assert_allclose(curve, long[:4], atol=2e-6)


def _same_as_far_as_both_go(workdir, curve):
    lines = read_log(workdir / "train" / "log.jsonl")
    assert [line["epoch"] for line in lines] == list(range(1, len(lines) + 1))
    num = min(len(lines), len(curve))
    assert _curve(workdir)[:num] == curve[:num]


def test_two_processes_stop_at_the_same_step_and_one_process_goes_on(extracted, long, tmp_path):
    """Preempted on two processes, taken over by one: as if nothing had happened, bit by bit."""
    workdir = _fresh(extracted, tmp_path, "requeued")
    _signalled(_start_two(workdir, *LONG), workdir, signal.SIGTERM)
    before = len(_curve(workdir))
    _until_epoch(_start(workdir, *LONG), workdir, before + 5)
    _same_as_far_as_both_go(workdir, long)


@pytest.mark.skipif(not os.environ.get("SEREMO_OTHER_PYTHON"), reason="SEREMO_OTHER_PYTHON names no second interpreter")
def test_another_python_goes_on_where_this_one_stopped(extracted, long, tmp_path):
    """Checkpoints move between stacks; another jax may round otherwise."""
    other = os.environ["SEREMO_OTHER_PYTHON"]
    workdir = _fresh(extracted, tmp_path, "moved")
    _signalled([_start(workdir, *LONG, python=other)], workdir, signal.SIGTERM)
    before = len(_curve(workdir))
    _until_epoch(_start(workdir, *LONG), workdir, before + 5)
    lines = read_log(workdir / "train" / "log.jsonl")
    assert [line["epoch"] for line in lines] == list(range(1, len(lines) + 1))
    assert len(lines) >= before + 5
    num = min(10, before)
    np.testing.assert_allclose(_curve(workdir)[:num], long[:num], atol=1e-3)
