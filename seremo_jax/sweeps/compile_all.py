"""Several programs for several targets, compiled side by side in processes of their own.

JAX takes its platforms at its start, so call `targets.prepare` before this module is imported.
"""

import concurrent.futures
import dataclasses
import multiprocessing
import os
from collections.abc import Callable, Sequence
from typing import Any

from seremo_jax.core.config import Config
from seremo_jax.sweeps import compiled, fit, programs, targets, workload
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


def about(source: Source) -> dict[str, Any]:
    """What is compiled, in words, for the report."""
    work = source.workload()
    return {"workload": work.about, "notes": list(work.notes), "backbone": source.config.backbone.name}


_made: dict[str, Any] = {}
"""Workload and devices of this process, so that a target's programs plan their batches once."""


def _do(source: Source, target: Target, name: str, job: Callable[[Any, Target, list[Any], str], Any]) -> Any:
    if "workload" not in _made:
        _made["workload"] = source.workload()
    if target.name not in _made:
        _made[target.name] = target.devices()
    return job(_made["workload"], target, _made[target.name], name)
