"""Votes of one corpus onto the classes of a model that was trained on another: what both know, and what is masked."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Int

from seremo_jax.core.artefacts import ArtefactError
from seremo_jax.data.targets import Targets

_LEAST = 2
"""Classes that a recall can be averaged over."""


@dataclasses.dataclass(frozen=True)
class ClassMap:
    """Votes of the utterances heard, by who knows their class.

    Attributes:
      votes: Class of the model -> votes for it.
      masked: Votes for words outside the model's classes, which count nowhere.
      masked_words: Word outside the model's classes that some class set knows -> votes for it in the whole corpus.
      num_utterances: Utterances heard.
      num_scored: Those whose consensus is a class of the model.
      num_masked_consensus: Those whose votes are mostly for other words.
    """

    votes: dict[str, int | float]
    masked: int | float
    masked_words: dict[str, int]
    num_utterances: int
    num_scored: int
    num_masked_consensus: int

    @classmethod
    def of(cls, targets: Targets, rows: Int[np.ndarray, " n"]) -> "ClassMap":
        """Of the targets of a corpus, made by the model's class set, and the rows that are heard."""
        inside = targets.votes[rows].sum(axis=0)
        outside = np.zeros(len(rows)) if targets.votes_outside is None else targets.votes_outside[rows]
        is_masked = targets.votes[rows].max(axis=1, initial=0) < outside
        return cls(
            votes={name: _whole(number) for name, number in zip(targets.class_names, inside, strict=True)},
            masked=_whole(outside.sum()),
            masked_words=dict(targets.counts["num_votes_of_other_class_sets"]),
            num_utterances=len(rows),
            num_scored=int((targets.consensus_index[rows] >= 0).sum()),
            num_masked_consensus=int(is_masked.sum()),
        )

    @property
    def common(self) -> list[str]:
        """Classes of the model that raters of the other corpus chose."""
        return [name for name, number in self.votes.items() if number]

    @property
    def of_the_model_only(self) -> list[str]:
        """Classes of the model that nobody chose."""
        return [name for name, number in self.votes.items() if not number]

    def require_common(self, corpus: str, trained: str) -> None:
        """Refuses a corpus that shares too few classes with the model.

        Raises:
          ArtefactError: Names both sides.
        """
        if len(self.common) >= _LEAST:
            return
        words = ", ".join(sorted(self.masked_words)) or "none that a class set knows"
        raise ArtefactError(
            f"the model, trained on {trained}, knows the classes {', '.join(self.votes)}; the votes of {corpus} that "
            f"are heard are for {' and '.join(self.common) or 'none'} of them, and {self.masked} lie outside (words: "
            f"{words}): {_LEAST} common classes are needed. Map words to classes with --config.targets.other_map or "
            "--config.data.word_map (WORD=CLASS), or choose another corpus"
        )

    def card(self) -> dict[str, Any]:
        """What the protocol card says of it."""
        return {
            "common": self.common,
            "of_the_model_only": self.of_the_model_only,
            "of_the_corpus_only": [f"{word} ({number} votes)" for word, number in sorted(self.masked_words.items())],
            "votes": sum(self.votes.values()),
            "masked_votes": self.masked,
            "masked_consensus": self.num_masked_consensus,
        }

    def in_words(self, corpus: str, trained: str) -> str:
        """What a user reads before the corpus is heard."""
        lines = [f"classes of both: {', '.join(self.common)}"]
        if self.of_the_model_only:
            lines.append(f"of the model alone, trained on {trained}: {', '.join(self.of_the_model_only)}")
        if self.masked_words:
            lines.append(f"of {corpus} alone: {', '.join(sorted(self.masked_words))}")
        share = 100 * self.masked / max(sum(self.votes.values()) + self.masked, 1)
        lines.append(
            f"{self.masked} votes ({share:.1f} %) lie outside the model's classes and are masked; "
            f"{self.num_masked_consensus} of {self.num_utterances} utterances have more of them than of any class, and "
            f"{self.num_scored} are scored"
        )
        return "\n  ".join(lines)


def _whole(number: np.number | float) -> int | float:
    """A count as an integer where it is one."""
    return int(number) if float(number).is_integer() else round(float(number), 6)
