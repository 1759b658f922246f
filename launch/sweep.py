"""Trains and evaluates every point of a sweep, a generator `sweep_NAME()` beside the recipe (sweep/).

Points that differ in nothing but values of members train in one program. What is finished is skipped; a program that
fails is tried once more and reported, and does not stop the others. Ends with status 1 where something failed, and with
75 where a signal asked to stop: the same command goes on from there.
"""

import sys

from absl import flags

from launch import cli, pages
from launch.cores import num_cores

_SWEEP = flags.DEFINE_string("sweep", None, "sweep_NAME of the recipe; left out, the one that the workdir holds")
_INDEX = flags.DEFINE_integer("index", None, "run this program only, or with --num_tasks this task's share", 0)
_NUM_TASKS = flags.DEFINE_integer("num_tasks", None, "tasks, numbered without gaps, that share the programs", 1)
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "print the plan and start nothing")
_MOST = flags.DEFINE_integer("max_members", None, "members in a program at most; left out, what memory holds", 1)
flags.DEFINE_alias("dry-run", "dry_run")
flags.DEFINE_alias("max-members", "max_members")


def main(config, workdir):
    """Plans the sweep, and runs it or prints the plan."""
    from seremo_jax.core import artefacts, commands, preemption
    from seremo_jax.sweeps import algebra, cost, plan, run

    artefacts.require_disk(workdir, "a sweep")
    name = _SWEEP.value or run.name_in(workdir)
    points = algebra.read(cli.recipe(), name)
    prepare = None if _DRY_RUN.value else lambda: run.ingest_tables(config, workdir)
    planned = plan.plan(config, points, lambda program: _MOST.value or cost.most_members(program, workdir, prepare))
    if _DRY_RUN.value:
        print(commands.as_called(cost.describe(planned, workdir)))
        return
    manifest = run.record(workdir, name.removeprefix(algebra.PREFIX), planned)
    try:
        failures = run.run(workdir, manifest, _numbers(len(manifest["programs"])))
    except preemption.PreemptedError as notice:
        print(f"{notice}: saved, the same command goes on from there")
        sys.exit(75)
    print(f"{workdir}/{run.FOLDER}/leaderboard.md")
    if failures:
        sys.exit("failed:\n" + "\n".join(failures))


def _numbers(num_programs):
    if _NUM_TASKS.value is None:
        return range(num_programs) if _INDEX.value is None else [_INDEX.value]
    if _INDEX.value is None:
        sys.exit("error: --num_tasks says how many share the work; say which one this is, too: --index")
    return range(_INDEX.value % _NUM_TASKS.value, num_programs, _NUM_TASKS.value)


if __name__ == "__main__":
    pages.restart()
    cli.run(main, num_cpu_devices=num_cores())
