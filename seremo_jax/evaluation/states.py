"""What one member's predictions leave of each unit: the states behind all its scores."""

from jaxtyping import Bool, Float, Int

from seremo_jax.metrics import distributions
from seremo_jax.metrics.class_distances import Transport
from seremo_jax.metrics.moments import AnyArray

States = tuple[distributions.NBest, distributions.Moments, distributions.Distribution, Transport]


def member_states(
    predicted_attributes: Float[AnyArray, "B A"],
    predicted_distribution: Float[AnyArray, "B C"],
    unit: Int[AnyArray, " B"],
    attributes: Float[AnyArray, "B A"],
    has_attribute: Bool[AnyArray, "B A"],
    distribution: Float[AnyArray, "B C"],
    has_votes: Bool[AnyArray, " B"],
    consensus: Int[AnyArray, " B"],
    potentials: Float[AnyArray, "V C"],
    *,
    num_units: int,
    nbest: tuple[int, ...],
) -> States:
    """Metric states [U, ...] of one member. Pure JAX: `evaluate` compiles it, the last two arguments static."""
    num_attributes, num_classes = attributes.shape[1], distribution.shape[1]
    return (
        distributions.NBest.empty(num_units, len(nbest), num_classes).update(
            unit, predicted_distribution, consensus, nbest
        ),
        distributions.Moments.empty(num_units, num_attributes).update(
            unit, predicted_attributes, attributes, has_attribute
        ),
        distributions.Distribution.empty(num_units, num_classes).update(
            unit, predicted_distribution, distribution, has_votes
        ),
        Transport.empty(num_units).update(unit, predicted_distribution, distribution, has_votes, potentials),
    )
