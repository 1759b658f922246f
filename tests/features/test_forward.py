"""Extraction on several devices and processes, in windows, and from a published checkpoint to the store."""

import dataclasses
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from seremo_jax import backbones
from seremo_jax.core import sharding
from seremo_jax.core.config import from_config_dict
from seremo_jax.data import audio_batches
from seremo_jax.features import extract, forward
from seremo_jax.features.store import Reader
from tests.support.small_models import GOLDEN
from tests.support.toy_corpus import NUM_UTTERANCES, config_of, contents, extracted, fresh, make_corpus, read_waveform

ROOT = Path(__file__).resolve().parents[2]
WAVLM = GOLDEN / "wavlm-large"
WHISPER = {
    "backbone__name": str(GOLDEN.parent / "whisper"),
    "backbone__window_seconds": 2.0,
    "backbone__overlap_seconds": 0.5,
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("corpus"))


# One length of batches: each further one is a program more to compile.
CHECKPOINT = {"backbone__name": str(WAVLM), "extract__num_buckets": 1}


@pytest.fixture(scope="module")
def of_checkpoint(corpus, tmp_path_factory) -> Reader:
    """Store of a published checkpoint, made by one device."""
    return extracted(corpus, fresh(corpus, tmp_path_factory.mktemp("checkpoint")), **CHECKPOINT)


def test_a_published_checkpoint_goes_to_the_store_whole(corpus, of_checkpoint):
    """The frames stored are those of one utterance alone; the manifest says where they come from."""
    reader = of_checkpoint
    backbone = backbones.load(WAVLM)
    assert reader.manifest["backbone"] == "wavlm-large"
    assert reader.manifest["backbone_revision"] == backbone.revision
    assert reader.manifest["config"]["backbone.dtype"] == "float32"
    assert reader.layers == tuple(range(backbone.num_layers))
    waveform = read_waveform(corpus, reader.utterances[3])
    hidden, _ = jax.jit(lambda b, w, n: b(w, n))(backbone, waveform[None], np.array([len(waveform)], np.int32))
    for layer in reader.layers:
        np.testing.assert_allclose(reader.read(layer, [3])[0], hidden[layer, 0], rtol=0, atol=1e-4)


def test_the_final_norm_and_the_window_make_another_store(corpus, tmp_path):
    """LABELS.md F1: the last layer before and after the final norm can't be confused."""
    plain = extracted(corpus, fresh(corpus, tmp_path), **WHISPER)
    normed = extracted(corpus, fresh(corpus, tmp_path, "normed"), **WHISPER, backbone__final_norm=True)
    assert (plain.manifest["final_norm"], normed.manifest["final_norm"]) == (False, True)
    np.testing.assert_array_equal(plain.read(2, [0])[0], normed.read(2, [0])[0])
    last = [reader.read(3, [0])[0] for reader in (plain, normed)]
    assert np.abs(last[0] - last[1]).max() > 0.1
    cut = forward.load_backbone(config_of(corpus, **WHISPER, backbone__window="cut"))
    assert cut.revision != plain.manifest["backbone_revision"]


def test_devices_share_a_batch_and_change_no_number(corpus, of_checkpoint, tmp_path):
    """A thread a device, and weights spread over two devices. More virtual devices than cores wait for each other."""
    whole = sharding.make_data_mesh()
    assert whole.size == 8
    two = np.array(jax.local_devices()[:2]).reshape(1, 2)
    mesh = jax.sharding.Mesh(two, whole.axis_names, axis_types=whole.axis_types)
    for name, is_spread, layers in (("copied", False, (0, 2)), ("spread", True, "all")):
        workdir = fresh(corpus, tmp_path, name)
        config = config_of(corpus, **CHECKPOINT, backbone__shards_params=is_spread, extract__layers=layers)
        shared = Reader(extract.run(config, workdir, is_quiet=True, mesh=mesh))
        assert shared.layers == (layers if layers != "all" else of_checkpoint.layers)
        for layer in shared.layers:
            both = (reader.read(layer, range(NUM_UTTERANCES)) for reader in (shared, of_checkpoint))
            for ours, theirs in zip(*both, strict=True):
                np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)


def test_spread_lays_most_weights_over_the_devices():
    mesh, backbone = sharding.make_data_mesh(), backbones.load(WAVLM)
    sizes = [
        (leaf.size, leaf.addressable_shards[0].data.size)
        for leaf in jax.tree.leaves(jax.device_put(backbone, sharding.shardings(mesh, backbone)))
    ]
    assert sum(part for _, part in sizes) < 0.4 * sum(whole for whole, _ in sizes)


