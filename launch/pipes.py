"""Output that nobody reads any more, as behind `| head`: a launcher ends quietly then, as programs of a shell do."""

import contextlib
import os
import select
import signal
import sys
from collections.abc import Callable

EXIT_CODE = 128 + signal.SIGPIPE
"""What a shell says of a program that SIGPIPE ended."""


def run(main: Callable[[], None]) -> None:
    """Runs a launcher until its last word is written.

    Raises:
      SystemExit: The launcher's own; or with `EXIT_CODE` where nobody reads its output any more.
    """
    try:
        try:
            main()
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except BaseException as error:
        if not is_unread(error):
            raise
        _silence()
        # A launcher that failed before its last words were written fails with its own code.
        own = error.__context__
        if isinstance(own, SystemExit) and own.code not in (None, 0):
            raise own from None
        sys.exit(EXIT_CODE)


def is_unread(error: BaseException | None) -> bool:
    """Whether an error comes from output or progress that nobody reads; a broken connection elsewhere is another."""
    while error is not None and not isinstance(error, BrokenPipeError):
        error = error.__cause__ or error.__context__
    return error is not None and any(map(_is_broken, (1, 2)))


def _is_broken(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _silence() -> None:
    """Lets the interpreter write what is left in its buffers as it ends, to nowhere."""
    with contextlib.suppress(OSError), open(os.devnull, "wb") as nowhere:
        for descriptor in filter(_is_broken, (1, 2)):
            os.dup2(nowhere.fileno(), descriptor)
