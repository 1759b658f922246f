"""The server of the page that listens, against the predictor called on the same recordings, and what it refuses."""

import http.client
import json
import os
import re
import tempfile
import threading

import jax.numpy as jnp
import numpy as np
import pytest
import soundfile

from seremo_jax import backbones
from seremo_jax.predict import demo_answer, demo_server, export, files, model_folder, passes
from seremo_jax.predict import predictor as predict
from tests.predict.test_predictor import write_bad
from tests.support import demo, launchers
from tests.support.small_heads import CLASSES, make

RATE_HZ = 16_000


@pytest.fixture(scope="module")
def saved():
    return make(num_members=3, threshold=0.3)


@pytest.fixture(scope="module")
def folder(saved, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "logmel"
    model_folder.write(saved, folder)
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return predict.load(folder)


@pytest.fixture(scope="module")
def server(model):
    with demo.serving(model) as server:
        yield server


@pytest.fixture(scope="module")
def speech(shared):
    return sorted((shared / "data" / "crema_d" / "audio").rglob("*.flac"))[::900]


def ask(server, method="POST", path="/hear?name=a.wav", body=b"", **headers):
    """Status, headers and content of one request."""
    connection = http.client.HTTPConnection(*server.server_address, timeout=60)
    given = {"Host": server.address[7:-1]} | {name.replace("_", "-"): value for name, value in headers.items()}
    connection.putrequest(method, path, skip_host=True)
    for name, value in ({"Content-Length": str(len(body))} | given).items():
        if value is not None:
            connection.putheader(name, value)
    connection.endheaders(body)
    reply = connection.getresponse()
    content = reply.read()
    connection.close()
    return reply.status, reply.headers, content


def test_the_answer_is_that_of_prediction(server, model, speech, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    long = np.tile(np.concatenate([soundfile.read(path)[0] for path in speech[:3]]), 5)
    soundfile.write(tmp_path / "long.ogg", long, RATE_HZ)
    for path in (speech[0], tmp_path / "long.ogg"):
        status, headers, content = ask(server, path=f"/hear?name={path.name}", body=path.read_bytes())
        assert (status, headers["Content-Type"]) == (200, "application/json; charset=utf-8")
        answer, result = json.loads(content), model.file(path)
        assert answer["record"] == {"file": path.name, **files.to_record(result)}
        assert answer["warnings"] == []
        segments = answer["over_time"]["segments"]
        for segment in segments:
            assert sum(segment["distribution"].values()) == pytest.approx(1, abs=1e-5)
        assert segments[-1]["end_s"] == pytest.approx(result.duration_s, abs=1e-3)
        samples = np.abs(soundfile.read(path)[0]).max()
        peak = max(np.abs(answer["waveform"][side]).max() for side in ("lowest", "highest"))
        assert peak == pytest.approx(samples, abs=1e-3)
    assert os.listdir(tmp_path) == ["long.ogg"]  # what came in is removed
    assert answer["over_time"]["is_heard_whole"] is False
    assert [s["start_s"] for s in segments] == [s.start_s for s in result.timeline]
    assert segments[1]["distribution"] == {c: round(v, 6) for c, v in result.timeline[1].distribution.items()}


def test_a_stretch_is_what_the_heads_say_of_its_frames(saved, model, speech):
    samples = soundfile.read(speech[0], dtype="float32")[0]
    answer = demo_answer.of_file(model, speech[0], "a.flac")
    segments = answer["over_time"]["segments"]
    assert answer["over_time"]["is_heard_whole"] is True
    assert [s["start_s"] for s in segments[:3]] == [0.0, 0.3, 0.6]
    backbone = backbones.load("logmel", (0,))
    hidden, num_frames = passes.frames(backbone, jnp.asarray(samples)[None], jnp.asarray([len(samples)], jnp.int32))
    for segment in segments:
        start = round(segment["start_s"] * backbone.frame_rate_hz)
        frames = hidden[:, :, start : min(start + round(1.5 * backbone.frame_rate_hz), int(num_frames[0]))]
        out = export.apply(saved.about["head"], saved.heads, frames, jnp.asarray([frames.shape[2]], jnp.int32))
        expected = np.asarray(out.distribution[:, 0].mean(0))
        np.testing.assert_allclose(list(segment["distribution"].values()), expected, rtol=0, atol=2e-5)
    assert len({tuple(s["distribution"].values()) for s in segments}) > 1


def test_clipped_and_quiet_recordings_are_warned_of(model, tmp_path):
    clipped = np.clip(3 * np.sin(np.arange(RATE_HZ) / 20), -1, 1)
    soundfile.write(tmp_path / "a.wav", clipped, RATE_HZ, subtype="FLOAT")
    # |sin| is above a third, the full scale, for 1 - 2 asin(1/3) / pi of the time.
    (sentence,) = demo_answer.of_file(model, tmp_path / "a.wav", "a.wav")["warnings"]
    assert sentence.startswith(f"{100 * (1 - 2 * np.arcsin(0.333) / np.pi):.1f} % of its samples are at full scale")
    soundfile.write(tmp_path / "b.wav", 0.9 * clipped, RATE_HZ, subtype="FLOAT")
    assert demo_answer.of_file(model, tmp_path / "b.wav", "b.wav")["warnings"] == []


def test_what_cannot_be_used_is_one_sentence_with_its_own_name(server, tmp_path):
    for name, reason in write_bad(tmp_path).items():
        asked = f"/hear?name={name.replace(' ', '%20')}"
        status, _, content = ask(server, path=asked, body=(tmp_path / name).read_bytes())
        sentence = json.loads(content)["error"]
        assert (status, sentence.startswith(f"{name} cannot be used: {reason} (")) == (422, True), sentence
        assert "seremo_demo" not in sentence
        assert "\n" not in sentence


@pytest.mark.parametrize("name", ["..%2F..%2Fetc%2Fpasswd", "C%3A%5Cmine%5Ca.wav", "%00.wav", "a%0Ab.wav", "x" * 3_000])
def test_a_name_leads_nowhere(server, speech, name):
    status, _, content = ask(server, path=f"/hear?name={name}", body=speech[0].read_bytes())
    assert status == 200
    heard = json.loads(content)["record"]["file"]
    assert not {"/", "\\", "\0"} & set(heard)


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (403, {"Host": "evil.example:8765"}),
        (403, {"Host": "127.0.0.1.evil.example"}),
        (403, {"Host": None}),
        (403, {"Host": "[::"}),
        (403, {"Origin": "https://evil.example"}),
        (403, {"Origin": "null"}),
        (403, {"Origin": "http://127.0.0.1:1"}),
        (411, {"Content_Length": None}),
        (411, {"Content_Length": "-1"}),
        (413, {"Content_Length": str(demo_server.MOST_BYTES + 1)}),
    ],
)
def test_requests_of_others_and_of_no_length_are_refused(server, monkeypatch, status, headers):
    def no_answer(*_):
        raise AssertionError("it was heard")

    monkeypatch.setattr(demo_answer, "of_file", no_answer)
    actual, _, content = ask(server, **headers)
    assert (actual, list(json.loads(content))) == (status, ["error"])
    if status == 403:
        assert ask(server, "GET", "/about", **headers)[0] == 403


