"""The frozen, typed experiment config: strict reading from a ConfigDict, cross-field rules, fingerprints.

Every field has its default here and nowhere else. Names of fields follow `method.md`, section 12.
"""

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from typing import Any

import ml_collections

from seremo_jax import vocab
from seremo_jax.artefacts import fingerprint_of
from seremo_jax.config_limits import CHOICES, LOWEST


class ConfigError(ValueError):
    """A config field is unknown, of the wrong type, or contradicts another one. The message gives its full path."""


def _field(default: Any, doc: str, changes_results: bool = True) -> Any:
    return dataclasses.field(default=default, metadata={"doc": doc, "changes_results": changes_results})


@dataclasses.dataclass(frozen=True)
class CorpusConfig:
    """Which recordings and ratings."""

    name: str = _field("simulated", "corpus parser: see seremo_jax.corpora.PARSERS")
    root: str = _field("", "folder of the corpus; empty for the simulated one", changes_results=False)
    seed: int = _field(0, "seed of the simulated corpus")
    num_speakers: int = _field(48, "speakers to simulate, before those of unknown gender")
    utterances_per_speaker: int = _field(14, "utterances to simulate for each speaker")


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which utterances and ratings are kept, and how speakers are split."""

    modality: str = _field("voice", "ratings given to voice, face or both (CREMA-D)")
    slow_clicks: str = _field("out", "ratings whose response took over 10 s: in or out (CREMA-D, per-rater file only)")
    max_speakers: int = _field(0, "keep this many speakers, gender-balanced, drawn by split_seed; 0 keeps all")
    split_kind: str = _field(
        "auto", "auto (the corpus's own, else derived), derived_by_class, session, kfold, published"
    )
    split_seed: int = _field(0, "seed of derived splits and of kfold")
    fold: int = _field(0, "which session or fold is test, from 0; the next one is development")
    num_folds: int = _field(5, "folds of split_kind kfold")
    split_shares: tuple[float, ...] = _field((0.6, 0.2, 0.2), "shares of speakers in train, development, test")
    min_seconds: float = _field(0.1, "shorter audio is excluded and counted")
    max_seconds: float = _field(60.0, "longer audio is excluded and counted")
    on_bad_audio: str = _field("exclude", "unusable audio: exclude (counted and listed) or error")
    keep_no_agreement: bool = _field(True, "train on utterances without a consensus, too")
    unknown_speakers: str = _field(
        "train", "utterances of unknown speakers: train (kept in training), drop, or each (a speaker of its own)"
    )


@dataclasses.dataclass(frozen=True)
class TargetsConfig:
    """How ratings become targets."""

    class_set: str = _field("crema6", "named class set: see seremo_jax.vocab.CLASS_SETS")
    class_target: str = _field("votes", "train on vote shares (votes) or on the consensus")
    attributes: tuple[str, ...] = _field(vocab.ATTRIBUTES, "attributes to predict; those the corpus lacks are masked")
    attribute_scale: str = _field("centered", "centered: (a - mid) / half in [-1, 1]; unit: [0, 1]; raw")
    other_votes: str = _field("drop", "votes outside the class set: drop or spread evenly over the classes")
    tie_rule: str = _field("no_agreement", "ties for the plurality: no_agreement, share or first")
    smoothing: float = _field(0.0, "added to every class count before dividing")


@dataclasses.dataclass(frozen=True)
class BackboneConfig:
    """The frozen foundation model."""

    name: str = _field("logmel", "logmel, a folder with a published checkpoint, or its hub id (org/name[@revision])")
    dtype: str = _field("auto", "compute dtype: float32, bfloat16, or auto: bfloat16 on accelerators, float32 on CPU")
    final_norm: bool = _field(False, "take the last layer of pre-norm models after their final layer norm")
    window: str = _field("padded", "Whisper hears 30 s, padded with silence (padded), or 2 s more than the audio (cut)")
    window_seconds: float = _field(30.0, "longer audio is heard in windows of this length")
    overlap_seconds: float = _field(5.0, "of a window that the next one hears again")
    shards_params: bool = _field(False, "spread the weights over the devices of a process, too", changes_results=False)


@dataclasses.dataclass(frozen=True)
class ExtractConfig:
    """One pass over the audio."""

    layers: str | tuple[int, ...] = _field("saliency", "layers to store: all, saliency (the chosen one), or a list")
    dtype: str = _field("float16", "dtype of the stored frames: float16 or float32")
    shard_utterances: int = _field(256, "utterances in a shard; a killed run repeats at most one")
    num_buckets: int = _field(8, "padded lengths, each compiled once")
    batch_seconds: float = _field(160.0, "padded audio in one batch", changes_results=False)
    num_threads: int = _field(4, "threads that decode audio", changes_results=False)


@dataclasses.dataclass(frozen=True)
class SaliencyConfig:
    """Which layer carries emotion."""

    num_utterances: int = _field(30_000, "training utterances behind the curve, a seeded draw; all if fewer")
    targets: str = _field("attributes", "attributes, or votes (required where a corpus has no attributes)")
    seed: int = _field(0, "seed of the draw")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The head, a TC-GRU."""

    layer: int | str = _field("saliency", "layer the head reads: a number or saliency")
    feature_norm: str = _field("zscore", "zscore with statistics of the training split, or none")
    conv_kernel: int = _field(3, "frames under the depthwise convolution, odd; 0 leaves the branch out")
    gru_units: int = _field(256, "width of each GRU")
    gru_layers: int = _field(2, "GRUs on top of each other")
    embedding_size: int = _field(128, "width of the embedding")
    dropout: float = _field(0.0, "dropout between GRUs and on the embedding")


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Weights of the CCC losses."""

    attribute_task_weight: float = _field(1.0, "weight of the attribute loss")
    class_task_weight: float = _field(1.0, "weight of the class loss")
    attribute_weights: tuple[float, ...] = _field((), "weight of each attribute, summing to 1; empty means equal")
    ccc_eps: float = _field(1e-8, "added to the denominator of CCC in the loss")


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """Adam."""

    learning_rate: float = _field(5e-4, "step size")
    weight_decay: float = _field(0.0, "decoupled weight decay")
    clip_norm: float = _field(1.0, "global norm to which gradients are clipped; 0 does not clip")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The loop."""

    seed: int = _field(0, "seed of the initial parameters and of dropout")
    data_seed: int = _field(0, "seed of the order of utterances, shared by all members")
    batch_size: int = _field(64, "utterances in a batch, on average")
    frames_per_row: int = _field(0, "frames of a packed row; 0 derives it from the longest utterance")
    max_epochs: int = _field(100, "epochs at most")
    patience: int = _field(10, "epochs without improvement on the development split before a member stops")
    min_delta: float = _field(0.0, "improvement that counts")
    member_map: str = _field("auto", "vmap, map, or auto: vmap on accelerators, map on CPU", changes_results=False)
    keep_checkpoints: int = _field(2, "newest checkpoints kept", changes_results=False)


