"""The further corpora of an experiment, `corpus.also`: what each would be as an experiment of its own.

An entry is the name of a corpus and, behind semicolons, what its recipe sets: `iemocap; modality=both`.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

_OF_CORPUS = ("seed", "num_speakers", "utterances_per_speaker", "class_by_gender", "speaker_shift")
_OF_SPLITS = ("max_speakers", "split_kind", "split_seed", "fold", "num_folds", "unknown_speakers")
OWN = ("modality", "self_reports", "slow_clicks", "reverse_activation", "word_map", "smoothed")
"""Fields of `data` that say how the labels of one corpus are read: no corpus takes them from another."""

_FIELDS = dict.fromkeys(_OF_CORPUS, "corpus") | dict.fromkeys((*_OF_SPLITS, *OWN), "data")
"""Fields that an entry may set -> their section. All others are those of the experiment."""

_FOLDS = ("split_kind", "fold", "num_folds")


def configs(config: Any) -> tuple[Any, ...]:
    """Of each entry of `corpus.also` the config under which it is read: that of the experiment with its own corpus.

    Args:
      config: A `config.Config`.

    Raises:
      ValueError: An entry sets a field that is none of a corpus, or its value is none of that field.
    """
    roots = config.corpus.also_roots or ("",) * len(config.corpus.also)
    return tuple(_of(config, entry, root) for entry, root in zip(config.corpus.also, roots, strict=False))


def _of(config: Any, entry: str, root: str) -> Any:
    name, *texts = (text.strip() for text in entry.split(";"))
    own: dict[str, dict[str, Any]] = {
        "corpus": {"name": name, "root": root, "also": (), "also_roots": ()},
        "data": {field.name: field.default for field in dataclasses.fields(config.data) if field.name in OWN},
    }
    seen = set()
    for text in texts:
        field, is_set, value = (part.strip() for part in text.partition("="))
        if field not in _FIELDS or not is_set:
            raise ValueError(f"{entry!r}: {text!r} must read FIELD=VALUE, with a field of {', '.join(_FIELDS)}")
        section = _FIELDS[field]
        default = getattr(getattr(config, section), field)
        if isinstance(default, tuple):
            # A field of several values is named once for each of them.
            own[section][field] = (*own[section][field], value)
            continue
        if field in seen:
            raise ValueError(f"{entry!r} sets {field} twice")
        seen.add(field)
        own[section][field] = _value(entry, field, value, default)
    parts = {section: dataclasses.replace(getattr(config, section), **values) for section, values in own.items()}
    return dataclasses.replace(config, **parts)


def _value(entry: str, field: str, text: str, default: Any) -> Any:
    if isinstance(default, bool):
        if text.lower() not in ("true", "false"):
            raise ValueError(f"{entry!r}: {field} must be true or false, is {text!r}")
        return text.lower() == "true"
    if isinstance(default, int):
        if not text.removeprefix("-").isdecimal():
            raise ValueError(f"{entry!r}: {field} must be a whole number, is {text!r}")
        return int(text)
    return text


def data_settings(config: Any, alone: Any) -> dict[str, Any]:
    """Fields of the section `data` in which the config of a further corpus differs from that of the experiment.

    Those of `OWN` are named in any case, so that later changes of the experiment's do not reach them.
    """
    fields = dataclasses.asdict(alone.data)
    there = dataclasses.asdict(config.data)
    return {name: value for name, value in fields.items() if name in OWN or value != there[name]}


def problems(config: Any) -> Iterator[str]:
    """A sentence for each rule that `corpus.also` breaks, without those of the corpora themselves."""
    also, roots = config.corpus.also, config.corpus.also_roots
    if roots and len(roots) != len(also):
        yield (
            f"corpus.also_roots has {len(roots)} folders and corpus.also {len(also)} corpora: give one for each, '' "
            "for the simulated one"
        )
    if not also:
        return
    try:
        alone = configs(config)
    except ValueError as error:
        yield f"corpus.also has {error}"
        return
    names = [one.corpus.name for one in (config, *alone)]
    # Tables of others may be several corpora; their names are known once they are read.
    if twice := [name for i, name in enumerate(names) if name in names[:i] and name != "table"]:
        yield f"corpus.also: {twice[0]} is named twice; one training has every corpus once"
    if config.targets.attribute_scale in ("raw", "minmax"):
        yield (
            f"targets.attribute_scale = {config.targets.attribute_scale!r} is a scale of one corpus: choose centered "
            "or unit, which every corpus of corpus.also has by its own range"
        )
    if config.ensemble.folds and any(
        getattr(one.data, name) != getattr(config.data, name) for one in alone for name in _FOLDS
    ):
        yield (
            f"ensemble.folds: an entry of corpus.also sets {' or '.join(_FOLDS)}, but every corpus must have the same "
            "folds: leave it out"
        )
