"""The page that listens in a real browser: real speech dropped, picked by keyboard, and heard by a microphone."""

import json

import numpy as np
import pytest
import scipy.signal
import soundfile

from seremo_jax.predict import files, model_folder
from seremo_jax.predict import predictor as predict
from tests.support import browser, demo
from tests.support.small_heads import make

pytestmark = pytest.mark.skipif(browser.BROWSER is None, reason="no chromium on this machine")

RATE_HZ = 16_000
IS_ANSWERED = "!document.querySelector('#answer').hidden"
ERROR = "document.querySelector('#error').textContent"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "logmel"
    # Two classes of three in the conformal set at least.
    model_folder.write(make(num_members=3, threshold=0.2), folder)
    return predict.load(folder)


@pytest.fixture(scope="module")
def server(model):
    with demo.serving(model) as server:
        yield server


@pytest.fixture(scope="module")
def speech(shared):
    """One utterance of real speech."""
    return min((shared / "data" / "crema_d" / "audio" / "1001").glob("*.flac"))


def opened(tab, server):
    tab.call("Page.navigate", url=server.address)
    tab.wait("Boolean(document.querySelector('#cannot-know')?.children.length)")
    return tab


def lines(tab, selector):
    """Text of an element line by line, with plain spaces."""
    text = tab.run(f"document.querySelector({selector!r}).innerText").replace("\u00a0", " ")
    return [line.strip() for line in text.split("\n") if line.strip()]


def percent(share):
    return f"{100 * share:.1f} %"


def require_quiet(tab, server):
    """Nothing went wrong in the page, and every request went to the server."""
    assert not [event for event in tab.events if event[0] in ("Log.entryAdded", "Runtime.exceptionThrown")]
    asked = [event["request"]["url"] for method, event in tab.events if method == "Network.requestWillBeSent"]
    assert [url for url in asked if not url.startswith((server.address, "about:", "data:", "blob:"))] == []
    assert any(url.startswith(f"{server.address}hear?") for url in asked)


