"""Long audio in overlapping windows whose frames are joined, so that attention stays short and memory bounded."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from seremo_jax.backbones.base import Backbone
from seremo_jax.backbones.transformer import register

Run = Callable[[Backbone, Array, Array], tuple[Array, Array]]
"""A compiled call of a backbone: (backbone, waveforms [B, S], num_samples [B]) -> (hidden, num_frames)."""


@dataclasses.dataclass(frozen=True)
class Windows:
    """Where windows lie. All lengths are multiples of a frame's hop, so that frames of neighbours coincide.

    Attributes:
      window_samples: Samples of a window.
      step_samples: From one window's start to the next one's.
      hop_samples: Samples from frame to frame.

    A window follows only where audio is left behind the one before. So each window but the first hears at least the
    overlap. Of the overlap the first half is taken from the earlier window and the second from the later one, because a
    frame at the edge of a window lacks its neighbours on one side.
    """

    window_samples: int
    step_samples: int
    hop_samples: int

    @classmethod
    def of(cls, backbone: Backbone, window_s: float, overlap_s: float) -> "Windows":
        """Windows for a backbone.

        Args:
          backbone: Its rates decide the hop.
          window_s: Length in seconds.
          overlap_s: How much of it the next window hears again.

        Raises:
          ValueError: The overlap is not shorter than the window, or either is shorter than ten frames.
        """
        hop = round(backbone.sample_rate_hz / backbone.frame_rate_hz)
        # The small number is for seconds that binary fractions do not hold exactly: 30.0 s must not lose a frame.
        window, overlap = (int(s * backbone.sample_rate_hz / hop + 1e-6) * hop for s in (window_s, overlap_s))
        if not 10 * hop <= overlap < window:
            raise ValueError(f"windows of {window_s} s that overlap by {overlap_s} s: the overlap must be at least "
                             f"{10 * hop / backbone.sample_rate_hz:g} s and shorter than the window")  # fmt: skip
        return cls(window, window - overlap, hop)

    def number_of(self, num_samples: Any) -> Any:
        """Windows of an utterance: integers or integer arrays."""
        over = num_samples - self.window_samples
        return 1 + (over > 0) * ((over + self.step_samples - 1) // self.step_samples)

    def owner_of(self, frames: Any) -> Any:
        """The window that a frame is taken from, as long as the utterance has that window."""
        half = (self.window_samples - self.step_samples) // self.hop_samples // 2
        step = self.step_samples // self.hop_samples
        return (frames >= half) * ((frames - half) // step)


@register
@dataclasses.dataclass(frozen=True, eq=False)
class Windowed:
    """A backbone that hears longer audio in windows; shorter audio passes through as it is. A `Backbone` itself.

    Attributes:
      params: The backbone it wraps.
      windows: Where they lie.
    """

    params: Any
    windows: Windows

    @property
    def name(self) -> str:
        """What `load` was asked for."""
        return self.params.name

    @property
    def revision(self) -> str:
        """That of the backbone; windows are told apart by `windows`."""
        return self.params.revision

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers returned."""
        return self.params.layers

    @property
    def num_layers(self) -> int:
        """K."""
        return self.params.num_layers

    @property
    def num_features(self) -> int:
        """D."""
        return self.params.num_features

    @property
    def sample_rate_hz(self) -> int:
        """Sampling rate it hears."""
        return self.params.sample_rate_hz

    @property
    def frame_rate_hz(self) -> float:
        """Frames a second."""
        return self.params.frame_rate_hz

    @property
    def dtype(self) -> str:
        """Compute dtype."""
        return self.params.dtype

    @property
    def least_samples(self) -> int:
        """What a shorter utterance costs at least."""
        return self.params.least_samples

    @property
    def final_norm(self) -> bool:
        """Whether layer K - 1 is taken after a final layer norm."""
        return self.params.final_norm

    def num_frames(self, num_samples: Any) -> Any:
        """Valid frames of an utterance of `num_samples`."""
        return self.params.num_frames(num_samples)

    def __call__(
        self, waveforms: Float[Array, "B S"], num_samples: Int[Array, " B"]
    ) -> tuple[Float[Array, "K B T D"], Int[Array, " B"]]:
        """Hidden states of a batch of waveforms in [-1, 1]; see `Backbone`."""
        backbone, w = self.params, self.windows
        length = waveforms.shape[1]
        if length <= w.window_samples:
            return backbone(waveforms, num_samples)
        num_windows, b = int(w.number_of(length)), len(waveforms)
        waveforms = jnp.pad(
            waveforms, ((0, 0), (0, max(0, (num_windows - 1) * w.step_samples + w.window_samples - length)))
        )
        starts = np.arange(num_windows) * w.step_samples
        counts = w.number_of(num_samples)

        def one_window(inputs: tuple) -> Array:
            start, number = inputs
            heard = jax.lax.dynamic_slice_in_dim(waveforms, start, w.window_samples, axis=1)
            # A window behind the end of a shorter utterance hears nothing of it, not even the padding.
            left = jnp.where(number < counts, jnp.clip(num_samples - start, 0, w.window_samples), 0)
            return backbone(heard, left.astype(num_samples.dtype))[0]

        hidden = jax.lax.map(one_window, (jnp.asarray(starts), jnp.arange(num_windows)))
        num_frames = backbone.num_frames(num_samples).astype(jnp.int32)
        frames = np.arange(int(backbone.num_frames(length)))
        # An utterance has windows of its own number, and its last one keeps all frames up to the end.
        owner = jnp.minimum(w.owner_of(frames)[None, :], counts[:, None] - 1)
        # hidden [W, K, B, F, D] -> frame t of row i from window `owner`, where it is frame t - owner * step.
        local = frames[None, :] - owner * (w.step_samples // w.hop_samples)
        local = jnp.clip(local, 0, hidden.shape[3] - 1)
        rows = jnp.arange(b)[:, None]
        joined = jnp.moveaxis(hidden[owner, :, rows, local], 2, 0)
        is_valid = frames[None, :] < num_frames[:, None]
        return jnp.where(is_valid[None, :, :, None], joined, jnp.zeros((), joined.dtype)), num_frames


def stream(
    backbone: Backbone, windows: Windows, pieces: Iterable[Float[np.ndarray, "_"]], run: Run
) -> Iterator[Float[np.ndarray, "K T D"]]:
    """Hidden states of one utterance of any length, a piece for each window, in order: memory of one window.

    Args:
      backbone: The backbone.
      windows: Where they lie.
      pieces: Audio in [-1, 1], in pieces of any length, whose joined length need not be known beforehand.
      run: The compiled call; every window has the same shape, so it compiles once.

    Yields:
      Consecutive frames; joined they are what `Windowed` gives.
    """
    step = windows.step_samples // windows.hop_samples
    half = (windows.window_samples - windows.step_samples) // windows.hop_samples // 2

    def frames_of(number: int, heard: np.ndarray, num_samples: int | None) -> np.ndarray:
        """Frames taken from a window; `num_samples` is the length of the utterance where this is the last one."""
        padded = np.zeros((1, windows.window_samples), np.float32)
        padded[0, : len(heard)] = heard
        hidden, _ = run(backbone, jnp.asarray(padded), jnp.asarray([len(heard)], jnp.int32))
        stop = half + step if num_samples is None else int(backbone.num_frames(num_samples)) - number * step
        return np.asarray(hidden)[:, 0, half if number else 0 : stop]

    number, waiting, num_samples = 0, np.zeros(0, np.float32), 0
    for piece in pieces:
        waiting, num_samples = np.concatenate([waiting, piece]), num_samples + len(piece)
        # Only where audio is left behind a window is it not the last.
        while len(waiting) > windows.window_samples:
            yield frames_of(number, waiting[: windows.window_samples], None)
            number, waiting = number + 1, waiting[windows.step_samples :]
    if num_samples:
        yield frames_of(number, waiting, num_samples)
