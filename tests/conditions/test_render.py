"""Renderings of real speech: SNR and T60 as asked, bit-equal whatever the order and threads, levels and peaks."""

import csv
import dataclasses
import hashlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import soundfile

from seremo_jax.conditions import noises, rooms
from seremo_jax.conditions import render as conditions
from seremo_jax.conditions import sources as condition_sources
from seremo_jax.conditions.render import Sources, Voices, render
from seremo_jax.core import condition_names
from seremo_jax.core.condition_names import CHANNELS, Condition, ConditionError, parse
from seremo_jax.data import audio, level

RATE = 16_000
ROOT = Path(__file__).resolve().parents[2]
NOISES = [f"{kind}:{snr}db" for kind in ("noise:white", "noise:pink", "noise:brown", "babble", "noise:steady",
          "noise:events", "noise:rain") for snr in (20, 15, 10, 5, 0)]  # fmt: skip
ROOMS = [f"reverb:{room}:{rt60}s" for room in ("synthetic", "measured") for rt60 in (0.3, 0.6, 0.9)]
BOTH = [f"{room}+{noise}" for room in ROOMS for noise in ("noise:pink:10db", "babble:10db", "noise:events:10db")]


@pytest.fixture(scope="module")
def speech(shared) -> dict[str, np.ndarray]:
    return speech_of(shared)


@pytest.fixture(scope="module")
def sources(shared, speech) -> Sources:
    return sources_of(shared, speech)