def test_a_dropped_recording_shows_what_prediction_says(server, model, speech, tmp_path):
    record = {"file": speech.name, **files.to_record(model.file(speech))}
    with browser.tab(tmp_path) as tab:
        opened(tab, server).drop(speech, "#drop")
        tab.wait(IS_ANSWERED)
        assert json.loads(tab.run("document.querySelector('#record-json').textContent")) == record
        best = [word for n, name in enumerate(record["best"], 1)
                for word in (f"{n}-best", name, percent(record["distribution"][name]))]  # fmt: skip
        assert lines(tab, "#best") == best
        shares = [word for name, share in record["distribution"].items()
                  for word in (name, f"{percent(share)} ± {100 * record['distribution_sd'][name]:.1f}")]  # fmt: skip
        assert lines(tab, "#shares") == shares
        assert lines(tab, "#set") == [f"Conformal set: {', '.join(record['conformal_set'])}."]
        assert lines(tab, "#name") == [f"{speech.name}, {record['duration_s']:.2f} s"]
        assert "not what a person feels" in lines(tab, "#cannot-know")[0]
        assert tab.run("[...document.querySelectorAll('#curve path')].every(one => !/NaN/.test(one.getAttribute('d')))")
        # The audio of the page is the recording, and it is played from memory.
        tab.wait("document.querySelector('#sound').readyState > 0 && document.querySelector('#sound').src.slice(0, 5)")
        played = tab.run("document.querySelector('#sound').duration")
        assert played == pytest.approx(record["duration_s"], abs=0.1)

        # A narrow phone does not scroll sideways, with all tables open.
        tab.call("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=2, mobile=True)
        tab.run("document.querySelectorAll('details').forEach(one => { one.open = true; })")
        assert tab.run("[innerWidth, document.documentElement.scrollWidth]") == [360, 360]
        # Dark paper and its ink, and colours of classes that go with it.
        style = "(() => { const s = getComputedStyle(document.body), p = document.querySelector('#curve path');"
        style += "return [s.backgroundColor, s.color, getComputedStyle(p).fill]; })()"
        light = tab.run(style)
        tab.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
        assert [light[0], tab.run(style)[0]] == ["rgb(246, 247, 249)", "rgb(13, 17, 23)"]
        assert all(before != after for before, after in zip(light, tab.run(style), strict=True))
        require_quiet(tab, server)


def test_the_page_is_worked_by_keyboard_and_tells_what_is_wrong(server, speech, tmp_path):
    text = tmp_path / "diary.wav"
    text.write_text("Dear diary, today I recorded nothing.\n")
    with browser.tab(tmp_path) as tab:
        opened(tab, server)
        tab.call("Page.setInterceptFileChooserDialog", enabled=True)
        tab.press("Tab", 9)
        assert tab.run("document.activeElement.id") == "choose"
        assert tab.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        tab.press("Enter", 13)
        tab.wait("true")
        assert "Page.fileChooserOpened" in dict(tab.events)
        root = tab.call("DOM.getDocument")["root"]["nodeId"]
        node = tab.call("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
        tab.call("DOM.setFileInputFiles", files=[str(text)], nodeId=node)
        tab.wait(ERROR)
        (sentence,) = lines(tab, "#error")
        assert sentence.startswith("diary.wav cannot be used: unreadable (")
        assert tab.run("document.querySelector('#answer').hidden")
        tab.call("DOM.setFileInputFiles", files=[str(speech)], nodeId=node)
        tab.wait(IS_ANSWERED)
        assert tab.run("document.activeElement.id") == "name"
        assert tab.run(ERROR) == ""
        tab.press("Tab", 9)
        while tab.run("document.activeElement.id") != "cursor":
            tab.press("Tab", 9)
        before = lines(tab, "#moment")
        tab.press("End", 35)
        end = lines(tab, "#moment")
        assert end != before
        tab.run("document.querySelectorAll('details').forEach(one => { one.open = true; })")
        assert lines(tab, "#table")[-1].split("\t")[0] == end[0].split(" to ")[0]


def test_a_microphone_is_heard_as_it_is(server, model, speech, tmp_path):
    samples = soundfile.read(speech)[0][RATE_HZ // 2 :][: RATE_HZ * 6 // 5]
    soundfile.write(tmp_path / "spoken.wav", samples, RATE_HZ, subtype="PCM_16")
    flags = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
    with browser.tab(tmp_path, *flags, f"--use-file-for-fake-audio-capture={tmp_path / 'spoken.wav'}") as tab:
        opened(tab, server).run("document.querySelector('#record').focus()")
        tab.press("Enter", 13)
        tab.wait("document.querySelector('#record').ariaPressed === 'true'")
        # The device plays the file again and again, so that this long holds all of it.
        tab.wait(f"parseFloat(document.querySelector('#seconds').textContent) > {2.2 * len(samples) / RATE_HZ}")
        keep = "window.sent = fetch; window.fetch = (to, what) => { window.heard = what.body; return sent(to, what); }"
        tab.run(keep)
        tab.press("Enter", 13)
        tab.wait(IS_ANSWERED)
        bytes_of = tab.run("heard.arrayBuffer().then(b => Array.from(new Uint8Array(b)))")
        (tmp_path / "microphone.wav").write_bytes(bytes(bytes_of))
        record = json.loads(tab.run("document.querySelector('#record-json').textContent"))
        assert record == {"file": "microphone.wav", **files.to_record(model.file(tmp_path / "microphone.wav"))}
        require_quiet(tab, server)
    # What the page sent is the speech, at full level and without gaps: one of its stretches is the file.
    recorded, rate_hz = soundfile.read(tmp_path / "microphone.wav")
    assert rate_hz >= RATE_HZ
    heard = np.interp(np.arange(0, len(recorded) / rate_hz, 1 / RATE_HZ), np.arange(len(recorded)) / rate_hz, recorded)
    likeness = scipy.signal.correlate(heard, samples, "valid")
    best = heard[np.argmax(likeness) :][: len(samples)]
    assert np.corrcoef(best, samples)[0, 1] > 0.9
    assert np.std(best) == pytest.approx(np.std(samples), rel=0.1)
