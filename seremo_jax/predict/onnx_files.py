"""A model as ONNX files, for runtimes without Python or JAX: the heads, and the heads behind their backbone.

head.onnx    hidden [K, batch, frames, D] float32, num_frames [batch] int32, as `head.stablehlo` takes them
model.onnx   waveforms [batch, samples] float32 at 16 kHz, num_samples [batch] int32

Both give what `launch.predict` gives for each row, and what each member gives: `distribution` [batch, C], the mean over
the members, calibrated where the model is; `attributes` [batch, A] of those that were trained, on the corpus's own
scale; `member_distribution` [E, batch, C], not calibrated, and `member_attributes` [E, batch, A].

The graphs are written operator by operator with the package `onnx`. A converter for JAX (`jax2onnx`) has no form for
these heads, and would turn the loop of a GRU into one of ONNX, which has a GRU of its own.
"""

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from seremo_jax.backbones import Backbone
from seremo_jax.core.artefacts import ArtefactError, fingerprint_of
from seremo_jax.data.audio import SAMPLE_RATE_HZ
from seremo_jax.metrics import calibration
from seremo_jax.predict import model_backbone, onnx_backbones, onnx_head, passes, predictor
from seremo_jax.predict.model_folder import Model
from seremo_jax.predict.model_record import without_places
from seremo_jax.predict.onnx_graph import OPSET, Graph, libraries

HEAD_FILE, WHOLE_FILE = "head.onnx", "model.onnx"
MOST_APART = {HEAD_FILE: 1e-5, WHOLE_FILE: 1e-4}
"""Largest difference of a share, or of an attribute in units of its scale, from what this package gives.

States of a backbone that were stored as float16 are rounded before the heads. Where they differ in the sixth digit some
fall to the other side: in this package, too, when a batch has another shape.
"""


@dataclasses.dataclass
class OnnxFiles:
    """Gives the ONNX files of a model, each compared with this package in onnxruntime before it is handed out.

    Attributes:
      with_backbone: Gives `model.onnx`, too.
      backbone: Where the backbone is, if not where the model says.
      said: A sentence on each file, once they were made.
    """

    with_backbone: bool = False
    backbone: str | os.PathLike | None = None
    said: list[str] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        """Refuses at once, and not behind a long export, where the extra is missing."""
        libraries()

    def __call__(self, model: Model) -> dict[str, bytes]:
        """Name and content of each file.

        Raises:
          ArtefactError: Something has no form in ONNX here, the backbone is not there, or
            a file gives other numbers than this package.
        """
        files = {HEAD_FILE: self._checked(model, HEAD_FILE, None)}
        if self.with_backbone:
            backbone = model_backbone.load("this training", model, self.backbone)
            files[WHOLE_FILE] = self._checked(model, WHOLE_FILE, backbone)
        return files

    def _checked(self, model: Model, name: str, backbone: Backbone | None) -> bytes:
        graph = Graph()
        axes = _add(graph, model, backbone)
        content = graph.content(name.removesuffix(".onnx"), _metadata(model.about, axes, graph.operators()))
        apart = difference(model, content, backbone)
        if not apart <= MOST_APART[name]:
            raise ArtefactError(
                f"{name} gives numbers that differ by {apart:.2g} from those of this package, more than "
                f"{MOST_APART[name]:g}: it was not written; report the versions of jax, onnx and onnxruntime"
            )
        self.said.append(
            f"{name}: {len(content) / 1e6:.1f} MB, opset {OPSET}, {' and '.join(axes)} of any length, at most "
            f"{apart:.1g} from this package; operators {', '.join(graph.operators())}"
        )
        return content


def _add(graph: Graph, model: Model, backbone: Backbone | None) -> tuple[str, str]:
    """Adds everything, and returns the names of the axes of any length."""
    about, num_features = model.about, model.about["backbone"]["num_features"]
    if backbone is None:
        axes = ("batch", "frames")
        hidden = graph.input("hidden", "float32", [len(about["layers"]), *axes, num_features])
        num_frames = graph.input("num_frames", "int32", ["batch"])
    else:
        axes = ("batch", "samples")
        inputs = graph.input("waveforms", "float32", axes), graph.input("num_samples", "int32", ["batch"])
        hidden, num_frames = onnx_backbones.add(graph, backbone, passes.hearing_of(about), *inputs)
    # Rounded as in the store: those are the numbers that the heads were trained on.
    hidden = graph.cast(graph.cast(hidden, about["backbone"]["stored_dtype"]), "float32")
    out = onnx_head.add(graph, about["head"], model.heads, hidden, num_frames, num_features)
    mean = graph("ReduceMean", graph.cast(out.distribution, "float64"), axes=[0], keepdims=0)
    if (temperature := about["calibration"]["temperature"]) is not None:
        logits = graph("Log", graph("Max", mean, np.finfo(np.float64).tiny))
        mean = graph("Softmax", graph("Div", logits, np.float64(temperature)), axis=-1)
    num_members, num_classes = len(about["members"]), len(about["classes"])
    graph.output("distribution", graph.cast(mean, "float32"), ["batch", num_classes])
    graph.output("member_distribution", out.distribution, [num_members, "batch", num_classes])
    kept, offset, factor = _units(about)
    if len(kept):
        attributes = graph("Gather", out.attributes, kept, axis=2)
        attributes = graph("Add", graph("Mul", attributes, factor), offset)
        mean = graph("ReduceMean", attributes, axes=[0], keepdims=0)
        graph.output("attributes", mean, ["batch", len(kept)])
        graph.output("member_attributes", attributes, [num_members, "batch", len(kept)])
    return axes