@dataclasses.dataclass(frozen=True)
class EnsembleConfig:
    """Member axes: their product is trained in one program. An empty axis takes the single value of its section."""

    layers: tuple[int, ...] = _field((), "values for model.layer")
    seeds: tuple[int, ...] = _field((), "values for train.seed")
    class_targets: tuple[str, ...] = _field((), "values for targets.class_target")


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """Evaluation, all of it by speaker."""

    splits: tuple[str, ...] = _field(("test",), "splits to evaluate")
    nbest: tuple[int, ...] = _field((1, 2, 3), "N of the N-best scores")
    pa_uar_thresholds: tuple[int, ...] = _field((50, 75), "T of paUAR-T, in %")
    f1_classes: str = _field("present", "macro-F1 over classes that are present, or all of the class set")
    group_by: str = _field("gender", "column of the utterance table whose groups are compared")
    num_resamples: int = _field(1_000, "bootstrap resamples of speakers")
    seed: int = _field(0, "seed of the bootstrap")


@dataclasses.dataclass(frozen=True)
class Config:
    """An experiment. Built by `from_config_dict`; `validate` has passed."""

    corpus: CorpusConfig = CorpusConfig()
    data: DataConfig = DataConfig()
    targets: TargetsConfig = TargetsConfig()
    backbone: BackboneConfig = BackboneConfig()
    extract: ExtractConfig = ExtractConfig()
    saliency: SaliencyConfig = SaliencyConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()
    ensemble: EnsembleConfig = EnsembleConfig()
    eval: EvalConfig = EvalConfig()

    def validate(self) -> "Config":
        """Checks the rules that span fields and returns self.

        Raises:
          ConfigError: One rule is broken; the message gives the field and the reason.
        """
        for path, choices in CHOICES.items():
            section, name = path.split(".")
            values = getattr(getattr(self, section), name)
            for value in values if isinstance(values, tuple) else (values,):
                if value not in choices:
                    raise ConfigError(f"{path} = {value!r}: choose one of {', '.join(map(str, choices))}")
        for path, lowest in LOWEST.items():
            section, name = path.split(".")
            if getattr(getattr(self, section), name) < lowest:
                raise ConfigError(f"{path} must be at least {lowest}, is {getattr(getattr(self, section), name)}")
        rules = [
            (isinstance(self.model.layer, int) or self.model.layer == "saliency",
             f"model.layer = {self.model.layer!r}: give a layer number or 'saliency'"),
            (isinstance(self.extract.layers, tuple) or self.extract.layers in ("all", "saliency"),
             f"extract.layers = {self.extract.layers!r}: give 'all', 'saliency' or a list of layer numbers"),
            (len(self.data.split_shares) == 3 and abs(sum(self.data.split_shares) - 1) < 1e-6
             and min(self.data.split_shares) > 0,
             "data.split_shares must be three positive shares (train, development, test) that sum to 1"),
            (self.data.min_seconds < self.data.max_seconds, "data.min_seconds must be below data.max_seconds"),
            (self.data.fold == 0 or self.data.split_kind in ("session", "kfold", "published"),
             f"data.fold = {self.data.fold} means nothing for data.split_kind = {self.data.split_kind}"),
            (self.data.split_kind != "kfold" or self.data.fold < self.data.num_folds,
             f"data.fold = {self.data.fold}: the folds are 0 to {self.data.num_folds - 1} (data.num_folds)"),
            (self.model.conv_kernel == 0 or self.model.conv_kernel % 2 == 1,
             "model.conv_kernel must be odd (or 0), so that the convolution is centred"),
            (0 <= self.model.dropout < 1, "model.dropout must be in [0, 1)"),
            (not self.loss.attribute_weights or (len(self.loss.attribute_weights) == len(self.targets.attributes)
             and abs(sum(self.loss.attribute_weights) - 1) < 1e-6),
             "loss.attribute_weights needs one weight for each of targets.attributes, summing to 1"),
            (len(set(self.targets.attributes)) == len(self.targets.attributes),
             "targets.attributes names an attribute twice"),
            ("arousal" not in self.targets.attributes, "targets.attributes: this project says 'activation'"),
            (all(0 < threshold < 100 for threshold in self.eval.pa_uar_thresholds),
             "eval.pa_uar_thresholds are percentages between 0 and 100"),
            (all(0 < n <= len(vocab.CLASS_SETS[self.targets.class_set]) for n in self.eval.nbest)
             and 1 in self.eval.nbest,
             "eval.nbest must include 1, and no N can exceed the number of classes"),
            (not (self.ensemble.layers and self.extract.layers == "saliency"),
             "ensemble.layers needs those layers in the store: set extract.layers to 'all' or to a list"),
            (not (isinstance(self.extract.layers, tuple)
                  and not set(self.ensemble.layers or ([self.model.layer] if isinstance(self.model.layer, int) else []))
                  <= set(self.extract.layers)),
             "the layers to train on are not among extract.layers, so they would not be in the store"),
        ]  # fmt: skip
        for axis, values in dataclasses.asdict(self.ensemble).items():
            rules.append((len(set(values)) == len(values), f"ensemble.{axis} names a value twice"))
        for holds, message in rules:
            if not holds:
                raise ConfigError(message)
        return self

    def fingerprint(self, *sections: str) -> str:
        """Hash of the fields that change results, of the named sections (all if none)."""
        return fingerprint_of(self.results_fields(*sections))

    def results_fields(self, *sections: str) -> dict[str, Any]:
        """The fields that change results, `section.name` -> value, of the named sections (all if none)."""
        fields = {}
        for section in sections or [field.name for field in dataclasses.fields(self)]:
            part = getattr(self, section)
            for field in dataclasses.fields(part):
                if field.metadata["changes_results"]:
                    value = getattr(part, field.name)
                    fields[f"{section}.{field.name}"] = list(value) if isinstance(value, tuple) else value
        return fields


