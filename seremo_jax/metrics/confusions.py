"""Confusion counts of N-best predictions as a mergeable state, and the scores of classes from totals of each class.

    state = NBest.empty(num_speakers, 2, num_classes)
    for batch in batches:
        state = state.update(speaker, distribution, consensus, nbest=(1, 2))  # [B], [B, C], [B]
    uar, two_best_uar = state.pool().compute().uar

Part of `seremo_jax.metrics.distributions`, which says what all states have in common.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int, Num

from seremo_jax.metrics.moments import AnyArray, namespace_of


class ClassScores(NamedTuple):
    """Scores of shape [...] and per class [..., C]; 0 where not defined, never NaN.

    `has_class`: the class occurs, so its recall is defined; `has_prediction`: it was predicted, so its precision is.
    """

    uar: AnyArray
    accuracy: AnyArray
    macro_f1: AnyArray
    micro_f1: AnyArray
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
    right: Num[AnyArray, "*#batch C"],
    support: Num[AnyArray, "*#batch C"],
    predicted: Num[AnyArray, "*#batch C"],
    f1_classes: str = "present",
) -> ClassScores:
    """UAR, accuracy, macro-, micro- and weighted F1 from totals of each class; leading axes broadcast.

    Args:
      right: [..., C] rows of the class that were predicted as it.
      support: [..., C] rows of the class.
      predicted: [..., C] rows predicted as the class.
      f1_classes: Macro-F1 over the classes `present`, or over `all` of the class set. UAR is over those present.

    Source: method.md 8.2. (Micro-F1 equals accuracy where every row has one prediction, and not where rows may have
    several labels.)
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
        micro_f1=ratio(2 * right.sum(axis=-1), (support + predicted).sum(axis=-1)),
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
