"""Label policies as records: which ratings count, how they become targets, and what a parser does with its files.

The records are built from a config here and nowhere else, so that ingest, saliency, training, evaluation and export see
the same targets. Without a record of this module no target is made.
"""

import dataclasses
from collections.abc import Set
from typing import Any

from seremo_jax.core import vocab
from seremo_jax.core.config import CHOICES, Config, ConfigError
from seremo_jax.core.config_fields import DataConfig
from seremo_jax.core.schema import CorpusInfo

PARSER_POLICIES = ("slow_clicks", "reverse_activation", "word_map", "smoothed")
"""Fields of the section `data` that a parser carries out, where it has a policy of that name."""


class TargetsError(ValueError):
    """The ratings contradict the settings, e.g. a word that no class set knows. The message gives the remedy."""


def require_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuses a setting that is none of the choices.

    Raises:
      TargetsError: Names the choices.
    """
    if value not in choices:
        raise TargetsError(f"{name} = {value!r}: choose one of {', '.join(choices)}")


@dataclasses.dataclass(frozen=True)
class RatingPolicies:
    """Which ratings count, and how much.

    Attributes:
      modality: Only ratings of this modality count: `voice`, `face` or `both`.
      self_reports: `out` leaves out what actors said of themselves, `in` keeps it.
      repeated_rater: One rater twice on an utterance: `keep` both, `average` (each counts 1 / times), or the `last`.
      multi_primary: Several primary words of one rating: `share` its vote, `each` counts whole, or the `first` only.
      secondary_weight: What a secondary word of the class set counts. Other secondary words count nothing.
      min_raters: Utterances with fewer raters lose all their ratings.
      other_map: Texts `WORD=CLASS` for words or free texts outside the class set.

    Raises:
      TargetsError: A value is none of the choices.
    """

    modality: str = "voice"
    self_reports: str = "out"
    repeated_rater: str = "keep"
    multi_primary: str = "share"
    secondary_weight: float = 0.0
    min_raters: int = 1
    other_map: tuple[str, ...] = ()

    def __post_init__(self):
        for name in ("modality", "self_reports"):
            require_choice(name, getattr(self, name), CHOICES[f"data.{name}"])
        for name in ("repeated_rater", "multi_primary"):
            require_choice(name, getattr(self, name), CHOICES[f"targets.{name}"])


@dataclasses.dataclass(frozen=True)
class TargetPolicies:
    """How the ratings that count become targets.

    Attributes:
      class_set: As of `vocab.classes_of`.
      attributes: Attributes wanted; those that nobody rated are masked. `arousal` is read as `activation`.
      attribute_scale: `centered`: (a - mid) / half in [-1, 1]; `unit`: [0, 1]; `raw`: the corpus's own; `minmax`: 0 and
        1 are the least and the largest mean of the training split.
      other_votes: Votes outside the class set: `drop` them, `spread` each as 1/C on every class, or count them as a
        further `class`.
      tie_rule: See `targets.plurality`.
      smoothing: See `targets.vote_distribution`.
      distribution_of: `shares` of the votes, or `dawid_skene`: each utterance's posterior over the classes, raters
        weighed by how reliable they are (`reliability.posterior`).
      keep_no_agreement: Utterances without a consensus that can be trained on: `keep` their vote distribution, `drop`
        it, or keep it in the training split only (`train_only`). Their attributes stay in any case.
      has_levels: Attributes as shares of the steps of their scale, too.
      ratings: Which ratings count.

    Raises:
      TargetsError: A value is none of the choices.
    """

    class_set: str
    attributes: tuple[str, ...] = vocab.ATTRIBUTES
    attribute_scale: str = "centered"
    other_votes: str = "drop"
    tie_rule: str = "no_agreement"
    smoothing: float = 0.0
    distribution_of: str = "shares"
    keep_no_agreement: str = "keep"
    has_levels: bool = False
    ratings: RatingPolicies = RatingPolicies()

    def __post_init__(self):
        try:
            vocab.classes_of(self.class_set)
        except ValueError as error:
            raise TargetsError(f"class_set = {error}") from None
        for name in ("attribute_scale", "other_votes", "tie_rule", "distribution_of"):
            require_choice(name, getattr(self, name), CHOICES[f"targets.{name}"])
        require_choice("keep_no_agreement", self.keep_no_agreement, CHOICES["data.keep_no_agreement"])


def target_policies(config: Config) -> TargetPolicies:
    """The policies that an experiment asks for."""
    t = config.targets
    return TargetPolicies(
        class_set=t.class_set,
        attributes=t.attributes,
        attribute_scale=t.attribute_scale,
        other_votes=t.other_votes,
        tie_rule=t.tie_rule,
        smoothing=t.smoothing,
        distribution_of=t.distribution_of,
        keep_no_agreement=config.data.keep_no_agreement,
        has_levels=config.loss.attribute_kind == "emd",
        ratings=RatingPolicies(
            modality=config.data.modality,
            self_reports=config.data.self_reports,
            repeated_rater=t.repeated_rater,
            multi_primary=t.multi_primary,
            secondary_weight=t.secondary_weight,
            min_raters=t.min_raters,
            other_map=t.other_map,
        ),
    )


def corpus_policies(info: CorpusInfo, data: DataConfig) -> TargetPolicies:
    """The policies by which a corpus is described and split at ingest.

    The class set is the corpus's own, because tables must not depend on what an experiment will do with them. All that
    the section `data` says of ratings applies.
    """
    return TargetPolicies(
        class_set=info.class_set,
        attributes=(),
        keep_no_agreement=data.keep_no_agreement,
        ratings=RatingPolicies(modality=data.modality, self_reports=data.self_reports),
    )


def parser_policies(config: Config, accepted: Set[str]) -> dict[str, Any]:
    """The policies of the config that a parser has.

    Args:
      config: The experiment.
      accepted: Names of the parser's policies (`corpora.policies_of`).

    Raises:
      ConfigError: A policy that this parser has not is set to something.
    """
    defaults = DataConfig()
    offered: dict[str, Any] = {
        "seed": config.corpus.seed,
        "num_speakers": config.corpus.num_speakers,
        "utterances_per_speaker": config.corpus.utterances_per_speaker,
        "class_by_gender": config.corpus.class_by_gender,
        "speaker_shift": config.corpus.speaker_shift,
    }
    for name in PARSER_POLICIES:
        value = getattr(config.data, name)
        if name not in accepted and value != getattr(defaults, name):
            raise ConfigError(f"data.{name} = {value!r} means nothing for corpus {config.corpus.name}")
        offered[name] = value
    return {name: value for name, value in offered.items() if name in accepted}
