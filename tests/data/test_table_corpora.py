"""Corpora in tables from their files to the page of validation and the notes of ingest."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest
import soundfile

from seremo_jax.core.config import from_config_dict
from seremo_jax.data import ingest
from seremo_jax.reports import validation

NUM_SPEAKERS = 8


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "corpus"
    folder.mkdir()
    for i in range(NUM_SPEAKERS):
        soundfile.write(folder / f"u{i}.wav", np.random.default_rng(i).uniform(-0.2, 0.2, 8000), 16_000)
    return folder


def people(names=tuple(f"p{i}" for i in range(NUM_SPEAKERS))) -> str:
    rows = [f"u{i},u{i}.wav,{name},{'female' if i % 2 else 'male'}\n" for i, name in enumerate(names)]
    return "id,audio,speaker,gender\n" + "".join(rows)


def config_of(root: Path, **data):
    return from_config_dict({"corpus": {"name": "table", "root": str(root)}, "data": data})


def write(root: Path, **texts: str) -> None:
    for name, text in texts.items():
        (root / f"{name}.csv").write_text(text, encoding="utf-8")


def errors_of(root: Path, workdir: Path, **data) -> dict[str, tuple[str, ...]]:
    """Findings that are errors, after making sure that there is a page."""
    findings = validation.run(config_of(root, **data), workdir, is_quiet=True)
    assert (workdir / "validation/index.html").is_file()
    return {finding.name: finding.cases for finding in findings if finding.is_error}


REJECTED = [
    (
        {"utterances": people(), "ratings": "utterance,primary,valence\nu1,sad,one\nu2,sad,two\n"},
        "2 of 2 ratings were rejected, the first: ratings.csv:2: valence is 'one', which is no number",
    ),
    (
        {"ratings": "utterance,primary,modality\nu1,sad,smell\nu2,sad,taste\nu3,sad,touch\n"},
        "3 of 3 ratings were rejected, the first: ratings.csv:2: modality is 'smell', which is none of voice",
    ),
    (
        {"utterances": people(), "ratings": "utterance,primary\nx1,sad\nx2,sad\n"},
        "2 of 2 ratings were rejected, the first: ratings.csv:2: 'x1' is an utterance that no row describes",
    ),
    (
        {"utterances": "id,audio,share::sad,share::angry\nu1,u1.wav,0.5,0.1\nu2,u2.wav,0,0.3\n"},
        "2 of 2 lines were rejected, the first: utterances.csv:2: u1: shares of no number of votes up to 60",
    ),
    (
        {"utterances": "id,audio,count::sad\nu1,u1.wav,many\n"},
        "1 of 1 lines were rejected, the first: utterances.csv:2: u1: count::sad is 'many', which is no number",
    ),
]


@pytest.mark.parametrize(("texts", "message"), REJECTED)
def test_where_every_rating_is_rejected_the_first_is_named_and_there_is_a_page(root, tmp_path, texts, message):
    write(root, **texts)
    errors = errors_of(root, tmp_path / "w")
    assert list(errors) == ["unusable_ratings"]
    assert errors["unusable_ratings"][0].startswith(message)
    with pytest.raises(ingest.IngestError) as error:
        ingest.run(config_of(root), tmp_path / "w2", is_quiet=True)
    assert message in str(error.value)
    assert "data.modality" not in str(error.value)


def test_another_modality_speaks_of_the_modality_and_of_what_was_rejected(root, tmp_path):
    write(root, utterances=people(), ratings="utterance,primary,modality\nu1,sad,face\nu2,sad,smell\n")
    [case] = errors_of(root, tmp_path / "w")["unusable_ratings"]
    assert case.startswith(
        "data.modality = 'voice': the corpus has no such ratings (it has: face); 1 of 2 ratings were"
    )
    write(root, ratings="utterance,primary\n")
    [case] = errors_of(root, tmp_path / "w2", max_speakers=4)["unusable_ratings"]
    assert "it has: none at all" in case


def test_ratings_that_say_nothing_are_an_error(root, tmp_path):
    write(root, utterances=people(), ratings="utterance,primary\n" + "".join(f"u{i},NA\n" for i in range(NUM_SPEAKERS)))
    assert errors_of(root, tmp_path / "w") == {"empty_ratings": ("none of 8 ratings has a word or a value",)}


@pytest.mark.parametrize("pair", [("S00", "s00"), ("Zoë", unicodedata.normalize("NFD", "Zoë"))])
def test_speakers_of_two_spellings_are_a_finding_and_a_note(root, tmp_path, pair):
    names = (*pair, *(f"p{i}" for i in range(2, NUM_SPEAKERS)))
    rated = "".join(f"u{i},r,sad\nu{i},R,sad\n" for i in range(NUM_SPEAKERS))
    write(root, utterances=people(names), ratings=f"utterance,rater,primary\n{rated}")
    findings = validation.run(config_of(root), tmp_path / "w", is_quiet=True)
    [alike] = [finding for finding in findings if finding.name == "names_alike"]
    assert (alike.severity, alike.count) == ("warning", 2)
    assert alike.cases[0].startswith("speaker: ")
    assert alike.cases[1] == "rater: 'R' and 'r' are taken for 2 different names"
    record = ingest.run(config_of(root), tmp_path / "w2", is_quiet=True)
    assert set(alike.cases) <= set(record["warnings"])