def from_config_dict(tree: Mapping[str, Any] | ml_collections.ConfigDict) -> Config:
    """Reads a (nested) ConfigDict or dict strictly; fields left out take their defaults.

    Raises:
      ConfigError: Unknown section or key (the message gives the full path and the nearest name), value of the wrong
        type, or a broken rule of `Config.validate`.
    """
    if isinstance(tree, ml_collections.ConfigDict):
        tree = tree.to_dict()
    sections = {field.name: field.type for field in dataclasses.fields(Config)}
    parts = {}
    for section, values in tree.items():
        _require_known(section, sections, "")
        if not isinstance(values, Mapping):
            raise ConfigError(f"{section} must be a section with fields, is {values!r}")
        hints = typing.get_type_hints(sections[section])
        for name in values:
            _require_known(name, hints, f"{section}.")
        parts[section] = sections[section](
            **{name: _convert(value, hints[name], f"{section}.{name}") for name, value in values.items()}
        )
    return Config(**parts).validate()


def to_config_dict(config: Config) -> ml_collections.ConfigDict:
    """The ConfigDict that recipes start from and flags override."""
    return ml_collections.ConfigDict(dataclasses.asdict(config))


def describe() -> str:
    """One line a field: path, default, meaning. For `--help`."""
    lines = []
    for section in dataclasses.fields(Config):
        for field in dataclasses.fields(section.type):
            lines.append(f"  --config.{section.name}.{field.name}={field.default!r}\n      {field.metadata['doc']}")
    return "\n".join(lines)


