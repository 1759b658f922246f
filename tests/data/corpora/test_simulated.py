"""The simulated corpus: the same every time, split by speaker, hard but not hopeless, with votes that say more."""

import collections
import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import soundfile
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import recall_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from seremo_jax.core import vocab
from seremo_jax.core.schema import RATING_SCHEMA, UTTERANCE_SCHEMA
from seremo_jax.data.corpora import simulated
from seremo_jax.data.corpora.simulated_voice import SAMPLE_RATE_HZ, Delivery, Voice, synthesize
from seremo_jax.data.tables import info_of
from seremo_jax.data.text_lines import CorpusError

CLASSES = vocab.CLASS_SETS["crema6"]
WORDS = (*CLASSES, vocab.OTHER)
SMALL = {"num_speakers": 6, "utterances_per_speaker": 1, "is_quiet": True}
VOICE = Voice(112.0, 1.0, 4.6, 0.0, 0.0, 0.58, 0.0, 0.006, -64.0)


class Corpus(NamedTuple):
    root: Path
    utterances: list[dict]
    ratings: list[dict]
    info: tuple
    votes: np.ndarray  # [N, C + 1], "other" last
    consensus: np.ndarray  # [N], -1 without a unique plurality
    attributes: np.ndarray  # [N, A]

    def column(self, name: str) -> np.ndarray:
        return np.array([utterance[name] for utterance in self.utterances])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Corpus:
    root = tmp_path_factory.mktemp("simulated")
    tables = simulated.parse(root, num_speakers=24, utterances_per_speaker=6, is_quiet=True)
    utterances, ratings = (table.to_pylist() for table in tables)
    row = {utterance["id"]: i for i, utterance in enumerate(utterances)}
    votes = np.zeros((len(row), len(WORDS)), int)
    points = collections.defaultdict(list)
    for rating in ratings:
        votes[row[rating["utterance"]], WORDS.index(rating["primary"])] += 1
        points[rating["utterance"]].append([rating[name] for name in vocab.ATTRIBUTES])
    is_top = votes == votes.max(axis=1, keepdims=True)
    consensus = np.where(is_top.sum(axis=1) == 1, votes.argmax(axis=1), -1)
    attributes = np.array([np.mean(points[utterance], axis=0) for utterance in row])
    infos = tuple(info_of(table) for table in tables)
    return Corpus(root, utterances, ratings, infos, votes, consensus, attributes)


@pytest.fixture(scope="module")
def sound(corpus) -> np.ndarray:
    """[N, 7] level, its spread, its peaks, tilt, pitch in octaves, its spread, duration."""
    return np.array([_listen(corpus.root / utterance["audio"]) for utterance in corpus.utterances])


def _listen(path: Path) -> list[float]:
    waveform, rate_hz = soundfile.read(path)
    frames = np.lib.stride_tricks.sliding_window_view(waveform, 640)[::160] * np.hanning(640)[None, :]
    power = np.abs(np.fft.rfft(frames, 1024)) ** 2
    level_db = 10 * np.log10(power.sum(axis=1) + 1e-9)
    lags = np.arange(40, 200)
    autocorrelation = np.fft.irfft(power, 1024)
    periodicity = autocorrelation[:, lags] / autocorrelation[:, :1]
    is_voiced = (level_db > np.percentile(level_db, 57)) & (periodicity.max(axis=1) > 0.4)
    pitch = np.log2(rate_hz / lags[periodicity.argmax(axis=1)])[is_voiced]
    bins_hz = np.fft.rfftfreq(1024, 1 / rate_hz)
    tilt_db = 10 * np.log10(power[is_voiced][:, bins_hz > 1500].sum() / power[is_voiced][:, bins_hz < 1000].sum())
    level = [level_db.mean(), level_db.std(), np.percentile(level_db, 90)]
    return [*level, tilt_db, np.median(pitch), pitch.std(), len(waveform) / rate_hz]


