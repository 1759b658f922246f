"""Records of what programs take that ask no compiler: their arguments, and nothing besides."""

import jax

from seremo_jax.training.memory import Memory, Records


class Uncompiled(Records):
    """Stands for a compiler where a test is about what follows from its answers."""

    def __call__(self, lowered, device):
        """The bytes of the arguments."""
        return Memory(sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(lowered.in_avals)))
