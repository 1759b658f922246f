"""Which layer a curve picks, and how far it can be trusted: its interval over speakers, and the heads trained on it."""

from typing import NamedTuple

import numpy as np
import scipy
from jaxtyping import Float


def jackknife(
    whole: Float[np.ndarray, "*shape"], without: Float[np.ndarray, "G *shape"], level: float = 0.95
) -> tuple[Float[np.ndarray, "*shape"], Float[np.ndarray, "*shape"]]:
    """Interval over speakers of any smooth statistic: `whole` ± t times the jackknife's standard error.

    Resampling with replacement would push a mean of absolute correlations up, because noise has no sign there, and so
    put the interval beside its own value. Leaving speakers out does not.

    Args:
      whole: Of all speakers.
      without: Of all but each group of speakers in turn.
      level: Share of intervals that should hold the value of all speakers there are.

    Returns:
      Lowest and highest value; NaN where there are fewer than two groups.

    Source: KNOWN: J. W. Tukey, 1958; delete-a-group for many speakers: P. S. Kott, J. Official Statistics 17(4), 2001.
    """
    G = len(without)
    if G < 2:
        return np.full(whole.shape, np.nan), np.full(whole.shape, np.nan)
    # Results without one group differ from each other far less than results of other speakers would, hence G - 1.
    deviations = without - without.mean(axis=0)
    se = np.sqrt((G - 1) / G * np.square(deviations).sum(axis=0))
    reach = scipy.special.stdtrit(G - 1, (1 + level) / 2) * se
    return whole - reach, whole + reach


def pick_layer(scores: Float[np.ndarray, " K"]) -> int:
    """Place of the largest score; the lowest of equal ones.

    Raises:
      ValueError: A score is not finite, which only a NaN or infinity in a layer's features can cause.
    """
    if not np.isfinite(scores).all():
        places = np.flatnonzero(~np.isfinite(scores)).tolist()
        raise ValueError(f"saliency is not finite at index {places} of the layers")
    return int(np.argmax(scores))


class Regret(NamedTuple):
    """What `regret` returns.

    Attributes:
      picked: Place of the layer that the curve picks, among all K.
      best: Place of the layer with the best head.
      regret: Best head's score minus that of the picked layer's head; 0 is a perfect choice.
      rank_correlation: Spearman's, between curve and head scores; NaN for fewer than two layers or a constant side.
    """

    picked: int
    best: int
    regret: float
    rank_correlation: float


def regret(curve: Float[np.ndarray, " K"], head_scores: Float[np.ndarray, " K"]) -> Regret:
    """Judges a curve by heads trained on the layers.

    Args:
      curve: What a layer is picked by, larger is better.
      head_scores: Score of the head trained on each layer, larger is better; NaN where none was: such layers are left
        out, as if the curve did not have them.

    Raises:
      ValueError: No layer has a head, or the curve is not finite where one has.

    Source: KNOWN: Spearman's rank correlation with mean ranks of ties; OURS: its use here.
    """
    places = np.flatnonzero(np.isfinite(head_scores))
    if not len(places) or not np.isfinite(curve[places]).all():
        raise ValueError(
            "a curve is judged by heads: it needs one layer with a head, and a number for every such layer"
        )
    curve, scores = curve[places], head_scores[places]
    picked, best = pick_layer(curve), pick_layer(scores)
    # Spearman's correlation is Pearson's of the ranks, equal values sharing the mean of theirs.
    ranks = np.stack([scipy.stats.rankdata(curve), scipy.stats.rankdata(scores)])
    varies = (np.ptp(ranks, axis=1) > 0).all()
    correlation = float(np.corrcoef(ranks)[0, 1]) if varies else float("nan")
    return Regret(int(places[picked]), int(places[best]), float(scores[best] - scores[picked]), correlation)
