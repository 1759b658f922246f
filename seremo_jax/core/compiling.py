"""Time that JAX spends compiling, as spans of the clock, for whoever wants to tell it from the time of work.

JAX is not imported here: where nobody has, nothing compiles.
"""

import sys
import time

_EVENTS = "/jax/core/compile/"


class CompileTime:
    """Adds up the seconds of tracing, lowering, compiling and reading compiled programs back, until it is closed."""

    def __init__(self) -> None:
        self._since_s = time.monotonic()
        self._spans: list[tuple[float, float]] = []
        self._jax = sys.modules.get("jax")
        if self._jax is not None:
            self._jax.monitoring.register_event_duration_secs_listener(self._listen)

    def _listen(self, event: str, duration_s: float, **_: object) -> None:
        if not event.startswith(_EVENTS):
            return
        end_s = time.monotonic()
        # Tracing a function traces the functions that it calls. Their spans end first and lie inside this one, and they
        # are replaced by it.
        while self._spans and self._spans[-1][0] >= end_s - duration_s:
            self._spans.pop()
        # Time before the last `take` was accounted for already, and so was that of an earlier span.
        begin_s = max([end_s - duration_s, self._since_s, *(end for _, end in self._spans[-1:])])
        self._spans.append((min(begin_s, end_s), end_s))

    def take(self, now_s: float) -> float:
        """Seconds of compilation since the last call, or since this was made.

        Args:
          now_s: The present on the clock of `time.monotonic`.
        """
        seconds = sum((end - begin for begin, end in self._spans), 0.0)
        self._since_s, self._spans = now_s, []
        return seconds

    def close(self) -> None:
        """Stops listening."""
        if self._jax is not None:
            self._jax.monitoring.unregister_event_duration_listener(self._listen)
            self._jax = None