def _divergence(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    def entropy(x):
        return -(x * np.log2(np.maximum(x, 1e-12))).sum(axis=-1)

    return entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2


def _hashes(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*.flac"))
    }


def test_tables_follow_the_schemas_and_say_they_are_simulated(corpus):
    assert list(corpus.utterances[0]) == [*UTTERANCE_SCHEMA.names, "intended_class"]
    assert list(corpus.ratings[0]) == RATING_SCHEMA.names
    assert corpus.info[0] == corpus.info[1]
    info = corpus.info[0]
    assert (info.corpus, info.release, info.class_set) == ("simulated", "simulated-1-seed0", "crema6")
    assert info.is_simulated
    assert "simulated" in info.notes[0]
    assert "nothing about real speech" in info.notes[0]
    assert set(info.attribute_ranges) == set(vocab.ATTRIBUTES)
    assert {tuple(span) for span in info.attribute_ranges.values()} == {(1.0, 7.0)}
    assert len(set(corpus.column("id"))) == len(corpus.utterances) == (24 + 4) * 6
    assert {rating["utterance"] for rating in corpus.ratings} == set(corpus.column("id"))
    assert {rating["modality"] for rating in corpus.ratings} == {"voice"}


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path):
    first = simulated.parse(tmp_path / "a", **SMALL)
    again = simulated.parse(tmp_path / "b", **SMALL)
    other = simulated.parse(tmp_path / "c", seed=1, **SMALL)
    assert all(x.equals(y, check_metadata=True) for x, y in zip(first, again, strict=True))
    assert _hashes(tmp_path / "a") == _hashes(tmp_path / "b")
    assert not set(_hashes(tmp_path / "a").values()) & set(_hashes(tmp_path / "c").values())
    assert first[1].column("primary") != other[1].column("primary")


def test_an_utterance_does_not_depend_on_how_many_others_there_are(corpus, tmp_path):
    utterances, ratings = simulated.parse(tmp_path, num_speakers=7, utterances_per_speaker=1, is_quiet=True)
    larger = {utterance["id"]: utterance for utterance in corpus.utterances}
    ids = utterances.column("id").to_pylist()
    assert len(ids) == 7 + 4
    assert utterances.to_pylist() == [larger[name] for name in ids]
    assert ratings.to_pylist() == [rating for rating in corpus.ratings if rating["utterance"] in set(ids)]
    whole = _hashes(corpus.root)
    assert _hashes(tmp_path).items() <= whole.items()


