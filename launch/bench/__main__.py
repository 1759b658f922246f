"""Measures speed and memory beside peers and limits: JSON and Markdown, all in one interleaved run.

    python -m launch.bench --suite=backbones --out=bench

Peers are written in PyTorch as well as we can; without PyTorch (`pip install -e '.[parity]'`) their rows say so. Close
other programs first: rounds that other jobs disturb are repeated a few times, and marked where they cannot be had.
"""

import concurrent.futures
import dataclasses
import json
import multiprocessing
import os
import sys
from pathlib import Path

from absl import app, flags

SUITES = ("backbones", "corpora", "train", "saliency", "loader", "evaluation", "prediction")
ON_REQUEST = ("crema70",)

_SUITE = flags.DEFINE_enum("suite", "all", ["all", *SUITES, *ON_REQUEST], "what to measure")
_OUT = flags.DEFINE_string("out", "", "writes OUT.json and OUT.md, too")
_ROUNDS = flags.DEFINE_integer(
    "rounds", 5, "rounds, of which the medians are reported (crema70: epochs)", lower_bound=1
)
_QUICK = flags.DEFINE_bool("quick", False, "small inputs: shows that everything runs, says nothing of speed")


def main(argv: list[str]) -> None:
    """Runs the suites and prints their tables."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}: see --help")
    from launch import pages
    from launch.bench import timing

    # As training runs; peers in the same process have them, too.
    pages.ask()

    shared = Path(os.environ.get("SEREMO_SHARED", "../shared"))
    options = timing.Options(_ROUNDS.value, _QUICK.value, shared if shared.is_dir() else None)
    results = {}
    for name in SUITES if _SUITE.value == "all" else (_SUITE.value,):
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        # In a process of its own: a suite decides what JAX sees of the processor, and leaves no memory behind.
        with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            results[name], about = pool.submit(timing.run_suite, name, options).result()
    text = timing.to_markdown(about, results)
    print(text)
    if _OUT.value:
        rows = {name: [dataclasses.asdict(row) for row in rows] for name, rows in results.items()}
        content = json.dumps({"machine": about, "suites": rows}, indent=1)
        Path(f"{_OUT.value}.json").write_text(content, encoding="utf-8")
        Path(f"{_OUT.value}.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    app.run(main)
