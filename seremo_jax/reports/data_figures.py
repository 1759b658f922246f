"""Figures of the validation page: what a corpus's labels and speakers look like, split by split."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from seremo_jax.reports.look import Look, canvas

_SMALL = (6.2, 4.1)
"""Width and height of a figure that stands beside another, inches."""


def class_shares(
    look: Look, splits: Sequence[str], words: Sequence[str], votes: Int[np.ndarray, "num_splits num_words"]
) -> Figure:
    """Share of the votes that each class has, one bar a split.

    Args:
      look: Theme and words; its systems are the splits.
      splits: Names of the splits.
      words: Words that were voted for.
      votes: [splits, words] votes.
    """
    size = (_SMALL[0], max(_SMALL[1], 0.13 * len(words) * len(splits) + 1.7))
    figure, [[ax]] = canvas(look, "Votes by class and split", "share of all votes of the split", size, (1, 1))
    width = 0.82 / len(splits)
    totals = votes.sum(axis=1)
    for lane, split in enumerate(splits):
        places = np.arange(len(words)) + (lane - (len(splits) - 1) / 2) * width
        label = f"{split or 'in no split'} ({totals[lane]:,})"
        ax.barh(places, votes[lane] / max(totals[lane], 1), 0.92 * width, color=look.color(split), label=label)
    ax.set_yticks(range(len(words)), words)
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.tick_params(axis="y", length=0)
    ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.set_xlabel("share of votes (in brackets: votes)")
    figure.legend(loc="outside lower center", ncols=min(len(splits), 3))
    return figure


def votes_per_utterance(look: Look, numbers: Mapping[int, int]) -> Figure:
    """How many utterances have how many votes.

    Args:
      look: Theme and words.
      numbers: Votes -> utterances.
    """
    total = sum(votes * n for votes, n in numbers.items())
    num_utterances = sum(numbers.values())
    note = f"{total:,} votes on {num_utterances:,} utterances, {total / max(num_utterances, 1):.2f} on average"
    figure, [[ax]] = canvas(look, "Votes per utterance", note, _SMALL, (1, 1))
    bars = ax.bar(list(numbers), list(numbers.values()), 0.86, color=look.theme.systems[0])
    if len(numbers) <= 12:
        ax.bar_label(bars, [f"{n:,}" for n in numbers.values()], size=9, padding=2)
        ax.margins(y=0.1)
    _bare(ax)
    ax.set(xlabel="votes", ylabel="utterances")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return figure


def histogram(look: Look, title: str, label: str, values: Mapping[str, Any]) -> Figure:
    """Utterances over a number, with mean and median.

    Args:
      look: Theme and words.
      title: Title.
      label: Words and unit under the axis.
      values: `edges`, `counts`, `mean`, `median`, as `ingest_record.describe_kept` gives them.
    """
    mean, median = values["mean"], values["median"]
    note = "no utterance" if mean is None else f"mean {mean:.2f} (dashed) · median {median:.2f} (dotted)"
    figure, [[ax]] = canvas(look, title, note, _SMALL, (1, 1))
    edges = np.asarray(values["edges"])
    ax.bar(edges[:-1], values["counts"], 0.94 * np.diff(edges), align="edge", color=look.theme.systems[0])
    if mean is not None:
        ax.axvline(mean, color=look.theme.ink, lw=1.4, ls=(0, (4, 3)))
        ax.axvline(median, color=look.theme.ink, lw=1.4, ls=(0, (1, 2)))
    _bare(ax)
    ax.set(xlabel=label, ylabel="utterances", xlim=(edges[0], edges[-1]))
    return figure


def speakers(look: Look, splits: Sequence[str], numbers: Mapping[str, Sequence[int]]) -> Figure:
    """Speakers of each split by gender.

    Args:
      look: Theme and words.
      splits: Names of the splits.
      numbers: Gender -> speakers in each split.
    """
    figure, [[ax]] = canvas(look, "Speakers by gender and split", "known speakers only", _SMALL, (1, 1))
    width = 0.78 / max(len(numbers), 1)
    for lane, (gender, counts) in enumerate(numbers.items()):
        places = np.arange(len(splits)) + (lane - (len(numbers) - 1) / 2) * width
        bars = ax.bar(places, counts, 0.92 * width, color=look.theme.targets[lane], label=gender)
        ax.bar_label(bars, size=9, padding=2)
    ax.set_xticks(range(len(splits)), [split or "in no split" for split in splits])
    _bare(ax)
    ax.margins(y=0.12)
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_ylabel("speakers")
    if numbers:
        figure.legend(loc="outside lower center", ncols=len(numbers))
    return figure


def _bare(ax: Any) -> None:
    ax.grid(axis="x", visible=False)
    ax.tick_params(axis="x", length=0)
