"""Mean and standard deviation of every feature of every layer over all valid frames, for the head's z-score.

Every utterance is summed up by itself, on the host and in float64, and utterances are merged in a tree that their rows
in the table decide. So the statistics of the same frames are the same to the bit, whatever batches, shards, devices or
processes the frames came through, and whether they are gathered while a store is written or read from it.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from seremo_jax.metrics.comoments import merge_means

MIN_SD = 1e-6
"""A standard deviation below this counts as 1."""


class State(NamedTuple):
    """Mergeable moments over frames.

    Attributes:
      count: Number of frames.
      mean: [K, D] float64 mean.
      moment: [K, D] float64 sum of squared deviations from the mean, exactly 0 for a feature that never varies.
    """

    count: int
    mean: np.ndarray
    moment: np.ndarray


def empty(num_layers: int, num_features: int) -> State:
    """State of no frames. To merge it with another state gives the other state."""
    zeros = np.zeros((num_layers, num_features))
    return State(0, zeros, zeros)


def of_utterance(hidden: Float[np.ndarray, "K T D"]) -> State:
    """Moments of the frames of one utterance, all of them valid, of any floating-point dtype."""
    means, moments = [], []
    for frames in hidden:
        # A copy of one memory layout, so that the order of addition does not depend on where the frames lie.
        deviation = np.array(frames, np.float64, order="C")
        means.append(deviation.mean(axis=0))
        deviation -= means[-1]
        moments.append(np.square(deviation, out=deviation).sum(axis=0))
    return State(hidden.shape[1], np.stack(means), np.stack(moments))


def merge(a: State, b: State) -> State:
    """Both states as one. Associative and commutative to rounding.

    Source: as `comoments.merge_means`.
    """
    if not (a.count and b.count):
        return a if a.count else b
    # Deviations in each state are from its own mean. Around the common mean, each sum of squares grows by the square of
    # its distance from there times its count, which together is the square of the step between both means times a
    # factor.
    mean, step, factor = merge_means(float(a.count), a.mean, float(b.count), b.mean)
    return State(a.count + b.count, mean, a.moment + b.moment + np.square(step) * factor)


ARRAYS = tuple(f"moments.{name}" for name in ("level", "place", *State._fields))
"""Names of the arrays that `InTableOrder` is kept as."""


class InTableOrder:
    """Moments of utterances that come in any order and are merged in one.

    Row r stands at leaf r of a binary tree, and a node is merged as soon as both of its halves are there. The tree is
    that of all rows of a table, so parts of it, such as the shards of a store, merge to what the whole gives. Rows that
    never come count as empty.
    """

    def __init__(self) -> None:
        self._nodes: dict[tuple[int, int], State] = {}

    def add(self, row: int, state: State) -> None:
        """Adds the utterance in a row of the table. An empty state says that it is left out."""
        self._put(0, row, state)

    def join(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Adds what another one gave as `arrays`."""
        for level, place, count, mean, moment in zip(*(arrays[name] for name in ARRAYS), strict=True):
            self._put(int(level), int(place), State(int(count), mean, moment))

    def arrays(self) -> dict[str, np.ndarray]:
        """What was merged so far: level and place of each node [n], and the fields of its state [n, ...]."""
        nodes = [(*key, *state) for key, state in sorted(self._nodes.items())]
        return {name: np.stack(values) for name, values in zip(ARRAYS, zip(*nodes, strict=True), strict=True)}

    def total(self) -> State:
        """Moments of all that was added.

        Raises:
          ValueError: Nothing was.
        """
        whole = InTableOrder()
        whole._nodes |= self._nodes
        if not whole._nodes:
            raise ValueError("moments of no utterance")
        while len(whole._nodes) > 1:
            # The other half of the lowest node never came.
            level, place = min(whole._nodes)
            whole._put(level + 1, place // 2, whole._nodes.pop((level, place)))
        return next(iter(whole._nodes.values()))

    def _put(self, level: int, place: int, state: State) -> None:
        # The halves of a node differ in the last bit of their places. The even one is always the left one, so that the
        # rounding does not depend on which of them came first.
        while (other := self._nodes.pop((level, place ^ 1), None)) is not None:
            state = merge(other, state) if place % 2 else merge(state, other)
            level, place = level + 1, place // 2
        self._nodes[level, place] = state


def mean_and_variance(state: State) -> tuple[Float[np.ndarray, "K D"], Float[np.ndarray, "K D"]]:
    """Mean and population variance of each feature, float32; both 0 where there is no frame."""
    return state.mean.astype(np.float32), _variance(state).astype(np.float32)


def compute(state: State) -> tuple[Float[np.ndarray, "K D"], Float[np.ndarray, "K D"]]:
    """Mean and population standard deviation of each feature, float32; one below 1e-6 is returned as 1.

    Source: METHOD.md, section 4.2, step 1.
    """
    sd = np.sqrt(_variance(state))
    return state.mean.astype(np.float32), np.where(sd < MIN_SD, 1, sd).astype(np.float32)


def _variance(state: State) -> Float[np.ndarray, "K D"]:
    return state.moment / max(state.count, 1)
