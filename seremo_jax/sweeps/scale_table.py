"""The estimates of `scale` as a Markdown table, a column for each number of devices, and unrounded as CSV."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from seremo_jax.reports import table
from seremo_jax.sweeps.scale import LEFT_FREE, Corpus
from seremo_jax.sweeps.scale_terms import Accelerator, Extraction, Training, dominant, wall_s
from seremo_jax.training.state import member_bytes

Rows = Sequence[tuple[int, Extraction, Training]]


def rows_of(corpus: Corpus, device: Accelerator, counts: Sequence[int]) -> Rows:
    """Both stages at each number of devices."""
    return [(count, corpus.extraction(device, count), corpus.training(device, count)) for count in counts]


def markdown(corpus: Corpus, name: str, device: Accelerator, rows: Rows) -> str:
    """The table, below it what it stands on."""
    a = corpus.assumptions
    lines: list[tuple[str, list[str]]] = [
        (
            f"audio needed a device, h/s (all in {a.goal_s / 60:g} min)",
            [f"{extraction.needed_h_per_s:.2g}" for _, extraction, _ in rows],
        ),
        (
            f"audio expected a device, h/s ({_kind(device)})",
            [f"{extraction.expected_h_per_s:.2g}" for _, extraction, _ in rows],
        ),
        (
            "mean load of a process, of the fullest one's (shards)",
            [f"{100 * extraction.balance:.1f} %" for _, extraction, _ in rows],
        ),
        (
            "audio in, frames out of a host, if no device waits, GB/s",
            [f"{_gb(e.read_bytes_per_s)}, {_gb(e.write_bytes_per_s)}" for _, e, _ in rows],
        ),
        ("extraction: compute, input, storage", [_times(extraction.seconds) for _, extraction, _ in rows]),
        ("**extraction takes**, bound by", [_total(extraction.seconds) for _, extraction, _ in rows]),
        (
            "members a device: hold at once, to train (runs)",
            [f"{t.fitting}, {t.per_device} ({t.num_runs})" for _, _, t in rows],
        ),
        (
            "frames to heads of a host, if no device waits, GB/s",
            [_gb(training.read_bytes_per_s) for _, _, training in rows],
        ),
        ("training: compute, recurrence, input", [_times(training.seconds) for _, _, training in rows]),
        ("**training takes**, bound by", [_total(training.seconds) for _, _, training in rows]),
    ]
    columns = tuple(f"{count:,}" for count, _, _ in rows)
    body = tuple(table.Row((label,), table.plain(*texts)) for label, texts in lines)
    numbers = table.markdown(table.Table("Scale", (name,), columns, body))
    return f"{numbers}\n\n{about(corpus, name, device, rows)}"


def about(corpus: Corpus, name: str, device: Accelerator, rows: Rows) -> str:
    """What the table is of, what is assumed and what measured."""
    a, (state, step) = corpus.assumptions, member_bytes(corpus.settings, corpus.batch_frames)
    per_process = min(a.devices_per_process, rows[-1][0])
    share, free = f"{100 * device.share:.0f} %", f"{100 * LEFT_FREE:.0f} % left free"
    lines = [
        f"Corpus: {len(corpus.num_samples):,} utterances, {corpus.audio_s / 3_600:,.0f} h; "
        f"{corpus.flops / corpus.audio_s / 1e9:.1f} GFLOP a second of audio, {100 * rows[0][1].fill:.0f} % of what is "
        f"computed is no padding; a stored layer takes {corpus.layer_bytes / 1e9:,.0f} GB, all {corpus.num_layers} "
        f"{corpus.layer_bytes * corpus.num_layers / 1e12:.2f} TB.",
        f"Training: {len(corpus.members)} members, {a.epochs} epochs of {100 * a.train_part:.0f} % of the utterances; "
        f"a member takes {state / 1e6:.0f} MB, and {step / 1e6:,.0f} MB more in a step.",
        f"{_kind(device).capitalize()}: {device.peak_flops_per_s / 1e12:g} TFLOP/s of {name}, of which products reach "
        f"{share}. Its maker's, or assumed: {device.memory_bytes / 1e9:.0f} GB of memory ({free}) at "
        f"{device.bandwidth_bytes_per_s / 1e12:g} TB/s.",
        f"Assumed: {a.devices_per_host} devices, {a.host_memory_bytes / 1e9:,.0f} GB of memory a host, {per_process} a "
        f"process; {_gb(a.disk_bytes_per_s)} GB/s of disk a host; at least {a.scan_step_s * 1e6:g} µs a step of a "
        "scan; all overlaps but compute and recurrence; compilation, evaluation and failures are left out.",
        f"Measured, on 2 CPU cores: the loader's {a.loader_bytes_per_s / 1e9:g} GB/s a process; decoding, "
        f"{a.decode_speed:,.0f} times real time a thread. Asked of the code itself: operations, shards, batches, rows, "
        "and what each device trains and reads.",
    ]
    return "\n".join(lines) + "\n"


def csv_text(corpus: Corpus, name: str, device: Accelerator, rows: Rows) -> str:
    """One line a number, unrounded."""
    header, lines = ("accelerator", "speed", "devices", "stage", "quantity", "value"), list[list[Any]]()
    common = {"layer_bytes": corpus.layer_bytes, "num_layers": corpus.num_layers, "audio_s": corpus.audio_s}
    common |= {"flops_per_audio_s": corpus.flops / corpus.audio_s, "num_members": len(corpus.members)}
    for count, extraction, training in rows:
        start = [name, _kind(device), count]
        lines.extend([*start, "corpus", key, value] for key, value in common.items())
        for stage, estimate in (("extraction", extraction), ("training", training)):
            values = dataclasses.asdict(estimate)
            seconds = values.pop("seconds")
            values |= {f"{term}_s": value for term, value in seconds.items()}
            values |= {"wall_s": wall_s(seconds), "dominant": dominant(seconds)}
            lines.extend([*start, stage, key, value] for key, value in values.items())
    return table.csv_text(header, (dict(zip(header, line, strict=True)) for line in lines))


def _kind(device: Accelerator) -> str:
    return "measured" if device.is_measured else "assumed"


def _gb(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:.2g}" if num_bytes < 1e10 else f"{num_bytes / 1e9:,.0f}"


def _time(seconds: float) -> str:
    for size, unit in ((3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}" if seconds < 100 * size else f"{seconds / size:,.0f} {unit}"
    return f"{seconds:.2g} s"


def _times(seconds: dict[str, float]) -> str:
    return ", ".join(map(_time, seconds.values()))


def _total(seconds: dict[str, float]) -> str:
    return f"**{_time(wall_s(seconds))}**, {dominant(seconds)}"
