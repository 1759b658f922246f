"""Z-scores of the features that a head reads: by the training split, or by each speaker drawn to the training split."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from seremo_jax.features.normalisation import MIN_SD


def normalise(features: Array, is_valid: Array, mean: Float[Array, "*K D"], sd: Float[Array, "*K D"]) -> Array:
    """Z-scores of frames [*K, T, R, D], in float32; zero where `is_valid` [T, R] is False.

    Source: INFERRED, METHOD.md, section 4.2, step 1.
    """
    mean, sd = mean[..., None, None, :], sd[..., None, None, :]
    is_valid = jnp.broadcast_to(is_valid[..., None], features.shape)
    return jnp.where(is_valid, (features.astype(jnp.float32) - mean) / sd, 0)


def drawn_together(
    plain: tuple[Float[Array, "*K D"], Float[Array, "*K D"]],
    own: tuple[Float[Array, "*K B D"], Float[Array, "*K B D"]],
    seconds: Float[Array, " B"],
    kappa_s: Float[Array, ""],
) -> tuple[Float[Array, "*K B D"], Float[Array, "*K B D"]]:
    """Mean and standard deviation that each of B utterances is brought to 0 and 1 with.

    `mean' = (n own_mean + kappa mean) / (n + kappa)`, likewise the variance. An infinite kappa, or a voice of no
    seconds, gives the plain ones to the bit.

    Args:
      plain: Mean and standard deviation of the training split, one below 1e-6 given as 1.
      own: Mean and variance of the voice of each utterance.
      seconds: n of that voice; 0 where it is not known.
      kappa_s: Seconds that the training split counts as.

    Returns:
      Mean, and standard deviation, of which again one below 1e-6 is 1.

    Source: KNOWN idea (C. Busso et al. 2011, 2013: normalisation by speaker); OURS with kappa, METHOD.md, section 5.6.
    """
    mean, sd = (table[..., None, :] for table in plain)
    is_known = seconds > 0
    share = jnp.where(is_known, seconds / (jnp.where(is_known, seconds, 1) + kappa_s), 0)[:, None]
    share = share.reshape((1,) * (mean.ndim - 2) + share.shape)
    # Both as changes of the plain ones, so that a share of 0 changes no bit.
    mean = mean + share * (own[0] - mean)
    sd = sd * jnp.sqrt(jnp.maximum(1 + share * (own[1] / jnp.square(sd) - 1), 0))
    return mean, jnp.where(sd < MIN_SD, 1, sd)


def normalise_by_slot(
    features: Array, slot: Int[Array, "T R"], mean: Float[Array, "*K B D"], sd: Float[Array, "*K B D"]
) -> Float[Array, "*K T R D"]:
    """Z-scores of frames by the statistics of the utterance in their slot, in float32; zero where there is none.

    Args:
      features: [*K, T, R, D] frames.
      slot: Slot of the utterance each frame belongs to, -1 in gaps.
      mean: Mean for each slot.
      sd: Standard deviation for each slot.
    """
    place = jnp.maximum(slot, 0)
    mean, sd = (jnp.take(table, place, axis=-2, mode="clip") for table in (mean, sd))
    is_valid = jnp.broadcast_to((slot >= 0)[..., None], features.shape)
    return jnp.where(is_valid, (features.astype(jnp.float32) - mean) / sd, 0)
