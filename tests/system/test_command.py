"""The command `seremo`: what it lists, which recipes it finds, and an installed wheel at work outside of a checkout."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

import pytest

from launch import recipe_files
from launch.__main__ import STAGES
from seremo_jax.core import commands
from seremo_jax.evaluation import records
from tests.support import launchers
from tests.support.house import PACKAGE, ROOT, dotted, python_files


def test_help_lists_every_launcher_and_imports_none():
    code = (
        "import sys; from seremo_jax.core import commands; sys.argv = ['seremo', '--help']; commands.main(); "
        "assert not {'jax', 'numpy', 'absl'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    listed = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")]
    files = [path.relative_to(ROOT / "launch") for path in python_files("launch") if _is_launcher(path)]
    assert sorted(listed) == sorted(file.parts[0].removesuffix(".py") for file in files)
    assert listed == list(STAGES)
    assert (
        "  train       Trains every member in one program, best epoch kept by the development split (train/).\n"
        in done.stdout
    )


def _is_launcher(path: Path) -> bool:
    text = path.read_text(encoding="utf-8")
    return "plain.run(main)" in text or ("cli.run(main" in text and 'if __name__ == "__main__":' in text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "error: there is no stage 'trian'; did you mean train?"),
        (["--workdir=w", "train"], "error: the name of a stage comes first, before --workdir=w: see seremo --help"),
        ([], "usage: seremo STAGE"),
    ],
)
def test_a_stage_that_there_is_not_is_told_plainly(arguments, message):
    code, output = launchers.run("__main__", *arguments)
    assert (code, output.startswith(message)) == (1, True), output


def test_a_stage_is_its_launcher(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(commands, "_as_seremo", True)
    code, output = launchers.run("__main__", "conditions", "--help")
    # absl ends help with 1.
    assert code == 1
    assert output.startswith("usage: seremo conditions --config=RECIPE --workdir=DIR [--FLAG=VALUE ...]\n")
    assert "--config.train.patience" in output
    assert "; seremo recipes lists them." in output
    code, output = launchers.run("__main__", "conditions", "--config=configs/simulated.py", "--workdir=w", "--to=t")
    assert code == 1
    assert "run seremo ingest with this --workdir" in output
    assert "launch." not in output


def test_commands_are_named_as_they_are_called(monkeypatch):
    text = (
        "run python -m launch.extract; launch.train and python -m\n  launch.evaluate; see /a/launch.d, runs/launch.json"
    )
    assert commands.as_called(text) == text
    monkeypatch.setattr(commands, "_as_seremo", True)
    expected = "run seremo extract; seremo train and seremo evaluate; see /a/launch.d, runs/launch.json"
    assert commands.as_called(text) == expected


def test_a_recipe_of_the_current_folder_comes_before_the_one_of_the_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny = ["--config=configs/simulated.py:tiny", "--workdir=w"]
    code, output = launchers.run("recipes", "simulated")
    assert (code, output) == (0, "configs/simulated.py\n")
    copy = tmp_path / "configs" / "simulated.py"
    assert copy.read_bytes() == (ROOT / "configs" / "simulated.py").read_bytes()
    copy.write_text(copy.read_text().replace("num_speakers = 12", "num_speakers = -3"))
    assert "corpus.num_speakers" in launchers.run("ingest", *tiny)[1]
    _, output = launchers.run("recipes")
    assert re.search(r"^configs/simulated\.py +\(in this folder\) Embedded corpus", output, re.MULTILINE)
    assert re.search(r"^configs/crema_d\.py +CREMA-D, voice-only votes", output, re.MULTILINE)
    code, output = launchers.run("recipes", "crema_d.py", "simulated")
    assert (code, "configs/simulated.py is there already" in output) == (1, True)
    assert not (tmp_path / "configs" / "crema_d.py").exists()
    code, output = launchers.run("recipes", "simulatd")
    assert (code, output) == (1, "error: the package has no recipe 'simulatd'; did you mean simulated?\n")


def test_recipes_are_found_by_name_in_the_folder_configs_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    packaged = str(ROOT / "configs" / "simulated.py")
    assert recipe_files.find("configs/simulated.py") == recipe_files.find("./configs/simulated.py") == packaged
    assert recipe_files.find("configs/simulated.py:tiny") == f"{packaged}:tiny"
    for path in ("simulated.py", "mine/simulated.py", "configs/mine.py:a:b", "/configs/simulated.py"):
        assert recipe_files.find(path) == path


def test_a_wheel_has_every_folder_of_the_package():
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    folders = {dotted(path.parent / "__init__.py") for path in python_files(PACKAGE)}
    assert set(setup["packages"]) == folders | setup["package-dir"].keys()


OWN_RECIPE = """
from configs import simulated

