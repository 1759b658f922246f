"""Copies of training utterances in noise and rooms: what each of them is heard in, and its waveform.

The condition, its values and its recordings are drawn for each utterance and copy by themselves. They depend on the
id of the utterance, the number of the copy, `extract.condition_seed` and the recordings, and on nothing else.

Source: METHOD.md, section 9.2 (OURS).
"""

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int

from seremo_jax.conditions.render import Sources, fitting_rooms
from seremo_jax.conditions.rendered import Rendered, in_condition
from seremo_jax.core import condition_names, condition_ranges
from seremo_jax.core.condition_names import Condition
from seremo_jax.core.config import Config
from seremo_jax.data.audio_batches import Recordings
from seremo_jax.data.screening import with_column

_SEEDS = 2**32
"""Seeds of the config lie below this."""


@dataclasses.dataclass(frozen=True)
class Copies(Recordings):
    """The audio of copies. Rows are those of the copies; those of one utterance stand next to each other.

    Attributes:
      rows: [M] int64 row of each copy's utterance in the table.
      numbers: [M] int64 number of the copy among those of its utterance, from 0.
      conditions: Condition of each copy.
      seed: `extract.condition_seed`.
      rendered: The recordings of the table, to be heard in conditions.
    """

    rows: Int[np.ndarray, " M"]
    numbers: Int[np.ndarray, " M"]
    conditions: tuple[Condition, ...]
    seed: int
    rendered: Rendered

    def decode(self, row: int) -> Float[np.ndarray, " S"]:
        """Waveform of one copy, float32 at 16 kHz, as long as the utterance.

        Raises:
          ArtefactError: The file of the utterance is not what ingest saw.
          ConditionError: See `render.render`.
        """
        heard = dataclasses.replace(
            self.rendered, condition=self.conditions[row], seed=seed_of_copy(self.seed, int(self.numbers[row]))
        )
        return heard.rendering(int(self.rows[row])).waveform


def seed_of_copy(seed: int, number: int) -> int:
    """Seed of what one copy draws: beyond all seeds of the config, so that no evaluation draws the same."""
    return seed + (number + 1) * _SEEDS


def drawn_condition(
    ranges: Sequence[condition_ranges.ConditionRange], utterance: str, seed: int, rt60_s: Sequence[float] = ()
) -> Condition:
    """What a copy is heard in: one of the ranges, each as likely, and a condition in it.

    Args:
      ranges: Those of `extract.conditions`.
      utterance: Id of the utterance.
      seed: From `seed_of_copy`.
      rt60_s: Reverberation times of the measured rooms, in s.
    """
    digest = hashlib.sha256(f"{seed}\ncondition\n{utterance}".encode()).digest()
    generator = np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))
    return ranges[int(generator.integers(len(ranges)))].draw(generator, rt60_s)


def copies_of(
    config: Config, recordings: Recordings, utterances: pa.Table, parts: Sequence[str | None], sources: Sources
) -> Copies:
    """The copies that the section `extract` asks for.

    Args:
      config: The experiment.
      recordings: The clean audio of the table.
      utterances: The utterance table.
      parts: Of each utterance a word for those that every training hears with it, from which babble may draw; None
        where no training hears it, so that it has no copies.
      sources: Noises and rooms of the section `extract`.

    Raises:
      ConditionError: A condition needs recordings that are not there.
    """
    section = config.extract
    ranges = [condition_ranges.parse(text) for text in section.conditions]
    rt60_s = [response.rt60_s for response in sources.responses]
    for item in ranges:
        condition_names.require_sources(item.lowest, sources.recorded_kinds, bool(rt60_s), sources.section)
    heard = np.array([row for row, part in enumerate(parts) if part is not None], np.int64)
    rows, numbers = np.repeat(heard, section.num_copies), np.tile(np.arange(section.num_copies), len(heard))
    conditions = tuple(
        drawn_condition(ranges, recordings.ids[row], seed_of_copy(section.condition_seed, number), rt60_s)
        for row, number in zip(rows.tolist(), numbers.tolist(), strict=True)
    )
    # Rooms are looked for now, and not hours later when the first copy needs one.
    for effect in {effect for condition in conditions for effect in condition.effects if effect.name == "measured"}:
        fitting_rooms(effect, sources)
    by_part = with_column(utterances, "split", ["" if part is None else part for part in parts])
    return Copies(
        ids=tuple(copy_id(recordings.ids[row], int(number)) for row, number in zip(rows, numbers, strict=True)),
        paths=tuple(recordings.paths[row] for row in rows),
        num_samples=recordings.num_samples[rows],
        sha256=tuple(recordings.sha256[row] for row in rows),
        rows=rows,
        numbers=numbers,
        conditions=conditions,
        seed=section.condition_seed,
        rendered=in_condition(recordings, by_part, Condition(), 0, sources),
    )


def copy_id(utterance: str, number: int) -> str:
    """Id of a copy. What follows the last `~` is its number, so that no two copies share one."""
    return f"{utterance}~{number}"
