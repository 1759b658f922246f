"""The optimiser. Its updates are for step size 1 and without weight decay, since each member has its own of both."""

from typing import NamedTuple

import optax
from jaxtyping import Array, Float, Int


class Schedule(NamedTuple):
    """How the learning rate of a member goes over its updates. Hashable.

    Attributes:
      kind: `constant`, or `cosine`, which falls to 0.
      warmup_steps: Updates over which the rate rises to its full value.
    """

    kind: str = "constant"
    warmup_steps: int = 0


def adam(clip_norm: float) -> optax.GradientTransformation:
    """Adam on clipped gradients, for descent at step size 1.

    Args:
      clip_norm: Global norm above which gradients are scaled down; 0 does not clip.
    """
    parts = [optax.clip_by_global_norm(clip_norm)] if clip_norm else []
    return optax.chain(*parts, optax.scale_by_adam(), optax.scale(-1.0))


def rate_at(
    schedule: Schedule, rate: Float[Array, ""], step: Int[Array, ""], num_steps: Int[Array, ""]
) -> Float[Array, ""]:
    """Learning rate of one update of a member.

    Args:
      schedule: The schedule, the same for all members.
      rate: The member's full rate.
      step: Updates that the member has made before.
      num_steps: Updates after which `cosine` is at 0; more than `schedule.warmup_steps`. Other kinds do not read it.

    Source: METHOD.md, section 6 (KNOWN: EMO-SUPERB, cosine after a warm-up).
    """
    warmup = schedule.warmup_steps
    if schedule.kind == "cosine":
        # Counted in shares of the fall: optax takes only lengths that are known when a program is compiled, and those
        # of members differ.
        rate = rate * optax.cosine_decay_schedule(1.0, 1)(((step - warmup) / (num_steps - warmup)).clip(0))
    if warmup:
        # The first update has a rate above 0, or it would be lost.
        rate = rate * optax.linear_schedule(0.0, 1.0, warmup)(step + 1)
    return rate
