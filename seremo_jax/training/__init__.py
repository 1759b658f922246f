"""Heads on stored frames: one compiled program trains every member of an ensemble.

In: the store, targets, settings. Out: checkpoints, the best parameters of each member, a log, predictions of a split.
Read the modules in this order: `dataset`, `loader` (packed rows), `model`, `losses`, `gradients`, `steps`, `loop`,
`train`. Only `model` imports flax, only `loader` grain, only `checkpoint` orbax, only `optim` and `steps` optax.
"""
