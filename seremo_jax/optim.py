"""Optimiser. Updates are for a step size of one: each member scales them by its own learning rate."""

import optax


def adam(clip_norm: float, weight_decay: float) -> optax.GradientTransformation:
    """Adam with clipping before and decoupled weight decay after, for descent at step size 1.

    Args:
      clip_norm: Global gradient norm above which gradients are scaled down; 0 does not clip.
      weight_decay: Share of each parameter taken off, times the step size.
    """
    parts = [optax.clip_by_global_norm(clip_norm)] if clip_norm else []
    parts.append(optax.scale_by_adam())
    if weight_decay:
        parts.append(optax.add_decayed_weights(weight_decay))
    return optax.chain(*parts, optax.scale(-1.0))
