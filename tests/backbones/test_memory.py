"""What loading takes at its peak, in a process of its own: at most 1.3 times the weights."""

import functools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from seremo_jax.backbones import wav2vec2
from seremo_jax.backbones.filling import published_shapes
from tests.support.small_models import GOLDEN

pytestmark = pytest.mark.long

_MEASURED = """
import sys
import jax
from seremo_jax import backbones

def kilobytes(field):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(field))

backbones.load(sys.argv[2])  # all that is imported, and jax's backend
open("/proc/self/clear_refs", "w").write("5")  # the peak is counted from here on
before = kilobytes("VmRSS")
backbone = backbones.load(sys.argv[1], dtype=sys.argv[3])
weights = sum(leaf.nbytes for leaf in jax.tree.leaves(backbone))
print(1024 * (kilobytes("VmHWM") - before) / weights, weights)
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """One model in the proportions of WavLM base with half its blocks, in every format."""
    import transformers

    root = tmp_path_factory.mktemp("memory")
    config = transformers.WavLMConfig(num_hidden_layers=6)
    model = wav2vec2.Encoder(config, 6, True)
    shapes = published_shapes(model, functools.partial(wav2vec2.published_name, model_type="wavlm"))
    rng = np.random.default_rng(0)
    tensors = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    folders = {kind: root / kind for kind in ("whole", "sharded", "torch")}
    for folder in folders.values():
        config.save_pretrained(folder)
        transformers.Wav2Vec2FeatureExtractor().save_pretrained(folder)
    safetensors.numpy.save_file(tensors, folders["whole"] / "model.safetensors")
    names = sorted(tensors)
    parts = {f"model-0000{i}-of-00003.safetensors": names[i - 1 :: 3] for i in (1, 2, 3)}
    for file, held in parts.items():
        safetensors.numpy.save_file({name: tensors[name] for name in held}, folders["sharded"] / file)
    index = {"weight_map": {name: file for file, held in parts.items() for name in held}}
    (folders["sharded"] / "model.safetensors.index.json").write_text(json.dumps(index))
    if torch := pytest.importorskip("torch", reason="needs PyTorch"):
        state = {name: torch.from_numpy(array) for name, array in tensors.items()}
        torch.save(state, folders["torch"] / "pytorch_model.bin")
    return folders


@pytest.mark.parametrize(
    ("kind", "dtype"), [("whole", "float32"), ("sharded", "float32"), ("torch", "float32"), ("whole", "bfloat16")]
)
def test_loading_takes_little_more_than_the_weights(kind, dtype, folders):
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, folders[kind], GOLDEN / "wavlm-large", dtype],
        cwd=Path(__file__).resolve().parents[2], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ratio, num_bytes = map(float, done.stdout.split())
    assert num_bytes > 1e8
    assert ratio < 1.3
