"""The sections of the config that say which heads are trained, and how; the others stand in `config_fields`."""

import dataclasses

from seremo_jax.core import vocab
from seremo_jax.core.config_field import field as _field


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The head, a TC-GRU."""

    layer: int | str = _field("saliency", "layer the head reads: a number, saliency, or sum (learned over the stored)")
    top_features: int = _field(0, "keep this many features of largest saliency; 0 keeps all", lowest=0)
    feature_norm: str = _field(
        "zscore",
        "normalisation of the features",
        choices={"zscore": "with statistics of the training split", "none": ""},
    )
    speaker_kappa_s: float | str = _field(
        vocab.NO_SPEAKER,
        "z-scores by each speaker's own statistics (transductive), the training split counting as this many seconds of "
        "the speaker; inf: by those of the training split alone",
        lowest=0,
    )
    conv_kernel: int = _field(3, "frames under the convolution, odd; 0 for no convolution", lowest=0)
    conv_kind: str = _field(
        "depthwise", "convolution beside the features (none: conv_kernel=0)", choices=vocab.CONVOLUTIONS
    )
    conv_filters: int = _field(200, "filters of a dense convolution", lowest=1)
    gru_units: int = _field(256, "width of each GRU", lowest=1)
    gru_layers: int = _field(2, "GRUs on top of each other", lowest=1)
    bidirectional: bool = _field(False, "a second GRU of each layer reads the utterance backwards, beside the first")
    pooling: str = _field("last_valid", "summary of an utterance", choices=vocab.POOLINGS)
    embedding_size: int = _field(128, "width of the embedding", lowest=1)
    embedding_activation: str = _field("none", "activation of the embedding", choices=vocab.ACTIVATIONS)
    dropout: float = _field(0.0, "dropout between GRUs and on the embedding", lowest=0)
    dtype: str = _field(
        "float32", "dtype of the matrix products", choices={"float32": "", "bfloat16": "accumulated in float32"}
    )


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Losses and their weights."""

    class_kind: str = _field(
        "ccc", "class loss", choices={kind: loss.meaning for kind, loss in vocab.CLASS_LOSSES.items()}
    )
    label_smoothing: float = _field(0.0, "share of the class target that is spread evenly over the classes", lowest=0)
    attribute_kind: str = _field(
        "ccc", "attribute loss", choices={"ccc": "", "emd": "earth mover, on the raters' ordinal distribution"}
    )
    attribute_task_weight: float = _field(1.0, "weight of the attribute loss", lowest=0)
    class_task_weight: float = _field(1.0, "weight of the class loss", lowest=0)
    variance_task_weight: float = _field(1.0, "weight of the loss of predicted variances", lowest=0)
    speaker_balance: float = _field(
        0.0, "utterances weigh (number of their speaker's utterances)^-this; 1: every speaker the same", lowest=0
    )
    group_balance: float = _field(
        0.0, "how far weights undo that classes depend on train.group_by; 1: wholly", lowest=0
    )
    corpus_balance: float = _field(
        0.0, "utterances weigh (number of their corpus's utterances)^-this; 1: every corpus the same", lowest=0
    )
    closeness_weight: float = _field(
        0.0, "weight of the expected distance of classes, by votes given together, beside the class loss", lowest=0
    )
    objective: str = _field("mean", "what is made of the losses of groups", choices=vocab.OBJECTIVES)
    objective_group: str = _field("speaker", "groups of the objective", choices=vocab.OBJECTIVE_GROUPS)
    dro_step: float = _field(0.01, "objective=group_dro: step of the shares of groups", lowest=0)
    cvar_share: float = _field(0.2, "objective=cvar: share of the groups, above 0 and at most 1", lowest=0)
    vrex_weight: float = _field(5.0, "objective=vrex: weight of the variance over groups", lowest=0)
    task_weighting: str = _field(
        "fixed", "weights between tasks", choices={"fixed": "", "uncertainty": "learned, on top of the fixed"}
    )
    attribute_weights: tuple[float, ...] = _field((), "weight of each attribute, summing to 1; empty means equal")
    ccc_eps: float = _field(1e-8, "added to the denominator of CCC in the loss", lowest=0)


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """Adam."""

    learning_rate: float = _field(5e-4, "step size", lowest=0)
    schedule: str = _field(
        "constant",
        "learning rate after the warm-up",
        choices={"constant": "", "cosine": "falls to 0 at the end of train.max_epochs"},
    )
    warmup_steps: int = _field(0, "updates over which the learning rate of a member rises from 0", lowest=0)
    weight_decay: float = _field(0.0, "decoupled weight decay, times the learning rate", lowest=0)
    clip_norm: float = _field(1.0, "global norm to which gradients are clipped; 0 does not clip", lowest=0)


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The loop."""

    seed: int = _field(0, "seed of the initial parameters and of dropout")
    data_seed: int = _field(0, "seed of the order of utterances")
    group_by: str = _field(
        "gender", "column of the utterance table with the groups that training balances, or kmeans:K of the speakers"
    )
    mixup: float = _field(
        0.0, "a of Beta(a, a), which mixes pooled states and labels with those of another speaker; 0: not", lowest=0
    )
    copy_share: float = _field(
        0.0,
        "how often an utterance is heard as one of its copies (extract.conditions) in place of the clean recording",
        lowest=0,
        is_silent=True,
    )
    batch_size: int = _field(64, "utterances in a batch, on average", lowest=2)
    frames_per_row: int = _field(0, "frames of a packed row; 0 derives it from the longest utterance", lowest=0)
    max_epochs: int = _field(100, "epochs at most", lowest=1)
    selection: str = _field(
        "ccc", "score of the development split that picks a head's epoch and stops it", choices=vocab.SELECTION_SCORES
    )
    patience: int = _field(10, "epochs without improvement on the development split before a member stops", lowest=1)
    min_delta: float = _field(0.0, "improvement that counts", lowest=0)
    member_map: str = _field(
        "auto",
        "how members are computed",
        choices={"auto": "vmap on accelerators, map on CPU", "vmap": "", "map": "one after the other"},
        changes_results=False,
    )
    micro_batches: int = _field(
        1, "parts that a batch is computed in, one after the other", lowest=1, changes_results=False
    )
    data_shards: int = _field(1, "devices that share each batch", lowest=1, changes_results=False)
    device_cache: str = _field(
        "auto",
        "frames live in device memory",
        choices={
            "auto": "where the compiler says that they fit; on CPU into half of what is free",
            "on": "",
            "off": "",
        },
        changes_results=False,
    )
    checkpoint_batches: int = _field(
        500, "batches between checkpoints inside an epoch; 0 for none", lowest=0, changes_results=False
    )
    keep_checkpoints: int = _field(2, "newest checkpoints kept", lowest=1, changes_results=False)
    tracker: str = _field(
        "none",
        "where the log goes besides (extras of these names)",
        choices=("none", "wandb", "mlflow", "trackio"),
        changes_results=False,
    )
    tracker_project: str = _field("seremo_jax", "project, or experiment, of the tracker", changes_results=False)


@dataclasses.dataclass(frozen=True)
class EnsembleConfig:
    """Member axes: their product is trained in one program. An empty axis takes the single value of its section."""

    layers: tuple[int, ...] = _field((), "values for model.layer")
    folds: tuple[int, ...] = _field((), "values for data.fold: cross-validation over speakers in one program", lowest=0)
    class_targets: tuple[str, ...] = _field((), "values for targets.class_target", choices=vocab.CLASS_TARGETS)
    class_kinds: tuple[str, ...] = _field((), "values for loss.class_kind", choices=tuple(vocab.CLASS_LOSSES))
    label_smoothings: tuple[float, ...] = _field((), "values for loss.label_smoothing", lowest=0)
    attribute_task_weights: tuple[float, ...] = _field((), "values for loss.attribute_task_weight", lowest=0)
    class_task_weights: tuple[float, ...] = _field((), "values for loss.class_task_weight", lowest=0)
    speaker_balances: tuple[float, ...] = _field((), "values for loss.speaker_balance", lowest=0)
    group_balances: tuple[float, ...] = _field((), "values for loss.group_balance", lowest=0)
    corpus_balances: tuple[float, ...] = _field((), "values for loss.corpus_balance", lowest=0)
    closeness_weights: tuple[float, ...] = _field((), "values for loss.closeness_weight", lowest=0)
    objectives: tuple[str, ...] = _field((), "values for loss.objective", choices=tuple(vocab.OBJECTIVES))
    objective_groups: tuple[str, ...] = _field(
        (), "values for loss.objective_group", choices=tuple(vocab.OBJECTIVE_GROUPS)
    )
    mixups: tuple[float, ...] = _field((), "values for train.mixup", lowest=0)
    speaker_kappas_s: tuple[float | str, ...] = _field((), "values for model.speaker_kappa_s", lowest=0)
    copy_shares: tuple[float, ...] = _field((), "values for train.copy_share", lowest=0, is_silent=True)
    learning_rates: tuple[float, ...] = _field((), "values for optim.learning_rate", lowest=0)
    weight_decays: tuple[float, ...] = _field((), "values for optim.weight_decay", lowest=0)
    dropouts: tuple[float, ...] = _field((), "values for model.dropout", lowest=0)
    data_seeds: tuple[int, ...] = _field((), "values for train.data_seed: members with an order of their own")
    seeds: tuple[int, ...] = _field((), "values for train.seed")
    only: tuple[int, ...] = _field(
        (), "members kept of the product, by number, seeds innermost; empty keeps all", lowest=0
    )
