"""Compiles the programs of a config for devices that are not here, and says what their compilers say: nothing is run.

    python -m launch.compile --config=configs/crema_d.py --workdir=DIR --target=v5e:2x4 --target=h100
    python -m launch.compile --config=configs/msp_podcast.py --utterances=264705 --seconds=5.7 --target=v5p:2x2x2

Extraction, training step, prediction and the end of an epoch are those that launch.extract and launch.train run. For
each: whether a device holds it, operations and bytes by the compiler's count, collectives, on a GPU its kernels, and
the least time by the device's published peaks. A workdir needs the tables of launch.ingest. The compilers come with the
extras aot-tpu and aot-cuda, for Python 3.12 or newer. A target is a slice of TPUs (v5e:2x4), a GPU (h100, h200, a100),
the GPUs of a host (h100:8), or hosts x GPUs (h100:8x8).
"""

import sys

from absl import flags

from launch import cli, paths

_TARGETS = flags.DEFINE_multi_string("target", [], "devices to compile for, as v5e:2x4 or h100; may be given again")
_NUM = flags.DEFINE_integer("utterances", None, "draws so many utterances instead of reading a workdir", lower_bound=10)
_MEAN_S = flags.DEFINE_float("seconds", 5.7, "their mean length")
_SHORTEST_S = flags.DEFINE_float("shortest_s", 2.75, "their shortest length, in seconds")
_LONGEST_S = flags.DEFINE_float("longest_s", 11.0, "their longest length, in seconds")
_PROGRAMS = flags.DEFINE_list("programs", [], "some of extract, train, predict, finish; left out, all of them")
_FIT = flags.DEFINE_bool("fit", False, "search the largest number of members and batch of an extraction, too")
_OUT = paths.define("out", None, "folder for compiled.json and compiled.md; left out, that of the workdir, or none")
_PROCESSES = flags.DEFINE_integer("processes", 0, "compilers at once; 0: as many as there are cores", lower_bound=0)


def main(config, workdir):
    """Compiles, prints the tables and writes them."""
    from seremo_jax.sweeps import targets

    if (workdir is None) == (_NUM.value is None):
        sys.exit("error: give either the --workdir of an ingested corpus or a number of --utterances")
    wanted = targets.parse_all(_TARGETS.value)
    targets.prepare()
    from seremo_jax.sweeps import compile_all

    drawn = () if workdir else (_NUM.value, _MEAN_S.value, _SHORTEST_S.value, _LONGEST_S.value)
    source = compile_all.Source(config, workdir, *drawn)
    out = _OUT.value or workdir
    print(compile_all.report(source, wanted, _PROGRAMS.value, _FIT.value, _PROCESSES.value, out))


if __name__ == "__main__":
    cli.run(main, needs_workdir=False)
