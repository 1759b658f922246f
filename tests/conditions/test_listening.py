"""Renderings to listen to: files, their manifest, what is refused."""

import csv

import numpy as np
import pytest
import soundfile

from seremo_jax.conditions import listening
from seremo_jax.core.artefacts import ArtefactError
from seremo_jax.core.condition_names import ConditionError
from tests.support.toy_corpus import config_of, make_corpus, read_waveform


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("corpus"))


def written(corpus, to, num=3, split="train"):
    config = config_of(corpus, eval__conditions=("noise:pink:5db", "reverb:synthetic:0.6s", "babble:0db"))
    manifest = listening.run(config, corpus / "workdir", to, split, num, is_quiet=True)
    with manifest.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_utterance_in_every_condition_with_what_was_measured(corpus, tmp_path):
    rows = written(corpus, tmp_path / "to")
    assert len(rows) == 3 * 4
    assert len({row["utterance"] for row in rows}) == 3
    assert sorted(p.relative_to(tmp_path / "to").as_posix() for p in (tmp_path / "to").rglob("*.wav")) == sorted(
        row["file"] for row in rows
    )
    for row in rows:
        heard, rate_hz = soundfile.read(tmp_path / "to" / row["file"])
        clean = read_waveform(corpus, row["utterance"])
        assert (rate_hz, len(heard)) == (16_000, len(clean))
        assert float(row["peak"]) == pytest.approx(np.abs(heard).max(), abs=1e-3)
        if row["condition"] == "clean":
            np.testing.assert_allclose(heard, clean, atol=1e-4)
        if "db" in row["condition"]:
            assert float(row["snr_db"]) == pytest.approx({"n": 5, "b": 0}[row["condition"][0]], abs=0.1)
        else:
            assert row["snr_db"] == ""
        if row["condition"].startswith("reverb"):
            assert float(row["rt60_s"]) == pytest.approx(0.6, rel=0.1)


def test_the_same_files_again_and_nothing_of_others_is_replaced(corpus, tmp_path):
    first = written(corpus, tmp_path / "to")
    bytes_of = {path: path.read_bytes() for path in (tmp_path / "to").rglob("*.wav")}
    assert written(corpus, tmp_path / "to") == first
    assert bytes_of == {path: path.read_bytes() for path in (tmp_path / "to").rglob("*.wav")}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(ArtefactError, match="holds other things"):
        written(corpus, tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_a_failure_leaves_no_folder(corpus, tmp_path):
    with pytest.raises(ConditionError, match="needs 6 utterances"):
        written(corpus, tmp_path / "to", split="test")
    with pytest.raises(ConditionError, match="no utterance is in split 'test2'"):
        written(corpus, tmp_path / "to", split="test2")
    assert list(tmp_path.iterdir()) == []
