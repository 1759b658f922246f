"""Mergeable metric states: regression moments, N-best confusions, distribution scores; per-speaker UAR and paUAR.

Every state is `empty -> update -> merge -> compute`, with a leading axis U of units (speakers; an utterance of an
unknown speaker is a unit of its own). `update` takes any batches in any order; rows under a False mask may hold
anything, NaN included. `pool` merges all units into one. `compute` and the score functions take JAX or NumPy arrays
with any leading axes, also weighted sums over units: `intervals` resamples speakers without reading utterances again.

    state = metrics.NBest.empty(num_speakers, 2, num_classes)
    for batch in batches:
        state = state.update(speaker, distribution, consensus, nbest=(1, 2))  # [B], [B, C], [B]
    uar, two_best_uar = state.pool().compute().uar
    uar_of_speakers = state.compute().uar[:, 0]                               # [num_speakers]

`distributions.Moments` scores attributes (CCC), `distributions.Distribution` whole vote distributions.

Formulas: `method.md`, sections 5.1 and 8.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, Num

from seremo_jax.metrics.catalogue import SPEAKER_FILTERS
from seremo_jax.metrics.confusions import ClassScores, NBest, class_scores, confusion_scores
from seremo_jax.metrics.moments import AnyArray, Moments, RegressionScores, namespace_of

__all__ = [
    "SPEAKER_FILTERS",
    "ClassScores",
    "Distribution",
    "DistributionScores",
    "Moments",
    "NBest",
    "RegressionScores",
    "class_scores",
    "confusion_scores",
    "is_eligible",
    "pa_uar",
    "passes",
    "uar_per_unit",
]


def uar_per_unit(counts: Num[AnyArray, " U *batch C C"]) -> Float[AnyArray, " U *batch"]:
    """UAR of each unit over the classes it has; 0 for units without a scored row. Source: method.md 8.4."""
    return confusion_scores(counts).uar


def is_eligible(support: Num[AnyArray, "U C"], speaker_filter: str) -> Bool[AnyArray, " U"]:
    """Whether a unit has enough scored rows [U, C] and classes for the filter (a key of `SPEAKER_FILTERS`)."""
    least_rows, least_classes = SPEAKER_FILTERS[speaker_filter]
    return (support.sum(axis=-1) >= least_rows) & ((support > 0).sum(axis=-1) >= least_classes)


def passes(uar: Float[AnyArray, "*batch"], thresholds: tuple[int, ...]) -> Bool[AnyArray, "*batch thresholds"]:
    """Whether the UAR strictly exceeds T / 100, for each T. A UAR that equals T / 100 never passes by rounding."""
    slack = 1e-9 if uar.dtype == np.float64 else 1e-6
    return namespace_of(uar).stack([uar > threshold / 100 + slack for threshold in thresholds], axis=-1)


def pa_uar(
    uar: Float[AnyArray, " U"], is_eligible: Bool[AnyArray, " U"], thresholds: tuple[int, ...]
) -> Float[AnyArray, " thresholds"]:
    """paUAR-T: share of eligible speakers whose UAR strictly exceeds T / 100.

    Args:
      uar: [U] UAR of each speaker, in [0, 1]; float64 keeps the comparison exact to 1e-9.
      is_eligible: [U] bool, known speakers that pass the filter.
      thresholds: Percentages T.

    Returns:
      [thresholds] in percent; 0 where no speaker is eligible.

    Source: method.md 8.4 (name KNOWN, definition INFERRED).
    """
    num_passing = (passes(uar, thresholds) & is_eligible[:, None]).sum(axis=0)
    return 100 * num_passing / namespace_of(uar).maximum(is_eligible.sum(), 1)


class DistributionScores(NamedTuple):
    """Scores of shape [...] and per class [..., C]; 0 where not defined.

    `class_ccc_mean` is over the `num_class_ccc` defined classes, `multi_label_macro_f1` over all classes.
    `entropy_correlation` is Pearson's between the entropies of prediction and votes: does the model know when raters
    disagree? It is not defined where all votes are equally divided.
    """

    jsd: AnyArray
    kl: AnyArray
    total_variation: AnyArray
    entropy_correlation: AnyArray
    has_entropy_correlation: AnyArray
    class_ccc: AnyArray
    has_class_ccc: AnyArray
    class_ccc_mean: AnyArray
    num_class_ccc: AnyArray
    multi_label_f1: AnyArray
    multi_label_macro_f1: AnyArray
    num_rows: AnyArray
    is_defined: AnyArray


class Distribution(NamedTuple):
    """Sums behind the scores of predicted vote distributions: [U] float32, per class [U, C].

    Attributes:
      num_rows: [U] rows with votes.
      jsd: [U] summed Jensen-Shannon divergence, base 2.
      kl: [U] summed Kullback-Leibler divergence from the votes to the prediction, in nat.
      total_variation: [U] summed total variation distance, half the sum of absolute differences.
      entropies: Moments [U] of the entropies of prediction and votes, in nat.
      classes: Moments [U, C] of the shares.
      num_true: [U, C] int32 rows where both shares exceed 1/C.
      num_predicted: [U, C] int32 rows where the predicted share does.
      num_present: [U, C] int32 rows where the share of the votes does.
    """

    num_rows: AnyArray
    jsd: AnyArray
    kl: AnyArray
    total_variation: AnyArray
    entropies: Moments
    classes: Moments
    num_true: AnyArray
    num_predicted: AnyArray
    num_present: AnyArray

    @classmethod
    def empty(cls, num_units: int, num_classes: int) -> "Distribution":
        """State of no rows."""
        row, counts = jnp.zeros(num_units, jnp.float32), jnp.zeros((num_units, num_classes), jnp.int32)
        moments = Moments.empty(num_units), Moments.empty(num_units, num_classes)
        return cls(row, row, row, row, *moments, counts, counts, counts)

    def update(
        self,
        unit: Int[AnyArray, " B"],
        prediction: Float[AnyArray, "B C"],
        target: Float[AnyArray, "B C"],
        mask: Bool[AnyArray, " B"],
    ) -> "Distribution":
        """Adds a batch.

        Args:
          unit: [B] unit of each row.
          prediction: [B, C] predicted shares q, rows sum to 1.
          target: [B, C] shares of the votes p, rows sum to 1.
          mask: [B] bool; False leaves the row out.

        Source: method.md 8.7 and 8.8 (KNOWN: a class is present above 1/C, strictly, on both sides; OURS: total
        variation and entropies).
        """
        num_units, num_classes = self.num_true.shape
        unit, is_used = jnp.asarray(unit), jnp.broadcast_to(mask[:, None], target.shape)
        q, p = jnp.where(is_used, prediction, 0), jnp.where(is_used, target, 0)
        middle = (p + q) / 2

        def divergence(a: AnyArray, b: AnyArray) -> AnyArray:
            is_positive = a > 0
            ratio = jnp.where(is_positive, a, 1) / jnp.where(is_positive, b, 1)
            return (a * jnp.log(ratio)).sum(axis=1)

        def entropy(a: AnyArray) -> AnyArray:
            return -(a * jnp.log(jnp.where(a > 0, a, 1))).sum(axis=1)

        def total(values: AnyArray) -> AnyArray:
            return jax.ops.segment_sum(values, unit, num_units)

        jsd = (divergence(p, middle) + divergence(q, middle)) / (2 * np.log(2.0))
        is_present, is_predicted = p > 1 / num_classes, q > 1 / num_classes
        added = Distribution(
            total(mask.astype(jnp.float32)),
            total(jsd),
            total(divergence(p, jnp.maximum(q, 1e-12))),
            total(jnp.abs(p - q).sum(axis=1) / 2),
            self.entropies.update(unit, entropy(q), entropy(p), mask),
            self.classes.update(unit, prediction, target, is_used),
            *(total(flags.astype(jnp.int32)) for flags in (is_present & is_predicted, is_predicted, is_present)),
        )
        return Distribution(
            *(new if isinstance(new, Moments) else old + new for old, new in zip(self, added, strict=True))
        )

    def merge(self, other: "Distribution") -> "Distribution":
        """Both states as one."""
        return Distribution(
            *(a.merge(b) if isinstance(a, Moments) else a + b for a, b in zip(self, other, strict=True))
        )

    def pool(self) -> "Distribution":
        """All units merged into one."""
        return Distribution(*(leaf.pool() if isinstance(leaf, Moments) else leaf.sum(axis=0) for leaf in self))

    def compute(self) -> DistributionScores:
        """Mean JSD and KL, CCC of each class and its mean, multi-label F1 of each class and its mean."""
        xp = namespace_of(self.num_rows)
        num_rows = xp.maximum(self.num_rows, 1)
        classes, entropies = self.classes.compute(), self.entropies.compute()
        num_class_ccc = classes.is_defined.sum(axis=-1)
        label = class_scores(self.num_true, self.num_present, self.num_predicted, f1_classes="all")
        return DistributionScores(
            jsd=self.jsd / num_rows,
            kl=self.kl / num_rows,
            total_variation=self.total_variation / num_rows,
            entropy_correlation=entropies.pearson,
            has_entropy_correlation=entropies.is_defined,
            class_ccc=classes.ccc,
            has_class_ccc=classes.is_defined,
            class_ccc_mean=classes.ccc.sum(axis=-1) / xp.maximum(num_class_ccc, 1),
            num_class_ccc=num_class_ccc,
            multi_label_f1=label.f1,
            multi_label_macro_f1=label.macro_f1,
            num_rows=self.num_rows,
            is_defined=self.num_rows > 0,
        )
