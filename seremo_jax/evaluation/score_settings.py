"""What the scores of a split depend on besides predictions and targets."""

import dataclasses

import numpy as np
from jaxtyping import Float

from seremo_jax.metrics.class_distances import Ground


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
    def potentials(self) -> Float[np.ndarray, "V C"]:
        """Of the ground metric; V = 0 where there is none."""
        return self.ground.potentials if self.ground else np.zeros((0, len(self.class_names)), np.float32)

    @property
    def groups_of_classes(self) -> tuple[int, ...]:
        """Group of each class for the merged UAR; empty where co-votes do not tell."""
        return self.ground.groups if self.ground else ()
