"""The batch scripts on a real Slurm: two nodes on this machine, preemption, dependencies, cancelling."""

import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import is_ci
from tests.support.toy_corpus import contents

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "tests" / "system" / "slurm" / "cluster.sh"
SUBMIT = ROOT / "launch" / "cluster" / "slurm" / "submit.sh"
CANNOT = 3
AS_A_USER = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
"""What is equal bit by bit is compiled as a user's programs are, see `tests/support/compiler.py`."""
TINY = ("--config=configs/simulated.py:tiny", "--config.extract.shard_utterances=4")


@pytest.fixture(scope="module")
def slurm() -> Iterator[dict[str, str]]:
    """The environment in which sbatch and the others reach a cluster of two nodes."""
    with open(Path(tempfile.gettempdir()) / "seremo-slurm.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one cluster a machine
        try:
            done = subprocess.run(["bash", CLUSTER, "up"], capture_output=True, text=True, check=False)
            if done.returncode == CANNOT and not is_ci():
                pytest.skip(done.stderr.strip())
            assert done.returncode == 0, done.stderr
            environment = os.environ | {"SLURM_CONF": done.stdout.strip(), **AS_A_USER}
            yield environment | {"SEREMO_PYTHON": sys.executable}
        finally:
            subprocess.run(["bash", CLUSTER, "down"], check=True)


@pytest.fixture(scope="module")
def ingested(tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("ingested") / "workdir"
    _launch("ingest", workdir)
    return workdir


def _launch(stage: str, workdir: Path, config: tuple[str, ...] = TINY) -> None:
    command = [sys.executable, "-m", f"launch.{stage}", *config, f"--workdir={workdir}"]
    environment = os.environ | AS_A_USER
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _submit(
    slurm: dict[str, str], workdir: Path, stages: str, *options: str, config: tuple[str, ...] = TINY
) -> list[str]:
    """Ids of the jobs."""
    array = [option for option in options if option.startswith("--array")]
    rest = [option for option in options if option not in array]
    command = ["bash", SUBMIT, *config, f"--workdir={workdir}", f"--stages={stages}", *array, "--", *rest]
    done = subprocess.run(command, env=slurm, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [line.split()[-1] for line in done.stdout.splitlines()]


def _job(slurm: dict[str, str], job: str) -> dict[str, str]:
    done = subprocess.run(["scontrol", "show", "job", "-o", job], env=slurm, capture_output=True, text=True, check=True)
    return dict(word.split("=", 1) for word in done.stdout.split() if "=" in word)


def _until(claim, what: str, limit_s: float = 300.0) -> None:
    deadline_s = time.monotonic() + limit_s
    while not claim():
        assert time.monotonic() < deadline_s, f"{limit_s:.0f} s, and not yet: {what}"
        time.sleep(0.2)


def _end(slurm: dict[str, str], job: str, workdir: Path, expected: str = "COMPLETED") -> dict[str, str]:
    """The job as it ended."""
    ends = ("COMPLETED", "FAILED", "CANCELLED", "NODE_FAIL", "TIMEOUT", "BOOT_FAIL")

    def has_ended() -> bool:
        # A requeued job waits for two minutes, as long as a credential lives.
        queue = subprocess.run(["squeue", "-h", "-o", "%i %r"], env=slurm, capture_output=True, text=True, check=True)
        for waiting in [line.split()[0] for line in queue.stdout.splitlines() if line.endswith(" BeginTime")]:
            subprocess.run(["scontrol", "update", f"JobId={waiting}", "StartTime=now"], env=slurm, check=True)
        return _job(slurm, job)["JobState"] in ends

    _until(has_ended, f"the end of job {job}")
    state = _job(slurm, job)
    assert state["JobState"] == expected, _output(workdir, job)
    return state


def _output(workdir: Path, job: str) -> str:
    return "".join(path.read_text() for path in (workdir / "slurm").glob(f"*-{job}.out"))


def _preempt(slurm: dict[str, str], job: str) -> None:
    """What Slurm does before the time limit, or before it gives the nodes to another job (--signal=B:USR1@120)."""
    subprocess.run(["scancel", "--batch", "--signal=USR1", job], env=slurm, check=True)


def _artefacts(workdir: Path) -> dict[str, bytes]:
    return {name: data for name, data in contents(workdir).items() if not name.startswith("slurm/")}


@pytest.fixture(scope="module")
def one_process(ingested, tmp_path_factory) -> Path:
    """The extraction by one process, without Slurm."""
    workdir = tmp_path_factory.mktemp("one") / "workdir"
    shutil.copytree(ingested, workdir)
    _launch("extract", workdir)
    return workdir


SLOW = """
    import runpy, sys, time
    from seremo_jax.features import store
    shard = store.Writer.shard
    def slowly(writer, number):
        time.sleep(0.25 * (writer.path.name == "store"))
        return shard(writer, number)
    store.Writer.shard = slowly
    del sys.argv[:2]  # this file and -m
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def _interpreter(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def test_two_nodes_that_are_preempted_extract_what_one_process_extracts_to_the_byte(
    slurm, ingested, one_process, tmp_path
):
    (tmp_path / "slow.py").write_text(textwrap.dedent(SLOW))
    slow = _interpreter(tmp_path / "slow", f'#!/bin/sh\nexec {sys.executable} {tmp_path}/slow.py "$@"\n')
    workdir = tmp_path / "a workdir, 100% shared"
    shutil.copytree(ingested, workdir)
    environment = slurm | {"SEREMO_PYTHON": slow, "PYTHONPATH": str(ROOT)}
    (job,) = _submit(environment, workdir, "extract", "--nodes=2")
    _until(lambda: any(workdir.glob("store/parts/*.json")), "the first shards of the store")
    _preempt(slurm, job)
    ended = _end(slurm, job, workdir)
    assert (ended["Restarts"], ended["NodeList"]) == ("1", "seremo-node[1-2]")
    assert _artefacts(workdir) == _artefacts(one_process)
    output = _output(workdir, job)
    assert "--distributed" in output
    assert "not finished: back into the queue (restart 1)" in output
    assert "extract (job" in output.splitlines()[-1]


@pytest.fixture
def stand_in(slurm, tmp_path) -> tuple[dict[str, str], Path]:
    """Slurm with a stand-in for Python, which notes how it was started and then does what `behaviour` says."""
    text = """#!/usr/bin/env bash
        arguments=$(printf '<%s>' "$@")
        echo "$SLURM_PROCID of $SLURM_NTASKS, restart ${SLURM_RESTART_COUNT:-0}: $arguments" >>"$STARTS"
        workdir=$WORKDIR stage=${2#launch.}
        . "$BEHAVIOUR"
    """
    workdir = tmp_path / "a workdir"
    for folder in ("store", "train"):
        (workdir / folder).mkdir(parents=True)
    (workdir / "ingest.json").touch()
    (tmp_path / "behaviour").touch()
    python = _interpreter(tmp_path / "python", textwrap.dedent(text))
    own = {"STARTS": f"{tmp_path}/starts", "BEHAVIOUR": f"{tmp_path}/behaviour", "WORKDIR": str(workdir)}
    return slurm | own | {"SEREMO_PYTHON": python}, workdir


FINISH = """
    touch "$workdir/store/manifest.json"
    if [ "$stage" = train ]; then touch "$workdir/train/finished.json"; fi
    if [ "$stage" = evaluate ]; then touch "$workdir/results.jsonl"; fi
"""


def _starts(tmp_path: Path) -> list[str]:
    path = tmp_path / "starts"
    return sorted(path.read_text().splitlines()) if path.exists() else []


def test_stages_follow_each_other_with_the_same_settings(stand_in, tmp_path):
    slurm, workdir = stand_in
    (tmp_path / "behaviour").write_text(FINISH)
    given = ("--config=configs/x y.py", "--config.corpus.root=/data/all $HOME's")
    jobs = _submit(slurm, workdir, "extract,train,evaluate", "--nodes=2", config=given)
    for job in jobs:
        _end(slurm, job, workdir)
    arguments = f"<--config=configs/x y.py><--workdir={workdir}><--config.corpus.root=/data/all $HOME's>"
    expected = [f"0 of 1, restart 0: <-m><launch.evaluate>{arguments}"]
    for stage in ("extract", "train"):
        expected += [f"{n} of 2, restart 0: <-m><launch.{stage}>{arguments}<--distributed>" for n in (0, 1)]
    assert _starts(tmp_path) == sorted(expected)


def test_a_failed_stage_takes_those_after_it_out_of_the_queue(stand_in, tmp_path):
    slurm, workdir = stand_in
    (tmp_path / "behaviour").write_text("echo what went wrong >&2; exit 7")
    extract, train = _submit(slurm, workdir, "extract,train")
    assert _end(slurm, extract, workdir, "FAILED")["Restarts"] == "0"
    output = _output(workdir, extract)
    assert "what went wrong" in output
    assert "failed with exit status 7" in output
    _end(slurm, train, workdir, "CANCELLED")
    assert len(_starts(tmp_path)) == 1


def test_unfinished_training_is_continued_before_its_evaluation(stand_in, tmp_path):
    slurm, workdir = stand_in
    (tmp_path / "behaviour").write_text(
        'if [ "$stage" = evaluate ] || [ "${SLURM_RESTART_COUNT:-0}" -ge 1 ]; then' + FINISH + "fi; exit 0"
    )
    train, evaluate = _submit(slurm, workdir, "train,evaluate")
    assert _end(slurm, evaluate, workdir)["Restarts"] == "0"
    assert _job(slurm, train)["Restarts"] == "1"
    assert [start.split(": ")[0] for start in _starts(tmp_path)] == [
        "0 of 1, restart 0",
        "0 of 1, restart 0",
        "0 of 1, restart 1",
    ]


WAIT = """
    trap 'printf x >>"$STARTS.signalled"; exit 0' USR1
    touch "$STARTS.waiting-$SLURM_PROCID"
    if [ "${SLURM_RESTART_COUNT:-0}" -eq 0 ]; then for _ in $(seq 300); do sleep 0.1; done; fi
"""


def test_every_process_hears_the_signal_and_the_job_goes_back_once_it_has_arrived(stand_in, tmp_path):
    slurm, workdir = stand_in
    (tmp_path / "behaviour").write_text(WAIT + FINISH)
    # While a signal is on its way Slurm calls the job SIGNALING. The first answer to the batch script is that.
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    asked = tmp_path / "asked"
    _interpreter(
        bin_dir / "scontrol",
        f"""#!/usr/bin/env bash
if [ "$1" = show ] && [ ! -e "{asked}" ]; then touch "{asked}"; echo "JobId=1 JobState=SIGNALING"; exit; fi
exec {shutil.which("scontrol")} "$@"
""",
    )
    slurm = slurm | {"PATH": f"{bin_dir}:{slurm['PATH']}"}
    (job,) = _submit(slurm, workdir, "train", "--nodes=2", "--ntasks-per-node=2")
    _until(lambda: len(list(tmp_path.glob("starts.waiting-*"))) == 4, "four processes")
    _preempt(slurm, job)
    assert _end(slurm, job, workdir)["Restarts"] == "1"
    assert (tmp_path / "starts.signalled").read_text() == "xxxx"
    assert asked.exists()


@pytest.mark.parametrize("ending", ["exit 0", "exit 75", "trap - TERM; kill -TERM $$"])
def test_a_job_of_higher_priority_takes_the_nodes_and_gives_them_back(stand_in, tmp_path, ending):
    slurm, workdir = stand_in
    (tmp_path / "behaviour").write_text(WAIT.replace("USR1", "TERM").replace("exit 0", ending) + FINISH)
    (job,) = _submit(slurm, workdir, "train", "--nodes=2", "--exclusive")
    _until(lambda: len(list(tmp_path.glob("starts.waiting-*"))) == 2, "two processes")
    command = [
        "sbatch",
        "--parsable",
        "--partition=urgent",
        "--nodes=2",
        "--exclusive",
        "--output=/dev/null",
        "--wrap=true",
    ]
    urgent = subprocess.run(command, env=slurm, capture_output=True, text=True, check=True).stdout.strip()
    _end(slurm, urgent, workdir)
    assert _end(slurm, job, workdir)["Restarts"] == "1"
    assert set((tmp_path / "starts.signalled").read_text()) == {"x"}
    assert [start.split(":")[0] for start in _starts(tmp_path)] == [
        f"{n} of 2, restart {restart}" for n in (0, 1) for restart in (0, 1)
    ]


def test_a_cancelled_job_stays_cancelled(stand_in, tmp_path):
    slurm, workdir = stand_in
    (tmp_path / "behaviour").write_text(WAIT)
    (job,) = _submit(slurm, workdir, "train")
    _until(lambda: any(tmp_path.glob("starts.waiting-0")), "the process")
    subprocess.run(["scancel", job], env=slurm, check=True)
    assert _end(slurm, job, workdir, "CANCELLED")["Restarts"] == "0"
    assert _job(slurm, job)["JobState"] == "CANCELLED"
    assert "left to Slurm" in _output(workdir, job)


def test_programs_of_a_sweep_are_an_array(stand_in, tmp_path):
    slurm, workdir = stand_in
    # The second program is preempted once: only it runs again.
    (tmp_path / "behaviour").write_text(f'if [ "$SLURM_ARRAY_TASK_ID" = 1 ]; then {WAIT} fi')
    (job,) = _submit(slurm, workdir, "sweep", "--array=0-2")
    _until(lambda: any(tmp_path.glob("starts.waiting-0")), "the process")
    _preempt(slurm, f"{job}_1")
    for index in range(3):
        assert _end(slurm, f"{job}_{index}", workdir)["Restarts"] == str(int(index == 1))
    indices = [start.rsplit("<--index=", 1)[1] for start in _starts(tmp_path)]
    assert sorted(indices) == ["0>", "1>", "1>", "2>"]


LONG = (*TINY, "--config.train.max_epochs=20", "--config.train.patience=20", "--config.model.gru_layers=1")


def _results(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "results.jsonl").read_text().splitlines()]


def test_two_nodes_that_are_preempted_train_what_one_process_trains(slurm, one_process, tmp_path):
    undisturbed, preempted = tmp_path / "undisturbed", tmp_path / "preempted"
    for workdir in (undisturbed, preempted):
        shutil.copytree(one_process, workdir)
    for stage in ("train", "evaluate"):
        _launch(stage, undisturbed, LONG)
    train, evaluate = _submit(slurm, preempted, "train,evaluate", "--nodes=2", config=LONG)
    _until(lambda: (preempted / "train" / "log.jsonl").exists(), "the first epoch")
    _preempt(slurm, train)
    _end(slurm, evaluate, preempted)
    assert _job(slurm, train)["Restarts"] == "1"
    assert _results(preempted) == _results(undisturbed)


def test_one_of_several_processes_ends_at_once_when_it_fails(tmp_path):
    # Or Slurm would wait for it, it for the other one, and that one for what never comes.
    code = """
import jax
from launch import cli
from seremo_jax.core.sharding import wait_for_all
def main(config, workdir):
    if jax.process_index() == 1:
        raise OSError("a broken disk")
    wait_for_all("never")
cli.run(main)
"""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    shared = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", code, TINY[0], f"--workdir={tmp_path}", "--distributed"]
    first, second = (
        subprocess.Popen(
            command, cwd=ROOT, env=os.environ | shared | {"JAX_PROCESS_ID": str(n)}, stderr=subprocess.PIPE
        )
        for n in (0, 1)
    )
    try:
        _, errors = second.communicate(timeout=60)
        assert second.returncode == 1
        assert errors.decode().strip().endswith("error: a broken disk")
        assert first.poll() is None
    finally:
        first.kill()
        first.communicate()


def test_dry_run_prints_the_chain(tmp_path):
    command = ["bash", SUBMIT, TINY[0], "--workdir=/shared/a b", "--dry-run", "--", "--partition=gpu", "--nodes=2"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    golden = (ROOT / "tests" / "golden" / "slurm_submit_dry_run.txt").read_text()
    assert done.stdout.replace(str(ROOT), "CHECKOUT") == golden


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workdir=w"], "--config=configs/NAME.py is missing"),
        (["--config=c"], "--workdir=DIR is missing"),
        (["--config=c", "--workdir=w", "--stages=extract,tran"], "there is no stage tran"),
        (["--config=c", "--workdir=w", "--stages=sweep"], "Give --array=0-N"),
        (["--config=c", "--workdir=gs://bucket/w"], "share a disk"),
        (["--config=c", "--workdir=w", "--nodes=2"], "unknown option: --nodes=2"),
    ],
)
def test_wrong_input_is_told_plainly(arguments, message):
    done = subprocess.run(["bash", SUBMIT, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert message in done.stderr


@pytest.mark.parametrize(
    "script", sorted(path.name for path in (ROOT / "launch" / "cluster" / "slurm").glob("*.sbatch"))
)
def test_batch_scripts_explain_themselves(script):
    done = subprocess.run(
        ["bash", f"launch/cluster/slurm/{script}", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("usage: sbatch")
    done = subprocess.run(
        ["bash", ROOT / "launch" / "cluster" / "slurm" / script], cwd="/", capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "submit from the root of the checkout" in done.stderr
