"""Statistics of voices and the z-scores made of them, against NumPy in float64."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from seremo_jax.core import ensemble
from seremo_jax.core.artefacts import ArtefactError
from seremo_jax.training import speakers, zscore
from tests.support import toy_training as toy

KAPPAS = (0.0, 0.3, 20.0, np.inf)


def _data(**sections):
    fold = np.arange(toy.NUM) % 3
    splits = {f: np.where(fold == f, "test", np.where(fold == (f + 1) % 3, "development", "train")) for f in (0, 1)}
    axes = {"layers": (2, 5), "class_targets": ("votes",), "seeds": (0,), "folds": (0, 1)}
    config = toy.config(data={"split_kind": "kfold", "num_folds": 3}, ensemble=axes, **sections)
    return toy.data_of(config, splits=splits), ensemble.members(config, None)


def test_statistics_of_a_voice_are_those_of_all_frames_of_the_speaker_in_the_split():
    data, members = _data(model={"speaker_kappa_s": 1.0})
    found = speakers.of_store(data, members, ("train", "test"))
    for fold, split in data.splits.items():
        voice = found.voices.code[fold]
        np.testing.assert_array_equal(voice >= 0, (toy.GROUPS.speaker >= 0) & (split != "development"))
        for row in np.flatnonzero(voice >= 0):
            own = np.flatnonzero((toy.GROUPS.speaker == toy.GROUPS.speaker[row]) & (split == split[row]))
            np.testing.assert_array_equal(found.voices.rows[voice[row]], own)
            for layer in (2, 5):
                frames = np.concatenate(data.store.read(layer, own)).astype(np.float64)
                mean, variance = (table[voice[row]] for table in found.moments[layer])
                np.testing.assert_allclose(mean, frames.mean(0), rtol=1e-6)
                np.testing.assert_allclose(variance, frames.var(0), rtol=1e-6)
            assert found.seconds[voice[row]] == np.float32(len(frames) / 50)
    # What two folds have in common is one voice.
    assert len(found.voices.rows) < sum(len(set(code[code >= 0].tolist())) for code in found.voices.code.values())


def test_order_and_company_change_no_bit_of_the_statistics():
    data, members = _data(model={"speaker_kappa_s": 1.0})
    found = speakers.of_store(data, members, ("train", "test"))
    order = np.random.default_rng(0).permutation(toy.NUM)
    frames = [(int(row), np.stack([data.store.read(layer, [row])[0] for layer in (2, 5)])) for row in order]
    np.testing.assert_equal(speakers.gathered(data, found.voices, (2, 5), frames), found)
    alone = speakers.of_store(dataclasses.replace(data, splits={1: data.splits[1]}), members[1:2], ("train", "test"))
    for row, voice in enumerate(alone.voices.code[1]):
        if voice >= 0:
            other = found.voices.code[1][row]
            np.testing.assert_array_equal(alone.moments[2][1][voice], found.moments[2][1][other])


@pytest.mark.parametrize("kappa_s", KAPPAS)
def test_statistics_are_drawn_to_those_of_the_training_split(kappa_s):
    """The third voice has no seconds, the last feature no variance in a voice."""
    rng = np.random.default_rng(0)
    mean, sd = rng.normal(30, 5, 4), rng.uniform(0.1, 9, 4)
    own, variance = rng.normal(30, 5, (3, 4)), rng.uniform(0.1, 9, (3, 4))
    variance[1, 3] = 0
    seconds = np.array([2.5, 40.0, 0.0])
    arrays = [jnp.asarray(x, jnp.float32) for x in (mean, sd, own, variance, seconds, kappa_s)]
    ours = zscore.drawn_together((arrays[0], arrays[1]), (arrays[2], arrays[3]), arrays[4], arrays[5])
    for i in range(3):
        is_plain = seconds[i] == 0 or np.isinf(kappa_s)
        if is_plain:
            for table, plain in zip(ours, arrays, strict=False):
                np.testing.assert_array_equal(table[i], plain)
            continue
        expected = (seconds[i] * own[i] + kappa_s * mean) / (seconds[i] + kappa_s)
        deviation = np.sqrt((seconds[i] * variance[i] + kappa_s * sd**2) / (seconds[i] + kappa_s))
        np.testing.assert_allclose(ours[0][i], expected, rtol=1e-6)
        np.testing.assert_allclose(ours[1][i], np.where(deviation < 1e-6, 1, deviation), rtol=1e-5)


def test_what_no_member_reads_is_not_gathered_and_nobody_known_is_refused():
    data, members = _data()
    assert speakers.of_store(data, members, ("train",)) is None
    data, members = _data(model={"speaker_kappa_s": 1.0})
    nobody = dataclasses.replace(data, groups=toy.GROUPS._replace(speaker=np.full(toy.NUM, -1)))
    with pytest.raises(ArtefactError, match=r"model\.speaker_kappa_s: no utterance of the splits train has a known sp"):
        speakers.of_store(nobody, members, ("train",))