def test_rendering_resumes_and_replaces_what_is_not_whole(tmp_path):
    simulated.parse(tmp_path, **SMALL)
    before, files = _hashes(tmp_path), sorted(tmp_path.rglob("*.flac"))
    kept, lost, cut, halved, foreign = files[:5]
    stamp_ns = kept.stat().st_mtime_ns
    lost.unlink()
    cut.write_bytes(cut.read_bytes()[:20])
    halved.write_bytes(halved.read_bytes()[: halved.stat().st_size // 2])
    foreign.write_bytes(kept.read_bytes())  # a valid recording, but of another utterance
    leftover = lost.parent / f".{lost.name}.abc.tmp"
    leftover.mkdir()
    simulated.parse(tmp_path, **SMALL)
    assert _hashes(tmp_path) == before
    assert kept.stat().st_mtime_ns == stamp_ns
    assert not leftover.exists()


def test_audio_is_mono_16_khz_16_bit_flac_of_a_sentence_length(corpus, sound):
    for utterance in corpus.utterances[::10]:
        info = soundfile.info(corpus.root / utterance["audio"])
        assert (info.samplerate, info.channels, info.format, info.subtype) == (16_000, 1, "FLAC", "PCM_16")
    assert sound[:, 6].min() >= 1.5
    assert sound[:, 6].max() <= 5.0
    assert np.ptp(sound[:, 6]) > 1.5


def test_splits_share_no_speaker_and_hold_every_gender_and_class(corpus):
    split, speaker, gender = corpus.column("split"), corpus.column("speaker"), corpus.column("gender")
    people = {name: set(speaker[split == name]) for name in vocab.SPLITS[:3]}
    assert set(split) == set(people)
    assert sum(map(len, people.values())) == len(set(speaker)) == 28
    for name, members in people.items():
        genders = collections.Counter(gender[speaker == member][0] for member in members)
        assert genders["female"] == genders["male"] > 0
        assert genders["unknown"] > 0
        assert set(corpus.consensus[split == name]) >= set(range(len(CLASSES)))
    shares = [len(people[name]) / 28 for name in vocab.SPLITS[:3]]
    np.testing.assert_allclose(shares, [0.6, 0.2, 0.2], atol=0.06)


def test_a_speaker_has_one_gender_and_intends_every_class_equally_often(corpus):
    pairs = set(zip(corpus.column("speaker"), corpus.column("gender"), strict=True))
    assert len(pairs) == 28
    assert set(collections.Counter(gender for _, gender in pairs).items()) == {
        ("female", 12),
        ("male", 12),
        ("unknown", 4),
    }
    assert set(collections.Counter(corpus.column("intended_class")).values()) == {28}


def test_each_utterance_has_five_to_ten_raters_who_often_disagree(corpus):
    num_votes = corpus.votes.sum(axis=1)
    assert set(num_votes) == set(range(5, 11))
    assert 7 < num_votes.mean() < 8
    pairs = {(rating["utterance"], rating["rater"]) for rating in corpus.ratings}
    assert len(pairs) == len(corpus.ratings)
    assert len({rating["rater"] for rating in corpus.ratings}) == simulated.NUM_RATERS
    assert 0.03 < (corpus.consensus < 0).mean() < 0.20
    share = corpus.votes / num_votes[:, None]
    entropy_bits = -(share * np.log2(np.maximum(share, 1e-12))).sum(axis=1)
    assert 0.6 < entropy_bits.mean() < 1.6
    assert entropy_bits.std() > 0.3


def test_other_and_secondary_emotions_are_used_sometimes(corpus):
    is_other = np.array([rating["primary"] == vocab.OTHER for rating in corpus.ratings])
    named = [rating["secondary"] for rating in corpus.ratings]
    assert 0.01 < is_other.mean() < 0.10
    assert 0.05 < np.mean([len(words) > 0 for words in named]) < 0.5
    assert {word for words in named for word in words} <= set(CLASSES)
    assert not any(rating["primary"] in rating["secondary"] for rating in corpus.ratings)


def test_attributes_are_whole_points_that_go_with_the_classes(corpus):
    points = np.array([[rating[name] for name in vocab.ATTRIBUTES] for rating in corpus.ratings])
    assert set(np.unique(points)) == set(range(1, 8))
    mean = {name: corpus.attributes[corpus.consensus == c].mean(axis=0) for c, name in enumerate(CLASSES)}
    valence, activation, dominance = range(3)
    assert mean["happy"][valence] > mean["sad"][valence] + 1
    assert mean["happy"][valence] > mean["angry"][valence] + 1
    assert mean["angry"][activation] > mean["sad"][activation] + 1
    assert mean["angry"][dominance] > mean["fear"][dominance] + 1


def test_raters_differ_in_bias(corpus):
    seen = collections.defaultdict(list)
    row = {name: i for i, name in enumerate(corpus.column("id"))}
    for rating in corpus.ratings:
        own = rating["valence"] - corpus.attributes[row[rating["utterance"]], 0]
        seen[rating["rater"]].append(own)
    # Without biases of their own, a rater's mean of some 20 differences would stray by its standard error only.
    errors = [np.std(own) / np.sqrt(len(own)) for own in seen.values()]
    assert np.std([np.mean(own) for own in seen.values()]) > 1.4 * np.mean(errors)


def test_women_speak_higher_than_men(corpus, sound):
    gender, pitch_hz = corpus.column("gender"), 2 ** sound[:, 4]
    assert np.median(pitch_hz[gender == "female"]) > 1.4 * np.median(pitch_hz[gender == "male"])


def test_the_voice_carries_emotion_neither_trivially_nor_hopelessly(corpus, sound):
    # Folds by speaker: the test split of this small corpus is too small to say anything.
    is_scored = (corpus.consensus >= 0) & (corpus.consensus < len(CLASSES))
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, class_weight="balanced"))
    speaker, consensus = corpus.column("speaker")[is_scored], corpus.consensus[is_scored]
    guess = cross_val_predict(model, sound[is_scored], consensus, groups=speaker, cv=GroupKFold(7))
    assert 0.35 < recall_score(consensus, guess, average="macro") < 0.95
    right = [np.mean((guess == consensus)[speaker == name]) for name in np.unique(speaker)]
    assert np.ptp(right) > 0.3


