"""Several programs for several targets, compiled side by side in processes of their own.

JAX takes its platforms at its start, so call `targets.prepare` before this module is imported.
"""

import concurrent.futures
import dataclasses
import multiprocessing
import os
from collections.abc import Callable, Sequence
from typing import Any

from seremo_jax.core import artefacts
from seremo_jax.core.config import Config
from seremo_jax.sweeps import compiled, fit, programs, targets, workload
from seremo_jax.sweeps import compiled_report as reporting
from seremo_jax.sweeps.compiled import Compiled
from seremo_jax.sweeps.targets import Target, TargetError
from seremo_jax.sweeps.workload import Workload


@dataclasses.dataclass(frozen=True)
class Source:
    """Where a workload comes from; small, so that it can be sent to a process.

    Attributes:
      config: The experiment.
      workdir: Folder with its tables; None draws a corpus.
      num_utterances, mean_s, shortest_s, longest_s: The corpus that is drawn.
    """

    config: Config
    workdir: str | None = None
    num_utterances: int = 0
    mean_s: float = 0.0
    shortest_s: float = 0.0
    longest_s: float = 0.0

    def workload(self) -> Workload:
        """The workload, made anew."""
        if self.workdir is not None:
            return workload.of_workdir(self.config, self.workdir)
        return workload.drawn(self.config, self.num_utterances, self.mean_s, self.shortest_s, self.longest_s)


def run(
    source: Source, tasks: Sequence[tuple[Target, str]], job: Callable[[Any, Target, list[Any], str], Any],
    tell: Callable[[Any], None], num_processes: int = 0,
) -> list[Any]:  # fmt: skip
    """Results of a job for every task, in their order; each is told of as soon as it is there.

    Args:
      source: The workload.
      tasks: Targets with names of programs.
      job: Function of (workload, target, devices, name), importable by name.
      tell: Called with each result.
      num_processes: Processes at once; 0 takes as many as there are cores.

    Raises:
      TargetError: A compiler ended its process.
    """
    most = num_processes or len(os.sched_getaffinity(0))
    context = multiprocessing.get_context("spawn")
    results: dict[int, Any] = {}
    with concurrent.futures.ProcessPoolExecutor(min(most, len(tasks)), context, targets.prepare) as pool:
        futures = {pool.submit(_do, source, target, name, job): number for number, (target, name) in enumerate(tasks)}
        try:
            for future in concurrent.futures.as_completed(futures):
                results[futures[future]] = future.result()
                tell(results[futures[future]])
        except concurrent.futures.process.BrokenProcessPool as error:
            left = ", ".join(f"{t.name} {name}" for i, (t, name) in enumerate(tasks) if i not in results)
            raise TargetError(
                f"a compiler ended its process, at work were {left}: often for want of memory on this machine; "
                "give fewer --target at once, or --processes=1"
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            # A compiler at work does not hear of it, and may take minutes.
            for process in multiprocessing.active_children():
                process.terminate()
            raise
    return [results[number] for number in range(len(tasks))]


def compile_one(work: Workload, target: Target, devices: list[Any], name: str) -> Compiled:
    """A job: one program at the sizes of the config."""
    return compiled.compile_program(programs.program(work, target, devices, name), target)


def fit_one(work: Workload, target: Target, devices: list[Any], name: str) -> dict[str, Any]:
    """A job: the largest size of one program."""
    return fit.search(work, target, devices, name)


def report(
    source: Source,
    wanted: Sequence[Target],
    names: Sequence[str] = (),
    is_searched: bool = False,
    num_processes: int = 0,
    out: str | None = None,
) -> str:
    """The report on programs for targets, as Markdown; progress is printed.

    Args:
      source: The workload.
      wanted: The targets.
      names: Names of programs; none means all.
      is_searched: Whether the largest sizes are searched, too.
      num_processes: As in `run`.
      out: Folder that `compiled.json` and `compiled.md` are written to; None writes nothing.

    Raises:
      TargetError: A name is that of no program, or a compiler ended its process.
    """
    names = names or programs.PROGRAMS
    if unknown := sorted(set(names) - set(programs.PROGRAMS)):
        raise TargetError(f"--programs: {', '.join(unknown)} is none of {', '.join(programs.PROGRAMS)}")
    work = source.workload()
    about = {"workload": work.about, "notes": list(work.notes), "backbone": source.config.backbone.name}
    print(work.about, flush=True)
    tasks = [(target, name) for target in wanted for name in names]
    rows = run(source, tasks, compile_one, lambda row: print(reporting.line(row), flush=True), num_processes)
    fits = []
    if is_searched and (searched := [task for task in tasks if task[1] in fit.SEARCHED]):
        fits = run(source, searched, fit_one, lambda found: print(reporting.fit_line(found), flush=True), num_processes)
    text = reporting.markdown(about, rows, fits)
    if out is not None:
        folder = artefacts.place_of(out)
        artefacts.write_json(folder / "compiled.json", reporting.to_json(about, rows, fits))
        artefacts.write_text(folder / "compiled.md", text)
    return text


_made: dict[str, Any] = {}
"""Workload and devices of this process, so that a target's programs plan their batches once."""


def _do(source: Source, target: Target, name: str, job: Callable[[Any, Target, list[Any], str], Any]) -> Any:
    if "workload" not in _made:
        _made["workload"] = source.workload()
    if target.name not in _made:
        _made[target.name] = target.devices()
    return job(_made["workload"], target, _made[target.name], name)
