"""Which utterances of an epoch are heard as one of their copies, and the frames of both.

A copy stands in the place of its utterance. It has as many frames, the same targets and the same weights, so that the
plan of an epoch, its length and the weights of classes are those of a training on clean speech.

Source: METHOD.md, section 9.2 (OURS).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from seremo_jax.core.artefacts import ArtefactError, fingerprint_of, require_same
from seremo_jax.core.config import Config
from seremo_jax.core.ensemble import Member
from seremo_jax.features import copies as copies_store
from seremo_jax.features.manifest import OF_COPIES, require_config
from seremo_jax.features.store import Reader

_DRAW = 1
"""Sets the numbers that choose copies apart from those that shuffle the epoch."""


@dataclasses.dataclass(frozen=True)
class Copies:
    """The copies of a workdir.

    Attributes:
      store: Their frames.
      rows: [N, k] int64 row in `Frames` of the k copies of each utterance of the clean store; -1 where it has none.
    """

    store: Reader
    rows: Int[np.ndarray, "N k"]

    def heard(self, clean: Int[np.ndarray, " n"], share: float, data_seed: int, epoch: int) -> Int[np.ndarray, " n"]:
        """Rows in `Frames` that some utterances are read from in an epoch; see `heard_as`.

        Args:
          clean: Rows of the clean store.
          share: Share of the utterances that are heard as copies.
          data_seed: Seed of the order of utterances.
          epoch: Number of the epoch.
        """
        number = heard_as(self.rows.shape[1], len(self.rows), share, data_seed, epoch)[clean]
        return np.where(number < 0, clean, self.rows[clean, number])

    def of(self, clean: Int[np.ndarray, " n"]) -> Int[np.ndarray, " m"]:
        """Rows in `Frames` of all copies of some utterances, those without copies left out."""
        rows = self.rows[clean].ravel()
        return rows[rows >= 0]

    def require(self, training: Mapping[int | None, Int[np.ndarray, " n"]]) -> None:
        """Refuses training splits of which some utterance has no copies.

        Args:
          training: Fold -> rows of the clean store.

        Raises:
          ArtefactError: One has none.
        """
        for fold, clean in training.items():
            if absent := int((self.rows[clean] < 0).any(axis=1).sum()):
                where = "" if fold is None else f" of fold {fold}"
                raise ArtefactError(
                    f"{absent} utterances of the training split{where} have no copies in {self.store.path}, which were "
                    f"made for other folds: {copies_store.REMEDY}"
                )

    @property
    def fingerprint(self) -> str:
        """Hash of what the copies are copies of, and of what they are heard in."""
        return fingerprint_of(copies_store.identity_of(self.store.manifest))

    @property
    def about(self) -> dict[str, Any]:
        """What a training keeps of them: conditions, and the hashes of all recordings that they are drawn from."""
        config = self.store.manifest["config"]
        return {name: config[name] for name in (*OF_COPIES, copies_store.RECORDINGS)}


def read_for(config: Config, clean: Reader, members: Sequence[Member]) -> Copies | None:
    """The copies beside a store, where some member hears copies at all.

    Args:
      config: The experiment.
      clean: The store of the clean utterances.
      members: The members.

    Raises:
      ArtefactError: They are missing, or belong to other settings or to another store.
    """
    if not any(member.copy_share for member in members):
        return None
    reader = Reader(clean.path.parent / copies_store.FOLDER)
    require_config(reader.path, reader.manifest, config)
    there, of_store = reader.manifest["config"], ("tables_fingerprint", "dtype")
    asked = copies_store.asked_of(config) | {name: clean.manifest[name] for name in of_store}
    present = {name: there.get(name, reader.manifest.get(name)) for name in asked}
    require_same(f"the copies in {reader.path}", present, asked, f"Use another --workdir, or {copies_store.REMEDY}.")
    drawn = reader.arrays(copies_store.DRAWN)
    rows = np.full((len(clean), config.extract.num_copies), -1, np.int64)
    rows[drawn["row"], drawn["number"]] = len(clean) + np.arange(len(reader))
    lengths = reader.num_frames, clean.num_frames[drawn["row"]]
    require_same(f"frames of copies in {reader.path}", *(n.tolist() for n in lengths), f"{copies_store.REMEDY}.")
    return Copies(reader, rows)


class Frames:
    """Frames of a store and of its copies, whose rows stand behind those of the store."""

    def __init__(self, clean: Reader, copies: Copies):
        self._clean, self._copies = clean, copies.store
        self.num_frames = np.concatenate([clean.num_frames, copies.store.num_frames])

    def read(self, layer: int, rows: Sequence[int] | Int[np.ndarray, " n"]) -> list[Float[np.ndarray, "T D"]]:
        """Frames of some rows, each [T, D] in the dtype of the store, in their order."""
        rows = np.asarray(rows, np.int64)
        is_copy, frames = rows >= len(self._clean), np.empty(len(rows), object)
        for source, here, first in ((self._clean, ~is_copy, 0), (self._copies, is_copy, len(self._clean))):
            places = np.flatnonzero(here)
            for place, record in zip(places, source.read(layer, rows[places] - first), strict=True):
                frames[place] = record
        return frames.tolist()


def heard_as(num_copies: int, num_utterances: int, share: float, data_seed: int, epoch: int) -> Int[np.ndarray, " N"]:
    """What each utterance of the table is heard as in an epoch: -1 for the clean recording, else the number of a copy.

    A pure function of its arguments, as the plan of an epoch is. Of two shares, the larger one has all the copies of
    the smaller one.

    Args:
      num_copies: Copies of each utterance.
      num_utterances: N.
      share: Share of the utterances that are heard as copies, on average.
      data_seed: Seed of the order of utterances.
      epoch: Number of the epoch.
    """
    generator = np.random.default_rng([data_seed, epoch, _DRAW])
    is_copy = generator.random(num_utterances) < share
    return np.where(is_copy, generator.integers(num_copies, size=num_utterances), -1)
