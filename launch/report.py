"""Tables, figures and one self-contained page from the artefacts of a workdir (report/index.html).

It needs no --config; one of another corpus than that of the workdir is refused.

With --table, one benchmark table from the result records of one or several workdirs instead, without a --config:

    python -m launch.report --table=targets --workdirs=runs/a,runs/b --out=tables
"""

import os
import sys

from absl import app, flags

from launch import cli, paths, plain
from seremo_jax.data import tables
from seremo_jax.reports import benchmark, benchmark_text, report

_TABLE = flags.DEFINE_enum("table", None, benchmark.NAMES, "a benchmark table instead of the report")
_WORKDIRS = flags.DEFINE_list("workdirs", [], "with --table: workdirs whose records make its rows")
_SPLIT = flags.DEFINE_string("split", "test", "with --table: split of its rows")
_MIXED = flags.DEFINE_bool("mixed", False, "with --table: rows of different protocol, flagged by footnotes")
_OUT = paths.define("out", None, "with --table: folder for NAME.md, NAME.csv and NAME.tex")


def main(config, workdir):
    """Writes the report and prints its main table."""
    if config is not None:
        tables.require_corpus(config, workdir)
    report.run(workdir)
    print(report.markdown_summary(workdir))


def table(arguments: list[str]) -> None:
    """Prints one benchmark table, and writes it where --out says."""
    if arguments or not _WORKDIRS.value:
        raise app.UsageError("--table needs --workdirs=A,B,... and no arguments")
    workdirs = [os.path.expanduser(place) for place in _WORKDIRS.value]
    built = benchmark.build(_TABLE.value, workdirs, _SPLIT.value, _MIXED.value)
    if _OUT.value:
        benchmark.write(built, _OUT.value)
    print(benchmark_text.markdown(built), end="")


if __name__ == "__main__":
    if any(argument.lstrip("-").partition("=")[0] == "table" for argument in sys.argv[1:]):
        plain.run(table)
    else:
        cli.run(main, needs_config=False)
