"""What each label policy does to the counts of a corpus: as configured, and with one policy changed at a time."""

import dataclasses
import os
from typing import Any

import numpy as np
import pyarrow as pa

from seremo_jax.core import vocab
from seremo_jax.core.config import CHOICES, Config
from seremo_jax.data import policies, targets
from seremo_jax.data.tables import info_of, read_for

_NUMBERS = {
    "targets.secondary_weight": (0.0, 0.5, 1.0),
    "targets.min_raters": (1, 3, 5),
    "targets.smoothing": (0.0, 0.5),
}
_POLICIES = (
    *("data.modality", "data.self_reports", "data.keep_no_agreement", "targets.class_set", "targets.other_votes"),
    *("targets.secondary_weight", "targets.repeated_rater", "targets.multi_primary", "targets.min_raters"),
    *("targets.tie_rule", "targets.smoothing"),
)
_VALUES = {**CHOICES, **_NUMBERS, "targets.class_set": tuple(vocab.CLASS_SETS)}
ALTERNATIVES: dict[str, tuple[Any, ...]] = {path: _VALUES[path] for path in _POLICIES}
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
    configured = _build(config, utterances, ratings)
    lines = []
    for policy, alternatives in ALTERNATIVES.items():
        section, name = policy.split(".")
        present = getattr(getattr(config, section), name)
        lines.append(_line(policy, present, configured, configured))
        if policy == "targets.class_set":
            alternatives = tuple(dict.fromkeys((info_of(ratings).class_set, *alternatives)))
        for value in alternatives:
            if value != present:
                part = dataclasses.replace(getattr(config, section), **{name: value})
                changed = dataclasses.replace(config, **{section: part})
                try:
                    alternative = _build(changed, utterances, ratings)
                except targets.TargetsError as error:
                    lines.append(Line(policy, value, False, problem=str(error).partition(";")[0].partition(":")[0]))
                else:
                    lines.append(_line(policy, value, alternative, configured))
    return lines


def _build(config: Config, utterances: pa.Table, ratings: pa.Table) -> targets.Targets:
    # Without the steps of the rating scale, which no count of the table depends on.
    asked = dataclasses.replace(policies.target_policies(config), has_levels=False)
    return targets.build(utterances, ratings, asked)


def _line(policy: str, value: Any, built: targets.Targets, configured: targets.Targets) -> Line:
    if built.class_names == configured.class_names:
        is_moved = (built.distribution != configured.distribution).any(axis=1)
        is_moved |= (built.consensus != configured.consensus).any(axis=1)
    else:
        is_moved = built.has_votes | configured.has_votes
    return Line(
        policy,
        value,
        built is configured,
        num_ratings=built.counts["num_ratings_used"],
        num_votes=float(np.sum(built.votes)),
        num_voted=int(built.has_votes.sum()),
        num_consensus=int(built.has_consensus.sum()),
        num_ties=built.counts["num_ties"],
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
    utterances, ratings, _ = read_for(config, workdir)
    return to_text(explain(config, utterances, ratings))
