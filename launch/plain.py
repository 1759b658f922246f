"""For launchers without a config: runs them, and tells errors plainly instead of with a traceback."""

import sys
from collections.abc import Callable

from absl import app, logging

from launch import pipes
from seremo_jax.core import commands


def run(main: Callable[[list[str]], int | None]) -> None:
    """Parses the flags, runs `main` with the arguments that are no flags, and ends the process with its exit code."""

    def guarded(argv: list[str]) -> None:
        logging.set_verbosity(logging.WARNING)
        try:
            sys.exit(main(argv[1:]))
        except KeyboardInterrupt:
            sys.exit("interrupted: the same command goes on from here")
        except Exception as error:
            if pipes.is_unread(error):
                raise
            # Errors of ours and of the file system are written for the user; anything else is a bug with its trace.
            if not (type(error).__module__.startswith("seremo_jax") or isinstance(error, OSError)):
                raise
            sys.exit(commands.as_called(f"error: {error}"))

    module = sys.modules["__main__"]
    module.__doc__ = commands.as_called(module.__doc__)
    pipes.run(lambda: app.run(guarded))
