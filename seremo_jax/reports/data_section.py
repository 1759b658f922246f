"""The report's section on the data: splits, classes, exclusions."""

from collections.abc import Mapping, Sequence
from typing import Any

from seremo_jax.core import vocab
from seremo_jax.data import ingest
from seremo_jax.reports import page


def data_section(record: Mapping[str, Any], class_names: Sequence[str], speech: str) -> page.Section:
    """Who and what is in each split, what was left out and why.

    Args:
      record: Content of `ingest.json`.
      class_names: The class set, in order.
      speech: Sentence about the speech, for captions.
    """
    notes = " ".join(record["corpus"].get("notes", ()))
    splits = record["splits"]
    genders = [g for g in vocab.GENDERS if any(g in split["by_gender"] for split in splits.values())]
    classes = list(dict.fromkeys([*class_names, *(c for s in splits.values() for c in s["by_class"])]))
    order = sorted(splits, key=lambda name: (vocab.SPLITS.index(name) if name in vocab.SPLITS else 99, name))
    sizes = [
        page.Row((name, f"{splits[name]['utterances']:,}", str(splits[name]["speakers"]),
                  *(str(splits[name]["by_gender"].get(g, {}).get("speakers", 0)) for g in genders)))
        for name in order
    ]  # fmt: skip
    by_class = [page.Row((name, *(f"{splits[name]['by_class'].get(c, 0):,}" for c in classes))) for name in order]
    utterances, ratings = record["utterances"], record["ratings"]
    left_out = [
        page.Row(("utterances", reason, ingest.REASONS.get(reason, ""), f"{number:,}"))
        for reason, number in utterances["excluded"].items()
    ] + [
        page.Row(("ratings", reason, ingest.REASONS.get(reason, "the rating's utterance is not there"), f"{number:,}"))
        for reason, number in ratings["dropped"].items()
    ]
    left_out = left_out or [page.Row((page.NOTHING, "nothing was left out", "", "0"))]
    text = (
        f"{utterances['kept']:,} of {utterances['found']:,} utterances and {ratings['kept']:,} of {ratings['found']:,} "
        f"ratings are used ({record['audio']['hours']:.2f} h of audio). Left-out utterances are named in ingest.json."
    )
    caption = f"{speech}{notes}".strip()
    return page.Section(
        "data", "Data and exclusions", (text, *(f"Note: {warning}" for warning in record["warnings"])),
        items=(
            page.Table("Splits", ("split", "utterances", "speakers", *genders), tuple(sizes),
                       f"Genders: speakers. {caption}".strip()),
            page.Table("Utterances by consensus", ("split", *classes), tuple(by_class), caption),
            page.Table("Left out", ("what", "reason", "meaning", "number"), tuple(left_out), caption, num_labels=3),
        ),
    )  # fmt: skip
