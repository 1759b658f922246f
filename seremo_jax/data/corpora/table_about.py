"""What `corpus.json` says of a corpus in tables: its name, release, class set, ranges of attributes, and notes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from seremo_jax.core import vocab
from seremo_jax.data.text_lines import CorpusError, json_value
from seremo_jax.data.votes import is_other

_MOST = 1e9
"""No scale of an attribute ends beyond this."""
_FIELDS = ("corpus", "release", "class_set", "attribute_ranges", "notes")


def read_about(root: Path) -> dict[str, Any]:
    """What `corpus.json` holds, an empty dict where there is none.

    Raises:
      CorpusError: It cannot be read, has an unknown key, or a value of another type than it must have.
    """
    path = root / "corpus.json"
    if not path.is_file():
        return {}
    try:
        about = json_value(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise CorpusError(f"{path} cannot be read: {error}") from None
    if not isinstance(about, dict) or not set(about) <= set(_FIELDS):
        raise CorpusError(f"{path}: must be an object with no other keys than {', '.join(_FIELDS)}")
    about = {name: value for name, value in about.items() if value is not None}
    classes = about.get("class_set")
    if isinstance(classes, list) and len(classes) > 1 and all(isinstance(word, str) for word in classes):
        about["class_set"] = ",".join(classes)
    for name in ("corpus", "release", "class_set"):
        if name in about and (isinstance(about[name], bool | dict | list) or not str(about[name]).strip()):
            raise CorpusError(f'{path}: {name} is {json.dumps(about[name])}: write a text, e.g. "{name}": "mine"')
    if "class_set" in about:
        try:
            vocab.classes_of(str(about["class_set"]))
        except ValueError as error:
            raise CorpusError(f"{path}: class_set {error}") from None
    notes = about.get("notes", [])
    if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
        raise CorpusError(f'{path}: notes is {json.dumps(notes)}: write a list of texts, e.g. ["recorded in a car"]')
    return about


def ranges_of(about: Mapping[str, Any], ratings: pl.DataFrame, root: Path) -> dict[str, tuple[float, float]]:
    """Attribute -> (lowest, highest) value of its scale.

    Raises:
      CorpusError: An attribute that was rated has none, or something else than two numbers in order.
    """
    path, given = root / "corpus.json", about.get("attribute_ranges", {})
    if not isinstance(given, dict):
        raise CorpusError(f"{path}: attribute_ranges is {json.dumps(given)}: it must be NAME: [lowest, highest] of "
                          "each attribute, e.g. {\"valence\": [1, 5]}")  # fmt: skip
    ranges = {}
    for name, span in given.items():
        ours = vocab.ATTRIBUTE_SYNONYMS.get(name, name)
        if ours in ranges:
            raise CorpusError(f"{path}: attribute_ranges has {ours} twice: keep one")
        if not _is_pair(span):
            raise CorpusError(f"{path}: attribute_ranges of {name} is {json.dumps(span)}: it must be NAME: [lowest, "
                              f"highest], two numbers, e.g. \"{name}\": [1, 5]")  # fmt: skip
        ranges[ours] = (float(span[0]), float(span[1]))
    if wrong := [name for name, (low, high) in ranges.items() if not low < high or name not in vocab.ATTRIBUTES]:
        raise CorpusError(f"{path}: attribute_ranges of {', '.join(wrong)}: not an attribute, or empty")
    rated = [name for name in vocab.ATTRIBUTES if ratings[name].null_count() < ratings.height]
    if lacking := [name for name in rated if name not in ranges]:
        example = json.dumps({"attribute_ranges": {name: [1, 7] for name in lacking}})
        raise CorpusError(f"{path} gives no range of {', '.join(lacking)}: write e.g. {example}")
    return ranges


def _is_pair(span: Any) -> bool:
    if not isinstance(span, list) or len(span) != 2:
        return False
    return all(type(end) in (int, float) and abs(end) <= _MOST for end in span)


def own_classes(about: Mapping[str, Any]) -> tuple[str, ...]:
    """Classes of a set that `corpus.json` writes out; none where it names one of ours, or nothing."""
    named = str(about.get("class_set", ""))
    return () if not named or named in vocab.CLASS_SETS else vocab.classes_of(named)


def class_set_of(about: Mapping[str, Any], primary: pl.Series, root: Path) -> str:
    """The one named in `corpus.json`, else the smallest that has every word; ties go to the order of the vocabulary.

    Raises:
      CorpusError: No class set has all of the words.
    """
    if named := about.get("class_set"):
        return named if named in vocab.CLASS_SETS else ",".join(vocab.classes_of(named))
    used = {word for word in primary.drop_nulls().unique() if not is_other(word)}
    fitting = [name for name, classes in vocab.CLASS_SETS.items() if used <= set(classes)]
    if not fitting:
        raise CorpusError(f"no class set has all of {', '.join(sorted(used))}: name one in {root / 'corpus.json'} "
                          f"({', '.join(vocab.CLASS_SETS)}); other words then count as other")  # fmt: skip
    return min(fitting, key=lambda name: len(vocab.CLASS_SETS[name]))