def test_votes_foretell_other_raters_votes_better_than_their_consensus_does(corpus):
    halves = np.zeros((2, len(corpus.utterances), len(CLASSES)))
    row, seen = {name: i for i, name in enumerate(corpus.column("id"))}, collections.Counter()
    for rating in corpus.ratings:
        if rating["primary"] != vocab.OTHER:
            i = row[rating["utterance"]]
            halves[seen[i] % 2, i, CLASSES.index(rating["primary"])] += 1
            seen[i] += 1
    known, heldout = halves[:, (halves.sum(axis=2) > 0).all(axis=0)]
    heldout /= heldout.sum(axis=1, keepdims=True)
    one_hot = np.eye(len(CLASSES))[known.argmax(axis=1)]
    share = known / known.sum(axis=1, keepdims=True)
    assert _divergence(share, heldout).mean() < 0.95 * _divergence(one_hot, heldout).mean()


def test_votes_and_sound_come_from_one_latent_state(corpus, sound):
    # Within a speaker, louder utterances are those rated more active: nothing but the latent state links the two.
    speaker = corpus.column("speaker")
    level_db, activation = sound[:, 2].copy(), corpus.attributes[:, 1].copy()
    for name in np.unique(speaker):
        level_db[speaker == name] -= level_db[speaker == name].mean()
        activation[speaker == name] -= activation[speaker == name].mean()
    assert np.corrcoef(level_db, activation)[0, 1] > 0.5


@pytest.mark.parametrize("pitch_semitones", [0.0, 7.0])
def test_the_voice_has_the_pitch_it_was_given(tmp_path, pitch_semitones):
    # A melody without accents, drift or slope leaves only the small jitter.
    delivery = Delivery(pitch_semitones, range_log2=-9.0, slope_semitones=2.0, final_semitones=1.0)
    waveform = synthesize(VOICE, delivery, np.random.default_rng(3))
    soundfile.write(tmp_path / "voice.flac", waveform, SAMPLE_RATE_HZ)
    pitch_hz = 2 ** _listen(tmp_path / "voice.flac")[4]
    assert pitch_hz == pytest.approx(112.0 * 2 ** (pitch_semitones / 12), rel=0.03)


def test_delivery_sounds_as_named(tmp_path):
    def listen(**delivery):
        waveform = synthesize(VOICE, Delivery(**delivery), np.random.default_rng(5))
        soundfile.write(tmp_path / "voice.flac", waveform, SAMPLE_RATE_HZ, "PCM_24")
        return _listen(tmp_path / "voice.flac")

    level, _, peak, tilt, _, spread, duration = listen()
    assert listen(tempo_log2=-0.4)[6] > duration + 0.2
    assert listen(level_db=-6.0)[2] == pytest.approx(peak - 6.0, abs=0.3)
    assert listen(tilt_octaves=1.0)[3] > tilt + 2.0
    assert listen(range_log2=1.0)[5] > spread * 1.2
    assert np.isfinite(level)


def test_no_delivery_clips_or_leaves_the_length():
    for seed, tempo_log2 in enumerate((-0.9, -0.5, 0.5, 0.9)):
        delivery = Delivery(tempo_log2=tempo_log2, level_db=30.0, pitch_semitones=12.0, tilt_octaves=3.0)
        waveform = synthesize(VOICE, delivery, np.random.default_rng(seed))
        assert 1.5 <= len(waveform) / SAMPLE_RATE_HZ <= 5.0
        assert np.abs(waveform).max() <= 0.98
        assert waveform.dtype == np.float32


@pytest.mark.parametrize(
    "wrong",
    [
        *({"num_speakers": 5}, {"utterances_per_speaker": 0}, {"seed": -1}),
        *({"class_by_gender": 1.5}, {"speaker_shift": -1.0}, {"speaker_shift": float("inf")}),
    ],
)
def test_impossible_sizes_are_refused(tmp_path, wrong):
    with pytest.raises(CorpusError, match=next(iter(wrong))):
        simulated.parse(tmp_path, **{**SMALL, **wrong})
    assert not list(tmp_path.iterdir())


def test_a_golden_utterance_stays_what_the_release_says(corpus):
    # If this fails, the corpus has changed: raise simulated.VERSION, then put the new figures here.
    first = corpus.utterances[0]
    waveform, _ = soundfile.read(corpus.root / first["audio"])
    actual = (first["intended_class"], len(waveform), corpus.votes[0].tolist())
    assert actual == ("disgust", 65_200, [0, 4, 0, 0, 1, 0, 0])
    assert np.sqrt(np.mean(waveform**2)) == pytest.approx(0.0149229, rel=1e-3)
