"""The optimiser. Its updates are for step size 1 and without weight decay, since each member has its own of both."""

import optax


def adam(clip_norm: float) -> optax.GradientTransformation:
    """Adam on clipped gradients, for descent at step size 1.

    Args:
      clip_norm: Global norm above which gradients are scaled down; 0 does not clip.
    """
    parts = [optax.clip_by_global_norm(clip_norm)] if clip_norm else []
    return optax.chain(*parts, optax.scale_by_adam(), optax.scale(-1.0))