def get_config(arg=""):
    config = simulated.get_config("tiny")
    config.corpus.num_speakers, config.corpus.utterances_per_speaker = 6, 1
    config.model.gru_units = config.model.embedding_size = 8
    config.ensemble.class_targets = ("votes",)
    config.eval.num_resamples = config.eval.num_permutations = 20
    return config
"""


@pytest.mark.long
def test_an_installed_wheel_does_the_main_job_outside_of_a_checkout(tmp_path):
    pytest.importorskip("setuptools", minversion="77", reason="builds a wheel")
    seremo = _installed(tmp_path)
    outside = tmp_path / "outside"
    (outside / "configs").mkdir(parents=True)
    (outside / "configs" / "small.py").write_text(OWN_RECIPE)
    # Nothing of a repository that an environment lies in is taken for the commit of the package.
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    identity = ["-c", "user.name=n", "-c", "user.email=e"]
    subprocess.run(["git", "-C", tmp_path, *identity, "commit", "-q", "--allow-empty", "-m", "another"], check=True)

    def run(*arguments: str | Path) -> str:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        command = [seremo, *map(str, arguments)]
        done = subprocess.run(command, cwd=outside, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    tiny = ["--config.corpus.num_speakers=6", "--config.corpus.utterances_per_speaker=1", "--workdir=w"]
    run("ingest", "--config=configs/simulated.py:tiny", *tiny)
    for stage in ("extract", "train", "evaluate"):
        run(stage, "--config=configs/small.py", "--workdir=w")
    assert {record.protocol["commit"] for record in records.read(outside / "w" / "results.jsonl")} == {None}
    assert "next: seremo predict --model=model FILE" in run("export", "--workdir=w", "--to=model")
    recording = next((outside / "w" / "audio").rglob("*.flac"))
    (line,) = run("predict", "--model=model", recording).splitlines()
    assert sum(json.loads(line)["distribution"].values()) == pytest.approx(1, abs=1e-4)

    for name in ("launch", "configs"):
        code = f"import seremo_jax, sys; print(seremo_jax.__file__); import {name}"
        command = [seremo.parent / "python", "-c", code]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert Path(done.stdout.strip()).is_relative_to(tmp_path)
        assert f"ModuleNotFoundError: No module named '{name}'" in done.stderr


def _installed(folder: Path) -> Path:
    """The command `seremo` of a new environment, with a wheel of this checkout and what the tests' environment has."""
    source, environment = folder / "source", folder / "environment"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("seremo_jax", "launch", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    # In the folder that is built from, as pip would do it in an environment of its own.
    build = "from setuptools import build_meta; build_meta.build_wheel('..')"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    venv.create(environment, symlinks=True)
    scripts = environment / "bin"
    library = Path(sysconfig.get_path("purelib", vars={"base": str(environment)}))
    # Its folder alone: what a checkout there is linked by is left out.
    (library / "others.pth").write_text(sysconfig.get_path("purelib"))
    install = [sys.executable, "-m", "pip", "--python", scripts / "python", "install", "-q", "--no-compile"]
    subprocess.run([*install, "--no-deps", "--no-index", wheel], check=True, capture_output=True)
    return scripts / "seremo"
