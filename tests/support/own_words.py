"""A corpus in tables whose raters had four words: short noises, three ratings each."""

import json
from pathlib import Path

import numpy as np
import soundfile

WORDS = ("angry", "surprise", "sad", "contempt")


def write_tables(root: Path, num_utterances: int, of_a_speaker: int) -> None:
    """Writes recordings and tables of speakers of so many utterances each, by turns a man and a woman, as `mine`."""
    rng = np.random.default_rng(0)
    utterances, ratings = ["id,audio,speaker,gender"], ["utterance,rater,primary,modality"]
    for i in range(num_utterances):
        soundfile.write(root / f"x{i}.wav", rng.uniform(-0.2, 0.2, 8_000), 16_000)
        speaker = i // of_a_speaker
        utterances.append(f"u{i},x{i}.wav,s{speaker},{'female' if speaker % 2 else 'male'}")
        ratings += [f"u{i},r{n},{WORDS[(i + (n == 2)) % 4]},both" for n in range(3)]
    (root / "utterances.csv").write_text("\n".join(utterances) + "\n")
    (root / "ratings.csv").write_text("\n".join(ratings) + "\n")
    (root / "corpus.json").write_text(json.dumps({"corpus": "mine", "class_set": list(WORDS)}))
