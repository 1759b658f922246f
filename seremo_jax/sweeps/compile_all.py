"""Several programs for several targets, compiled side by side in processes of their own.

JAX takes its platforms at its start, so call `targets.prepare` before this module is imported.
"""

import concurrent.futures
import dataclasses
import functools
import multiprocessing
import os
from collections.abc import Callable, Sequence
from typing import Any

from seremo_jax.core import artefacts
from seremo_jax.core.config import Config
from seremo_jax.sweeps import compiled, fit, programs, targets, workload
from seremo_jax.sweeps import compiled_report as reporting
from seremo_jax.sweeps.targets import Target, TargetError
from seremo_jax.sweeps.workload import Workload
from seremo_jax.training.fitting import Judge
from seremo_jax.training.memory import Records

Names = tuple[str, ...]
Job = Callable[[Any, Target, list[Any], Judge, Names], Any]


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
    source: Source, tasks: Sequence[tuple[Target, Names]], job: Job, tell: Callable[[Any], None],
    num_processes: int = 0,
) -> list[Any]:  # fmt: skip
    """Results of a job for every task, in their order; each is told of as soon as it is there.

    Args:
      source: The workload.
      tasks: Targets with names of programs, from `tasks_of`.
      job: Function of (workload, target, devices, judge, names), importable by name.
      tell: Called with each result.
      num_processes: Processes at once; 0 takes as many as there are cores.

    Raises:
      TargetError: A compiler ended its process.
    """
    most = num_processes or len(os.sched_getaffinity(0))
    context = multiprocessing.get_context("spawn")
    results: dict[int, Any] = {}
    with concurrent.futures.ProcessPoolExecutor(min(most, len(tasks)), context, targets.prepare) as pool:
        futures = {pool.submit(_do, source, target, names, job): number for number, (target, names) in enumerate(tasks)}
        try:
            for future in concurrent.futures.as_completed(futures):
                results[futures[future]] = future.result()
                tell(results[futures[future]])
        except concurrent.futures.process.BrokenProcessPool as error:
            left = ", ".join(f"{t.name} {'/'.join(names)}" for i, (t, names) in enumerate(tasks) if i not in results)
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


def tasks_of(wanted: Sequence[Target], names: Sequence[str]) -> list[tuple[Target, Names]]:
    """Each target with the extraction, and with the programs of the training, which one process compiles together."""
    groups = [tuple(name for name in names if (name == programs.EXTRACT) == is_first) for is_first in (True, False)]
    return [(target, group) for target in wanted for group in groups if group]


def compile_together(
    work: Workload, target: Target, devices: list[Any], judge: Judge, names: Names
) -> list[compiled.Compiled]:
    """A job: programs at the sizes of the config."""
    known: dict[str, programs.Program] = {}
    if programs.EXTRACT in names:
        known[programs.EXTRACT] = programs.extraction(work, target.platform, devices)
    if set(names) - {programs.EXTRACT}:
        known |= programs.training(work, target.platform, devices, judge)
    return [compiled.compile_program(known[name], target, devices[0], judge.records) for name in names]


def fit_together(
    work: Workload, target: Target, devices: list[Any], judge: Judge, names: Names
) -> list[dict[str, Any]]:
    """A job: the largest sizes of programs."""
    judge = dataclasses.replace(judge, records=Records())  # keeps no executable
    return [fit.search(work, target, devices, judge, name) for name in names if name in fit.SEARCHED]


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
    tell = functools.partial(_print_each, reporting.line)
    rows = _joined(run(source, tasks_of(wanted, names), compile_together, tell, num_processes))
    fits = []
    if is_searched and (searched := [name for name in names if name in fit.SEARCHED]):
        tell = functools.partial(_print_each, reporting.fit_line)
        fits = _joined(run(source, tasks_of(wanted, searched), fit_together, tell, num_processes))
    if source.workdir is not None:
        Records(source.workdir).add({row.key: row.memory for row in rows})
    text = reporting.markdown(about, rows, fits)
    if out is not None:
        folder = artefacts.place_of(out)
        artefacts.write_json(folder / "compiled.json", reporting.to_json(about, rows, fits))
        artefacts.write_text(folder / "compiled.md", text)
    return text


def _print_each(line: Callable[[Any], str], results: list[Any]) -> None:
    for result in results:
        print(line(result), flush=True)


def _joined(parts: Sequence[list[Any]]) -> list[Any]:
    return [result for part in parts for result in part]


_made: dict[str, Any] = {}
"""Workload of this process, and the target that it is at with its devices and judge, so that a target's programs plan
their batches once and are compiled once. Executables of other targets are let go."""


def _do(source: Source, target: Target, names: Names, job: Job) -> Any:
    if "workload" not in _made:
        _made["workload"] = source.workload()
    if _made.get("target") != target:
        devices = target.devices()
        _made["judged"] = devices, Judge(compiled.Compilers(), target.usable_bytes, devices[0])
        _made["target"] = target
    return job(_made["workload"], target, *_made["judged"], names)