def _units(about: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numbers of the attributes that were trained, int64, and offset and factor of each to its own scale, float32."""
    kept = [a for a, item in enumerate(about["attributes"]) if item["is_trained"]]
    offset, factor = (np.array([about["attributes"][a][key] for a in kept], np.float32) for key in ("offset", "factor"))
    return np.array(kept, np.int64), offset, factor


def _metadata(about: Mapping[str, Any], axes: tuple[str, str], operators: list[str]) -> dict[str, str]:
    """`metadata_props`, each a text in JSON."""
    properties = {
        "written_by": f"seremo_jax {about['code_version']}",
        "model": fingerprint_of(about),
        "opset": OPSET,
        "dynamic_axes": axes,
        "operators": operators,
        "attributes": [item["name"] for item in about["attributes"] if item["is_trained"]],
        "members": [member["name"] for member in about["members"]],
        "sample_rate_hz": SAMPLE_RATE_HZ,
        "longest_s": max(predictor.LEAST_WHOLE_S, about["longest_s"]),
        "temperature": about["calibration"]["temperature"],
        "conformal_threshold": about["calibration"]["conformal_threshold"],
    }
    properties |= {name: about[name] for name in ("classes", "layers", "backbone", "checkpoint", "protocol")}
    return {name: json.dumps(value) for name, value in without_places(properties).items()}


def difference(model: Model, content: bytes, backbone: Backbone | None) -> float:
    """Largest difference between a file and this package, in a batch and alone, see `MOST_APART`.

    Args:
      model: The model.
      content: The file.
      backbone: Its backbone where the file has it, too.
    """
    session, apart = run_session(content), [0.0]
    kept, offset, factor = _units(model.about)
    temperature = model.about["calibration"]["temperature"] or 1.0
    x, num, (attributes, distribution, _) = _example(model, backbone, (0.4, 1.3, 0.7))
    # The whole batch, and its first utterance alone without padding.
    alone = x[:, :1, : num[0]] if backbone is None else x[:1, : num[0]]
    for rows, given in ((slice(None), run(session, x, num)), (slice(1), run(session, alone, num[:1]))):
        shares = distribution[:, rows]
        expected = calibration.tempered(shares.astype(float).mean(axis=0), temperature)
        apart.append(np.abs(given["distribution"] - expected).max())
        apart.append(np.abs(given["member_distribution"] - shares).max())
        if len(kept):
            ours, theirs = attributes[:, rows][:, :, kept], (given["member_attributes"] - offset) / factor
            apart.append((np.abs(ours - theirs) / np.maximum(1, np.abs(ours))).max())
    return float(np.max(apart))


def _example(
    model: Model, backbone: Backbone | None, lengths_s: tuple[float, ...]
) -> tuple[np.ndarray, np.ndarray, Any]:
    """Inputs of a file for utterances of some lengths, and what this package gives for them."""
    about, rng = model.about, np.random.default_rng(0)
    # A program of one dtype is compared: what heads trained in bfloat16 are rounded to differs between devices.
    static = (dataclasses.replace(about["head"], dtype="float32"), *passes.static_of(about)[1:])
    with jax.default_matmul_precision("float32"):
        if backbone is None:
            num = np.array([round(50 * length) for length in lengths_s], np.int32)
            shape = (len(about["layers"]), len(num), num.max(), about["backbone"]["num_features"])
            spread, centre = float(model.heads.sd.mean()), float(model.heads.mean.mean())
            x = (centre + spread * rng.standard_normal(shape)).astype(np.float32)
            return x, num, jax.device_get(passes.judge(*static, model.heads, jnp.asarray(x), jnp.asarray(num)))
        num = np.array([round(SAMPLE_RATE_HZ * length) for length in lengths_s], np.int32)
        time, hearing = np.arange(num.max()) / SAMPLE_RATE_HZ, passes.hearing_of(about)
        # Like a voice: a tone that comes and goes, and noise.
        x = np.sin(2 * np.pi * 150 * time) * np.abs(np.sin(9 * time)) + 0.1 * rng.standard_normal((len(num), len(time)))
        x = np.where(np.arange(num.max()) < num[:, None], 0.1 * x, 0).astype(np.float32)
        heard = np.zeros_like(x)
        for row, length in enumerate(num):
            heard[row, :length] = hearing.heard(x[row, :length], SAMPLE_RATE_HZ)[0]
        out = passes.hear(*static, backbone, model.heads, jnp.asarray(heard), jnp.asarray(num), None)
        return x, num, jax.device_get(out)


def run_session(content: bytes) -> Any:
    """An onnxruntime session on this machine's processor."""
    return libraries()[1].InferenceSession(content, providers=["CPUExecutionProvider"])


def run(session: Any, x: np.ndarray, num: np.ndarray) -> dict[str, np.ndarray]:
    """Outputs of a session by their names, for its two inputs."""
    inputs = dict(zip([item.name for item in session.get_inputs()], (x, num), strict=True))
    return dict(zip([item.name for item in session.get_outputs()], session.run(None, inputs), strict=True))
