"""Optimiser. Updates are for a step size of one and without decay: each member has its own of both."""

import optax


def adam(clip_norm: float) -> optax.GradientTransformation:
    """Adam with clipping before, for descent at step size 1.

    Args:
      clip_norm: Global gradient norm above which gradients are scaled down; 0 does not clip.
    """
    parts = [optax.clip_by_global_norm(clip_norm)] if clip_norm else []
    return optax.chain(*parts, optax.scale_by_adam(), optax.scale(-1.0))
