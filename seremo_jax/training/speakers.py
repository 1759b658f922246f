"""Z-scores relative to each speaker: statistics of all that a person says in a split, drawn to the training split's.

The statistics need no labels, but they read all audio of a speaker before any of it is judged, that of test speakers
too: what is trained and scored so is transductive. They are gathered on the host in float64, utterance by utterance,
and merged in the order of the table, so that no batch, shard or device changes a bit. How much they count beside those
of the training split is a value of each member.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from seremo_jax.core import ensemble, vocab
from seremo_jax.core.artefacts import ArtefactError
from seremo_jax.core.config import Config
from seremo_jax.features import normalisation
from seremo_jax.training.arrangement import Arrangement, share_out
from seremo_jax.training.dataset import Data, Fold
from seremo_jax.training.state import Relative

_UTTERANCES_AT_ONCE = 256
"""Utterances whose frames are held in memory while statistics are gathered."""

OF_TRAINING = (vocab.TRAIN, vocab.DEVELOPMENT)
"""Splits whose voices a training reads."""


class Voices(NamedTuple):
    """The G voices of a table: a voice is all utterances of one speaker in one split.

    Folds whose splits have the same utterances of a speaker share the voice.

    Attributes:
      code: Fold -> [N] int32 voice of every utterance, -1 where its speaker is not known or its split is not asked for.
      rows: Of each voice its rows of the table, ascending.
    """

    code: dict[Fold, Int[np.ndarray, " N"]]
    rows: list[Int[np.ndarray, " _"]]


class Statistics(NamedTuple):
    """What is known of the features of each voice.

    Attributes:
      voices: The voices.
      seconds: [G] float32 speech that the statistics are of.
      moments: Layer -> mean [G, D] and variance [G, D] over all of its frames, float32, of the features heads read.
    """

    voices: Voices
    seconds: Float[np.ndarray, " G"]
    moments: dict[int, tuple[Float[np.ndarray, "G D"], Float[np.ndarray, "G D"]]]


def voices_of(data: Data, words: Collection[str]) -> Voices:
    """The voices in the splits of these names, in every fold of the data.

    Raises:
      ArtefactError: No speaker of the splits is known.
    """
    speaker, number = data.groups.speaker, {}
    code = {fold: np.full(len(speaker), -1, np.int32) for fold in data.splits}
    for fold, split in data.splits.items():
        for word in dict.fromkeys(words):
            rows = np.flatnonzero((split == word) & (data.store_rows >= 0))
            for own in by_speaker(speaker, rows):
                code[fold][own], _ = number.setdefault(own.tobytes(), (len(number), own))
    if not number:
        raise ArtefactError(
            f"model.speaker_kappa_s: no utterance of the splits {', '.join(dict.fromkeys(words))} has a known speaker; "
            "set it to inf"
        )
    return Voices(code, [own for _, own in number.values()])


def is_asked_for(config: Config) -> bool:
    """Whether some member of an experiment reads features relative to speakers."""
    # As its settings say it, and not the members at hand: the program of a member alone would else be another one than
    # that in company, and its bits could differ.
    return any(value != vocab.NO_SPEAKER for value in ensemble.values_of(config, "speaker_kappa_s"))


def _readers(members: Sequence[ensemble.Member]) -> list[ensemble.Member]:
    """Of each member itself, or a member whose statistics it is given and takes nothing of."""
    first = next((member for member in members if ensemble.is_transductive(vars(member))), members[0])
    return [member if ensemble.is_transductive(vars(member)) else first for member in members]


def layers_of(data: Data, members: Sequence[ensemble.Member]) -> tuple[int, ...]:
    """Layers of which statistics are read, ascending; none where no member is asked for that does."""
    if not is_asked_for(data.config):
        return ()
    return tuple(sorted({layer for member in _readers(members) for layer in data.layers_of(member)}))


def of_store(data: Data, members: Sequence[ensemble.Member], words: Collection[str]) -> Statistics | None:
    """Statistics of the clean utterances of some splits, in one pass over the store; None where no member reads them.

    Raises:
      ArtefactError: See `voices_of`.
    """
    layers = layers_of(data, members)
    if not layers:
        return None
    voices = voices_of(data, words)
    return gathered(data, voices, layers, stored(data, layers, np.unique(np.concatenate(voices.rows))))


def by_speaker(speaker: Int[np.ndarray, " N"], rows: Int[np.ndarray, " n"]) -> list[Int[np.ndarray, " _"]]:
    """Those of these rows of a table that have a known speaker (not -1), an entry for each speaker, ascending."""
    known = rows[speaker[rows] >= 0]
    known = known[np.argsort(speaker[known], kind="stable")]
    return np.split(known, np.flatnonzero(np.diff(speaker[known])) + 1) if known.size else []


def states(
    rows_of: Sequence[Int[np.ndarray, " _"]], frames: Iterable[tuple[int, Float[np.ndarray, "K _ D"]]]
) -> list[normalisation.State | None]:
    """Moments of the frames of each voice, the same to the bit in whatever order its utterances come.

    Args:
      rows_of: Rows of each voice.
      frames: Row and frames of each utterance, each once. Rows of no voice are passed over.

    Returns:
      None for a voice without frames.
    """
    places: dict[int, list[tuple[int, int]]] = {}
    for voice, rows in enumerate(rows_of):
        for place, row in enumerate(rows.tolist()):
            places.setdefault(row, []).append((voice, place))
    sums: dict[int, normalisation.InTableOrder] = {}
    for row, of_layers in frames:
        if own := places.get(int(row), ()):
            state = normalisation.of_utterance(of_layers)
            # The place among the utterances of the voice, and not that in the table: neighbours then merge at once.
            for voice, place in own:
                sums.setdefault(voice, normalisation.InTableOrder()).add(place, state)
    return [sums[voice].total() if voice in sums else None for voice in range(len(rows_of))]


def gathered(
    data: Data, voices: Voices, layers: Sequence[int], frames: Iterable[tuple[int, Float[np.ndarray, "K _ D"]]]
) -> Statistics:
    """Statistics of voices from frames of all of their utterances.

    Args:
      data: The data, for the frame rate and the features that heads read.
      voices: The voices. One without any frame has 0 seconds, mean 0 and variance 0.
      layers: The K layers.
      frames: Row of the table and frames of each utterance, see `states`.
    """
    nothing = normalisation.empty(len(layers), data.store.manifest["num_features"])
    totals = [nothing if state is None else state for state in states(voices.rows, frames)]
    counts = np.array([total.count for total in totals], np.float64)
    tables = [np.stack(table) for table in zip(*map(normalisation.mean_and_variance, totals), strict=True)]
    moments = {}
    for slot, layer in enumerate(layers):
        kept = data.columns.get(layer, slice(None))
        moments[layer] = tuple(table[:, slot, kept] for table in tables)
    return Statistics(voices, (counts / data.store.manifest["frame_rate_hz"]).astype(np.float32), moments)


def stored(data: Data, layers: Sequence[int], rows: Int[np.ndarray, " n"]) -> Iterator[tuple[int, np.ndarray]]:
    """Yields these rows of the table and their frames [K, T, D] of the clean store, few in memory at a time."""
    for start in range(0, len(rows), _UTTERANCES_AT_ONCE):
        block = rows[start : start + _UTTERANCES_AT_ONCE].tolist()
        by_layer = [data.frames.read(layer, data.store_rows[block].tolist()) for layer in layers]
        for row, frames in zip(block, zip(*by_layer, strict=True), strict=True):
            yield row, np.stack(frames)


def layout(
    data: Data, members: Sequence[ensemble.Member], current: Arrangement
) -> tuple[list[list[int]], Relative] | None:
    """Layers whose statistics each shard holds, and where each member finds its own; None where no member reads any."""
    if not is_asked_for(data.config):
        return None
    layers, slot = share_out(current, [data.layers_of(member) for member in _readers(members)])
    folds = list(data.splits)
    own = [members[m] for m in current.member]
    kappa_s = np.array([float(member.speaker_kappa_s) for member in own], np.float32)
    return layers, Relative(kappa_s, slot, np.array([folds.index(member.fold) for member in own], np.int32))


def tables(
    statistics: Statistics, layers: Sequence[Sequence[int]], folds: Iterable[Fold]
) -> tuple[list[Float[np.ndarray, "_ G D"]], Float[np.ndarray, " G"], Int[np.ndarray, "F N"]]:
    """What steps read of statistics: means and variances of the layers of all shards, seconds, voices by fold."""
    moments = [np.stack([statistics.moments[layer][i] for shard in layers for layer in shard]) for i in range(2)]
    return moments, statistics.seconds, np.stack([statistics.voices.code[fold] for fold in folds])
