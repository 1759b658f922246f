"""Launchers as commands, without a process of their own."""

import contextlib
import io
import os
import re
import runpy
import sys
import traceback
from unittest import mock

from absl import flags


def run(launcher: str, *arguments: str | os.PathLike) -> tuple[int, str]:
    """Runs `python -m launch.LAUNCHER ARGUMENTS` in this process.

    JAX keeps the devices that it has, and `launch.train` the memory that it has.

    Returns:
      The exit code, and what was printed to both streams, a traceback where the process would have shown one.
    """
    # Flags belong to the process, so those of the launcher before would stand in the way.
    for module, defined in list(flags.FLAGS.flags_by_module_dict().items()):
        for flag in defined:
            is_ours = "launch" in re.split(r"\W", module) or flag.name.startswith("config.")
            if is_ours and flag.name in flags.FLAGS:
                delattr(flags.FLAGS, flag.name)
    for module in [name for name in sys.modules if name.partition(".")[0] == "launch"]:
        del sys.modules[module]
    output, code = io.StringIO(), 0
    argv = [f"launch/{launcher}.py", *map(os.fspath, arguments)]
    with (
        mock.patch.object(sys, "argv", argv),
        mock.patch.dict(os.environ, {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}),
        mock.patch("os.sched_getaffinity", return_value={0}),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(output),
    ):
        try:
            runpy.run_module(f"launch.{launcher}", run_name="__main__", alter_sys=True)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
            if isinstance(end.code, str):
                print(end.code)
        except BaseException:
            code = 1
            traceback.print_exc()
    return code, output.getvalue()
