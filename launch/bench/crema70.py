"""CREMA-D with Whisper base, 7 layers x 5 seeds x {votes, consensus}: an epoch of all 70 heads, beside PyTorch's.

On request only: `python -m launch.bench --suite=crema70 --rounds=3` trains three epochs in `runs/bench_crema70`, where
the tables and the store stay for the next time.
"""

import json
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np

from launch.bench import engine, torch_peers
from launch.bench.timing import Options, Row, interleave, num_cores

FOLDER = Path("runs/bench_crema70")
LAYERS, SEEDS, CLASS_TARGETS = tuple(range(7)), tuple(range(5)), ("votes", "consensus")
BATCH, NUM_HEADS, NUM_BATCHES = 64, 2, 4


def run(options: Options) -> list[Row]:
    """The row, of `options.rounds` epochs."""
    what = "CREMA-D, Whisper base, 70 heads: an epoch"
    if options.shared is None:
        return [Row(what, note="no shared data and weights here: not measured")]
    return [crema70(options, options.rounds, FOLDER)]


def crema70(options: Options, num_epochs: int, folder: Path) -> Row:
    """Seconds of an epoch of all 70 heads, evaluation on the development split included, beside PyTorch's training.

    PyTorch is timed on a few heads and batches of the same utterances, and multiplied up: heads one after another,
    padded batches, no evaluation.
    """
    config = [
        "--config=configs/crema_d.py" + (":subset24" if options.is_quick else ""),
        f"--config.corpus.root={options.shared / 'data' / 'crema_d'}",
        f"--config.backbone.name={options.shared / 'weights' / 'whisper-base-encoder'}",
        "--config.backbone.window=cut",
        "--config.extract.layers=all",
        f"--config.train.batch_size={BATCH}",
        f"--config.train.max_epochs={num_epochs}",
        f"--config.train.patience={num_epochs}",
        f"--config.ensemble.layers={LAYERS}",
        f"--config.ensemble.seeds={SEEDS}",
        f"--config.ensemble.class_targets={CLASS_TARGETS}",
        f"--workdir={folder}",
    ]
    shutil.rmtree(folder / "train", ignore_errors=True)
    for stage in ("ingest", "extract", "saliency", "train"):
        subprocess.run([sys.executable, "-m", f"launch.{stage}", *config], check=True, stdout=sys.stderr)
    lines = (folder / "train" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    epochs_s = [json.loads(line)["epoch_s"] for line in lines]
    # The first one compiles.
    figures = {
        "epochs": len(epochs_s),
        "first epoch s": epochs_s[0],
        "epoch s": statistics.median(epochs_s[1:] or epochs_s),
    }
    what = f"CREMA-D, Whisper base, {len(LAYERS) * len(SEEDS) * len(CLASS_TARGETS)} heads: an epoch"
    if not torch_peers.is_there():
        return Row(what, figures, note=torch_peers.NO_PEER)
    seconds, note = _peer(folder, options)
    figures["PyTorch s"] = seconds * len(LAYERS) * len(SEEDS) * len(CLASS_TARGETS)
    about = f"PyTorch's seconds extrapolated from {NUM_HEADS} heads and {NUM_BATCHES} batches, without evaluation"
    return Row(what, figures, figures["PyTorch s"] / figures["epoch s"], None, "; ".join(filter(None, (note, about))))


def _peer(folder: Path, options: Options) -> tuple[float, str]:
    """Seconds of an epoch of one head in PyTorch over the training split, and what to note."""
    import torch

    from launch.bench import torch_heads
    from seremo_jax.data import tables
    from seremo_jax.features.store import Reader

    torch.set_num_threads(num_cores())
    reader = Reader(folder / "store")
    utterances = tables.read_tables(folder)[0]
    is_train = np.array(utterances["split"].to_pylist()) == "train"
    ids = set(np.array(utterances["id"].to_pylist())[is_train])
    lengths = reader.num_frames[[utterance in ids for utterance in reader.utterances]]
    plan, shape = engine.padded_plan(lengths, BATCH)
    # What the frames hold does not matter to the clock, how many there are does.
    frames, targets = engine.Frames(lengths, reader.manifest["num_features"]), engine.random_targets(len(lengths))
    source = engine.source(frames, (0,), targets, plan[:NUM_BATCHES], shape)
    batches = [torch_heads.Rows.of(source[number]) for number in range(len(source))]
    sizes = {"gru_units": 128}
    form = torch_heads.faster_convolution(batches[0], sizes)[0]
    peer = torch_heads.Trainer(NUM_HEADS, reader.manifest["num_features"], sizes, form)
    timed = interleave({"s": lambda: [peer.step([batch]) for batch in batches]}, min(options.rounds, 3))
    per_batch_s = timed.seconds["s"] / NUM_HEADS / len(batches)
    return per_batch_s * len(lengths) / BATCH, timed.note
