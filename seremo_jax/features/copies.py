"""Copies of training utterances in noise and rooms: a store of their own beside that of the clean utterances.

copies/manifest.json    as that of a store, with the conditions asked for and the hashes of all recordings drawn from
copies/drawn.npz        of each copy its utterance, its number and the condition that was drawn for it

Their own folder leaves the bytes of the clean store as they are. Copies in other noises then cost a pass over the
copies alone, and a training on clean speech and one in noise read the same clean frames.
"""

import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa

from seremo_jax.conditions import sources as condition_sources
from seremo_jax.conditions.copies import Copies, copies_of
from seremo_jax.core import vocab
from seremo_jax.core.artefacts import require_same
from seremo_jax.core.config import Config
from seremo_jax.data.audio_batches import Recordings
from seremo_jax.data.screening import in_fold
from seremo_jax.features.manifest import OF_COPIES, Settings, identity
from seremo_jax.features.store import Reader

FOLDER, DRAWN = "copies", "drawn"
CONDITION = "drawn"
"""What the manifest says in place of one condition."""
RECORDINGS, SOURCES = "recordings", "condition_sources"
REMEDY = "delete the folder copies of this workdir and run python -m launch.extract again"


@dataclasses.dataclass(frozen=True)
class Plan:
    """The copies of an experiment before they are heard.

    Attributes:
      copies: Their audio.
      about: What decides it: the fields of the config, the fingerprint of the folders, and the hash of each recording.
    """

    copies: Copies
    about: dict[str, Any]

    @classmethod
    def of(cls, config: Config, recordings: Recordings, utterances: pa.Table) -> "Plan":
        """Draws what every copy is heard in.

        Raises:
          ConditionError: A condition cannot be rendered, or evaluation draws from one of the recordings, too.
        """
        section = config.extract
        sources = condition_sources.load(section.noise_dir, section.rir_dir, section="extract")
        hashes = condition_sources.content_hashes(config, "extract")
        condition_sources.require_others(hashes, condition_sources.content_hashes(config, "eval"))
        about = asked_of(config) | {SOURCES: sources.fingerprint, RECORDINGS: hashes}
        return cls(copies_of(config, recordings, utterances, parts_of(config, utterances), sources), about)

    def settings(self, clean: Settings) -> Settings:
        """Settings of their store, from those of the store of the clean utterances."""
        return dataclasses.replace(clean, condition=CONDITION, config=clean.config | self.about)

    def drawn(self) -> dict[str, np.ndarray]:
        """Row of the table, number, and id of the condition of each copy."""
        conditions = np.array([condition.id for condition in self.copies.conditions])
        return {"row": self.copies.rows, "number": self.copies.numbers, "condition": conditions}

    def require(self, reader: Reader, settings: Settings) -> None:
        """Refuses finished copies of other settings, or of other utterances. They may have more layers.

        Raises:
          ArtefactError: They are; the message names both sides.
        """
        there, asked = identity_of(reader.manifest), identity_of(settings.to_dict())
        if set(settings.layers) <= set(reader.layers):
            asked["layers"] = there["layers"]
        remedy = f"Use another --workdir, or {REMEDY}."
        require_same(f"the copies in {reader.path}", there, asked, remedy)
        what = f"utterances and copies in {reader.path}, those of some training split"
        require_same(f"number of {what}", len(reader), len(self.copies.ids), remedy)
        require_same(f"the {what}", reader.utterances == list(self.copies.ids), True, remedy)


def asked_of(config: Config) -> dict[str, Any]:
    """The fields `OF_COPIES` of a config, as a manifest has them."""
    values = {name: getattr(config.extract, name.partition(".")[2]) for name in OF_COPIES}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def identity_of(manifest: dict[str, Any]) -> dict[str, Any]:
    """What the frames of copies are frames of, from their manifest or their settings; see `manifest.identity`."""
    config = manifest["config"]
    return identity(manifest) | {name: config[name] for name in (*OF_COPIES, SOURCES)}


def parts_of(config: Config, utterances: pa.Table) -> list[str | None]:
    """Of each utterance the splits that it is in, fold by fold, in one word; None where it is in no training split.

    Utterances of one word are always heard together. So babble of them tells no training of another split's speakers.
    """
    folds = config.ensemble.folds or (None,)
    by_fold = [in_fold(utterances, config.data, fold)["split"].to_pylist() for fold in folds]
    return [" ".join(words) if vocab.TRAIN in words else None for words in zip(*by_fold, strict=True)]
