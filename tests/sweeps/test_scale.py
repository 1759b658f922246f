"""What scale estimates, against what XLA counts, what a store holds, and where the code puts members and shards."""

import csv
import dataclasses
import io
import itertools
import math
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seremo_jax.backbones import CheckpointError, costs, layers, load, wav2vec2
from seremo_jax.core import ensemble, sharding
from seremo_jax.core.artefacts import ArtefactError
from seremo_jax.core.config import ConfigError, from_config_dict
from seremo_jax.core.schema import Batch, Labels
from seremo_jax.features import manifest, store
from seremo_jax.sweeps import scale, scale_table, scale_terms, workload
from seremo_jax.sweeps.scale_terms import ACCELERATORS, Accelerator, Assumptions
from seremo_jax.training import arrangement, steps
from seremo_jax.training import state as training_state
from tests.support import small_models

ROOT = Path(__file__).resolve().parents[2]
H100 = ACCELERATORS["h100"]


@pytest.fixture(scope="module")
def corpus():
    """4,000 utterances of MSP-Podcast's lengths before WavLM large, one process a host."""
    num_samples = workload.draw_lengths(4_000, 5.7, 2.75, 11.0)
    return _corpus(num_samples, devices_per_process=8)


def _corpus(num_samples, num_seeds=5, **assumptions):
    config, backbone = scale.config_of(num_seeds), costs.published_config("microsoft/wavlm-large")
    return scale.Corpus(config, backbone, num_samples, Assumptions(**assumptions))


def _count(config, depth, num_samples):
    """Operations that XLA counts in a compiled forward of our backbone with so many blocks."""
    definition, params = nnx.split(nnx.eval_shape(lambda: wav2vec2.Encoder(config, depth, False)))
    backbone = wav2vec2.Wav2Vec2(
        params, definition, "x", "x", (depth,), depth + 1, config.hidden_size, 16_000, 50.0, "float32", False, 0,
        tuple(config.conv_kernel), tuple(config.conv_stride), True,
    )  # fmt: skip
    shapes = jax.ShapeDtypeStruct((1, num_samples), jnp.float32), jax.ShapeDtypeStruct((1,), jnp.int32)
    return jax.jit(lambda b, w, n: b(w, n)[0]).lower(backbone, *shapes).compile().cost_analysis()["flops"]


def test_operations_are_those_that_xla_counts(monkeypatch):
    # XLA counts the body of a loop once: heads at once, as on accelerators, and blocks one by one.
    monkeypatch.setattr(layers, "_head_by_head", layers._all_heads)
    config, num_samples = costs.published_config("microsoft/wavlm-large"), 9 * 16_000
    front, item = (_count(config, depth, num_samples) for depth in (0, 1))
    counted = front + config.num_hidden_layers * (item - front)
    assert costs.forward_flops(config, num_samples) == pytest.approx(counted, rel=0.03)
    config.num_hidden_layers = 0
    estimated_front = costs.forward_flops(config, num_samples)
    assert estimated_front == pytest.approx(front, rel=0.05)
    config.num_hidden_layers = 1
    assert costs.forward_flops(config, num_samples) - estimated_front == pytest.approx(item - front, rel=0.03)


def test_direct_positions_are_more_work_and_arrays_are_their_entries():
    config = costs.published_config("facebook/wav2vec2-base")
    direct, spectral = (costs.forward_flops(config, 80_000, is_direct=kind) for kind in (True, False))
    frames = costs.num_frames(config, 80_000)
    assert frames == 249
    assert direct - spectral == pytest.approx(frames * 2 * 128 * 768**2 / 16, rel=0.05)
    both = costs.forward_flops(config, np.array([80_000, 40_000]))
    np.testing.assert_array_equal(both, [spectral, costs.forward_flops(config, 40_000)])


def test_bytes_are_those_of_a_real_store(tmp_path):
    num_samples, config = workload.draw_lengths(12, 2.0, 1.0, 4.0), scale.config_of(1)
    config = dataclasses.replace(config, extract=dataclasses.replace(config.extract, shard_utterances=5))
    folder = small_models.GOLDEN / "wavlm-base"
    model, ids = load(folder), [f"u{i}" for i in range(12)]
    estimated = scale.Corpus(config, costs.published_config(str(folder)), num_samples, Assumptions())
    settings = manifest.Settings(
        tables_fingerprint="x", backbone=model.name, backbone_revision=model.revision, final_norm=False,
        layers=model.layers, num_features=model.num_features, frame_rate_hz=model.frame_rate_hz, dtype="float16",
        condition="clean", shard_utterances=5, config={},
    )  # fmt: skip
    writer = store.Writer(tmp_path, ids, settings)
    for number, shard in enumerate(writer.shards):
        with writer.shard(number) as writing:
            for row in shard:
                shape = (len(model.layers), int(model.num_frames(num_samples[row])), model.num_features)
                writing.add(ids[row], np.ones(shape, np.float32))
    assert estimated.shards == writer.shards
    actual = sum(path.stat().st_size for path in tmp_path.rglob("*.array_record"))
    # array_record rounds each file to blocks of 64 kB.
    spare = 2 * 65_536 * len(list(tmp_path.rglob("*.array_record")))
    assert actual - spare < estimated.layer_bytes * estimated.num_layers < actual
    assert estimated.layer_bytes * estimated.num_layers > 3 * spare