def test_its_own_page_and_other_names_of_this_machine_are_answered(server, speech):
    port, body = server.server_address[1], speech[0].read_bytes()
    for host in (f"127.0.0.1:{port}", f"localhost:{port}", "localhost:1"):  # the last one through a tunnel
        assert ask(server, body=body, Host=host, Origin=f"http://{host}")[0] == 200
    about = json.loads(ask(server, "GET", "/about")[2])
    assert (about["model"], about["classes"], about["num_members"]) == ("logmel", list(CLASSES), 3)
    assert "not what a person feels" in about["cannot_know"][0]


def test_the_page_loads_nothing_from_elsewhere(server):
    for path in ("/", "/demo.css", "/demo.js", "/recorder.js", "/look.css"):
        status, headers, content = ask(server, "GET", path)
        assert status == 200
        assert headers["Content-Security-Policy"].startswith("default-src 'self';")
        assert headers["Cache-Control"] == "no-store"
        assert "Access-Control-Allow-Origin" not in headers
        text = content.decode().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"\w://|[\"'(]//", text)
    for path in ("/../demo_server.py", "/demo.html", "/hear"):
        assert ask(server, "GET", path)[0] == 404
    assert ask(server, "PUT", "/hear")[0] == 501


def test_an_upload_that_ends_early_is_told_and_leaves_nothing(server, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(demo_server._Handler, "timeout", 0.1)
    status, _, content = ask(server, body=b"RIFF", Content_Length="100")
    assert (status, "send it again" in json.loads(content)["error"]) == (408, True)
    assert os.listdir(tmp_path) == []


def test_a_bug_is_told_and_the_next_recording_is_heard(server, speech, monkeypatch, capsys):
    def failing(*_):
        raise ZeroDivisionError("odd")

    with monkeypatch.context() as patched:
        patched.setattr(demo_answer, "of_file", failing)
        status, _, content = ask(server, body=speech[0].read_bytes())
    assert (status, json.loads(content)["error"]) == (
        500, "this is a bug: ZeroDivisionError: odd; the terminal has its trace",
    )  # fmt: skip
    assert "Traceback" in capsys.readouterr().err
    assert ask(server, body=speech[0].read_bytes())[0] == 200


def test_it_ends_once_the_recording_at_hand_is_heard(model, monkeypatch):
    begun, may_end = threading.Event(), threading.Event()

    def slow(*_):
        begun.set()
        assert may_end.wait(60)
        return {}

    monkeypatch.setattr(demo_answer, "of_file", slow)
    server = demo_server.Server("127.0.0.1", 0)
    serving = threading.Thread(target=server.serve, args=(model, "m"))
    asking = threading.Thread(target=ask, args=(server,), kwargs={"body": b"RIFF"})
    for thread in (serving, asking):
        thread.start()
    assert begun.wait(60)
    server.shutdown()
    closing = threading.Thread(target=server.server_close)
    closing.start()
    closing.join(0.2)
    assert closing.is_alive()
    may_end.set()
    for thread in (closing, asking, serving):
        thread.join(60)
        assert not thread.is_alive()


def test_the_launcher_tells_what_is_wrong_in_one_sentence(server, folder, tmp_path):
    port = server.server_address[1]
    for arguments, message in (
        ([f"--model={folder}", f"--port={port}"], f"error: nothing can listen at port {port} of 127.0.0.1 ("),
        ([f"--model={folder}", "--host=0.0.0.0"], "error: --host is one address of this machine"),
        ([f"--model={tmp_path}", "--port=0"], f"error: {tmp_path}"),
    ):
        code, output = launchers.run("demo", *arguments)
        assert (code, message in output, output.count("\n")) == (1, True, 1), output
