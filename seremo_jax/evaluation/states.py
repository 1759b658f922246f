"""What one member's predictions leave of each unit: the states behind all its scores."""

import dataclasses

from jaxtyping import Bool, Float, Int

from seremo_jax.metrics import distributions
from seremo_jax.metrics.class_distances import Ground
from seremo_jax.metrics.moments import AnyArray

States = tuple[distributions.NBest, distributions.Moments, distributions.Distribution]


def member_states(
    predicted_attributes: Float[AnyArray, "B A"],
    predicted_distribution: Float[AnyArray, "B C"],
    unit: Int[AnyArray, " B"],
    attributes: Float[AnyArray, "B A"],
    has_attribute: Bool[AnyArray, "B A"],
    distribution: Float[AnyArray, "B C"],
    has_votes: Bool[AnyArray, " B"],
    consensus: Int[AnyArray, " B"],
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
    )


@dataclasses.dataclass(frozen=True)
class Settings:
    """Names, thresholds and distances of one split.

    Attributes:
      class_names: Class set in order.
      attribute_names: Attributes in order.
      nbest: The N of N-best, 1 among them.
      thresholds: The T of paUAR-T, in percent.
      f1_classes: Macro-F1 over the classes `present`, or `all`.
      ground: How far classes are apart; None where the corpus does not say.
    """

    class_names: tuple[str, ...]
    attribute_names: tuple[str, ...]
    nbest: tuple[int, ...]
    thresholds: tuple[int, ...]
    f1_classes: str
    ground: Ground | None

    @property
    def groups_of_classes(self) -> tuple[int, ...]:
        """Group of each class for the merged UAR; empty where co-votes do not tell."""
        return self.ground.groups if self.ground else ()
