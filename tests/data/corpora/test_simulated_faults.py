"""Faults of known size in the simulated corpus: where they are, how large, and where they are not."""

import collections

import numpy as np
import pytest

from seremo_jax.data.corpora import simulated
from seremo_jax.data.corpora.simulated_faults import SELDOM, Faults
from seremo_jax.data.tables import info_of


def test_women_in_training_alone_seldom_intend_what_the_fault_names(monkeypatch, tmp_path):
    monkeypatch.setattr(simulated, "_is_rendered", lambda path, mark: True)

    def counts(**faults):
        utterances, _ = simulated.parse(tmp_path, num_speakers=200, utterances_per_speaker=12, is_quiet=True, **faults)
        columns = (utterances.column(name).to_pylist() for name in ("gender", "split", "intended_class"))
        return collections.Counter(zip(*columns, strict=True))

    faulty, sound = counts(class_by_gender=0.75), counts()
    for (gender, split, name), number in sound.items():
        found = faulty[gender, split, name]
        if (gender, split) != ("female", "train"):
            assert found == number
        elif name in SELDOM:
            assert found / number == pytest.approx(0.25, abs=0.08)  # 120 utterances: a standard error of 0.04
        else:
            assert found / number == pytest.approx(1.75, abs=0.08)


def test_a_shifted_speaker_sounds_as_far_off_in_every_emotion():
    plain = [simulated.draw_speaker(0, number) for number in range(100)]
    shifted = [simulated.draw_speaker(0, number, Faults(speaker_shift=3.0)) for number in range(100)]
    moved = np.array([b.style - a.style for a, b in zip(plain, shifted, strict=True)])
    assert np.ptp(moved, axis=1).max() < 1e-12
    # 100 speakers: a standard deviation is known to 7 %.
    assert (moved[:, 0].std(axis=0) / simulated._SPREAD) == pytest.approx(3.0, rel=0.25)
    assert [(a.id, a.voice, a.expressiveness) for a in plain] == [(b.id, b.voice, b.expressiveness) for b in shifted]


def test_a_faulty_corpus_is_another_release_with_audio_of_its_own(tmp_path):
    faults = {"class_by_gender": 0.5, "speaker_shift": 2.0}
    utterances, _ = simulated.parse(tmp_path, num_speakers=6, utterances_per_speaker=1, is_quiet=True, **faults)
    assert info_of(utterances).release == "simulated-1-seed0-bygender0.5-shift2"
    assert {path.name for path in tmp_path.iterdir()} == {"simulated-1-seed0-bygender0.5-shift2"}
