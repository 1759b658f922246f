"""Label policies of a config, for those who carry them out: the parser of a corpus, and the making of targets."""

from collections.abc import Set
from typing import Any

from seremo_jax.core.config import Config, ConfigError
from seremo_jax.core.config_fields import DataConfig
from seremo_jax.data.votes import Policies

PARSER_POLICIES = ("slow_clicks", "reverse_activation", "word_map", "smoothed")
"""Fields of the section `data` that a parser carries out, where it has a policy of that name."""


def of_targets(config: Config) -> dict[str, Any]:
    """The arguments of `targets.build` that an experiment asks for."""
    t = config.targets
    return {
        "class_set": t.class_set,
        "attributes": t.attributes,
        "attribute_scale": t.attribute_scale,
        "other_votes": t.other_votes,
        "tie_rule": t.tie_rule,
        "smoothing": t.smoothing,
        "modality": config.data.modality,
        "distribution_of": t.distribution_of,
        "policies": Policies(
            self_reports=config.data.self_reports,
            repeated_rater=t.repeated_rater,
            multi_primary=t.multi_primary,
            secondary_weight=t.secondary_weight,
            min_raters=t.min_raters,
            other_map=t.other_map,
        ),
    }


def of_parser(config: Config, accepted: Set[str]) -> dict[str, Any]:
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
    }
    for name in PARSER_POLICIES:
        value = getattr(config.data, name)
        if name not in accepted and value != getattr(defaults, name):
            raise ConfigError(f"data.{name} = {value!r} means nothing for corpus {config.corpus.name}")
        offered[name] = value
    return {name: value for name, value in offered.items() if name in accepted}