def speech_of(shared) -> dict[str, np.ndarray]:
    """20 utterances of as many speakers, some of them loud."""
    files = sorted((shared / "data" / "crema_d" / "audio").rglob("*.flac"))[:: 3193 // 20][:20]
    return {path.stem: audio.decode(path).waveform for path in files}


def sources_of(shared, speech) -> Sources:
    """The shared recordings and rooms, and the utterances as voices of a babble."""
    waveforms = list(speech.values())
    voices = Voices(tuple(speech), tuple(name.split("_")[0] for name in speech), lambda place: waveforms[place])
    return condition_sources.load(shared / "data" / "noise", shared / "data" / "rir", voices)


def hundred(speech) -> list[tuple[str, Condition]]:
    """100 utterances and conditions: every condition at least once."""
    names = list(speech)
    texts = [*NOISES, *ROOMS, *BOTH, *CHANNELS]
    return [(names[(7 * i) % len(names)], parse(texts[i % len(texts)])) for i in range(100)]


def waveform_of(*arguments) -> np.ndarray:
    """The waveform of a rendering."""
    return render(*arguments).waveform


def digest(rendered: np.ndarray) -> str:
    assert rendered.dtype == np.float32
    return hashlib.sha256(rendered.tobytes()).hexdigest()


def power_of_speech(waveform: np.ndarray) -> float:
    """Mean square over 25 ms frames within 40 dB of the loudest: a plain loop beside the package's."""
    frames = [waveform[i : i + 400].astype(np.float64) for i in range(0, len(waveform), 400)]
    loudest = max(np.mean(frame**2) for frame in frames)
    kept = np.concatenate([frame for frame in frames if np.mean(frame**2) >= loudest / 10**4])
    return float(np.mean(kept**2))


def test_a_hundred_renderings_have_the_snr_asked_for(speech, sources):
    num_noisy = num_scaled = 0
    for utterance, condition in hundred(speech):
        result = render(speech[utterance], RATE, condition, utterance, 0, sources)
        assert result.waveform.shape == speech[utterance].shape
        assert np.abs(result.waveform).max() <= 1
        if condition.noise is None:
            continue
        # An utterance keeps its room, so that the reverberant speech is that of the condition without noise.
        dry = render(speech[utterance], RATE, Condition(condition.effects[:-1]), utterance, 0, sources)
        noise = result.waveform / result.facts["scale"] - dry.waveform / dry.facts["scale"]
        snr_db = 10 * np.log10(power_of_speech(dry.waveform / dry.facts["scale"]) / np.mean(noise**2))
        assert snr_db == pytest.approx(condition.noise.value, abs=0.1), (utterance, condition.id)
        assert result.facts["snr_db"] == pytest.approx(condition.noise.value, abs=0.1)
        num_noisy += 1
        num_scaled += result.facts["scale"] < 1
    assert num_noisy >= 80
    assert num_scaled >= 1


def test_the_same_bytes_again_in_another_order_and_by_more_threads(speech, sources, shared):
    pairs = hundred(speech)

    def made(pair, sources=sources):
        return digest(waveform_of(speech[pair[0]], RATE, pair[1], pair[0], 0, sources))

    first = [made(pair) for pair in pairs]
    assert first == [made(pair) for pair in pairs[::-1]][::-1]
    anew = condition_sources.load(shared / "data" / "noise", shared / "data" / "rir")
    backwards = [*zip(sources.voices.ids, sources.voices.speakers, speech.values(), strict=True)][::-1]
    anew = dataclasses.replace(
        anew, voices=Voices(*(tuple(part) for part in list(zip(*backwards, strict=True))[:2]),
                            lambda place: backwards[place][2]),
    )  # fmt: skip
    with ThreadPoolExecutor(4) as pool:
        assert first == list(pool.map(lambda pair: made(pair, anew), pairs))
    assert anew.fingerprint == sources.fingerprint != ""


def test_the_same_bytes_in_another_process(speech, sources, shared):
    """A second run, which hashes text differently and reads the recordings anew; every third of the hundred."""
    code = (
        "import sys, pathlib; from tests.conditions import test_render as t; "
        "made = t.speech_of(pathlib.Path(sys.argv[1])); sources = t.sources_of(pathlib.Path(sys.argv[1]), made); "
        "print(*(t.digest(t.waveform_of(made[u], t.RATE, c, u, 0, sources)) for u, c in t.hundred(made)[::3]))"
    )
    other = "0" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    done = subprocess.run(
        [sys.executable, "-c", code, str(shared)], cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": other},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    here = [
        digest(waveform_of(speech[name], RATE, condition, name, 0, sources)) for name, condition in hundred(speech)[::3]
    ]
    assert done.stdout.split() == here


def test_draws_depend_on_utterance_seed_and_effect(speech, sources):
    (name, waveform), other = next(iter(speech.items())), list(speech)[1]
    for text in ("noise:white:10db", "babble:10db", "noise:recorded:10db", "reverb:synthetic:0.6s"):
        condition = parse(text)
        item = waveform_of(waveform, RATE, condition, name, 0, sources)
        assert not np.array_equal(item, waveform_of(waveform, RATE, condition, name, 1, sources)), text
        assert not np.array_equal(item, waveform_of(waveform, RATE, condition, other, 0, sources)), text
    quiet, loud = (render(waveform, RATE, parse(f"noise:events:{snr}db"), name, 0, sources) for snr in (20, 0))
    assert quiet.facts["noise"] == loud.facts["noise"]
    added = [result.waveform / result.facts["scale"] - waveform for result in (quiet, loud)]
    np.testing.assert_allclose(10 * added[0], added[1], atol=2e-5)


def test_clean_is_the_very_input(speech, sources):
    for utterance, waveform in speech.items():
        assert waveform_of(waveform, RATE, Condition(), utterance, 0, sources) is waveform


@pytest.mark.parametrize("rt60_s", [0.3, 0.6, 0.9])
def test_synthetic_rooms_decay_as_asked(sources, rt60_s: float):
    """A click through the whole condition, and Schroeder's integral of what comes out."""
    click = np.zeros(2 * RATE, np.float32)
    click[0] = 0.5
    for utterance in map(str, range(12)):
        result = render(click, RATE, parse(f"reverb:synthetic:{rt60_s}s"), utterance, 0, sources)
        heard = result.waveform.astype(np.float64)
        decay_db = 10 * np.log10(np.cumsum((heard**2)[::-1])[::-1] / np.sum(heard**2) + 1e-9)
        first, last = np.argmax(decay_db < -5), np.argmax(decay_db < -35)
        actual = 60 * (last - first) / RATE / (decay_db[first] - decay_db[last])
        assert actual == pytest.approx(rt60_s, rel=0.1)
        assert result.facts["rt60_s"] == pytest.approx(rt60_s, rel=0.1)
        direct_to_tail = heard[0] ** 2 / np.sum(heard[1:] ** 2)
        assert 10 * np.log10(direct_to_tail) == pytest.approx(0, abs=0.01)


def test_the_direct_path_is_as_loud_as_asked(sources):
    click = np.zeros(RATE, np.float32)
    click[0] = 0.5
    dry = dataclasses.replace(sources, direct_to_tail_db=6.0)
    heard = waveform_of(click, RATE, parse("reverb:synthetic:0.3s"), "u", 0, dry).astype(np.float64)
    assert 10 * np.log10(heard[0] ** 2 / np.sum(heard[1:] ** 2)) == pytest.approx(6, abs=0.01)


def test_reverberation_times_of_measured_rooms(sources, shared):
    """Against the estimates that came with the responses; the group of an RT60 is within 25 % of it."""
    with (shared / "data" / "rir" / "manifest.csv").open(encoding="utf-8") as file:
        published = {row["file"]: float(row["t60_s"]) for row in csv.DictReader(file)}
    assert len(sources.responses) == len(published) == 25
    for item in sources.responses:
        assert item.rt60_s == pytest.approx(published[item.name], rel=0.1), item.name
    used = {}
    for rt60_s in (0.3, 0.6, 0.9):
        click = np.zeros(4 * RATE, np.float32)
        click[0] = 0.5
        for utterance in map(str, range(40)):
            result = render(click, RATE, parse(f"reverb:measured:{rt60_s}s"), utterance, 0, sources)
            assert result.facts["rt60_s"] == pytest.approx(rt60_s, rel=0.25)
            used.setdefault(rt60_s, {})[result.facts["room"]] = result.waveform
    assert [len(rooms_) for rooms_ in used.values()] >= [2, 5, 8]
    for name, heard in used[0.6].items():
        # What comes out is the recorded response from its first arrival on, and nothing else.
        response, _ = soundfile.read(shared / "data" / "rir" / name)
        start = next(i for i, value in enumerate(response) if abs(value) > 0.1 * np.abs(response).max())
        wanted = np.pad(response[start:], (0, 4 * RATE))[: 4 * RATE]
        assert np.corrcoef(heard, wanted)[0, 1] > 1 - 1e-6


def test_reverberation_keeps_the_active_level(speech, sources):
    for text in ROOMS:
        for utterance, waveform in list(speech.items())[:8]:
            result = render(waveform, RATE, parse(text), utterance, 0, sources)
            assert power_of_speech(result.waveform / result.facts["scale"]) == pytest.approx(
                power_of_speech(waveform), rel=1e-3
            )
            assert not np.array_equal(result.waveform, waveform)


def test_a_peak_over_1_turns_the_whole_down_and_cuts_nothing_off(speech, sources):
    utterance, waveform = max(speech.items(), key=lambda item: np.abs(item[1]).max())
    loud = waveform / np.abs(waveform).max() * np.float32(0.99)
    for text in ("noise:white:0db", "reverb:synthetic:0.9s", "gain:12db", "babble:0db"):
        result = render(loud, RATE, parse(text), utterance, 0, sources)
        assert np.abs(result.waveform).max() <= 1
        assert np.sum(np.abs(result.waveform) > 1 - 1e-6) <= 2, text
    result = render(loud, RATE, parse("gain:12db"), utterance, 0, sources)
    assert result.facts["scale"] == pytest.approx(10 ** (-12 / 20) / 0.99, rel=1e-6)
    np.testing.assert_allclose(result.waveform, loud / np.abs(loud).max(), atol=1e-6)


def test_clipping_cuts_off_what_is_10_db_below_the_peak(speech, sources):
    for utterance, waveform in speech.items():
        heard = waveform_of(waveform, RATE, parse("clipping:10db"), utterance, 0, sources)
        bound = np.abs(waveform).max() / np.sqrt(10)
        np.testing.assert_allclose(heard, np.clip(waveform, -bound, bound), atol=1e-7)
        assert np.sum(np.abs(waveform) > bound) > 10


def test_the_telephone_band_and_its_codecs(speech, sources):
    utterance, waveform = next(iter(speech.items()))
    rng = np.random.default_rng(0)
    white = (0.1 * rng.standard_normal(2 * RATE)).astype(np.float32)
    frequency, before = scipy.signal.welch(white, RATE, nperseg=1024)
    through = {}
    for text in ("telephone", "codec:mulaw", "codec:gsm"):
        heard = waveform_of(waveform, RATE, parse(text), utterance, 0, sources)
        lag = np.argmax(scipy.signal.correlate(heard, waveform)) - len(waveform) + 1
        assert lag == 0, text
        _, after = scipy.signal.welch(waveform_of(white, RATE, parse(text), "u", 0, sources), RATE, nperseg=1024)
        through[text] = 10 * np.log10(after / before)
    telephone, mulaw = through["telephone"], through["codec:mulaw"]
    assert np.abs(telephone[(frequency > 450) & (frequency < 2500)]).max() < 0.25
    assert telephone[(frequency > 30) & (frequency < 150)].max() < -40
    assert telephone[frequency > 4200].max() < -40
    assert np.abs(mulaw[(frequency > 100) & (frequency < 3500)]).max() < 1
    assert mulaw[frequency > 4200].max() < -30


def test_colours_of_noise():
    """Power falls by 0, 3 and 6 dB an octave."""
    for exponent, slope_db in ((0, 0.0), (1, -3.01), (2, -6.02)):
        noise = noises.colored(np.random.default_rng(0), 60 * RATE, RATE, exponent)
        frequency, power = scipy.signal.welch(noise, RATE, nperseg=4096)
        kept = (frequency > 60) & (frequency < 6000)
        slope, _ = np.polyfit(np.log2(frequency[kept]), 10 * np.log10(power[kept]), 1)
        assert slope == pytest.approx(slope_db, abs=0.15)


def test_babble_is_other_speakers_of_the_split(speech, sources):
    spoken = {name: name.split("_")[0] for name in speech}
    for utterance in speech:
        names = render(speech[utterance], RATE, parse("babble:10db"), utterance, 0, sources).facts["noise"].split()
        assert len(set(names)) == 6
        assert all(spoken[name] != spoken[utterance] for name in names)


def test_too_few_other_speakers_for_babble_is_refused(speech, sources):
    names = tuple(speech)[:7]
    waveforms = list(speech.values())
    few = Voices(names, ("a", "b", "b", "b", "b", "b", "unknown"), lambda place: waveforms[place])
    with pytest.raises(ConditionError, match="needs 6 utterances of other known speakers of its split, which has 5"):
        waveform_of(waveforms[0], RATE, parse("babble:10db"), names[0], 0, dataclasses.replace(sources, voices=few))


def test_what_cannot_be_rendered_is_refused_by_name(speech, sources):
    utterance, waveform = next(iter(speech.items()))
    for text, message in (
        ("reverb:measured:9s", r"no response of eval.rir_dir has an RT60 within 25% of it; in s there are 0.25, 0.36"),
        ("noise:thunder:10db", "no such noise in eval.noise_dir; there are baby-cry, chainsaw"),
    ):
        with pytest.raises(ConditionError, match=message):
            waveform_of(waveform, RATE, parse(text), utterance, 0, sources)
    with pytest.raises(ConditionError, match="'u' is silent"):
        waveform_of(np.zeros(RATE, np.float32), RATE, parse("telephone"), "u", 0, sources)
    with pytest.raises(ConditionError, match="8000 Hz"):
        waveform_of(waveform, 8000, parse("telephone"), utterance, 0, sources)


def test_events_are_no_silence_between_them():
    """A recording that is silent but for its middle: the stretch drawn holds it."""
    recording = np.zeros(100_000, np.float32)
    recording[49_000:51_000] = 0.5
    for seed in range(20):
        assert np.abs(noises.segment(np.random.default_rng(seed), recording, 20_000)).max() == 0.5
    looped = noises.segment(np.random.default_rng(0), np.arange(1, 6, dtype=np.float32), 12)
    assert np.array_equal(np.diff(looped) % 5, np.ones(11))


def test_very_short_utterances_are_rendered(sources):
    short = np.array([0.1, -0.2, 0.3], np.float32)
    for text in ["noise:pink:10db", "babble:5db", "reverb:measured:0.9s", *CHANNELS]:
        heard = waveform_of(short, RATE, parse(text), "u", 0, sources)
        assert heard.shape == (3,)
        assert np.isfinite(heard).all()


def test_folders_without_a_manifest(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("rain/a.wav", "dog bark/b.wav", "c.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        soundfile.write(tmp_path / name, 0.1 * rng.standard_normal(8000), 8000)
    actual = {item.name: item for item in condition_sources.load(tmp_path).noises}
    assert actual["rain/a.wav"].groups == {"recorded", "steady", "rain"}
    assert actual["dog bark/b.wav"].groups == {"recorded", "events", "dog-bark"}
    assert actual["c.wav"].groups == {"recorded"}
    assert len(actual["c.wav"].read()) == RATE
    (tmp_path / "manifest.csv").write_text("file,kind,group\nc.wav,Fan,events\n", encoding="utf-8")
    (named,) = [item for item in condition_sources.load(tmp_path).noises if item.name == "c.wav"]
    assert named.groups == {"recorded", "events", "fan"}


def test_the_groups_of_the_shared_recordings(sources):
    sizes = {kind: sum(kind in item.groups for item in sources.noises) for kind in ("recorded", "steady", "events")}
    assert sizes == {"recorded": 32, "steady": 22, "events": 10}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (None, "eval.noise_dir = .* is no folder"),
        ({"a.txt": b"x"}, "holds no audio"),
        ({"a.wav": b"RIFF"}, r"1 things in it cannot be read: .*a.wav \(.*take them out"),
        ({"a.wav": None, "b/c.m4a": b"\0\0\0\x1cftypM4A "}, r"b/c.m4a \(.*MPEG-4.*ffmpeg -i c.m4a c.wav"),
        ({"a.wav": None, "manifest.csv": b"name\n"}, "manifest.csv has no column file, kind"),
        ({"a.wav": None, "manifest.csv": b"file,kind\nb.wav,rain\n"}, "names 1 files that are not there, 'b.wav'"),
        ({"a.wav": None, "manifest.csv": b"file,kind,group\na.wav,rain,loud\n"}, "neither steady nor events"),
    ],
)
def test_bad_folders_are_refused(tmp_path, files, message):
    folder = tmp_path / "noises"
    for name, content in (files or {}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            soundfile.write(folder / name, np.ones(800) * 0.1, RATE)
        else:
            (folder / name).write_bytes(content)
    with pytest.raises(ConditionError, match=message):
        condition_sources.load(folder)


@pytest.mark.parametrize("field", ["noise_dir", "rir_dir"])
def test_what_a_folder_of_noises_links_to_is_heard_or_refused(tmp_path, field):
    folder = tmp_path / "here"
    (tmp_path / "elsewhere").mkdir()
    folder.mkdir()
    decay = np.exp(-np.arange(RATE) / 800) * np.random.default_rng(0).standard_normal(RATE)
    soundfile.write(tmp_path / "elsewhere" / "a.wav", 0.2 * decay, RATE)
    (folder / "rain").symlink_to(tmp_path / "elsewhere")
    (folder / "up").symlink_to(folder)
    sources = condition_sources.load(**{field: folder})
    assert [item.name for item in (*sources.noises, *sources.responses)] == ["rain/a.wav"]
    (folder / "gone").symlink_to(tmp_path / "unmounted")
    os.mkfifo(folder / "pipe.wav")
    with pytest.raises(ConditionError, match=rf"eval\.{field} = .*: 2 things in it cannot be read: .*gone \(a link"):
        condition_sources.load(**{field: folder})


def test_a_file_that_does_not_decay_is_no_room(tmp_path):
    soundfile.write(tmp_path / "a.wav", 0.1 * np.random.default_rng(0).standard_normal(RATE), RATE)
    with pytest.raises(ConditionError, match="does not decay by 35 dB"):
        condition_sources.load(rir_dir=tmp_path)


def test_shoebox_rooms_decay_as_asked():
    pytest.importorskip("pyroomacoustics")
    for seed in range(3):
        response = rooms.shoebox(np.random.default_rng(seed), 0.4, RATE)
        assert rooms.rt60_s(response, RATE) == pytest.approx(0.4, rel=0.05)


def test_shoebox_rooms_without_pyroomacoustics_name_the_remedy(speech, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyroomacoustics", None)
    utterance, waveform = next(iter(speech.items()))
    with pytest.raises(ConditionError, match=r"pip install 'seremo_jax\[rooms\]'"):
        waveform_of(waveform, RATE, parse("reverb:shoebox:0.4s"), utterance, 0, Sources())


def test_every_kind_of_effect_is_named_rendered_and_tried_above():
    assert list(conditions.EFFECTS) == list(condition_names.EFFECTS)
    tried = {effect.kind for text in (*NOISES, *ROOMS, *CHANNELS) for effect in parse(text).effects}
    assert tried == set(condition_names.EFFECTS)


def test_constants_are_those_of_the_method():
    assert (conditions.NUM_VOICES, level.FRAME_S, level.ACTIVE_DB) == (6, 0.025, 40)
