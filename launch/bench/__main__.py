"""Measures speed and memory beside peers and limits: JSON and Markdown, all in one interleaved run.

    python -m launch.bench --suite=train,loader --out=bench

A suite ends within --minutes: rows say how many rounds they have where there was no time for all, and what was not
begun is listed as left out. Peers are written in PyTorch as well as we can; without PyTorch
(`pip install -e '.[parity]'`) their rows say so. Close other programs first: rounds that other jobs disturb are
repeated a few times, and marked where no quiet one is to be had.
"""

import concurrent.futures
import dataclasses
import json
import multiprocessing
import os
import sys
from pathlib import Path

from absl import app, flags

from launch import plain

SUITES = ("backbones", "extraction", "train", "corpora", "saliency", "loader", "evaluation", "prediction")

_SUITE = flags.DEFINE_list("suite", ["all"], f"what to measure: all, or some of {', '.join(SUITES)}")
_OUT = flags.DEFINE_string("out", "", "writes OUT.json and OUT.md, too")
_MINUTES = flags.DEFINE_float("minutes", 5.0, "time of each suite, at most", lower_bound=0.0)
_ROUNDS = flags.DEFINE_integer(
    "rounds", None, "rounds, of which the medians are reported; left out, 3 of what takes long and 5 of the rest", 1
)
_QUICK = flags.DEFINE_bool("quick", False, "small inputs: shows that everything runs, says nothing of speed")


@flags.validator("suite")
def _has_suites(names: list[str]) -> bool:
    unknown = sorted(set(names) - {"all", *SUITES})
    if unknown or not names:
        raise flags.ValidationError(
            f"there is no suite {', '.join(unknown)}: choose all, or some of {', '.join(SUITES)}"
        )
    return True


def main(arguments: list[str]) -> None:
    """Runs the suites and prints their tables."""
    if arguments:
        raise app.UsageError(f"unexpected argument {arguments[0]!r}: see --help")
    from launch import pages
    from launch.bench import suite
    from launch.cores import num_cores

    # As training runs; peers in the same process have them, too.
    pages.ask()

    shared = Path(os.environ.get("SEREMO_SHARED", "../shared"))
    session = suite.Session(_ROUNDS.value, _QUICK.value, shared if shared.is_dir() else None, _MINUTES.value)
    names = SUITES if "all" in _SUITE.value else tuple(dict.fromkeys(_SUITE.value))
    print(f"{', '.join(names)}: {_MINUTES.value:g} minutes each at most", file=sys.stderr, flush=True)
    results = {}
    # Each in a process of its own: a suite decides what JAX sees of the processor, and leaves no memory behind. They
    # run at the same time only where nothing is said of speed.
    num_at_once = num_cores() if _QUICK.value else 1
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(num_at_once, context, max_tasks_per_child=1) as pool:
        waiting = {name: pool.submit(suite.run, name, session) for name in names}
        for name, future in waiting.items():
            results[name], about = future.result()
            text = suite.to_markdown(about, results)
            if _OUT.value:
                rows = {name: [dataclasses.asdict(row) for row in rows] for name, rows in results.items()}
                content = json.dumps({"machine": about, "suites": rows}, indent=1)
                Path(f"{_OUT.value}.json").write_text(content, encoding="utf-8")
                Path(f"{_OUT.value}.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    plain.run(main)
