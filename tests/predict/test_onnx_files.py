"""ONNX files in onnxruntime: the numbers of this package at any batch and length, or no file."""

import dataclasses
import json
import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile

from seremo_jax import backbones
from seremo_jax.core.artefacts import ArtefactError
from seremo_jax.data.level import NO_LEVEL, Hearing
from seremo_jax.predict import onnx_backbones, onnx_files, onnx_graph, onnx_head, passes, predictor
from tests.conftest import is_ci
from tests.support import launchers, prepared, small_models
from tests.support.house import ROOT
from tests.support.small_heads import OPTIONS, SIZES, heads_of, make

if not is_ci():
    for library in ("onnx", "onnxruntime"):
        pytest.importorskip(library, reason="needs onnx and onnxruntime: pip install -e '.[onnx]'")

WHISPER = small_models.GOLDEN.parent / "whisper"
MANY = dataclasses.replace(
    OPTIONS, num_layers=2, pooling="mean_sd", levels=(1.0, 2.0, 4.0), predicts_variance=True
)  # every option that is not the default


def session_of(graph):
    return onnx_files.run_session(graph.content("test", {}))


@pytest.mark.stack
@pytest.mark.parametrize("sizes", [dataclasses.replace(SIZES, num_features=3), MANY], ids=["some features", "options"])
def test_heads_of_any_batch_and_length(sizes):
    heads = heads_of(sizes, 1 if sizes.num_layers else 2, 2)
    if sizes.num_features == 3:
        heads = heads._replace(columns=np.array([[0, 2, 5], [5, 1, 0]], np.int32))
    graph, longest, lengths = onnx_graph.Graph(), 24, np.array([7, 1, 20], np.int32)
    inputs = graph.input("hidden", "float32", [2, "batch", "frames", 6]), graph.input("num_frames", "int32", ["batch"])
    out = onnx_head.add(graph, sizes, heads, *inputs, num_features=6)
    for name, value in zip(out._fields, out, strict=True):
        graph.output(name, value, ["members", "batch", 3])
    session = session_of(graph)
    hidden = np.random.default_rng(0).standard_normal((2, 3, longest, 6)).astype(np.float32)
    for row, length in enumerate(lengths):
        hidden[:, row, length:] = np.nan
    attributes, distribution, _ = passes.judge(sizes, "float32", "vmap", heads, hidden, lengths)
    # All rows together, and each one alone without padding.
    batches = [(hidden, slice(None))] + [(hidden[:, i : i + 1, :n], slice(i, i + 1)) for i, n in enumerate(lengths)]
    for x, rows in batches:
        given = onnx_files.run(session, x, lengths[rows])
        np.testing.assert_allclose(given["distribution"], distribution[:, rows], rtol=0, atol=2e-6)
        np.testing.assert_allclose(given["attributes"], attributes[:, rows], rtol=2e-6, atol=5e-6)


