"""The loader: a store read from the page cache as training reads it, beside what training consumes."""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from launch.bench import engine
from launch.bench.suite import Part, Row, Session
from seremo_jax.features.store import Reader, Settings, Writer

NUM_UTTERANCES, NUM_FEATURES, BATCH = 2_000, 1_024, 64
QUICK_UTTERANCES, QUICK_FEATURES = 60, 24
NUM_EPOCHS, NUM_STEPS = 5, 3
MOST_GROWTH = 0.01
"""Of the bytes an epoch reads, gained in resident memory an epoch."""
_MANIFEST = {
    "tables_fingerprint": "0",
    "backbone": "bench",
    "backbone_revision": "0",
    "final_norm": False,
    "layers": (0,),
    "frame_rate_hz": float(engine.FRAME_RATE_HZ),
    "dtype": "float16",
    "condition": "recorded",
    "shard_utterances": 256,
    "config": {},
}


def parts(session: Session) -> list[Part]:
    """All rows, from one store."""
    num = QUICK_UTTERANCES if session.is_quick else NUM_UTTERANCES
    what = f"loader, {num:,} utterances of one layer in float16, from the page cache"
    names = (
        f"{what}: ratio is GB/s",
        f"loader, resident memory over {NUM_EPOCHS} epochs",
        f"{what}: against what training one head consumes",
    )
    return [Part(names, lambda: _rows(num, names, session))]


def _rows(num: int, names: tuple[str, ...], session: Session) -> Iterator[Row]:
    num_features, batch_size = (QUICK_FEATURES, 6) if session.is_quick else (NUM_FEATURES, BATCH)
    lengths, targets = engine.podcast_lengths(num), engine.random_targets(num)
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), lengths, num_features)
        reader = Reader(folder)
        num_bytes = int(lengths.sum()) * num_features * 2
        counted: list[int] = []

        def one_epoch() -> None:
            counted.append(sum(int(b.is_used.sum()) for b in engine.epoch(reader, targets, batch_size, len(counted))))

        timed = session.interleave(names[0], {"epoch s": one_epoch})
        rate = num_bytes / timed.seconds["epoch s"]
        yield Row(names[0], {"GB": num_bytes / 1e9, "epoch s": timed.seconds["epoch s"]}, rate / 1e9, 1.0, timed.note)
        growth_mb, peak_mb = memory(one_epoch)
        if set(counted) != {num}:
            raise RuntimeError(f"epochs of {sorted(set(counted))} utterances, expected {num}")
        limit_mb = MOST_GROWTH * num_bytes / 1e6
        is_kept = growth_mb < limit_mb or session.is_quick
        note = f"limit {limit_mb:.3g} MB an epoch: {'kept' if is_kept else 'BROKEN'}"
        yield Row(names[1], {"gained MB an epoch": growth_mb, "most MB": peak_mb}, note=note)
        batches = [b for b, _ in zip(engine.epoch(reader, targets, batch_size, 1), range(NUM_STEPS), strict=False)]
        trainer = engine.Trainer(1, num_features, sizes={"gru_units": 8} if session.is_quick else None)
        placed = [trainer.place(batch) for batch in batches]
        timed = session.interleave(names[2], {"s": lambda: [trainer.step(batch) for batch in placed]})
        consumed = sum(int(batch.is_valid.sum()) for batch in batches) * num_features * 2 / timed.seconds["s"]
        figures = {"loader GB/s": rate / 1e9, "training GB/s": consumed / 1e9}
        yield Row(names[2], figures, rate / consumed, 10, timed.note)


def write(folder: Path, lengths: np.ndarray, num_features: int) -> None:
    """A finished store of random frames."""
    frames = engine.Frames(lengths, num_features)
    writer = Writer(
        folder, [f"u{row}" for row in range(len(lengths))], Settings(num_features=num_features, **_MANIFEST)
    )
    for shard, rows in enumerate(writer.shards):
        with writer.shard(shard) as into:
            for row in rows:
                into.add(f"u{row}", frames.frames[row][None].astype(np.float16))
    writer.finalise()


def memory(one_epoch: Callable[[], None]) -> tuple[float, float]:
    """MB of resident memory gained an epoch, by a straight line through what is there after each; the most of it."""
    page_mb, resident = os.sysconf("SC_PAGE_SIZE") / 1e6, []
    for _ in range(NUM_EPOCHS):
        one_epoch()
        resident.append(int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * page_mb)
    return float(np.polyfit(range(NUM_EPOCHS), resident, 1)[0]), max(resident)