def test_every_shard_is_written_by_one_process():
    of_processes = [list(manifest.shards_of_process(1_035, process, 64)) for process in range(64)]
    assert sorted(itertools.chain(*of_processes)) == list(range(1_035))
    assert {len(shards) for shards in of_processes} == {16, 17}


def test_uneven_shards_cost_what_the_fullest_process_takes():
    # Utterances of one length in 10 shards: over 4 processes, one of them has 3 where the mean is 2.5.
    even = _corpus(np.full(2_560, 80_000))
    actual = even.extraction(H100, 4)
    assert actual.balance == pytest.approx(2.5 / 3)
    assert actual.seconds["compute"] == pytest.approx(even.extraction(H100, 1).seconds["compute"] * 3 / 10)
    assert even.extraction(H100, 64).balance == pytest.approx(10 / 64)


def test_padding_is_work(corpus):
    actual = corpus.extraction(H100, 1)
    assert 0.6 < actual.fill < 1
    speed = H100.peak_flops_per_s * H100.share / (corpus.flops / corpus.audio_s) / 3_600
    assert actual.expected_h_per_s == pytest.approx(speed * actual.fill)
    # What a device gets through a second, for as long as it computes, is the corpus.
    assert actual.expected_h_per_s * actual.seconds["compute"] == pytest.approx(corpus.audio_s / 3_600)
    assert actual.seconds["storage"] == pytest.approx(25 * corpus.layer_bytes / 2e9)


def test_members_sit_where_the_training_puts_them(corpus):
    roomy = dataclasses.replace(H100, memory_bytes=1e13)
    mesh = sharding.make_mesh(len(corpus.members))
    spread = arrangement.arrange(len(corpus.members), mesh.shape[sharding.MEMBER])
    actual = corpus.training(roomy, mesh.shape[sharding.MEMBER])
    assert len(corpus.members) == 25 * 5 * 2
    assert actual.per_device == spread.per_shard
    assert actual.num_runs == 1


def test_members_that_do_not_fit_train_in_further_runs(corpus):
    few = corpus.training(H100, 1)
    assert few.num_runs == math.ceil(250 / few.fitting)
    assert few.per_device == 250
    twice = corpus.training(dataclasses.replace(H100, memory_bytes=2 * H100.memory_bytes), 1)
    assert twice.fitting in (2 * few.fitting, 2 * few.fitting + 1)
    assert twice.seconds["compute"] == pytest.approx(few.seconds["compute"])
    assert twice.seconds["recurrence"] < few.seconds["recurrence"]
    with pytest.raises(ArtefactError, match=r"train\.micro_batches"):
        corpus.training(dataclasses.replace(H100, memory_bytes=1e9), 1)


def test_frames_in_device_memory_are_read_once(corpus):
    cached = corpus.training(dataclasses.replace(H100, memory_bytes=1e13), 1)
    streamed = corpus.training(dataclasses.replace(H100, memory_bytes=4e9), 1)
    # 25 layers once from the disk; against two members at a time, each time from the disk, then 29 epochs from memory.
    assert streamed.num_runs == 125
    assert streamed.seconds["input"] / cached.seconds["input"] == pytest.approx(125 / 25 * (1 + 29 * 2 / 2.25))


