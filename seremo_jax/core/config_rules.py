"""The rules that span fields of a config, by topic: each yields a sentence for whatever contradicts it.

A rule is added as one `if` with its reason, in the function of its topic. Allowed values and lowest values of single
fields stand beside the fields, in `config_fields` and `config_head_fields`.
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

from seremo_jax.core import condition_names, condition_ranges, further_corpora, vocab

_SEEDS = (
    "corpus.seed",
    "data.split_seed",
    "extract.condition_seed",
    "saliency.seed",
    "train.seed",
    "train.data_seed",
    "ensemble.seeds",
    "ensemble.data_seeds",
    "eval.seed",
    "eval.condition_seed",
)
"""Fields that are seeds of random numbers."""

_WITHOUT_REPETITION = (
    "data.word_map",
    "targets.other_map",
    "extract.layers",
    "extract.conditions",
    *(f"eval.{name}" for name in ("splits", "nbest", "pa_uar_thresholds", "means", "speaker_prior", "enrolment")),
    *(f"eval.{name}" for name in ("conditions", "noise_kinds", "snr_db", "curve_snr_db", "rt60_s")),
)
"""Fields with several values, none of which means anything twice. (Axes of `ensemble` have a rule of their own.)"""

_NOT_EMPTY = ("targets.attributes", "eval.splits", "eval.conditions")
"""Fields with several values, without any of which there is nothing to do."""

_HAS_FOLDS = ("session", "kfold", "published")
"""Kinds of splits that have folds to choose from."""


def broken_rules(config: Any) -> Iterator[str]:
    """A sentence for each rule that a `config.Config` breaks, lazily: who refuses a config needs the first only."""
    for topic in (
        _single_values,
        _further_corpora,
        _layers,
        _audio,
        _splits,
        _heads,
        _losses,
        _targets,
        _evaluation,
        _ensemble,
        _conditions,
        _copies,
    ):
        yield from topic(config)


def _single_values(config: Any) -> Iterator[str]:
    """Fields against their allowed and lowest values; a field with several values holds each to them."""
    for section in dataclasses.fields(config):
        for field in dataclasses.fields(getattr(config, section.name)):
            path, choices, lowest = f"{section.name}.{field.name}", field.metadata["choices"], field.metadata["lowest"]
            for value in _values(config, path):
                if choices and value not in choices:
                    yield f"{path} = {value!r}: choose one of {', '.join(choices)}"
                # `not >=` and not `<`, so that NaN breaks the rule, too.
                if lowest is not None and not isinstance(value, str) and not value >= lowest:
                    yield f"{path} must be at least {lowest}, is {value}"
    for path in _SEEDS:
        for value in _values(config, path):
            if not 0 <= value < 2**32:
                yield f"{path} must be at least 0 and below 2^32, is {value}"
    for path in _NOT_EMPTY:
        if not _values(config, path):
            yield f"{path} is empty: name at least one"
    for path in _WITHOUT_REPETITION:
        values = _values(config, path)
        if twice := [value for i, value in enumerate(values) if value in values[:i]]:
            yield f"{path} names {twice[0]!r} twice"


def _further_corpora(config: Any) -> Iterator[str]:
    """Rules of `corpus.also`, and those that hold for each of its corpora as for any other."""
    problems = list(further_corpora.problems(config))
    yield from problems
    for alone in () if problems else further_corpora.configs(config):
        for problem in (*_single_values(alone), *_splits(alone)):
            yield f"corpus.also, {alone.corpus.name}: {problem}"


def _values(config: Any, path: str) -> tuple:
    section, name = path.split(".")
    value = getattr(getattr(config, section), name)
    return value if isinstance(value, tuple) else (value,)


def _is_one(number: float) -> bool:
    """Whether it is 1 but for rounding. Like every rule here it is written so that NaN fails it."""
    return abs(number - 1) < 1e-6


def _layers(config: Any) -> Iterator[str]:
    layer, stored, several = config.model.layer, config.extract.layers, config.ensemble.layers
    for path in ("model.layer", "extract.layers", "ensemble.layers"):
        # Negative numbers stand for other things inside the program and must not come in from outside.
        if negative := [value for value in _values(config, path) if isinstance(value, int) and value < 0]:
            yield f"{path} has {negative[0]}: layers are counted from 0, which is what enters the first block"
    if not isinstance(layer, int) and layer not in (vocab.CHOSEN_LAYER, vocab.LAYER_SUM):
        yield f"model.layer = {layer!r}: give a layer number, 'saliency', or 'sum'"
    if not isinstance(stored, tuple) and stored not in ("all", "saliency"):
        yield f"extract.layers = {stored!r}: give 'all', 'saliency' or a list of layer numbers"
    if layer == vocab.LAYER_SUM and (stored == "saliency" or several):
        yield (
            "model.layer = 'sum' reads every stored layer: set extract.layers to 'all' or to a list, and leave "
            "ensemble.layers empty"
        )
    if layer == vocab.LAYER_SUM and config.model.top_features:
        yield "model.top_features picks features of one layer, model.layer = 'sum' adds layers up: choose one"
    if several and stored == "saliency":
        yield "ensemble.layers needs those layers in the store: set extract.layers to 'all' or to a list"
    trained = several or ((layer,) if isinstance(layer, int) else ())
    if isinstance(stored, tuple) and not set(trained) <= set(stored):
        yield "the layers to train on are not among extract.layers, so they would not be in the store"


def _audio(config: Any) -> Iterator[str]:
    if config.backbone.level_dbfs > 0:
        yield f"backbone.level_dbfs = {config.backbone.level_dbfs:g}: full scale is 0, and speech lies below it"
    if isinstance(config.extract.batch_seconds, str) and config.extract.batch_seconds != "auto":
        yield f"extract.batch_seconds = {config.extract.batch_seconds!r}: give seconds of audio, or 'auto'"


def _splits(config: Any) -> Iterator[str]:
    data, folds = config.data, config.ensemble.folds
    if not (len(data.split_shares) == 3 and _is_one(sum(data.split_shares)) and min(data.split_shares) > 0):
        yield "data.split_shares must be three positive shares (train, development, test) that sum to 1"
    if not data.min_seconds < data.max_seconds:
        yield "data.min_seconds must be below data.max_seconds"
    if data.split_kind not in _HAS_FOLDS:
        if data.fold:
            yield f"data.fold = {data.fold} means nothing for data.split_kind = {data.split_kind}"
        if folds:
            yield f"ensemble.folds means nothing for data.split_kind = {data.split_kind}: set it to kfold"
    if data.split_kind == "kfold":
        there = f"the folds are 0 to {data.num_folds - 1} (data.num_folds)"
        if data.fold >= data.num_folds:
            yield f"data.fold = {data.fold}: {there}"
        if max(folds, default=0) >= data.num_folds:
            yield f"ensemble.folds = {folds}: {there}"
    if folds and config.targets.attribute_scale == "minmax":
        yield (
            "targets.attribute_scale = 'minmax' is the scale of one training split, and each of ensemble.folds has its "
            "own: choose centered, unit or raw, or train the folds one by one (data.fold)"
        )
    if folds and config.model.top_features:
        yield "model.top_features: saliency saw speakers that are test in other folds of ensemble.folds"


def _heads(config: Any) -> Iterator[str]:
    if config.model.conv_kernel and config.model.conv_kernel % 2 == 0:
        yield "model.conv_kernel must be odd (or 0), so that the convolution is centred"
    if config.model.conv_kind == "dense" and not config.model.conv_kernel:
        yield "model.conv_kind = 'dense' means nothing for model.conv_kernel = 0, which is no convolution"
    for path in ("model.speaker_kappa_s", "ensemble.speaker_kappas_s"):
        values = [value for value in _values(config, path) if value != vocab.NO_SPEAKER]
        if words := [value for value in values if isinstance(value, str)]:
            yield f"{path} has {words[0]!r}: give seconds of speech, or {vocab.NO_SPEAKER}"
        if values and config.model.feature_norm == "none":
            yield f"{path} = {values[0]!r} is of the z-score, which model.feature_norm = 'none' leaves out"
    if not all(dropout < 1 for dropout in (config.model.dropout, *config.ensemble.dropouts)):
        yield "model.dropout must be in [0, 1)"


def _losses(config: Any) -> Iterator[str]:
    loss, targets, ensemble = config.loss, config.targets, config.ensemble
    if not all(smoothing < 1 for smoothing in (loss.label_smoothing, *ensemble.label_smoothings)):
        yield "loss.label_smoothing must be below 1"
    if loss.attribute_kind == "emd" and targets.attribute_scale == "minmax":
        yield "loss.attribute_kind = 'emd' needs steps of the rating scale: targets.attribute_scale must not be minmax"
    if not 0 < loss.cvar_share <= 1:
        yield f"loss.cvar_share = {loss.cvar_share:g}: give a share of the groups above 0 and at most 1"
    try:
        vocab.num_clusters(config.train.group_by)
    except ValueError as error:
        yield f"train.group_by = {error}"
    kinds, trained_on = ensemble.class_kinds or (loss.class_kind,), ensemble.class_targets or (targets.class_target,)
    on_consensus = [kind for kind in kinds if vocab.CLASS_LOSSES[kind].is_on_consensus]
    if on_consensus and set(trained_on) != {"consensus"}:
        yield (
            f"loss.class_kind = {on_consensus[0]!r} is {vocab.CLASS_LOSSES[on_consensus[0]].meaning}: set "
            "targets.class_target (or ensemble.class_targets) to consensus, or choose another class loss"
        )
    weights = loss.attribute_weights
    if weights and (len(weights) != len(targets.attributes) or not _is_one(sum(weights))):
        yield "loss.attribute_weights needs one weight for each of targets.attributes, summing to 1"


def _targets(config: Any) -> Iterator[str]:
    targets = config.targets
    try:
        vocab.classes_of(targets.class_set)
    except ValueError as error:
        yield f"targets.class_set = {error}"
    if len(set(targets.attributes)) < len(targets.attributes):
        yield "targets.attributes names an attribute twice"
    for synonym, name in vocab.ATTRIBUTE_SYNONYMS.items():
        if synonym in targets.attributes:
            yield f"targets.attributes: this project says {name!r}"
    if targets.smoothing and targets.distribution_of != "shares":
        yield "targets.smoothing adds to counts of votes: it means nothing for targets.distribution_of = 'dawid_skene'"


def _evaluation(config: Any) -> Iterator[str]:
    section, num_classes = config.eval, len(vocab.classes_of(config.targets.class_set))
    if not all(0 < threshold < 100 for threshold in section.pa_uar_thresholds):
        yield "eval.pa_uar_thresholds are percentages between 0 and 100"
    if not 0 < section.coverage < 1:
        yield "eval.coverage is a share of votes between 0 and 1"
    if 1 not in section.nbest or not all(0 < n <= num_classes for n in section.nbest):
        yield "eval.nbest must include 1, and no N can exceed the number of classes"
    if not section.speaker_prior_kappa > 0:
        yield "eval.speaker_prior_kappa must be above 0: with 0 one utterance would decide the prior of its speaker"
    if not section.enrolment_kappa > 0:
        yield "eval.enrolment_kappa must be above 0: with 0 one utterance would stand for a class of its speaker"
    if section.speaker_prior_by != "speaker" and not section.treats_groups_apart:
        yield (
            f"eval.speaker_prior_by = {section.speaker_prior_by!r}: a prior or a threshold for each group makes a "
            "model that treats people by their group. Two people who sound the same then get different answers, the "
            "model has to be told the group of everybody it hears, and a gap that lies in its training stays there, "
            "unseen. If that is meant, set eval.treats_groups_apart=true"
        )


def _ensemble(config: Any) -> Iterator[str]:
    axes = dataclasses.asdict(config.ensemble)
    num_members = math.prod(max(len(values), 1) for axis, values in axes.items() if axis != "only")
    if max(config.ensemble.only, default=0) >= num_members:
        yield f"ensemble.only names a member beyond the {num_members} of the product (0 is the first)"
    for axis, values in axes.items():
        if len(set(values)) < len(values):
            yield f"ensemble.{axis} names a value twice"


def _conditions(config: Any) -> Iterator[str]:
    """Every noise, SNR and reverberation time, as the condition that a family would make of it."""
    section = config.eval
    asked = [("conditions", word, word) for word in section.conditions if word not in condition_names.FAMILIES]
    noises = [(kind, kind if kind == condition_names.BABBLE else f"noise:{kind}") for kind in section.noise_kinds]
    asked += [("noise_kinds", kind, f"{noise}:0db") for kind, noise in noises]
    asked += [("rt60_s", rt60, f"reverb:synthetic:{rt60:g}s") for rt60 in section.rt60_s]
    for name in ("snr_db", "curve_snr_db"):
        asked += [(name, snr, f"noise:white:{snr:g}db") for snr in getattr(section, name)]
    asked += [("combined_snr_db", section.combined_snr_db, f"noise:white:{section.combined_snr_db:g}db")]
    for name, value, text in asked:
        try:
            condition_names.parse(text)
        except condition_names.ConditionError as error:
            families = f", or a family: {', '.join(condition_names.FAMILIES)}" if name == "conditions" else ""
            yield f"eval.{name} has {value!r}: {error}{families}"


def _copies(config: Any) -> Iterator[str]:
    for text in config.extract.conditions:
        try:
            effects = condition_ranges.parse(text).lowest.effects
        except condition_names.ConditionError as error:
            yield f"extract.conditions has {text!r}: {error}"
            continue
        if config.backbone.level == "rms" and {effect.kind for effect in effects} == {"gain"}:
            yield f"extract.conditions has {text!r}, but backbone.level = 'rms' takes all level out again: leave it out"
    path = "ensemble.copy_shares" if config.ensemble.copy_shares else "train.copy_share"
    shares = _values(config, path)
    if not all(share <= 1 for share in shares):
        yield f"{path}: a share is at most 1"
    if any(shares) and not config.extract.conditions:
        yield f"{path} = {max(shares):g}, but there are no copies to hear: name extract.conditions"
