"""The frozen record behind all Transformer backbones, whose weights are the leaves of a pytree."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from seremo_jax.backbones.layers import LayerNorm


@dataclasses.dataclass(frozen=True, eq=False)
class Transformer:
    """Fields and steps that all Transformer backbones have; see `base.Backbone`.

    Two of them are equal only where they are the same object, because arrays cannot be hashed.

    Attributes:
      params: Weights, a pytree of arrays; all else is static.
      definition: The Flax module without its arrays.
      name: What `load` was asked for.
      revision: Hash of the weights and of every setting that changes a number.
      layers: Layers returned.
      num_layers: K of the whole model.
      num_features: D.
      sample_rate_hz: Sampling rate it hears.
      frame_rate_hz: Frames a second.
      dtype: Compute dtype.
      final_norm: Whether layer K - 1 is taken after the final layer norm.
      least_samples: Samples that a shorter utterance costs as much as.
    """

    params: Any
    definition: Any
    name: str
    revision: str
    layers: tuple[int, ...]
    num_layers: int
    num_features: int
    sample_rate_hz: int
    frame_rate_hz: float
    dtype: str
    final_norm: bool
    least_samples: int

    def module(self) -> Any:
        """The Flax module with its arrays."""
        return nnx.merge(self.definition, self.params)

    def _normed(
        self, hidden: Float[Array, "K B T D"], norm: LayerNorm | None, is_kept: Bool[Array, "B T"]
    ) -> Float[Array, "K B T D"]:
        """The same with layer K - 1 after the final norm, where that is asked for and such a norm exists."""
        if norm is None or not self.final_norm or self.num_layers - 1 not in self.layers:
            return hidden
        slot = self.layers.index(self.num_layers - 1)
        last = jnp.where(is_kept[..., None], norm(hidden[slot]), jnp.zeros((), hidden.dtype))
        return hidden.at[slot].set(last)


def register(kind: type) -> type:
    """Makes the record a pytree whose only leaves are `params`."""
    names = [field.name for field in dataclasses.fields(kind)]
    return jax.tree_util.register_dataclass(kind, ["params"], [name for name in names if name != "params"])


def require_no_window(window: str, name: str) -> None:
    """Refuses a setting of Whisper's for the others, which hear audio at its own length.

    Raises:
      ValueError: `window` is not `padded`, the default.
    """
    if window != "padded":
        raise ValueError(f"window = {window!r} is for Whisper: {name} hears audio at its own length anyway")
