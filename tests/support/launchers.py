"""Launchers as commands, without a process of their own."""

import contextlib
import io
import os
import re
import runpy
import sys
import traceback
import types
import warnings
from collections.abc import Iterator
from unittest import mock

from absl import flags


def run(launcher: str, *arguments: str | os.PathLike) -> tuple[int, str]:
    """Runs `python -m launch.LAUNCHER ARGUMENTS` in this process.

    JAX keeps the devices that it has, and `launch.train` the memory that it has.

    Returns:
      The exit code, and what was printed to both streams, a traceback where the process would have shown one.
    """
    output, code = io.StringIO(), 0
    argv = [f"launch/{launcher}.py", *map(os.fspath, arguments)]
    with (
        _no_launcher_yet(),
        mock.patch.object(sys, "argv", argv),
        mock.patch.dict(os.environ, {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}),
        mock.patch("os.sched_getaffinity", return_value={0}),
        warnings.catch_warnings(),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(output),
    ):
        # In a process of its own no warning is an error.
        warnings.simplefilter("ignore")
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


@contextlib.contextmanager
def _no_launcher_yet() -> Iterator[None]:
    """Without launchers and their flags, which belong to the process; those that were there come back at the end."""
    before = _take_out()
    try:
        yield
    finally:
        _take_out()
        found, modules = before
        for name, (flag, module) in found.items():
            flags.FLAGS[name] = flag
            flags.FLAGS.register_flag_by_module(module, flag)
        sys.modules.update(modules)


def _take_out() -> tuple[dict[str, tuple[flags.Flag, str]], dict[str, types.ModuleType]]:
    # The flags by name, each with the module that defines it, and the modules by name.
    found = {}
    for name in list(flags.FLAGS):
        module = flags.FLAGS.find_module_defining_flag(name) or ""
        if "launch" in re.split(r"\W", module) or name.startswith("config."):
            found[name] = flags.FLAGS[name], module
    for name in found:
        delattr(flags.FLAGS, name)
    names = [name for name in sys.modules if name.partition(".")[0] == "launch"]
    return found, {name: sys.modules.pop(name) for name in names}
