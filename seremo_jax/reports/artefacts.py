"""What a report is made from, and its pictures: each drawn once for light and once for dark pages."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from seremo_jax.core import ensemble, vocab
from seremo_jax.reports import look, page
from seremo_jax.reports.blocks import Block, system_label


@dataclasses.dataclass(frozen=True)
class Artefacts:
    """What the report is made from; `saliency` and `log` are None where those stages left nothing."""

    blocks: tuple[Block, ...]
    ingest: Mapping[str, Any]
    saliency: Mapping[str, Any] | None
    log: tuple[list[dict[str, Any]], list[dict[str, Any]]] | None

    @property
    def whole_blocks(self) -> tuple[Block, ...]:
        """Blocks with sections of their own: the clean ones. Other conditions are compared with them in one section."""
        return tuple(block for block in self.blocks if block.condition == vocab.CLEAN)

    @property
    def protocol(self) -> Mapping[str, Any]:
        """Protocol of the first block."""
        return self.blocks[0].protocol

    @property
    def is_simulated(self) -> bool:
        """Whether the speech is simulated."""
        return self.blocks[0].is_simulated


def _look(artefacts: Artefacts, theme: look.Theme, block: Block | None) -> look.Look:
    corpus = artefacts.ingest.get("corpus", {})
    words = ["simulated speech" if artefacts.is_simulated else str(corpus.get("corpus", ""))]
    if block:
        words += [f"{block.split} split", block.condition]
    systems = dict.fromkeys(system for block in artefacts.blocks for system in block.systems)
    systems |= dict.fromkeys(member_systems(artefacts.log[1]) if artefacts.log else ())
    return look.Look(theme, " · ".join(words), tuple(systems))


def picture(
    artefacts: Artefacts, block: Block | None, folder: Path, name: str, words: tuple[str, str],
    draw: Callable[[look.Look], Figure],
) -> page.Picture:  # fmt: skip
    """Draws one figure; `words` are what it shows and how to read it."""
    suffix = f"_{block.split}_{block.condition}" if block and len(artefacts.whole_blocks) > 1 else ""
    file = f"{name}{suffix}.png"
    light, dark = look.render(lambda theme: draw(_look(artefacts, theme, block)), folder / file)
    speech = "Simulated speech. " if artefacts.is_simulated else ""
    return page.Picture(file, f"{words[0]}, simulated speech" if speech else words[0],
                        f"{speech}{words[0]}. {words[1]}", light, dark)  # fmt: skip


def member_systems(members: list[dict[str, Any]]) -> list[str]:
    """Label of each member's system."""
    labels = [""] * len(members)
    for rows, about in ensemble.systems(members):
        for row in rows:
            labels[row] = system_label(about["axes"])
    return labels
