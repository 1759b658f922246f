"""Measures speed and memory beside peers and limits: JSON and Markdown, all in one interleaved run.

    python -m launch.bench --suite=backbones --out=bench

Peers are written in PyTorch as well as we can; without PyTorch (`pip install -e '.[parity]'`) their rows say so. Close
other programs first: rounds that other jobs disturb are repeated a few times, and marked where they cannot be had.
"""

import dataclasses
import importlib
import json
import os
import sys
from pathlib import Path

from absl import app, flags

SUITES = ("backbones", "corpora", "prediction")

_SUITE = flags.DEFINE_enum("suite", "all", ["all", *SUITES], "what to measure")
_OUT = flags.DEFINE_string("out", "", "writes OUT.json and OUT.md, too")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "rounds, of which the medians are reported", lower_bound=1)
_QUICK = flags.DEFINE_bool("quick", False, "small inputs: shows that everything runs, says nothing of speed")


def main(argv: list[str]) -> None:
    """Runs the suites and prints their tables."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}: see --help")
    from launch.suites import timing

    shared = Path(os.environ.get("SEREMO_SHARED", "../shared"))
    options = timing.Options(_ROUNDS.value, _QUICK.value, shared if shared.is_dir() else None)
    results = {}
    for name in SUITES if _SUITE.value == "all" else (_SUITE.value,):
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        results[name] = importlib.import_module(f"launch.suites.{name}").run(options)
    about = timing.machine()
    text = timing.to_markdown(about, results)
    print(text)
    if _OUT.value:
        rows = {name: [dataclasses.asdict(row) for row in rows] for name, rows in results.items()}
        Path(f"{_OUT.value}.json").write_text(
            json.dumps({"machine": about, "suites": rows}, indent=1), encoding="utf-8"
        )
        Path(f"{_OUT.value}.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    app.run(main)
