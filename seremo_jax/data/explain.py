"""What each label policy does to the counts of a corpus: as configured, and with one policy changed at a time."""

import dataclasses
import os
from typing import Any

import numpy as np
import pyarrow as pa

from seremo_jax.core import vocab
from seremo_jax.core.config import Config
from seremo_jax.data import policies, targets
from seremo_jax.data.tables import read_tables

ALTERNATIVES: dict[str, tuple[Any, ...]] = {
    "data.modality": vocab.MODALITIES,
    "data.self_reports": ("out", "in"),
    "targets.class_set": tuple(vocab.CLASS_SETS),
    "targets.other_votes": ("drop", "spread", "class"),
    "targets.secondary_weight": (0.0, 0.5, 1.0),
    "targets.repeated_rater": ("keep", "average", "last"),
    "targets.multi_primary": ("share", "each", "first"),
    "targets.min_raters": (1, 3, 5),
    "targets.tie_rule": ("no_agreement", "share", "first"),
    "targets.smoothing": (0.0, 0.5),
}
"""Policy -> the values that are tried; the configured one always is, and comes first."""


@dataclasses.dataclass(frozen=True)
class Line:
    """Counts under one value of one policy; `problem` says why there are none.

    Attributes:
      policy: Config field.
      value: Its value.
      is_configured: Whether the config has this value.
      num_ratings: Ratings that count.
      num_votes: Votes inside the class set, parts of votes added up.
      num_voted: Utterances with a vote distribution.
      num_consensus: Utterances whose consensus can be trained on.
      num_ties: Utterances with a tie for the plurality.
      num_moved: Utterances whose distribution or consensus differs from the configured one.
      problem: Error of `targets.build`, or "".
    """

    policy: str
    value: Any
    is_configured: bool
    num_ratings: int = 0
    num_votes: float = 0.0
    num_voted: int = 0
    num_consensus: int = 0
    num_ties: int = 0
    num_moved: int = 0
    problem: str = ""


def explain(config: Config, utterances: pa.Table, ratings: pa.Table) -> list[Line]:
    """A line for the configured value of each policy and for each of its alternatives.

    Args:
      config: The experiment.
      utterances: Utterance table.
      ratings: Ratings table.
    """
    configured = targets.build(utterances, ratings, **policies.of_targets(config))
    lines = []
    for policy, alternatives in ALTERNATIVES.items():
        section, name = policy.split(".")
        own = getattr(getattr(config, section), name)
        lines.append(_line(policy, own, configured, configured))
        for value in alternatives:
            if value != own:
                part = dataclasses.replace(getattr(config, section), **{name: value})
                changed = dataclasses.replace(config, **{section: part})
                try:
                    made = targets.build(utterances, ratings, **policies.of_targets(changed))
                except targets.TargetsError as error:
                    lines.append(Line(policy, value, False, problem=str(error).partition(";")[0].partition(":")[0]))
                else:
                    lines.append(_line(policy, value, made, configured))
    return lines


def _line(policy: str, value: Any, made: targets.Targets, configured: targets.Targets) -> Line:
    if made.class_names == configured.class_names:
        is_moved = (made.distribution != configured.distribution).any(axis=1)
        is_moved |= (made.consensus != configured.consensus).any(axis=1)
    else:
        is_moved = made.has_votes | configured.has_votes
    return Line(
        policy,
        value,
        made is configured,
        num_ratings=made.counts["num_ratings_used"],
        num_votes=float(np.sum(made.votes)),
        num_voted=int(made.has_votes.sum()),
        num_consensus=int(made.has_consensus.sum()),
        num_ties=made.counts["num_ties"],
        num_moved=int(is_moved.sum()),
    )


def to_text(lines: list[Line]) -> str:
    """The lines as a table for a terminal, `*` at the configured value."""
    head = ("policy", "value", "ratings", "votes", "utterances voted", "with consensus", "ties", "moved")
    rows = [head]
    for line in lines:
        name = line.policy if line.is_configured else ""
        value = f"{'*' if line.is_configured else ' '} {line.value}"
        counts = (line.num_ratings, line.num_votes, line.num_voted, line.num_consensus, line.num_ties, line.num_moved)
        rows.append((name, value, *([line.problem] if line.problem else [f"{count:,g}" for count in counts])))
    widths = [max(len(row[i]) for row in rows if len(row) == len(head)) for i in range(len(head))]
    texts = []
    for row in rows:
        cells = [cell.ljust(w) if i < 2 or len(row) < len(head) else cell.rjust(w)
                 for i, (cell, w) in enumerate(zip(row, widths, strict=False))]  # fmt: skip
        texts.append("  ".join(cells).rstrip())
    return "\n".join(texts)


def run(config: Config, workdir: str | os.PathLike) -> str:
    """The table for the corpus ingested in a workdir.

    Raises:
      ArtefactError: Ingest did not finish there.
      TargetsError: The configured policies contradict the ratings.
    """
    utterances, ratings, _ = read_tables(workdir)
    return to_text(explain(config, utterances, ratings))
