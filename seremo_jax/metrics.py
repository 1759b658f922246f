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

`metrics.Moments` scores attributes (CCC), `metrics.Distribution` whole vote distributions.

Formulas: `method.md`, sections 5.1 and 8.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, Num

from seremo_jax.moments import AnyArray, Moments, RegressionScores, namespace_of

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

SPEAKER_FILTERS = {"all": (1, 1), "min10c2": (10, 2)}
"""Speaker filter -> least scored utterances and least classes among them. Both are always printed."""


class ClassScores(NamedTuple):
    """Scores of shape [...] and per class [..., C]; 0 where not defined, never NaN.

    `has_class`: the class occurs, so its recall is defined; `has_prediction`: it was predicted, so its precision is.
    """

    uar: AnyArray
    accuracy: AnyArray
    macro_f1: AnyArray
    weighted_f1: AnyArray
    recall: AnyArray
    precision: AnyArray
    f1: AnyArray
    has_class: AnyArray
    has_prediction: AnyArray
    num_rows: AnyArray
    num_classes: AnyArray
    is_defined: AnyArray


def class_scores(
    right: Num[AnyArray, "*batch C"],
    support: Num[AnyArray, "*batch C"],
    predicted: Num[AnyArray, "*batch C"],
    f1_classes: str = "present",
) -> ClassScores:
    """UAR, accuracy (= micro-F1), macro-F1 and weighted F1 from totals of each class.

    Args:
      right: [..., C] rows of the class that were predicted as it.
      support: [..., C] rows of the class.
      predicted: [..., C] rows predicted as the class.
      f1_classes: Macro-F1 over the classes `present`, or over `all` of the class set. UAR is over those present.

    Source: method.md 8.2.
    """
    if f1_classes not in ("present", "all"):
        raise ValueError(f"f1_classes = {f1_classes!r}: choose present or all")
    xp = namespace_of(right)
    right, support, predicted = (xp.asarray(total, dtype=float) for total in (right, support, predicted))

    def ratio(numerator: AnyArray, denominator: AnyArray) -> AnyArray:
        return xp.where(denominator > 0, numerator / xp.where(denominator > 0, denominator, 1), 0)

    has_class, num_rows = support > 0, support.sum(axis=-1)
    num_classes = has_class.sum(axis=-1)
    recall, f1 = ratio(right, support), ratio(2 * right, support + predicted)
    in_macro = has_class if f1_classes == "present" else xp.ones_like(has_class)
    return ClassScores(
        uar=ratio(recall.sum(axis=-1), num_classes),
        accuracy=ratio(right.sum(axis=-1), num_rows),
        macro_f1=ratio(xp.where(in_macro, f1, 0).sum(axis=-1), in_macro.sum(axis=-1)),
        weighted_f1=ratio((support * f1).sum(axis=-1), num_rows),
        recall=recall,
        precision=ratio(right, predicted),
        f1=f1,
        has_class=has_class,
        has_prediction=predicted > 0,
        num_rows=num_rows,
        num_classes=num_classes,
        is_defined=num_rows > 0,
    )


class NBest(NamedTuple):
    """Confusion counts, int32 [U, N, C, C]: consensus (rows) against prediction, for each N of N-best.

    The prediction is the consensus where that is among the N most probable classes, the most probable one otherwise.
    """

    counts: AnyArray

    @classmethod
    def empty(cls, num_units: int, num_nbest: int, num_classes: int) -> "NBest":
        """State of no rows; `num_nbest` is how many N are counted."""
        return cls(jnp.zeros((num_units, num_nbest, num_classes, num_classes), jnp.int32))

    def update(
        self,
        unit: Int[AnyArray, " B"],
        distribution: Float[AnyArray, "B C"],
        consensus: Int[AnyArray, " B"],
        nbest: tuple[int, ...] = (1,),
    ) -> "NBest":
        """Adds a batch.

        Args:
          unit: [B] unit of each row.
          distribution: [B, C] predicted class scores, larger is more probable. Equal ones rank by class order.
          consensus: [B] class of the consensus, -1 where there is none: that row is not scored.
          nbest: The N, as many as the state has.

        Source: method.md 8.3 (idea KNOWN; OURS: the prediction behind N-best F1).
        """
        num_units, num_nbest, num_classes, _ = self.counts.shape
        if len(nbest) != num_nbest:
            raise ValueError(f"nbest = {nbest}: the state counts {num_nbest} of them")
        is_scored = jnp.asarray(consensus) >= 0
        consensus = jnp.where(is_scored, consensus, 0)
        distribution = jnp.where(is_scored[:, None], distribution, 0)
        own = jnp.take_along_axis(distribution, consensus[:, None], axis=1)
        is_earlier = jnp.arange(num_classes)[None, :] < consensus[:, None]
        rank = ((distribution > own) | ((distribution == own) & is_earlier)).sum(axis=1)
        best = distribution.argmax(axis=1)
        is_right = rank[:, None] < jnp.asarray(nbest)[None, :]
        prediction = jnp.where(is_right, consensus[:, None], best[:, None])
        row = jnp.where(is_scored, unit, 0)[:, None] * num_nbest + jnp.arange(num_nbest)[None, :]
        cell = (row * num_classes + consensus[:, None]) * num_classes + prediction
        weight = jnp.broadcast_to(is_scored[:, None], cell.shape).astype(jnp.int32)
        added = jax.ops.segment_sum(weight.reshape(-1), cell.reshape(-1), num_units * num_nbest * num_classes**2)
        return NBest(self.counts + added.reshape(self.counts.shape))

    def merge(self, other: "NBest") -> "NBest":
        """Both states as one."""
        return NBest(self.counts + other.counts)

    def pool(self) -> "NBest":
        """All units merged into one: [U, N, C, C] -> [N, C, C]."""
        return NBest(self.counts.sum(axis=0))

    def compute(self, f1_classes: str = "present") -> ClassScores:
        """Class scores of each unit and N: `uar` [..., N], `recall` [..., N, C] and so on."""
        return confusion_scores(self.counts, f1_classes)


