"""The model card, a page in Markdown beside a model on the hub: what it is, how it was scored, what it cannot do."""

import json
from collections.abc import Mapping
from typing import Any

from seremo_jax.core import ensemble
from seremo_jax.core.cells import one_line

FILE = "README.md"
_PAPER = "https://arxiv.org/abs/2503.22711"
VOTES_ONLY = "It predicts votes of raters of this corpus, and not what a person feels."
UNTESTED = "Other languages, recording conditions, age groups and ways to speak were not tested"
BY_SPEAKER = (
    "Scores differ between speakers: the share of speakers above a UAR (paUAR) says more of a new speaker than the UAR "
    "over all."
)
"""What a model cannot know, on its card and on the page of `launch.demo`."""
_READING = (
    "These are all systems of that training's evaluation. Heads that differ in their seed alone share a column; its "
    "cells are means over the heads one by one. The model gives the mean of its heads, which has a column of its own "
    "where the evaluation asked for it (`eval.means`)."
)


def card(repository: str, about: Mapping[str, Any], scores: str, licence: str | None) -> str:
    """The page.

    Args:
      repository: `ORG/NAME`.
      about: Content of `model.json`.
      scores: Tables of the evaluation in Markdown; empty where there was none.
      licence: Under which licence the model is published, by the hub's word for it; None where nobody said.
    """
    protocol, backbone = about["protocol"], about["backbone"]
    attributes = [item["name"] for item in about["attributes"] if item["is_trained"]]
    members = [member["name"] for member in about["members"]]
    in_python, in_shell, heard = _of_speakers(about)
    settings = json.dumps(protocol["settings"], indent=1, sort_keys=True)
    sections = {
        f"# {repository}": [
            "Scores how raters would judge the emotion of a stretch of speech of one person: the distribution of their "
            f"votes over {_listed(about['classes'])}"
            f"{f', and {_listed(attributes)}' if attributes else ''}. Method: <{_PAPER}>.",
        ],
        "## Use": [
            f'```python\nfrom seremo_jax import predict\n\nmodel = predict.load("hf://{repository}")\n'
            f"{in_python}\nresult.distribution, result.ranked[:2], result.attributes\n```",
            f"In a shell: `seremo predict --model=hf://{repository} {in_shell}recordings/ --out=scores.csv`. {heard}It "
            f"has heads alone. Their backbone is `{one_line(backbone['name'])}`, revision `{backbone['revision']}`; "
            "where it is not on your machine, name it with `--backbone=` (`backbone=` in Python).",
        ],
        "## Training": [
            f"- Corpus: {one_line(str(protocol['corpus']))}, release {one_line(str(protocol['release']))}",
            *(f"- {one_line(note)}" for note in protocol["notes"]),
            f"- Heads: {len(members)} ({', '.join(map(one_line, members))}), on layer "
            f"{', '.join(map(str, about['layers']))} of the backbone",
            f"- Code: seremo_jax {one_line(str(protocol['code_version']))}; split `{protocol['split_hash']}`; "
            f"checkpoint `{about['checkpoint']}`",
            "\n<details><summary>Protocol: every setting that decides a number</summary>\n",
            f"```json\n{settings}\n```\n\n</details>",
        ],
        "## Scores": [f"{scores}\n\n{_READING}" if scores else "Not evaluated: nothing is known of how good it is."],
        "## Limits": [
            f"- {VOTES_ONLY} {UNTESTED} unless the scores above say so.",
            f"- {BY_SPEAKER}",
            _level_sentence(about),
            f"- Speech of at most {about['longest_s']:.1f} s was trained on. Longer recordings are heard in windows.",
        ],
        "## Licence": [
            f"`{licence}`, as stated by those who published the model."
            if licence
            else "None was stated. The terms of the corpus and of the backbone hold for what was made of them.",
        ],
    }
    header = {"library_name": "seremo_jax", "pipeline_tag": "audio-classification"}
    header |= {"license": licence} if licence else {}
    front = [f"{key}: {json.dumps(value)}" for key, value in header.items()]
    lines = ["---", *front, 'tags: ["speech-emotion-recognition", "safetensors"]', "---"]
    for heading, blocks in sections.items():
        is_list = blocks[0].startswith("- ")
        lines += ["", heading, "", ("\n" if is_list else "\n\n").join(filter(None, blocks))]
    return "\n".join(lines) + "\n"


def _of_speakers(about: Mapping[str, Any]) -> tuple[str, str, str]:
    """How the model is called in Python, its flag in a shell, and a sentence on what it hears of a speaker."""
    if not any(map(ensemble.is_transductive, about["members"])):
        return "result = model(waveform, sample_rate)", "", ""
    in_python = (
        "voice = model.voice(paths)  # all recordings of the speaker\n"
        "result = model(waveform, sample_rate, voice=voice)"
    )
    heard = (
        "It is transductive: its features are relative to the speaker, of whom it hears all recordings before it "
        "judges one. `--speakers=one` says that all are of one speaker, and a CSV of `file` and `speaker` who speaks "
        "in which. "
    )
    return in_python, "--speakers=one ", heard


def _level_sentence(about: Mapping[str, Any]) -> str:
    """What holds of recordings that are quieter or louder than those of the training."""
    if about["backbone"].get("level", "none") == "rms":
        return "- Every recording is brought to one level before it is heard."
    if not about.get("levels_dbfs"):
        return ""
    low, high = about["levels_dbfs"]
    return (
        f"- Training heard active speech of {low:.0f} to {high:.0f} dBFS; quieter or louder recordings are warned of."
    )


def _listed(words: list[str]) -> str:
    """Words in a sentence."""
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else "".join(words)