def _require_known(name: str, known: Mapping[str, Any], prefix: str) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"; did you mean {prefix}{near[0]}?" if near else f"; known here: {', '.join(sorted(known))}"
        raise ConfigError(f"unknown config field {prefix}{name}{hint}")


def _convert(value: Any, hint: Any, path: str) -> Any:
    """`value` as the type `hint`, or ConfigError. Converts only int -> float, list -> tuple, and text of a union."""
    if isinstance(hint, types.UnionType):
        options = typing.get_args(hint)
        if isinstance(value, str) and int in options and value.lstrip("-").isdigit():
            return int(value)
        if isinstance(value, str) and any(typing.get_origin(option) is tuple for option in options):
            items = value.strip("()[] ").rstrip(",").split(",")
            if all(item.strip().isdigit() for item in items):
                return tuple(int(item) for item in items)
        for option in options:
            try:
                return _convert(value, option, path)
            except ConfigError:
                continue
    elif typing.get_origin(hint) is tuple:
        if isinstance(value, list | tuple):
            return tuple(_convert(item, typing.get_args(hint)[0], f"{path}[{i}]") for i, item in enumerate(value))
    elif hint is float:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    elif isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    name = getattr(hint, "__name__", str(hint)) if not typing.get_origin(hint) else str(hint)
    raise ConfigError(f"{path} must be {name}, is {value!r} ({type(value).__name__})")
