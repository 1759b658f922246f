"""The section of a model that was scored on another corpus: both corpora, and what became of the classes of each."""

from collections.abc import Mapping
from typing import Any

from seremo_jax.reports import page
from seremo_jax.reports.blocks import Block
from seremo_jax.reports.table import NOTHING, Row, Table, plain

_READING = (
    "Votes outside the model's classes are masked: an utterance with more of them than votes for any class is not "
    "scored. A class that only the model knows counts as wrong wherever it is said; means over classes are over those "
    "that the votes have. Temperature and conformal sets are those of the model's own development split."
)


def origin(block: Block) -> Mapping[str, Any]:
    """What the card says of the corpus that the model was trained on; empty where that is the corpus scored."""
    return block.whole(block.systems[0]).protocol.get("trained_on", {})


def section(block: Block) -> page.Section | None:
    """The section; None where the model was trained on the corpus that it is scored on."""
    card, trained = block.whole(block.systems[0]).protocol, origin(block)
    if not trained:
        return None
    mapped = card["class_map"][block.split]
    sides = [
        ("trained on", trained["corpus"], trained["release"], "all of the model's", ", ".join(card["classes"])),
        ("scored on", card["corpus"], card["release"], "classes of both", ", ".join(mapped["common"])),
        ("", "", "", "of the model alone", ", ".join(mapped["of_the_model_only"]) or NOTHING),
        ("", "", "", "of the corpus alone", ", ".join(mapped["of_the_corpus_only"]) or NOTHING),
    ]
    corpora = Table(
        "Both corpora", ("", "corpus", "release", "which classes", "classes"), (), tuple(Row(side) for side in sides)
    )
    counts = Table(
        "Votes by who knows their class", (), ("votes for the model's classes", "votes masked", "utterances masked"),
        (Row((), plain(*(f"{mapped[name]:,}" for name in ("votes", "masked_votes", "masked_consensus")))),), _READING,
    )  # fmt: skip
    heard = str(card["heard"])
    what = heard if heard == "every utterance" else f"the split {block.split}"
    text = (
        f"The model was trained on {trained['corpus']} and heard {what} of {card['corpus']} through its own backbone, "
        "layer, level and feature statistics. Nothing was fitted to the corpus that it is scored on."
    )
    return page.Section("transfer", "Trained on another corpus", (text,), items=(corpora, counts))
