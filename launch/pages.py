"""Large pages of memory for the big, short-lived arrays of a training step.

XLA asks for a step's temporaries anew each time, and the system hands them out in pages of 4 kB: at 1,024 features and
32 utterances that was a fifth of a step's processor time. glibc's allocator takes pages of 2 MB instead where asked to.
"""

import os
import sys

_NAME, _VALUE = "GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"


def ask() -> bool:
    """Asks for large pages in processes to come; whether they had not been asked for yet."""
    tunables = os.environ.get(_NAME, "")
    if sys.platform != "linux" or _VALUE.partition("=")[0] in tunables:
        return False
    os.environ[_NAME] = ":".join(filter(None, (tunables, _VALUE)))
    return True


def restart() -> None:
    """Starts this very command anew on large pages, unless it runs on them; an allocator only asks as it starts."""
    if ask():
        os.execv(sys.executable, sys.orig_argv)
