"""What compilers say of the programs of a config, as JSON and as Markdown tables."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from seremo_jax.sweeps.compiled import KERNEL_LAUNCH_S, PADDING, Compiled
from seremo_jax.sweeps.targets import FIGURES, parse

FORMAT = 3


def to_json(about: dict[str, Any], rows: Sequence[Compiled], fits: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """Everything, for a file."""
    derived = ("fits", "binds")
    content = [dataclasses.asdict(row) | {name: getattr(row, name) for name in derived} for row in rows]
    return {"format": FORMAT, **about, "programs": content, "fit": list(fits)}


def markdown(about: dict[str, Any], rows: Sequence[Compiled], fits: Sequence[dict[str, Any]] = ()) -> str:
    """A table of what fits, one of what is done, the searched sizes, and what stays assumed."""
    lines = [f"Compiled for, not run on. {about['workload']}. Backbone {about['backbone']}.", ""]
    lines += [f"Note: {note}." for note in about["notes"]] + [""] * bool(about["notes"])
    lines += _table(
        ("target", "program", "called with", "memory of a device", "fits", "compiled in"),
        [(row.target, row.program, row.shape, _memory(row), _fits(row), f"{row.compile_s:.0f} s") for row in rows],
    )
    done = [row for row in rows if not row.memory.refusal]
    lines += ["", "Of one run on one device:", ""]
    lines += _table(
        ("target", "program", "GFLOP", "GB moved", "collectives", "kernels (in loops)", "at least", "binds", "runs"),
        [
            (
                row.target, row.program, f"{row.flops / 1e9:,.1f}", f"{row.accessed_bytes / 1e9:,.2f}",
                _collectives(row), _kernels(row), duration(row.seconds[row.binds]), row.binds, f"{row.num_runs:,.0f}",
            )
            for row in done
        ],
    )  # fmt: skip
    lines += ["", "Matrix products and convolutions by the types of operands and result:", ""]
    lines += _table(
        ("target", "program", "product", "runs", "GFLOP", "share of FLOP"),
        [
            (row.target, row.program, kind, f"{runs:,}", f"{flops / 1e9:,.2f}", f"{flops / _product_flops(row):.1%}")
            for row in done
            for kind, (runs, flops) in row.products.items()
        ],
    )
    if padded := [(row, array) for row in done for array in row.padded]:
        lines += ["", f"Arrays of which more than {PADDING:.0%} is padding to the tiles of a TPU:", ""]
        lines += _table(
            ("target", "program", "array", "MB", "MB taken"),
            [
                (row.target, row.program, f"`{kind}`", f"{size / 1e6:,.2f}", f"{held / 1e6:,.2f}")
                for row, (kind, size, held) in padded
            ],
        )
    if fits:
        lines += ["", "The largest that the compiler lets a device hold:", ""]
        lines += _table(
            ("target", "what", "fits", "does not fit", "the compiler's words", "sizes tried"),
            [
                (entry["target"], entry["what"], entry["largest"] or "none", entry["too_many"] or "not reached",
                 entry["refusal"] or "-", str(entry["sizes"]))
                for entry in fits
            ],
        )  # fmt: skip
    return "\n".join([*lines, "", *_assumptions(rows), ""])


def _product_flops(row: Compiled) -> int:
    return max(1, sum(flops for _, flops in row.products.values()))


def line(row: Compiled) -> str:
    """One program in one line, for progress."""
    what = f"{row.target} {row.program}: "
    if row.memory.refusal:
        return f"{what}does not fit, {row.memory.refusal[:160]}"
    products = f"{row.bfloat16_share:.0%} of products in bfloat16; " if row.products else ""
    return (
        f"{what}{'fits' if row.fits else 'does not fit'}, {_memory(row)}; {products}at least "
        f"{duration(row.seconds[row.binds])} a run ({row.binds}); compiled in {row.compile_s:.0f} s"
    )


def fit_line(fit: dict[str, Any]) -> str:
    """What a search found, in one line, for progress."""
    return (
        f"{fit['target']} {fit['program']}: {fit['largest'] or 'none'} {fit['what']} fit, "
        f"{fit['too_many'] or 'no size'} does not{': ' * bool(fit['refusal'])}{fit['refusal']}"
    )


def duration(seconds: float) -> str:
    """Seconds in a unit that suits them."""
    for least, unit, factor in ((60, "min", 60), (1, "s", 1), (1e-3, "ms", 1e-3)):
        if seconds >= least:
            return f"{seconds / factor:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} µs"


def _fits(row: Compiled) -> str:
    return "yes" if row.fits else "no, the compiler refuses it" if row.memory.refusal else "no"


def _memory(row: Compiled) -> str:
    memory = row.memory
    if memory.refusal:
        return f"more than {row.usable_bytes / 1e9:.1f} GB"
    scale, unit = (1e9, "GB") if memory.num_bytes >= 1e9 else (1e6, "MB")
    parts = (memory.argument_bytes, memory.temporary_bytes, memory.output_bytes)
    total = f"{memory.num_bytes / scale:,.2f} {unit} of {row.usable_bytes / 1e9:.1f} GB"
    return f"{' + '.join(f'{n / scale:,.2f}' for n in parts)} = {total}"


def _collectives(row: Compiled) -> str:
    words = [f"{num} {kind} ({size / 1e6:,.2f} MB)" for kind, (num, size) in sorted(row.collectives.items())]
    return ", ".join(words) or "none"


def _kernels(row: Compiled) -> str:
    if row.kernels is None:
        return "-"
    loops = [f"{kernels} x {trips or '?'}" + (f" x {runs}" if runs > 1 else "") for trips, kernels, runs in row.loops]
    return f"{row.kernels:,}" + (f" ({', '.join(loops)})" if loops else "")


def _assumptions(rows: Sequence[Compiled]) -> list[str]:
    kinds = list(dict.fromkeys(parse(row.target).kind for row in rows))
    lines = [
        "Memory is arguments + temporaries + output (without what is written in place of arguments). Operations are "
        "the compiler's count. Bytes are those between main memory and kernels, read from the compiled text: slices "
        "where a kernel takes or sets slices, and nothing of arrays on the chip. Loops count with their trips. "
        "Products with the word highest keep float32 where a device would round operands to bfloat16. Bounds are by "
        "the peaks of the makers:",
        "",
    ]
    for kind in kinds:
        figures = FIGURES[kind]
        lines.append(
            f"- {kind}: {figures.flops_per_s / 1e12:,.0f} TFLOP/s in bfloat16, {figures.memory_bytes / 1e9:,.0f} GB "
            f"at {figures.bytes_per_s / 1e9:,.0f} GB/s, links {figures.link_bytes_per_s / 1e9:,.0f} GB/s "
            f"({figures.source})"
        )
    compilers = "; ".join(dict.fromkeys(row.compiler for row in rows))
    return [
        *lines,
        "",
        f"Assumed: {KERNEL_LAUNCH_S * 1e6:g} µs a kernel on a GPU. Not known to a compiler: disk, network between "
        f"hosts, decoding. Compilers: {compilers}.",
    ]


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows)]