def _bytes_of_step(num_features, units, num_layers, num_members, batch):
    """Temporary bytes that XLA plans for a training step with members at once, and bytes of a member's state."""
    slots, frames, rows = batch
    config = from_config_dict({
        "model": {"layer": 0, "gru_units": units, "gru_layers": num_layers}, "train": {"member_map": "vmap"},
        "ensemble": {"seeds": tuple(range(num_members))}, "targets": {"class_set": "msp8"},
    })  # fmt: skip
    settings = training_state.Settings.of(config, num_features, 8)
    values = training_state.values_of(ensemble.members(config, 0), [np.ones(8)] * num_members)
    place = np.zeros(num_members, np.int32)
    shape = jax.ShapeDtypeStruct
    state = jax.eval_shape(lambda values: training_state.init(settings, values), values)
    widths = {"distribution": 8, "consensus": 8, "has_votes": (), "has_consensus": (), "attribute_shares": (3, 0)}
    labels = {}
    for name in Labels._fields:
        width = widths.get(name, 3)
        kind = bool if name.startswith("has_") else jnp.float32
        labels[name] = shape((9, *(width if isinstance(width, tuple) else (width,))), kind)
    of_rows = {"reset": shape((1, frames, rows), bool), "slot": shape((1, frames, rows), jnp.int32)}
    of_slots = {name: shape((1, slots), jnp.int32) for name in ("last_frame", "utterance")}
    features = shape((1, frames, rows, num_features), jnp.float16)
    norm = training_state.Normalisation(*[shape((1, num_features), jnp.float32)] * 2)
    step = steps.compile_steps(settings, sharding.make_mesh(1), num_running=num_members).train.lower(
        state,
        training_state.Members(values, place, place, place),
        Batch(features=features, frame=None, **of_rows, **of_slots),
        training_state.Inputs(norm, Labels(**labels)),
    )
    held = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    return step.compile().memory_analysis().temp_size_in_bytes, held / num_members, settings


@pytest.mark.parametrize(("num_features", "units", "num_layers"), [(256, 64, 2), (192, 48, 1)])
def test_memory_of_a_member_is_what_the_compiled_step_takes(num_features, units, num_layers):
    batch = (8, 200, 20)
    actual, held, settings = _bytes_of_step(num_features, units, num_layers, 2, batch)
    state, step = training_state.member_bytes(settings, batch[1] * batch[2])
    assert state == held
    assert step == pytest.approx(actual / 2, rel=0.12)


def test_what_binds():
    seconds = {"compute": 2.0, "recurrence": 3.0, "input": 4.0}
    assert scale_terms.wall_s(seconds) == 5.0
    assert scale_terms.dominant(seconds) == "recurrence"
    assert scale_terms.dominant(seconds | {"input": 6.0}) == "input"
    assert scale_terms.wall_s({"compute": 1.0, "input": 2.0, "storage": 3.0}) == 3.0
    assert scale_terms.dominant({"compute": 4.0, "input": 2.0, "storage": 3.0}) == "compute"


def test_lengths_have_the_mean_asked_for():
    drawn = workload.draw_lengths(100_000, 5.7, 2.75, 11.0)
    assert drawn.mean() / 16_000 == pytest.approx(5.7, rel=0.005)
    assert drawn.min() >= 2.75 * 16_000
    assert drawn.max() <= 11 * 16_000
    with pytest.raises(ConfigError, match="mean between"):
        workload.draw_lengths(10, 12.0, 2.75, 11.0)


def test_frames_are_those_of_the_backbone():
    folder = small_models.GOLDEN / "xls-r"
    num_samples = np.array([500, 1_234, 16_000])
    np.testing.assert_array_equal(
        costs.num_frames(costs.published_config(str(folder)), num_samples), load(folder).num_frames(num_samples)
    )
    with pytest.raises(CheckpointError, match=r"known: .*microsoft/wavlm-large"):
        costs.published_config("microsoft/wavlm-huge")
    with pytest.raises(CheckpointError, match="whisper"):
        costs.published_config(str(small_models.GOLDEN.parent / "whisper"))


def test_assumed_and_measured_are_told_apart(corpus):
    for name in ("h100", "cpu"):
        device: Accelerator = ACCELERATORS[name]
        text = scale_table.markdown(corpus, name, device, scale_table.rows_of(corpus, device, [1, 8]))
        kind = "measured" if name == "cpu" else "assumed"
        assert f"audio expected a device, h/s ({kind})" in text
        assert f"{kind.capitalize()}: {device.peak_flops_per_s / 1e12:g} TFLOP/s" in text


def _launch(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "launch.scale", "--num_utterances=3000", *arguments],
        cwd=ROOT, env=os.environ | {"JAX_PLATFORMS": "cpu"}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_launcher_prints_unrounded_numbers():
    done = _launch("--format=csv", "--devices=1,64", "--accelerator=tpu-v5e", "--share=0.5", "--epochs=3")
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    values = {(row["devices"], row["stage"], row["quantity"]): row["value"] for row in rows}
    num_samples = workload.draw_lengths(3_000, 5.7, 2.75, 11.0)
    device = dataclasses.replace(ACCELERATORS["tpu-v5e"], share=0.5)
    actual = _corpus(num_samples, epochs=3).extraction(device, 64)
    assert float(values["64", "extraction", "compute_s"]) == actual.seconds["compute"]
    assert values["1", "corpus", "num_members"] == "250"
    assert {row["speed"] for row in rows} == {"assumed"}


def test_wrong_input_is_told_plainly():
    done = _launch("--backbone=nowhere")
    assert done.returncode != 0
    assert "error: 'nowhere' is no folder" in done.stderr
    assert "Traceback" not in done.stderr
