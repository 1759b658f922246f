"""Published numbers on MSP-Podcast, each with release, set and source, and why it isn't comparable with a row of ours.

The rows are data (`published.csv`); nothing is known of a cell that is empty. Source: METHOD.md, section 10.
"""

import csv
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seremo_jax.core import vocab
from seremo_jax.metrics.catalogue import metric

SOURCES = {
    "ODY": "paper and code of the Odyssey 2024 baseline (msplabresearch/MSP-Podcast_Challenge)",
    "EMOS": "code and supplement of EMO-SUPERB, arXiv:2402.13018",
    "RN": "a researcher's public reading notes (makrai/notes), secondary",
    "COLL": "an unnamed public collection of scores, secondary",
    "LBR": "a leaderboard told in a public report, secondary",
    "SUM": "a machine-written third-party summary",
}
"""Tag of a source -> what it is."""

SCORES = {
    "attributes": {
        **{name: metric("ccc", attribute=name).name for name in vocab.ATTRIBUTES},
        "mean": metric("ccc_mean").name,
    },
    "classes": {"macro_f1": "macro-F1", "micro_f1": "micro-F1"},
    "multilabel": {"multilabel_f1": "multi-label macro-F1"},
    "paper": {"mean": "CCC (attribute not stated)", "macro_f1": "F1m", "pa_uar_75_1_best": "paUAR-75 (1-best)",
              "pa_uar_75_2_3_best": "paUAR-75 (2-best / 3-best)",
              "pa_uar_75_by_gender": "paUAR-75 (female / male)"},
}  # fmt: skip
"""Kind of row -> column of the file -> name of the score."""

TITLES = {
    "attributes": "attributes",
    "classes": "consensus of eight classes",
    "multilabel": "several classes of an utterance at once",
    "paper": "the paper after which this is made",
}
"""Kind of row -> its words."""

_UNSURE = {
    "attributes": (),
    "classes": ("classes of F1 (not stated)",),
    "multilabel": (),
    "paper": ("attribute (not stated)",),
}


@functools.cache
def rows() -> tuple[Mapping[str, str], ...]:
    """Every published row, in the order of the file."""
    with (Path(__file__).parent / "published.csv").open(encoding="utf-8", newline="") as file:
        return tuple(csv.DictReader(file))


def ours(protocol: Mapping[str, Any], split: str) -> dict[str, str]:
    """Of our rows, what published ones are compared in: corpus, release, set, class set."""
    return {
        "corpus": str(protocol.get("corpus", "")),
        "release": str(protocol.get("release", "")),
        "set": split,
        "class_set": str(protocol.get("settings.targets.class_set", "")),
    }


def differing(row: Mapping[str, str], protocol: Mapping[str, Any], split: str) -> list[str]:
    """In what a published row differs, or may differ, from ours; empty where all that matters is the same.

    Args:
      row: A row of the file.
      protocol: Flat protocol of ours.
      split: Split of ours.
    """
    reasons = ["real speech"] if protocol.get("is_simulated") else []
    for field, here in ours(protocol, split).items():
        if field == "class_set" and row["kind"] == "attributes":
            continue
        words, there = field.replace("_", " "), row[field]
        if not there:
            reasons.append(f"{words} (not stated)")
        elif _plain(there) != _plain(here):
            reasons.append(words)
    return [*reasons, *_UNSURE[row["kind"]]]


def _plain(name: str) -> str:
    return name.casefold().replace("_", "-")
