"""Heads on stored frames: one compiled program trains every member of an ensemble.

In: the store, targets, settings. Out: checkpoints, the best parameters of each member, a log, predictions of a split.
The order to read in: `dataset`, `loader` (packed rows), `model`, `losses`, `steps`, `loop`, `train`. Only `model` and
`gru` import flax, only `loader` grain, only `checkpoint` orbax, only `optim` and `steps` optax.
"""
