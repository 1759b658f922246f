"""Raters weighed by how reliable they are: Dawid and Skene's model of each rater's confusions, through crowd-kit.

Source: KNOWN: A. P. Dawid and A. M. Skene, Maximum likelihood estimation of observer error-rates using the EM
algorithm, Applied Statistics 28(1), 1979.
"""

import warnings

import numpy as np
import polars as pl
from jaxtyping import Bool, Float

from seremo_jax import vocab
from seremo_jax.votes import TargetsError

ANONYMOUS = "anon-"
"""How ids of raters begin that are made up utterance by utterance."""
_NUM_ITERATIONS = 100


def posterior(
    frame: pl.DataFrame, num_rows: int, class_names: tuple[str, ...], has_votes: Bool[np.ndarray, " N"]
) -> Float[np.ndarray, "N C"]:
    """Each utterance's probability of being of each class, given all votes and the raters' estimated confusions.

    Args:
      frame: Ratings that count, with `row`, `rater`, `primary`.
      num_rows: N.
      class_names: C words; votes for others are left out.
      has_votes: Rows with a vote; the others are 0.

    Returns:
      [N, C] float32, rows with a vote sum to 1.

    Raises:
      TargetsError: Raters are anonymous, or crowd-kit is not installed.
    """
    if frame["rater"].str.starts_with(ANONYMOUS).any():
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
    merged = {
        word: kept for words in vocab.MERGED_WORDS.values() for word, kept in words.items() if kept in class_names
    }
    merged = {word: kept for word, kept in merged.items() if word not in class_names}
    labels = frame.select(task="row", worker="rater", label=pl.col("primary").replace(merged))
    labels = labels.filter(pl.col("label").is_in(class_names)).unique(
        ["task", "worker"], keep="last", maintain_order=True
    )
    with warnings.catch_warnings():
        # crowd-kit calls pandas in ways that newer releases of it advise against.
        warnings.simplefilter("ignore")
        probabilities = DawidSkene(n_iter=_NUM_ITERATIONS).fit_predict_proba(labels.to_pandas())
    result = np.zeros((num_rows, len(class_names)), np.float32)
    columns = [class_names.index(name) for name in probabilities.columns]
    result[probabilities.index.to_numpy()[:, None], np.array(columns)[None]] = probabilities.to_numpy()
    return np.where(has_votes[:, None], result, 0).astype(np.float32)