def confusion_scores(counts: Num[AnyArray, "*batch C C"], f1_classes: str = "present") -> ClassScores:
    """Class scores of confusion counts [..., C, C], consensus in rows. See `class_scores`."""
    right = namespace_of(counts).einsum("...cc->...c", counts)
    return class_scores(right, counts.sum(axis=-1), counts.sum(axis=-2), f1_classes)


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
    """

    jsd: AnyArray
    kl: AnyArray
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
      classes: Moments [U, C] of the shares.
      num_true: [U, C] int32 rows where both shares exceed 1/C.
      num_predicted: [U, C] int32 rows where the predicted share does.
      num_present: [U, C] int32 rows where the share of the votes does.
    """

    num_rows: AnyArray
    jsd: AnyArray
    kl: AnyArray
    classes: Moments
    num_true: AnyArray
    num_predicted: AnyArray
    num_present: AnyArray

    @classmethod
    def empty(cls, num_units: int, num_classes: int) -> "Distribution":
        """State of no rows."""
        row, counts = jnp.zeros(num_units, jnp.float32), jnp.zeros((num_units, num_classes), jnp.int32)
        return cls(row, row, row, Moments.empty(num_units, num_classes), counts, counts, counts)

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

        Source: method.md 8.7 and 8.8 (KNOWN: a class is present above 1/C, strictly, on both sides).
        """
        num_units, num_classes = self.num_true.shape
        unit, is_used = jnp.asarray(unit), jnp.broadcast_to(mask[:, None], target.shape)
        q, p = jnp.where(is_used, prediction, 0), jnp.where(is_used, target, 0)
        middle = (p + q) / 2

        def divergence(a: AnyArray, b: AnyArray) -> AnyArray:
            is_positive = a > 0
            ratio = jnp.where(is_positive, a, 1) / jnp.where(is_positive, b, 1)
            return (a * jnp.log(ratio)).sum(axis=1)

        def total(values: AnyArray) -> AnyArray:
            return jax.ops.segment_sum(values, unit, num_units)

        jsd = (divergence(p, middle) + divergence(q, middle)) / (2 * np.log(2.0))
        is_present, is_predicted = p > 1 / num_classes, q > 1 / num_classes
        added = Distribution(
            total(mask.astype(jnp.float32)),
            total(jsd),
            total(divergence(p, jnp.maximum(q, 1e-12))),
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
        classes = self.classes.compute()
        num_class_ccc = classes.is_defined.sum(axis=-1)
        label = class_scores(self.num_true, self.num_present, self.num_predicted, f1_classes="all")
        return DistributionScores(
            jsd=self.jsd / num_rows,
            kl=self.kl / num_rows,
            class_ccc=classes.ccc,
            has_class_ccc=classes.is_defined,
            class_ccc_mean=classes.ccc.sum(axis=-1) / xp.maximum(num_class_ccc, 1),
            num_class_ccc=num_class_ccc,
            multi_label_f1=label.f1,
            multi_label_macro_f1=label.macro_f1,
            num_rows=self.num_rows,
            is_defined=self.num_rows > 0,
        )
