"""What one member's predictions leave of each cell of utterances: the states behind all its scores."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from seremo_jax.evaluation import strata
from seremo_jax.metrics.class_distances import Ground
from seremo_jax.metrics.confusions import nbest_counts
from seremo_jax.metrics.distributions import DistributionSums, distribution_sums, served_votes
from seremo_jax.metrics.moments import AnyArray, Moments


class RowTargets(NamedTuple):
    """What raters said of B utterances, and where each counts.

    Attributes:
      cell: [B] int32 cell of each utterance (`alignment.Cells`).
      consensus: [B] int32 class, -1 where the utterance is not scored.
      distribution: [B, C] float32 vote shares.
      has_votes: [B] bool.
      attributes: [B, A] float32.
      has_attribute: [B, A] bool.
      panel: [B, C] float32 probability of each consensus of a few raters (`raters.Raters`); 0 where there is none.
      strata: [B, kinds] int32 strata of each utterance (`strata.strata_of`), -1 in none.
      is_offered: [B, C] bool, raters could choose the class; None where they could choose all.
    """

    cell: Any
    consensus: Any
    distribution: Any
    has_votes: Any
    attributes: Any
    has_attribute: Any
    panel: Any
    strata: Any
    is_offered: Any = None


class States(NamedTuple):
    """Sums of one member over each cell.

    Attributes:
      counts: [cells, N, C, C] confusion counts of N-best.
      attributes: Moments [cells, A].
      distribution: Sums behind the scores of the vote distribution.
      panel_right: [cells, C] float32 expected number of 1-best classes that are the consensus of a few raters.
      strata_right: [cells, strata, C] int32 utterances of each class whose 1-best class is the consensus.
      raters_served: [cells, N] float32 summed share of the votes that is for one of the N-best.
    """

    counts: AnyArray
    attributes: Moments
    distribution: DistributionSums
    panel_right: AnyArray
    strata_right: AnyArray
    raters_served: AnyArray


def member_states(
    predicted_attributes: Float[AnyArray, "B A"],
    predicted_distribution: Float[AnyArray, "B C"],
    targets: RowTargets,
    *,
    num_cells: int,
    nbest: tuple[int, ...],
) -> States:
    """Sums of one member over each of `num_cells` cells.

    Pure JAX: `evaluate` compiles it, the last two arguments static.
    """
    cell, (_, num_attributes) = targets.cell, predicted_attributes.shape
    best = jnp.arange(predicted_distribution.shape[1])[None, :] == predicted_distribution.argmax(axis=1)[:, None]
    return States(
        nbest_counts(cell, predicted_distribution, targets.consensus, nbest, num_cells),
        Moments.empty(num_cells, num_attributes).update(
            cell, predicted_attributes, targets.attributes, targets.has_attribute
        ),
        distribution_sums(
            cell, predicted_distribution, targets.distribution, targets.has_votes, num_cells, targets.is_offered
        ),
        jax.ops.segment_sum(jnp.where(best & (targets.panel > 0), targets.panel, 0), cell, num_cells),
        _strata_right(best, targets, num_cells),
        served_votes(cell, predicted_distribution, targets.distribution, targets.has_votes, nbest, num_cells),
    )


def _strata_right(best: Bool[AnyArray, "B C"], targets: RowTargets, num_cells: int) -> Int[AnyArray, "cells strata C"]:
    """Utterances of each cell, stratum and class whose 1-best class is the consensus."""
    classes = jnp.arange(best.shape[1])[None, :]
    is_right = (best & (classes == targets.consensus[:, None])).astype(jnp.int32)
    num_strata = len(strata.NAMES)
    counts = jnp.zeros((num_cells * num_strata, best.shape[1]), jnp.int32)
    # An utterance is in one stratum of each kind; in none, its count of right answers is made 0.
    for stratum in targets.strata.T:
        place = targets.cell * num_strata + jnp.maximum(stratum, 0)
        counts += jax.ops.segment_sum(is_right * (stratum >= 0)[:, None], place, num_cells * num_strata)
    return counts.reshape(num_cells, num_strata, best.shape[1])


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
      num_others: Raters whose plurality the panels of raters are judged against; 0 where there are no panels.
    """

    class_names: tuple[str, ...]
    attribute_names: tuple[str, ...]
    nbest: tuple[int, ...]
    thresholds: tuple[int, ...]
    f1_classes: str
    ground: Ground | None
    num_others: int = 0

    @property
    def groups_of_classes(self) -> tuple[int, ...]:
        """Group of each class for the merged UAR; empty where co-votes do not tell."""
        return self.ground.groups if self.ground else ()
