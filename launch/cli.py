"""What every launcher shares: flags, strict config, plain errors instead of tracebacks."""

import dataclasses
import difflib
import errno
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from absl import app, flags, logging
from ml_collections import config_flags

from launch import paths, pipes, recipe_files
from seremo_jax.core import commands, compiled_programs
from seremo_jax.core.artefacts import in_bucket, require_place
from seremo_jax.core.config import Config, describe, from_config_dict
from seremo_jax.sweeps import targets

_RECIPES = (
    "RECIPE is configs/NAME.py[:VARIANT], a file of the current folder or else the package's own recipe of that name; "
    "python -m launch.recipes lists them."
)


class _RecipeParser(flags.ArgumentParser):
    """Reads a recipe of the current folder, or of the package."""

    def __init__(self, parser: flags.ArgumentParser):
        self._parser = parser

    def parse(self, path: str) -> Any:
        """The recipe's settings."""
        return self._parser.parse(recipe_files.find(path))


_CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "recipe, with its variant: configs/NAME.py[:arg]; a file of the current folder, else the package's of that name",
)
flags.FLAGS["config"].parser = _RecipeParser(flags.FLAGS["config"].parser)
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed",
    False,
    "this is one of several processes: found out from the cluster (Slurm, TPU pod, GKE), or from the environment "
    "variables JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID",
)
_COMPILED = flags.DEFINE_string(
    "compilation_cache", "auto", "folder for compiled programs, or off; auto: compiled/ in the workdir"
)
_WORKDIR = paths.define(
    "workdir", None, "folder for every artefact of this experiment; or gs://BUCKET/FOLDER, s3://, az://"
)


def run(
    stage: Callable[[Config | None, str | None], None],
    num_cpu_devices: int = 1,
    needs_workdir: bool = True,
    needs_config: bool = True,
) -> None:
    """Parses the flags, runs `stage(config, workdir)`, and ends the process.

    Args:
      stage: The work.
      num_cpu_devices: Devices JAX should split the processor into; 0 leaves JAX alone.
      needs_workdir: Whether a workdir must be given; without one it is None.
      needs_config: Whether a recipe must be given; without one it is None.
    """

    def main(argv: list[str]) -> None:
        logging.set_verbosity(logging.WARNING)
        if len(argv) > 1:
            raise app.UsageError(f"unexpected argument {argv[1]!r}: settings are given as --config.section.field=value")
        try:
            config = None if _CONFIG.value is None else from_config_dict(_CONFIG.value)
            if _WORKDIR.value is not None:
                require_place(_WORKDIR.value)
            _keep_compiled(_COMPILED.value, _WORKDIR.value)
            if not {"XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION"} & os.environ.keys():
                os.environ["XLA_CLIENT_MEM_FRACTION"] = str(targets.GPU_SHARE)
            if num_cpu_devices > 1:
                import jax

                jax.config.update("jax_num_cpu_devices", num_cpu_devices)
            if _DISTRIBUTED.value:
                _join_processes()
            stage(config, _WORKDIR.value)
        except KeyboardInterrupt:
            _stop("interrupted: the same command goes on from here")
        except Exception as error:
            if pipes.is_unread(error):
                if not _DISTRIBUTED.value:
                    raise
                os._exit(pipes.EXIT_CODE)
            if os.strerror(errno.ENOSPC) in str(error) and not str(error).startswith("no space left"):
                where = f"{type(error).__name__}, --workdir={_WORKDIR.value}"
                _stop(
                    f"error: no space left on the disk ({where}): free some, or choose another --workdir. "
                    "What is finished is whole; the same command goes on from there"
                )
            # Errors of ours and of the file system are written for the user; anything else is a bug with its trace.
            if not (type(error).__module__.startswith("seremo_jax") or isinstance(error, OSError)):
                if not _DISTRIBUTED.value:
                    raise
                _stop(traceback.format_exc())
            _stop(f"error: {error}")

    module = sys.modules["__main__"]
    needed = ["--config=RECIPE"] * needs_config + ["--workdir=DIR"] * needs_workdir
    name = module.__spec__.name if module.__spec__ else "launch"
    usage = " ".join([f"usage: python -m {name}", *needed, "[--FLAG=VALUE ...]"])
    text = f"{usage}\n\n{module.__doc__}\n\n{_RECIPES}\n\nConfig fields and their defaults:\n{describe()}"
    module.__doc__ = commands.as_called(text).replace("%", "%%")
    flags.mark_flags_as_required(["config"] * needs_config + ["workdir"] * needs_workdir)
    pipes.run(lambda: app.run(main, flags_parser=_parse))


