"""A suite of the benchmark: its parts one after the other until its time is up, and its rows as a table."""

import dataclasses
import gc
import importlib
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from launch.bench import timing
from launch.bench.timing import Timed, TimeIsUp
from launch.cores import num_cores

LEFT_OUT = "left out, not measured: the time of the suite was up (--minutes)"


@dataclasses.dataclass
class Row:
    """One line of the table.

    Attributes:
      name: What is measured.
      figures: Label -> number, seconds unless the label says otherwise.
      ratio: How many times faster ours is than the other, or None.
      target: What the ratio should be at least, or None.
      note: What a reader must know.
    """

    name: str
    figures: dict[str, float] = dataclasses.field(default_factory=dict)
    ratio: float | None = None
    target: float | None = None
    note: str = ""


class Part(NamedTuple):
    """Rows that share what must be set up to measure them.

    Attributes:
      names: Names of the rows, in order. They are known before anything is measured, so that a row for which no time
        is left can be listed.
      measure: Yields the rows. What it sets up counts as time of the suite.
    """

    names: tuple[str, ...]
    measure: Callable[[], Iterable[Row]]


@dataclasses.dataclass
class Session:
    """How a suite measures, and until when.

    Attributes:
      rounds: Rounds of which the medians are reported; None leaves the number to each part.
      is_quick: Small inputs, to show that everything runs.
      shared: Folder of real data and weights, or None.
      minutes: Time of the suite.
      deadline_s: When that is over, on the clock of `time.monotonic`.
      label: Suite and number of the part, for progress; nothing is shown without one.
    """

    rounds: int | None = None
    is_quick: bool = False
    shared: Path | None = None
    minutes: float = 5.0
    deadline_s: float = math.inf
    label: str = ""

    def interleave(
        self, row: str, cases: Mapping[str, Callable[[], Any]], rounds: int = 5, pids: tuple[int, ...] = ()
    ) -> Timed:
        """Times cases in turn, see `timing.interleave`.

        Args:
          row: Name of the row that is measured, for progress.
          cases: Name -> what to time.
          rounds: Rounds by default, where the command says nothing.
          pids: Processes that work for a case.
        """
        label = f"{self.label}: {row}" if self.label else ""
        most_tries = 1 if self.is_quick else timing.MOST_TRIES
        return timing.interleave(cases, self.rounds or rounds, pids, self.deadline_s, label, most_tries)

    def in_own_process(self, function: str, *arguments: Any, on_cpu: bool = False) -> list[float]:
        """Calls a function of a suite in a process of its own, so that its memory is its own, imports included.

        Args:
          function: Its name with that of its module, `evaluation.measure`.
          arguments: What it is called with, as JSON has it.
          on_cpu: Keeps JAX off accelerators.

        Returns:
          The numbers that it returns.

        Raises:
          TimeIsUp: It was not done when the time of the suite was up.
        """
        module = function.partition(".")[0]
        code = f"import json, sys; from launch.bench import {module}; "
        code += f"print(json.dumps({function}(*json.loads(sys.argv[1]))))"
        environment = os.environ | ({"JAX_PLATFORMS": "cpu"} if on_cpu else {})
        left_s = None if math.isinf(self.deadline_s) else max(self.deadline_s - time.monotonic(), 0.0)
        try:
            done = subprocess.run(
                [sys.executable, "-c", code, json.dumps(arguments)],
                stdout=subprocess.PIPE, text=True, check=True, env=environment, timeout=left_s,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise TimeIsUp from None
        return json.loads(done.stdout.splitlines()[-1])


def run(name: str, session: Session) -> tuple[list[Row], dict[str, Any]]:
    """Rows of a suite, and the machine; JAX sees a device a core where the suite spreads members over devices."""
    session.deadline_s = time.monotonic() + 60 * session.minutes
    if session.is_quick:
        # Compiling is nearly all that small inputs cost. JAX reads this as it is imported, also in other processes.
        os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    import jax

    from launch.bench import machine

    suite = importlib.import_module(f"launch.bench.{name}")
    if getattr(suite, "USES_A_DEVICE_A_CORE", False):
        jax.config.update("jax_num_cpu_devices", num_cores())
    return measure(name, suite.parts(session), session), machine.describe()


def measure(name: str, parts: list[Part], session: Session) -> list[Row]:
    """The rows of all parts; those for which no time is left are listed as left out.

    Raises:
      RuntimeError: A part yields other rows than it names.
    """
    rows: list[Row] = []
    for number, part in enumerate(parts, 1):
        session.label = f"{name} {number}/{len(parts)}"
        measured: list[Row] = []
        if time.monotonic() < session.deadline_s:
            print(f"{session.label}: {part.names[0]} ...", file=sys.stderr, flush=True)
            try:
                for row in part.measure():
                    measured.append(row)
            except TimeIsUp:
                print(f"{session.label}: the time is up", file=sys.stderr, flush=True)
        left_out = [Row(name, note=LEFT_OUT) for name in part.names[len(measured) :]]
        if tuple(row.name for row in [*measured, *left_out]) != part.names:
            raise RuntimeError(f"{[row.name for row in measured]} were measured instead of {list(part.names)}")
        rows += [*measured, *left_out]
        gc.collect()  # the next part needs the memory
    return rows


def to_markdown(about: Mapping[str, Any], suites: Mapping[str, list[Row]]) -> str:
    """The rows as tables, with the machine above."""
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    lines = [
        f"{about['processor']}, {about['cores']} cores, devices {', '.join(about['devices'])}; "
        f"Python {about['python']}, {versions}.",
        "Medians of interleaved rounds; a ratio above 1 means that ours is faster.",
    ]
    for suite, rows in suites.items():
        lines += ["", f"## {suite}", "", "| what | figures | ratio | target | note |", "|---|---|---|---|---|"]
        for row in rows:
            figures = ", ".join(f"{label} {number:.4g}" for label, number in row.figures.items())
            ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
            target = "" if row.target is None else f">= {row.target:g}"
            lines.append(f"| {row.name} | {figures} | {ratio} | {target} | {row.note} |")
    return "\n".join(lines) + "\n"
