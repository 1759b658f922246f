"""The example of a corpus in tables, word for word as the page has it, with and without its recordings."""

import re
import shlex
import subprocess

import numpy as np
import pytest
import soundfile

from seremo_jax.data import tables
from seremo_jax.reports import validation
from tests.support import launchers
from tests.support.house import ROOT


@pytest.fixture
def example(tmp_path, monkeypatch):
    """The block of the page in an empty folder: its files, and its last command as arguments."""
    page = (ROOT / "seremo_jax" / "data" / "LABELS.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```bash\n(mkdir -p mine\n.*?)```", page, re.DOTALL)
    files, _, command = block.partition("python -m launch.")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    subprocess.run(["bash", "-euc", files], check=True)
    return shlex.split(command.replace("\\\n", ""))


def test_the_example_of_a_corpus_in_tables_runs(example, tmp_path):
    (tmp_path / "mine" / "wav").mkdir()
    for place, name in enumerate(("a1", "a2", "b1", "c1")):
        samples = np.random.default_rng(place).uniform(-0.1, 0.1, 8_000)
        soundfile.write(tmp_path / "mine" / "wav" / f"{name}.wav", samples, 16_000)
    code, output = launchers.run(*example)
    assert code == 0, output
    utterances, ratings, _ = tables.read_tables(tmp_path / "runs" / "mine")
    assert utterances["split"].to_pylist() == ["train", "train", "development", "test"]
    assert ratings["primary"].to_pylist() == ["boredom", "calm", "angry", None, "calm", "boredom"]
    # 5 votes, since X is none, on 4 utterances, of which a1 is a tie.
    assert re.search(r"targets.class_set +\* angry,boredom,calm +6 +5 +4 +3 +1 +0", output)


def test_labels_alone_are_described_and_checked(example, tmp_path):
    table = tmp_path / "mine" / "utterances.csv"
    table.write_text(re.sub(r"(?m)^(\w+),[^,]*", r"\1", table.read_text()))
    code, output = launchers.run(*example)
    assert (code, "labels alone, no audio: no table was written" in output) == (0, True), output
    assert re.search(r"targets.class_set +\* angry,boredom,calm +6 +5 +4 +3 +1 +0", output)
    assert not (tmp_path / "runs" / "mine").exists()
    code, output = launchers.run("ingest", *(argument for argument in example[1:] if argument != "--explain"))
    assert (code, "no utterance has audio" in output) == (1, True), output
    code, output = launchers.run("validate", *(argument for argument in example[1:] if argument != "--explain"))
    assert code == 0, output
    findings = {finding.name: finding.count for finding in validation.read(tmp_path / "runs" / "mine")}
    assert findings["audio_not_given"] == 4
    assert findings["splits"] == 0
    folder = tmp_path / "runs" / "mine" / "validation"
    assert (folder / "class_shares.png").exists()
    assert not (folder / "durations.png").exists()


def test_help_says_which_files_and_columns_tables_have():
    for launcher in ("ingest", "validate"):
        _, output = launchers.run(launcher, "--help")
        for word in ("`ratings.csv`", "`also_primary`", "`utterances.csv`", "`count::<class>`", "`num_raters`"):
            assert word in output
