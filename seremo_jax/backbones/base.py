"""The protocol of a backbone, the choice of layers, and the padded lengths that a corpus is sorted into."""

from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Float, Int

_MAX_CANDIDATES = 512


@runtime_checkable
class Backbone(Protocol):
    """A frozen model from waveforms to hidden states: pure JAX without `jit` of its own; the caller compiles it.

    It is a pytree whose leaves are its weights: pass it to a compiled function as an argument, so that they are no
    constants of the program.

    Contract, held for every backbone by `tests/backbones/test_contract.py`:
    padding content, batch neighbours and order never change an utterance's frames (1e-4 max abs in float32; `logmel`
    1e-5); frames at and beyond `num_frames` are exactly 0; no non-finite number leaves it for finite audio;
    `hidden[i]` is layer `layers[i]`, equal to that layer among all of them; `T = num_frames(S)`.
    """

    @property
    def name(self) -> str:
        """The name or path that `load` was called with."""

    @property
    def revision(self) -> str:
        """Identity of the weights and of every setting that changes a number, but not of the choice of layers."""

    @property
    def layers(self) -> tuple[int, ...]:
        """Numbers of the layers returned, in the order of the leading axis of `hidden`; nothing else is computed."""

    @property
    def num_layers(self) -> int:
        """K, hidden states of the whole model: layer 0 enters block 1, layer K - 1 leaves the last block."""

    @property
    def num_features(self) -> int:
        """D, features of a frame, the same in every layer."""

    @property
    def sample_rate_hz(self) -> int:
        """Sampling rate of the waveforms it takes."""

    @property
    def frame_rate_hz(self) -> float:
        """Frames per second of every layer."""

    @property
    def dtype(self) -> str:
        """Compute dtype, float32 or bfloat16; `hidden` has it too."""

    @property
    def least_samples(self) -> int:
        """A shorter utterance costs as much as one of this many samples; 0 where cost follows the length."""

    @property
    def final_norm(self) -> bool:
        """Whether layer K - 1 was taken after a final layer norm that the other layers have not been through."""

    def num_frames(self, num_samples: Any) -> Any:
        """Valid frames of an utterance of `num_samples`: integers or integer arrays of NumPy or JAX; 0 only for 0."""

    def __call__(
        self, waveforms: Float[Array, "B S"], num_samples: Int[Array, " B"]
    ) -> tuple[Float[Array, "K B T D"], Int[Array, " B"]]:
        """Hidden states of a batch.

        Args:
          waveforms: Audio in [-1, 1] at `sample_rate_hz`, float32; anything (even NaN) beyond each length.
          num_samples: Valid samples of each row; 0 marks a row that only fills the batch.

        Returns:
          hidden: States of `layers`, float32 or bfloat16, 0 beyond each length.
          num_frames: Valid frames of each row, int32.
        """


def pick_layers(layers: Iterable[Any] | None, num_layers: int) -> tuple[int, ...]:
    """The layers to return, whole numbers, in the order asked for; None means all.

    Raises:
      ValueError: No layer, one named twice, or one outside 0 .. num_layers - 1.
    """
    if layers is None:
        return tuple(range(num_layers))
    picked = tuple(layers)
    available = f"this backbone has layers 0 to {num_layers - 1}"
    if not picked:
        raise ValueError(f"no layer asked for; {available}, None takes all of them")
    for layer in picked:
        if isinstance(layer, bool) or not isinstance(layer, int | np.integer):
            raise ValueError(f"layer {layer!r} is no layer number; {available}")
        if not 0 <= layer < num_layers:
            raise ValueError(f"layer {layer} is out of range; {available}")
    if len(set(picked)) < len(picked):
        raise ValueError(f"layers {picked} name a layer twice")
    return tuple(int(layer) for layer in picked)


def bucket_lengths(num_samples: Int[np.ndarray, " N"], num_buckets: int, hop_samples: int = 320) -> tuple[int, ...]:
    """Padded lengths for a corpus: each utterance is padded to the smallest that holds it.

    Exact minimum of the padded total by dynamic programming, over at most 512 candidate lengths (a finer grid
    compiles no fewer programs). A pure function of its arguments.

    Args:
      num_samples: Length of every utterance, in samples, positive.
      num_buckets: Programs that may be compiled, at least 1.
      hop_samples: Lengths are multiples of this many samples.

    Returns:
      At most `num_buckets` lengths in samples, ascending; the last holds the longest utterance.

    Raises:
      ValueError: No utterance, an empty one, or fewer than one bucket.
    """
    if num_buckets < 1 or hop_samples < 1:
        raise ValueError(f"num_buckets ({num_buckets}) and hop_samples ({hop_samples}) must be at least 1")
    if len(num_samples) == 0 or np.min(num_samples) < 1:
        raise ValueError("bucket_lengths needs at least one utterance, each of at least one sample")
    in_hops = -(-np.asarray(num_samples, np.int64) // hop_samples)
    step = -(-(int(in_hops.max()) - int(in_hops.min()) + 1) // _MAX_CANDIDATES)
    top = int(in_hops.max())
    candidates, counts = np.unique(top - (top - in_hops) // step * step, return_counts=True)
    covered = np.concatenate([[0], np.cumsum(counts)])
    # cost[i, j]: padded total of one bucket that takes candidates i..j, all padded to candidate j.
    cost = (candidates[None, :] * (covered[None, 1:] - covered[:-1, None])).astype(np.float64)
    cost[np.tril_indices(len(candidates), -1)] = np.inf
    best, starts = cost[0], []
    for _ in range(min(num_buckets, len(candidates)) - 1):
        # One bucket more: the last one takes start..j, those before it end at start - 1.
        totals = np.concatenate([cost[:1], best[:-1, None] + cost[1:]])
        starts.append(np.argmin(totals, axis=0))
        best = np.min(totals, axis=0)
    ends, end = [], len(candidates) - 1
    for start in reversed(starts):
        ends.append(end)
        end = int(start[end]) - 1
        if end < 0:
            break
    else:
        ends.append(end)
    return tuple(int(candidates[end]) * hop_samples for end in reversed(ends))
