"""Every speaker served: features relative to the speaker, weights, objectives over speakers, and mixup, one program.

The primary score is the mean UAR of the fifth of the speakers who are served worst (CVaR at 20 %). The sweep `frontier`
trains 20 systems of 2 seeds each, 40 heads a fold, in one compiled program: the plain head, each means alone, and some
together. Systems relative to the speaker are transductive: before they judge an utterance they have heard all of its
speaker's audio.

Run:    python -m launch.sweep --config=configs/every_speaker.py:subset24 --config.corpus.root=CREMA-D
        --workdir=runs/every_speaker --sweep=frontier --config.backbone.name=WHISPER-BASE --config.backbone.window=cut
        --config.extract.layers='(3,)' --config.model.layer=3
        All of CREMA-D, each means alone with 5 seeds, to a table: bash configs/reproduce.sh every_speaker; for
        MSP-Podcast say :msp_podcast --config.corpus.root=MSP-Podcast
Time:   58 minutes of training on 2 busy cores for the 200 heads of `alone` on 76 speakers
Result: mean UAR of the worst fifth, 5 folds: plain head 0.464 [0.423, 0.507], others 0.414 to 0.477, at 1b5f577. None
        is shown to be better; RESULTS.md, table (g), says what each does
"""

from collections.abc import Iterator

import ml_collections

from configs import msp_podcast, simulated, small_corpus
from seremo_jax.sweeps.algebra import Point, axis, chain, product, zipped

_FIELDS = (
    "model.speaker_kappa_s", "loss.speaker_balance", "loss.group_balance", "loss.objective", "train.mixup"
)  # fmt: skip
_SYSTEMS = (
    ("inf", 0.0, 0.0, "mean", 0.0),
    *((kappa_s, 0.0, 0.0, "mean", 0.0) for kappa_s in (0.0, 10.0, 30.0)),
    *(("inf", alpha, 0.0, "mean", 0.0) for alpha in (0.5, 1.0)),
    *(("inf", 0.0, gamma, "mean", 0.0) for gamma in (0.5, 1.0)),
    *(("inf", 0.0, 0.0, objective, 0.0) for objective in ("group_dro", "cvar", "vrex")),
    *(("inf", 0.0, 0.0, "mean", mixup) for mixup in (0.2, 0.4)),
    ("inf", 0.5, 0.5, "mean", 0.0),
    ("inf", 0.0, 0.0, "cvar", 0.2),
    ("inf", 0.5, 0.0, "group_dro", 0.0),
    (30.0, 0.5, 0.5, "mean", 0.0),
    (30.0, 0.0, 0.0, "cvar", 0.0),
    (30.0, 0.0, 0.0, "mean", 0.2),
    (30.0, 0.5, 0.5, "cvar", 0.2),
)
"""Values of `_FIELDS`, the plain head first."""
_ALONE = (
    {"model.speaker_kappa_s": 30.0},
    {"loss.group_balance": 1.0},
    {"loss.closeness_weight": 1.0},
    {"loss.objective": "group_dro"},
    {"loss.objective": "cvar"},
    {"loss.objective": "vrex"},
    {"train.mixup": 0.2},
)
"""What each means alone changes about the plain head."""
FRONTIER = product(
    zipped(*(axis(field, values) for field, values in zip(_FIELDS, zip(*_SYSTEMS, strict=True), strict=True))),
    axis("train.seed", (0, 1)),
)


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """The recipe on CREMA-D in 5 folds; `subset24` keeps 24 speakers in 4.

    `msp_podcast` is the other corpus's recipe, and `simulated` that of the simulated one, with 60 speakers, which takes
    faults of known size: `--config.corpus.class_by_gender=0.8`, `--config.corpus.speaker_shift=3`.

    Raises:
      ValueError: Unknown `arg`.
    """
    if arg == "msp_podcast":
        config = msp_podcast.get_config()
    elif arg == "simulated":
        config = simulated.get_config()
        config.corpus.num_speakers, config.corpus.utterances_per_speaker = 60, 18
        config.model.gru_layers, config.model.pooling, config.model.dropout = 1, "mean_sd", 0.3
    else:
        config = small_corpus.get_config(arg)
        config.ensemble.class_kinds = ()
        config.data.split_kind = "kfold"
        config.data.num_folds = 4 if arg == "subset24" else 5
        config.ensemble.folds = tuple(range(config.data.num_folds))
    config.loss.class_kind = "balanced_soft_ce"
    config.ensemble.class_targets = ("votes",)
    config.ensemble.seeds = ()
    # The primary score is made of UAR; which of its epochs a head keeps says the development speakers' UAR.
    config.train.selection = "uar"
    config.eval.means = ("seeds",)
    return config


def sweep_alone() -> Iterator[Point]:
    """The plain head, then each means alone at one value that was fixed beforehand, 5 seeds each."""
    yield from product(chain([{}], _ALONE), axis("train.seed", range(5)))


def sweep_frontier() -> Iterator[Point]:
    """Systems between the average speaker and the worst served, 2 seeds each: 40 heads a fold, one program."""
    yield from FRONTIER
