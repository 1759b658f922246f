"""Requests to stop: SIGTERM or SIGUSR1 ask for a checkpoint and an end, on all processes at the same step."""

import os
import signal
import threading
from types import FrameType

import jax
from jax.experimental import multihost_utils

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class PreemptedError(Exception):
    """The run was asked to stop and has saved its state; the same command goes on from there."""


class Notice:
    """Whether this run was asked to stop. A context: the signals mean what they meant before once it is left."""

    def __init__(self):
        self._is_asked, self._before, self._num_asked = False, {}, 0

    def __enter__(self) -> "Notice":
        if threading.current_thread() is not threading.main_thread():
            return self  # Python hears signals on its main thread only
        if jax.process_count() > 1:
            # JAX's own service hears SIGTERM on any process and finds the step that all of them reach.
            self._before = {signal.SIGUSR1: signal.signal(signal.SIGUSR1, self._pass_on)}
        else:
            self._before = {number: signal.signal(number, self._hear) for number in SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self._is_asked = True

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    def has_come(self) -> bool:
        """Whether to stop here, the same answer on every process. All of them must ask at the same steps."""
        if jax.process_count() > 1:
            # Numbered without a gap: the processes agree on the number after the last one that any of them has seen.
            self._num_asked += 1
            return multihost_utils.reached_preemption_sync_point(self._num_asked)
        return self._is_asked