def _parse(argv: list[str]) -> list[str]:
    """Parses the flags; what is wrong with one, in a recipe too, ends the process with one line and no traceback."""
    try:
        rest = flags.FLAGS(argv)
    except Exception as error:
        if pipes.is_unread(error):
            raise
        sys.exit(f"error: {_in_words(error, argv)}")
    # A recipe that is not there raises only where its settings are read, and in many words.
    if recipe() and not os.path.isfile(recipe()):
        near = difflib.get_close_matches(recipe(), recipe_files.names(), n=1)
        hint = f"did you mean {near[0]}?" if near else "python -m launch.recipes lists them"
        text = f"error: --config: there is no file {recipe()} here, and no such recipe in the package; {hint}"
        sys.exit(commands.as_called(text))
    return rest


def _in_words(error: Exception, argv: Sequence[str]) -> str:
    """What was wrong with the recipe, or with a field that a flag overrides, with the nearest field."""
    known = {
        f"{section.name}.{field.name}"
        for section in dataclasses.fields(Config)
        for field in dataclasses.fields(section.type)
    }
    for argument in argv[1:]:
        path = argument.lstrip("-").partition("=")[0].removeprefix("config.")
        if argument.lstrip("-").startswith("config.") and path not in known:
            near = difflib.get_close_matches(path, known, n=1, cutoff=0.5)
            hint = f"; did you mean --config.{near[0]}?" if near else "; --help lists every field"
            return f"unknown config field --config.{path}{hint}"
    text = str(error)
    # ml_collections puts the whole traceback of a recipe into its message; the last line says what was wrong.
    words = text.strip().splitlines()[-1] if "Traceback" in text else " ".join(text.split())
    if isinstance(error, flags.Error):
        return f"{words} (--help lists every flag)"
    recipe = next((argument for argument in argv if argument.lstrip("-").startswith("config=")), "--config")
    return f"{recipe}: {type(error).__name__}: {words}"


def _stop(message: str) -> NoReturn:
    """Ends this process with an error; one of several at once, as JAX would wait for the others, and they for it."""
    if _DISTRIBUTED.value:
        print(commands.as_called(message), file=sys.stderr, flush=True)
        os._exit(1)
    sys.exit(commands.as_called(message))


def _keep_compiled(where: str, workdir: str | None) -> None:
    """Has compiled programs kept in a folder, so that the next command reads them; JAX is not imported for it."""
    name = "JAX_COMPILATION_CACHE_DIR"
    if where == "auto":
        where = os.environ.get(name) or (os.path.join(workdir, "compiled") if workdir else "off")
    # A folder that the environment names is other programs', too; those in a bucket are JAX's own business.
    is_ours = where not in ("off", os.environ.get(name)) and not in_bucket(where)
    if is_ours and (removed := compiled_programs.remove_damaged(Path(where))):
        logging.warning("compiled again, for they were damaged in %s: %s", where, ", ".join(removed))
    if where == "off":
        os.environ.pop(name, None)
    else:
        os.environ[name] = where
    if "jax" in sys.modules:
        sys.modules["jax"].config.update(name.lower(), os.environ.get(name))


def _join_processes() -> None:
    """Makes this process one of several that JAX knows of."""
    import jax

    address, number, count = os.environ.get("JAX_COORDINATOR_ADDRESS"), None, None
    if address:
        names = ("JAX_PROCESS_ID", "JAX_NUM_PROCESSES")
        try:
            number, count = (int(os.environ[name]) for name in names)
        except (KeyError, ValueError):
            sys.exit(f"error: JAX_COORDINATOR_ADDRESS is set, so {' and '.join(names)} must be whole numbers")
    jax.distributed.initialize(address, count, number)


def asked() -> frozenset[str]:
    """Fields that the command line asks for beyond the recipe, as `section.name`."""
    return frozenset(config_flags.get_override_values(flags.FLAGS["config"]))


def recipe() -> str:
    """File of the recipe, in the current folder or in the package, without its variant; empty where none is given."""
    if flags.FLAGS["config"].value is None:
        return ""
    return recipe_files.find(config_flags.get_config_filename(flags.FLAGS["config"])).partition(":")[0]
