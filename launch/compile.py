"""Compiles the programs of a config for devices that are not here, and says what their compilers say: nothing is run.

    python -m launch.compile --config=configs/crema_d.py --workdir=DIR --target=v5e:2x4 --target=h100
    python -m launch.compile --config=configs/msp_podcast.py --utterances=264705 --seconds=5.7 --target=v5p:2x2x2

Extraction, training step, prediction and the end of an epoch are those that launch.extract and launch.train run. For
each: whether a device holds it, operations and bytes by the compiler's count, collectives, on a GPU its kernels, and
the least time by the device's published peaks. --fit searches how many members, and how large a batch of an extraction,
a device holds. A workdir needs the tables of launch.ingest, and nothing more. The compilers come with two extras,
aot-tpu and aot-cuda, for Python 3.12 or newer. A target is a slice of TPUs (v5e:2x4), a GPU (h100, h200, a100), the
GPUs of a host (h100:8), or hosts x GPUs (h100:8x8).
"""

import re
import sys

from absl import flags

from launch import cli, paths

_TARGETS = flags.DEFINE_multi_string("target", [], "devices to compile for, as v5e:2x4 or h100; may be given again")
_NUM = flags.DEFINE_integer("utterances", None, "draws so many utterances instead of reading a workdir", lower_bound=10)
_MEAN_S = flags.DEFINE_float("seconds", 5.7, "their mean length", lower_bound=0.1)
_RANGE_S = flags.DEFINE_string("range_s", "2.75,11", "their shortest and longest length, in seconds")
_PROGRAMS = flags.DEFINE_list("programs", [], "some of extract, train, predict, finish; left out, all of them")
_FIT = flags.DEFINE_bool("fit", False, "search the largest numbers of members and batches, too")
_OUT = paths.define("out", None, "folder for compiled.json and compiled.md; left out, that of the workdir, or none")
_PROCESSES = flags.DEFINE_integer("processes", 0, "compilers at once; 0: as many as there are cores", lower_bound=0)
_IS_PAIR = re.compile(r"\d+(\.\d*)?,\d+(\.\d*)?").fullmatch
flags.register_validator("range_s", lambda ends: bool(_IS_PAIR(ends)), "two lengths, as --range_s=2.75,11")


def main(config, workdir):
    """Compiles, prints the tables and writes them."""
    from seremo_jax.sweeps import targets

    if not _TARGETS.value:
        sys.exit(f"error: name a --target: {', '.join(targets.known())}; --help says more")
    if (workdir is None) == (_NUM.value is None):
        sys.exit("error: give either the --workdir of an ingested corpus or a number of --utterances")
    wanted = [targets.parse(name) for name in dict.fromkeys(_TARGETS.value)]
    for target in wanted:
        targets.require_compiler(target)
    targets.prepare()
    from seremo_jax.core import artefacts
    from seremo_jax.sweeps import compile_all, compiled_report, fit, programs

    names = _PROGRAMS.value or programs.PROGRAMS
    if unknown := set(names) - set(programs.PROGRAMS):
        sys.exit(f"error: --programs: {', '.join(sorted(unknown))} is none of {', '.join(programs.PROGRAMS)}")
    drawn = {}
    if workdir is None:
        shortest_s, longest_s = map(float, _RANGE_S.value.split(","))
        drawn = {"num_utterances": _NUM.value, "mean_s": _MEAN_S.value}
        drawn |= {"shortest_s": shortest_s, "longest_s": longest_s}
    source = compile_all.Source(config, workdir, **drawn)
    tasks = [(target, name) for target in wanted for name in names]
    about = compile_all.about(source)
    print(about["workload"], flush=True)
    rows = compile_all.run(
        source, tasks, compile_all.compile_one,
        lambda row: print(compiled_report.line(row), flush=True), _PROCESSES.value,
    )  # fmt: skip
    fits = []
    if _FIT.value:
        fits = compile_all.run(
            source, [task for task in tasks if task[1] in fit.SEARCHED], compile_all.fit_one,
            lambda found: print(compiled_report.fit_line(found), flush=True), _PROCESSES.value,
        )  # fmt: skip
    text = compiled_report.markdown(about, rows, fits)
    print(f"\n{text}")
    if (out := _OUT.value or workdir) is not None:
        folder = artefacts.place_of(out)
        artefacts.write_json(folder / "compiled.json", compiled_report.to_json(about, rows, fits))
        artefacts.write_text(folder / "compiled.md", text)
        print(f"{folder}/compiled.md")


if __name__ == "__main__":
    cli.run(main, needs_workdir=False)
