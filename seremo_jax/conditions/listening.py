"""A few utterances of a split in every condition as WAV files to listen to, with a manifest of what was drawn."""

import csv
import os
import re
from pathlib import PurePath

import numpy as np
import soundfile

from seremo_jax.conditions import sources as condition_sources
from seremo_jax.conditions.rendered import in_condition
from seremo_jax.core.artefacts import ArtefactError, atomic_path, place_of
from seremo_jax.core.cells import disarmed
from seremo_jax.core.condition_names import ConditionError
from seremo_jax.core.config import Config
from seremo_jax.core.lock import writing
from seremo_jax.core.progress import Progress
from seremo_jax.data import audio, audio_batches
from seremo_jax.data.roots import audio_root
from seremo_jax.data.tables import in_split, read_for

MANIFEST_FILE = "manifest.csv"
COLUMNS = ("file", "condition", "utterance", "speaker", "seed", "noise", "snr_db", "room", "rt60_s", "scale", "peak")


def run(
    config: Config,
    workdir: str | os.PathLike,
    to: str | os.PathLike,
    split: str,
    num_utterances: int,
    is_quiet: bool = False,
) -> PurePath:
    """Writes `TO/CONDITION/NUMBER_UTTERANCE.wav` and `TO/manifest.csv`, whole or not at all. Returns the manifest.

    Args:
      config: The experiment. Its field `eval.conditions` names the conditions.
      workdir: Its folder, with the tables of `ingest`.
      to: Folder to write. One that an earlier call wrote is replaced.
      split: Split that the utterances are drawn from.
      num_utterances: Number of utterances that `eval.condition_seed` draws; all of them if there are fewer.
      is_quiet: Shows no progress.

    Raises:
      ArtefactError: There are no tables, audio is not what ingest saw, `to` holds other things, or another process
        writes it.
      ConditionError: The split is empty, or a condition cannot be rendered.
    """
    utterances, _, _ = read_for(config, workdir)
    to, seed = place_of(to), config.eval.condition_seed
    if to.exists() and not (to.is_dir() and (not any(to.iterdir()) or (to / MANIFEST_FILE).is_file())):
        raise ArtefactError(f"{to} holds other things: name a new folder")
    recordings = audio_batches.Recordings.of(utterances, audio_root(config, place_of(workdir)))
    sources = condition_sources.load_for(config)
    asked = condition_sources.asked(config, sources)
    rows = np.flatnonzero(in_split(utterances, split))
    if not rows.size:
        raise ConditionError(f"no utterance is in split {split!r}")
    # The same utterances in every condition, so that a listener compares like with like.
    drawn = np.sort(np.random.default_rng(seed).choice(rows, min(num_utterances, len(rows)), replace=False))
    speakers, lines = utterances["speaker"].to_pylist(), []
    with (
        writing(to, "conditions"),
        atomic_path(to) as temporary,
        Progress(len(asked) * len(drawn), "render", "utterances", is_quiet=is_quiet) as progress,
    ):
        for condition in asked:
            rendered = in_condition(recordings, utterances, condition, seed, sources)
            (temporary / condition.file_name).mkdir(parents=True)
            for number, row in enumerate(drawn.tolist()):
                utterance = recordings.ids[row]
                rendering = rendered.rendering(row)
                name = f"{condition.file_name}/{number:03d}_{re.sub(r'[^A-Za-z0-9._-]+', '_', utterance)}.wav"
                soundfile.write(temporary / name, rendering.waveform, audio.SAMPLE_RATE_HZ, subtype="PCM_16")
                about = {"file": name, "condition": condition.id, "utterance": utterance, "speaker": speakers[row]}
                peak = float(np.abs(rendering.waveform).max())
                lines.append(about | {"seed": seed, "peak": f"{peak:.4f}"} | _formatted(rendering.facts))
                progress.update(note=condition.id)
        with (temporary / MANIFEST_FILE).open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows({name: disarmed(value) for name, value in line.items()} for line in lines)
    return to / MANIFEST_FILE


def _formatted(facts: dict[str, object]) -> dict[str, str]:
    return {name: f"{value:.4f}" if isinstance(value, float) else str(value) for name, value in facts.items()}