def heard(backbone, wave, hearing=NO_LEVEL):
    """Hidden states [K, T, D] of a waveform and of its first third, by onnxruntime in one batch, NaN behind both."""
    graph = onnx_graph.Graph()
    inputs = graph.input("waveforms", "float32", ["batch", "samples"]), graph.input("num_samples", "int32", ["batch"])
    out = onnx_backbones.add(graph, backbone, hearing, *inputs)
    graph.output("hidden", out.hidden, [len(backbone.layers), "batch", "frames", backbone.num_features])
    graph.output("num_frames", graph.cast(out.num_frames, "float32"), ["batch"])
    lengths = np.array([len(wave), len(wave) // 3], np.int32)
    # Less than a frame, so that Whisper's last frame of silence, whose convolutions reach further, is attended to.
    x = np.full((2, len(wave) + 100), np.nan, np.float32)
    for row, length in enumerate(lengths):
        x[row, :length] = wave[:length]
    given = onnx_files.run(session_of(graph), x, lengths)
    assert given["num_frames"].tolist() == [backbone.num_frames(length) for length in lengths]
    return [given["hidden"][:, row, : backbone.num_frames(length)] for row, length in enumerate(lengths)]


def by_jax(backbone, wave, hearing=NO_LEVEL):
    """The same by this package, each alone."""
    hear = jax.jit(lambda waveforms, num_samples: backbone(waveforms, num_samples)[0])
    parts = [hearing.heard(part, 16_000)[0] for part in (wave, wave[: len(wave) // 3])]
    return [np.asarray(hear(jnp.asarray(part)[None], jnp.array([len(part)], jnp.int32)))[:, 0] for part in parts]


@pytest.mark.stack
def test_whisper_is_that_of_pytorch_and_its_cut_windows_are_ours():
    (wave,) = small_models.waves([20_000])
    with np.load(WHISPER / "states.npz") as golden:
        expected = golden["row_0"]
    states, _ = heard(backbones.load(WHISPER), wave)
    np.testing.assert_allclose(states, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    # Of the usual silence no end would be seen in so short a window; Qwen2-Audio's encoder attends to none.
    cut = dataclasses.replace(backbones.load(WHISPER, (1, 0), window="cut"), silence_frames=5)
    for ours, theirs in zip(heard(cut, wave), by_jax(cut, wave), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())


def test_log_mel_bands_at_a_level_are_ours():
    (wave,) = small_models.waves([9_001])
    # Not active: the level is that of the rest.
    wave[:2_000] *= 1e-3
    backbone, hearing = backbones.load("logmel"), Hearing("rms", -20.0)
    for ours, theirs in zip(heard(backbone, wave, hearing), by_jax(backbone, wave, hearing), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-4)


@pytest.mark.stack
def test_an_exported_file_says_what_prediction_says(tmp_path_factory, tmp_path, monkeypatch):
    """By the example of the page, word for word."""
    page = (ROOT / "launch" / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(import json\n[^`]*InferenceSession[^`]*)```", page)
    workdir = prepared.finished(tmp_path_factory) / "workdir"
    monkeypatch.chdir(tmp_path)
    code, output = launchers.run("export", f"--workdir={workdir}", "--to=models/crema_d", "--onnx", "--with_backbone")
    assert code == 0, output
    (wave,) = small_models.waves([12_345])
    soundfile.write("speech.wav", wave, 16_000, subtype="FLOAT")
    said = {}
    exec(example, said)
    # Prediction needs no ONNX file: of a model on the hub none is downloaded.
    files = json.loads(Path("models/crema_d/model.json").read_text())["further_files"]
    assert files.keys() == {"head.onnx", "model.onnx"}
    for name in files:
        assert f"\n{name}: " in output
        Path("models/crema_d", name).unlink()
    model = predictor.load("models/crema_d")
    expected = model.file("speech.wav")
    for name, values in (("distribution", expected.distribution), ("attributes", expected.attributes)):
        np.testing.assert_allclose(said["out"][name][0], list(values.values()), rtol=1e-5, atol=1e-5)
    stated = {name: json.loads(value) for name, value in said["about"].items()}
    assert (stated["classes"], stated["attributes"]) == (list(expected.distribution), list(expected.attributes))
    assert stated["temperature"] == model.about["calibration"]["temperature"]
    assert stated["dynamic_axes"] == ["batch", "samples"]
    assert stated["opset"] == onnx_graph.OPSET
    assert stated["model"] == model.identity


def test_shares_are_calibrated_and_attributes_are_those_that_were_trained():
    model = make(temperature=3.0)
    content = onnx_files.OnnxFiles()(model)["head.onnx"]
    assert onnx_files.difference(model, content, None) < 1e-5
    cold = model._replace(about=model.about | {"calibration": {"temperature": 1.0, "conformal_threshold": None}})
    assert onnx_files.difference(cold, content, None) > 0.01
    given = onnx_files.run(onnx_files.run_session(content), np.ones((1, 2, 9, 80), np.float32), np.full(2, 9, np.int32))
    assert given["attributes"].shape == (2, 2)


def test_what_has_no_form_is_refused_in_one_line(monkeypatch):
    model, graph = make(), onnx_graph.Graph()
    other = backbones.load(small_models.GOLDEN / "wav2vec2-base", (0,))
    with pytest.raises(ArtefactError, match=r"\(Wav2Vec2\) has no form in ONNX here; logmel and whisper have"):
        onnx_backbones.add(graph, other, NO_LEVEL, "x", "n")
    with pytest.raises(ArtefactError, match="an ONNX file hears in float32"):
        onnx_backbones.add(graph, backbones.load(WHISPER, (0,), "bfloat16"), NO_LEVEL, "x", "n")
    with pytest.raises(ArtefactError, match=r"relative to the speaker \(model\.speaker_kappa_s\)"):
        onnx_head.add(graph, SIZES, model.heads._replace(kappa_s=np.ones(2, np.float32)), "x", "n", 6)
    for field, known in {"pooling": "last_valid, mean, mean_sd", "conv_kind": "depthwise, dense"}.items():
        with pytest.raises(ArtefactError, match=f"model.{field} 'new' has no form in ONNX here; {known} have"):
            onnx_head.add(graph, dataclasses.replace(SIZES, **{field: "new"}), model.heads, "x", "n", 6)
    with pytest.raises(ArtefactError, match="the activation 'silu' has no form in ONNX here"):
        graph.activated("x", "silu")
    monkeypatch.setitem(onnx_files.MOST_APART, "head.onnx", 0.0)
    with pytest.raises(ArtefactError, match=r"head\.onnx gives numbers that differ by .*it was not written"):
        onnx_files.OnnxFiles()(model)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ArtefactError, match=r"pip install 'seremo_jax\[onnx\]'"):
        onnx_files.OnnxFiles()
