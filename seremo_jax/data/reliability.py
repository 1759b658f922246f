"""Votes of raters weighed by how reliable each rater is: Dawid and Skene's model, through crowd-kit.

Source: KNOWN: A. P. Dawid and A. M. Skene, Maximum likelihood estimation of observer error-rates using the EM
algorithm, Applied Statistics 28(1), 1979.
"""

import warnings

import numpy as np
import polars as pl
from jaxtyping import Bool, Float

from seremo_jax.data.policies import TargetsError

ANONYMOUS = "anon-"
"""How ids of raters begin that are made up utterance by utterance, where a corpus gives counts of votes only."""
_NUM_ITERATIONS = 100


def posterior(
    single: pl.DataFrame, num_rows: int, num_classes: int
) -> tuple[Float[np.ndarray, "N C"], Bool[np.ndarray, " N"]]:
    """Each utterance's probability of being of each class, given all votes and the raters' estimated confusions.

    Args:
      single: One row a vote: `row` of the utterance, `rater`, `column` of the class; votes for what is beyond the
        classes are left out.
      num_rows: N.
      num_classes: C.

    Returns:
      [N, C] float32, rows with a vote for a class sum to 1, the others are 0; and [N] bool, whether there is one.

    Raises:
      TargetsError: Raters are anonymous, or crowd-kit is not installed.
    """
    if single["rater"].str.starts_with(ANONYMOUS).any():
        raise TargetsError(
            "targets.distribution_of = 'dawid_skene' needs to know who rated what, and this corpus gives counts of "
            "votes without the raters; choose shares"
        )
    try:
        from crowdkit.aggregation import DawidSkene
    except ImportError:
        raise TargetsError(
            "targets.distribution_of = 'dawid_skene' needs crowd-kit: pip install -e '.[raters]'"
        ) from None
    inside = single.filter(pl.col("column") < num_classes)
    # The model takes a single label from a rater for an utterance: of several the last one counts.
    labels = inside.unique(["row", "rater"], keep="last", maintain_order=True)
    labels = labels.rename({"row": "task", "rater": "worker", "column": "label"})
    with warnings.catch_warnings():
        # crowd-kit calls pandas in ways that newer releases of it advise against.
        warnings.simplefilter("ignore")
        probabilities = DawidSkene(n_iter=_NUM_ITERATIONS).fit_predict_proba(labels.to_pandas())
    result = np.zeros((num_rows, num_classes), np.float32)
    result[probabilities.index.to_numpy()[:, None], probabilities.columns.to_numpy()[None, :]] = (
        probabilities.to_numpy()
    )
    return result, result.sum(axis=1) > 0
