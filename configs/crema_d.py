"""CREMA-D, voice-only votes, logmel backbone: 5 seeds x {votes, consensus} in one program.

Run:    bash launch/quickstart.sh --corpus crema_d --root CREMA-D
Time:   12.5 minutes on 2 busy cores, 12 of them training (15 epochs, 1,932 utterances, 10 heads)
Result: test UAR 0.435 +- 0.020 trained on votes, 0.371 +- 0.023 on the consensus (5 seeds; chance 0.167), at 2dfcb22
"""

from collections.abc import Iterator

import ml_collections

from seremo_jax.core.config import Config, to_config_dict
from seremo_jax.sweeps.algebra import Point, axis, product


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """The recipe; `subset24` keeps 24 speakers, for a quick look.

    Raises:
      ValueError: Unknown `arg`.
    """
    config = to_config_dict(Config())
    config.corpus.name = "crema_d"
    config.saliency.targets = "votes"
    config.model.gru_units = 128
    config.optim.learning_rate = 1e-3
    config.train.max_epochs = 15
    config.train.patience = 5
    config.ensemble.seeds = (0, 1, 2, 3, 4)
    config.ensemble.class_targets = ("votes", "consensus")
    if arg == "subset24":
        config.data.max_speakers = 24
        config.train.max_epochs = 10
    elif arg:
        raise ValueError(f"configs/crema_d.py knows no variant {arg!r}: leave it out or say subset24")
    return config


def sweep_small_corpus() -> Iterator[Point]:
    """What helps where there are few utterances: 5 seeds each, one program for every pooling and width."""
    yield from product(
        axis("model.pooling", ("last_valid", "mean_sd")),
        axis("model.gru_units", (64, 128)),
        axis("model.dropout", (0.0, 0.3)),
        axis("loss.class_kind", ("ccc", "kl")),
        axis("targets.class_target", ("votes",)),
    )


def sweep_layers() -> Iterator[Point]:
    """Every hidden state of a base-size backbone (`--config.backbone.name=`), 5 seeds each: one program."""
    yield from product(
        axis("extract.layers", ("all",)),
        axis("model.layer", range(13)),
        axis("targets.class_target", ("votes",)),
    )