def test_batches_of_several_devices_have_a_slot_for_each():
    lengths = np.array([16_000] * 5)
    planned = audio_batches.plan([range(5)], lengths, [(16_000,)], 16_000, multiple=4)
    assert {batch.num_slots for batch in planned[0]} == {4}
    planned = audio_batches.plan([range(5)], lengths, [(16_000,)], 64_000, least_samples=32_000)
    assert {batch.num_slots for batch in planned[0]} <= {1, 2}


def test_auto_batches_fit_the_caches_of_a_processor_and_fill_an_accelerator():
    lengths, extract_config = np.array([32_000] * 640), from_config_dict({}).extract
    for is_cpu, num_devices, most_s in ((True, 1, 10), (True, 4, 40), (False, 1, 160), (False, 4, 640)):
        planned = forward.plan_batches(extract_config, [range(640)], lengths, 0, num_devices, is_cpu)[0]
        largest_s = max(batch.num_slots * batch.num_samples for batch in planned) / 16_000
        assert 0.6 * most_s <= largest_s <= most_s
        # A number says how much, whatever the devices.
        given = dataclasses.replace(extract_config, batch_seconds=20.0)
        planned = forward.plan_batches(given, [range(640)], lengths, 0, 2, is_cpu)[0]
        assert max(batch.num_slots for batch in planned) == 10


def test_an_extraction_says_where_its_time_went(corpus, tmp_path, capsys):
    config = config_of(corpus, backbone__name="logmel", extract__layers="all")
    extract.run(config, fresh(corpus, tmp_path))
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("extract: goodput"))
    shares = {name: float(share) for name, share in re.findall(r"(\w+) ([\d.]+) %[, ]", line.partition(";")[0])}
    assert list(shares) == ["audio", "forward", "fetch", "sums", "store", "compile", "rest"]
    assert sum(shares.values()) == pytest.approx(100, abs=0.4)
    assert all(shares[name] > 0 for name in ("forward", "store"))
    assert re.search(r"; \d+ batches of \d shapes, \d+\.\d % padding$", line)


def test_long_audio_is_heard_in_windows(corpus, tmp_path):
    """A window shorter than the longest utterances: the store holds what the windowed backbone gives alone."""
    changes = WHISPER | {"backbone__window": "cut", "backbone__window_seconds": 1.0, "backbone__overlap_seconds": 0.4}
    reader = extracted(corpus, fresh(corpus, tmp_path), **changes)
    config = config_of(corpus, **changes)
    backbone = forward.load_backbone(config)
    assert reader.manifest["backbone_revision"] == backbone.revision
    row = int(np.argmax(reader.num_frames))
    waveform = read_waveform(corpus, reader.utterances[row])
    assert len(waveform) > 16_000
    hidden, _ = jax.jit(lambda b, w, n: b(w, n))(backbone, waveform[None], np.array([len(waveform)], np.int32))
    np.testing.assert_allclose(reader.read(2, [row])[0], hidden[2, 0], rtol=0, atol=1e-4)


def test_auto_dtype_is_float32_on_cpu():
    assert forward.load_backbone(from_config_dict({"backbone": {"name": str(WAVLM)}})).dtype == "float32"
    rounded = from_config_dict({"backbone": {"name": str(WAVLM), "dtype": "bfloat16"}})
    assert forward.load_backbone(rounded).dtype == "bfloat16"


@pytest.mark.long
def test_two_processes_write_what_one_writes(corpus, tmp_path):
    """Each its own shards, the first one the manifest: byte for byte the store of one process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    recipe = tmp_path / "recipe.py"
    config = config_of(corpus, **WHISPER, model__layer=2, extract__layers=(1, 2))
    tree = {"corpus": vars(config.corpus), "backbone": vars(config.backbone), "extract": vars(config.extract)}
    tree |= {"model": {"layer": 2}}
    recipe.write_text(f"import ml_collections\n\n\ndef get_config():\n    return ml_collections.ConfigDict({tree!r})\n")
    workdirs = [fresh(corpus, tmp_path, name) for name in ("one", "two")]

    def start(workdir, *options, **environment):
        command = [sys.executable, "-m", "launch.extract", f"--config={recipe}", f"--workdir={workdir}", *options]
        return subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, "JAX_PLATFORMS": "cpu", **environment},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    runs = [start(workdirs[0])]
    for number in range(2):
        address = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "JAX_NUM_PROCESSES": "2"}
        runs.append(start(workdirs[1], "--distributed", JAX_PROCESS_ID=str(number), **address))
    for run in runs:
        output, _ = run.communicate(timeout=300)
        assert run.returncode == 0, output
    single, shared = (contents(workdir) for workdir in workdirs)
    assert single.keys() == shared.keys()
    assert single == shared
    manifest = json.loads(shared["store/manifest.json"])
    assert len(manifest["shards"]) > 2
