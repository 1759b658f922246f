"""The sections of the config: every field, its default and its meaning, here and nowhere else."""

import dataclasses
from typing import Any

from seremo_jax.core import vocab


def _field(default: Any, doc: str, changes_results: bool = True) -> Any:
    return dataclasses.field(default=default, metadata={"doc": doc, "changes_results": changes_results})


@dataclasses.dataclass(frozen=True)
class CorpusConfig:
    """Which recordings and ratings."""

    name: str = _field("simulated", "corpus parser: see seremo_jax.data.corpora.PARSERS")
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
    keep_no_agreement: str = _field(
        "keep", "vote distributions of utterances without a consensus: keep, drop, or train_only"
    )
    unknown_speakers: str = _field(
        "train", "utterances of unknown speakers: train (kept in training), drop, or each (a speaker of its own)"
    )
    self_reports: str = _field("out", "what actors said of themselves: out or in (IEMOCAP)")
    reverse_activation: bool = _field(True, "turn activation round where the corpus has 1 for high (MSP-IMPROV)")
    word_map: tuple[str, ...] = _field((), "WORD=CLASS for primary words that the parser does not know")
    smoothed: str = _field("refuse", "vote shares smoothed by others: refuse or invert (corpora as tables)")


@dataclasses.dataclass(frozen=True)
class TargetsConfig:
    """How ratings become targets."""

    class_set: str = _field("crema6", "named class set: see seremo_jax.core.vocab.CLASS_SETS")
    class_target: str = _field("votes", "train on vote shares (votes) or on the consensus")
    attributes: tuple[str, ...] = _field(vocab.ATTRIBUTES, "attributes to predict; those the corpus lacks are masked")
    attribute_scale: str = _field("centered", "centered: [-1, 1]; unit: [0, 1]; raw; minmax of the training split")
    distribution_of: str = _field("shares", "vote distribution: shares of the votes, or dawid_skene (extra raters)")
    other_votes: str = _field(
        "drop", "votes outside the class set: drop, spread over the classes, or a class of its own"
    )
    other_map: tuple[str, ...] = _field((), "WORD=CLASS for words and free texts outside the class set")
    secondary_weight: float = _field(0.0, "what a secondary word of the class set counts beside a primary one")
    repeated_rater: str = _field("keep", "one rater twice on an utterance: keep both, average, or the last")
    multi_primary: str = _field("share", "several primary words of one rating: share its vote, each, or the first")
    min_raters: int = _field(1, "utterances with fewer raters are masked")
    tie_rule: str = _field("no_agreement", "ties for the plurality: no_agreement, share or first")
    smoothing: float = _field(0.0, "added to every class count before dividing")
    predict_variance: bool = _field(False, "predict the raters' variance of each attribute, too (CCC loss)")


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
    kind: str = _field(
        "ccs", "what picks the layer: ccs (mean absolute correlation) or probe (ridge regression, on held-out speakers)"
    )
    num_folds: int = _field(5, "speaker folds of the probe")
    seed: int = _field(0, "seed of the draw and of the folds")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The head, a TC-GRU."""

    layer: int | str = _field("saliency", "layer the head reads: a number, saliency, or sum (learned over the stored)")
    top_features: int = _field(0, "keep this many features of largest saliency; 0 keeps all")
    feature_norm: str = _field("zscore", "zscore with statistics of the training split, or none")
    conv_kernel: int = _field(3, "frames under the depthwise convolution, odd; 0 leaves the branch out")
    gru_units: int = _field(256, "width of each GRU")
    gru_layers: int = _field(2, "GRUs on top of each other")
    pooling: str = _field("last_valid", "summary of an utterance: last_valid state, mean, or mean_sd of the states")
    embedding_size: int = _field(128, "width of the embedding")
    dropout: float = _field(0.0, "dropout between GRUs and on the embedding")
    dtype: str = _field("float32", "dtype of the matrix products: float32, or bfloat16 (accumulated in float32)")


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Losses and their weights."""

    class_kind: str = _field(
        "ccc", "class loss: ccc, soft_ce, kl, jsd, balanced_soft_ce, or hard_ce (on the consensus)"
    )
    label_smoothing: float = _field(0.0, "share of the class target that is spread evenly over the classes")
    attribute_kind: str = _field(
        "ccc", "attribute loss: ccc, or emd (earth mover, on the raters' ordinal distribution)"
    )
    attribute_task_weight: float = _field(1.0, "weight of the attribute loss")
    class_task_weight: float = _field(1.0, "weight of the class loss")
    variance_task_weight: float = _field(1.0, "weight of the loss of predicted variances")
    task_weighting: str = _field("fixed", "weights between tasks: fixed, or uncertainty (learned, on top of the fixed)")
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
    data_seed: int = _field(0, "seed of the order of utterances")
    batch_size: int = _field(64, "utterances in a batch, on average")
    frames_per_row: int = _field(0, "frames of a packed row; 0 derives it from the longest utterance")
    max_epochs: int = _field(100, "epochs at most")
    patience: int = _field(10, "epochs without improvement on the development split before a member stops")
    min_delta: float = _field(0.0, "improvement that counts")
    member_map: str = _field("auto", "vmap, map, or auto: vmap on accelerators, map on CPU", changes_results=False)
    micro_batches: int = _field(1, "parts that a batch is computed in, one after the other", changes_results=False)
    data_shards: int = _field(1, "devices that share each batch", changes_results=False)
    device_cache: str = _field(
        "auto", "frames live in device memory: on, off, or auto: where they fit into half of it", changes_results=False
    )
    checkpoint_batches: int = _field(
        500, "batches between checkpoints inside an epoch; 0 for none", changes_results=False
    )
    keep_checkpoints: int = _field(2, "newest checkpoints kept", changes_results=False)
    tracker: str = _field(
        "none", "where the log goes besides: wandb, mlflow, trackio (extras of these names)", changes_results=False
    )
    tracker_project: str = _field("seremo_jax", "project, or experiment, of the tracker", changes_results=False)


@dataclasses.dataclass(frozen=True)
class EnsembleConfig:
    """Member axes: their product is trained in one program. An empty axis takes the single value of its section."""

    layers: tuple[int, ...] = _field((), "values for model.layer")
    folds: tuple[int, ...] = _field((), "values for data.fold: cross-validation over speakers in one program")
    class_targets: tuple[str, ...] = _field((), "values for targets.class_target")
    class_kinds: tuple[str, ...] = _field((), "values for loss.class_kind")
    label_smoothings: tuple[float, ...] = _field((), "values for loss.label_smoothing")
    attribute_task_weights: tuple[float, ...] = _field((), "values for loss.attribute_task_weight")
    class_task_weights: tuple[float, ...] = _field((), "values for loss.class_task_weight")
    learning_rates: tuple[float, ...] = _field((), "values for optim.learning_rate")
    weight_decays: tuple[float, ...] = _field((), "values for optim.weight_decay")
    dropouts: tuple[float, ...] = _field((), "values for model.dropout")
    data_seeds: tuple[int, ...] = _field((), "values for train.data_seed: members with an order of their own")
    seeds: tuple[int, ...] = _field((), "values for train.seed")
    only: tuple[int, ...] = _field((), "members kept of the product, by number, seeds innermost; empty keeps all")


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """Evaluation, all of it by speaker."""

    splits: tuple[str, ...] = _field(("test",), "splits to evaluate")
    nbest: tuple[int, ...] = _field((1, 2, 3), "N of the N-best scores")
    pa_uar_thresholds: tuple[int, ...] = _field((50, 75), "T of paUAR-T, in %")
    f1_classes: str = _field("present", "macro-F1 over classes that are present, or all of the class set")
    group_by: str = _field("gender", "column of the utterance table whose groups are compared")
    num_resamples: int = _field(1_000, "bootstrap resamples of speakers")
    num_permutations: int = _field(1_000, "exchanges of two systems, speaker by speaker, behind each test; 0 for none")
    seed: int = _field(0, "seed of the bootstrap")
    calibrate: bool = _field(True, "fit temperature and conformal sets on the development split")
    coverage: float = _field(0.9, "share of the votes that conformal sets should hold")
    means: tuple[str, ...] = _field(
        (), "mean predictions to score, too, as systems of their own: over seeds, over class_kinds (and seeds)"
    )
    conditions: tuple[str, ...] = _field(
        (vocab.CLEAN,),
        "acoustic conditions: clean, noise, reverb, combined, channel, all, or ids (core/condition_names.py)",
    )
    condition_seed: int = _field(0, "seed of what conditions draw, utterance by utterance")
    noise_kinds: tuple[str, ...] = _field(("white", "pink", "brown", "babble"), "noises of noise and combined")
    snr_db: tuple[float, ...] = _field((20.0, 10.0, 0.0), "SNRs of the condition noise, active speech over noise")
    curve_snr_db: tuple[float, ...] = _field((15.0, 5.0), "further SNRs, for the curve")
    rt60_s: tuple[float, ...] = _field((0.3, 0.6, 0.9), "reverberation times of reverb and combined")
    direct_to_tail_db: float = _field(0.0, "energy of the direct path over that of the tail, synthetic rooms")
    combined_snr_db: float = _field(10.0, "SNR of combined, on the reverberant speech")
    noise_dir: str = _field("", "folder of recorded noises; adds its steady ones and its events", changes_results=False)
    rir_dir: str = _field("", "folder of measured room responses; adds measured rooms", changes_results=False)


CHOICES: dict[str, tuple] = {
    "data.modality": vocab.MODALITIES,
    "data.slow_clicks": ("in", "out"),
    "data.on_bad_audio": ("exclude", "error"),
    "data.keep_no_agreement": ("keep", "drop", "train_only"),
    "data.self_reports": ("out", "in"),
    "data.smoothed": ("refuse", "invert"),
    "data.split_kind": vocab.SPLIT_KINDS,
    "data.unknown_speakers": ("train", "drop", "each"),
    "targets.class_set": tuple(vocab.CLASS_SETS),
    "targets.class_target": vocab.CLASS_TARGETS,
    "targets.attribute_scale": ("centered", "unit", "raw", "minmax"),
    "targets.distribution_of": ("shares", "dawid_skene"),
    "targets.other_votes": ("drop", "spread", "class"),
    "targets.repeated_rater": ("keep", "average", "last"),
    "targets.multi_primary": ("share", "each", "first"),
    "targets.tie_rule": ("no_agreement", "share", "first"),
    "backbone.dtype": ("auto", "float32", "bfloat16"),
    "backbone.window": ("padded", "cut"),
    "extract.dtype": ("float16", "float32"),
    "saliency.targets": ("attributes", "votes"),
    "saliency.kind": ("ccs", "probe"),
    "model.feature_norm": ("zscore", "none"),
    "model.pooling": ("last_valid", "mean", "mean_sd"),
    "model.dtype": ("float32", "bfloat16"),
    "loss.class_kind": vocab.CLASS_KINDS,
    "loss.attribute_kind": ("ccc", "emd"),
    "loss.task_weighting": ("fixed", "uncertainty"),
    "train.member_map": ("auto", "vmap", "map"),
    "train.device_cache": ("auto", "on", "off"),
    "train.tracker": ("none", "wandb", "mlflow", "trackio"),
    "ensemble.class_targets": vocab.CLASS_TARGETS,
    "ensemble.class_kinds": vocab.CLASS_KINDS,
    "eval.splits": vocab.SPLITS,
    "eval.f1_classes": ("present", "all"),
    "eval.means": ("seeds", "class_kinds"),
}
"""Field -> its allowed values; of each value, where the field is a tuple."""

FOLDERS = ("corpus.root", "backbone.name", "eval.noise_dir", "eval.rir_dir")
"""Fields that may name a folder, in which `~` is that of the user."""

LOWEST: dict[str, float] = {
    "corpus.num_speakers": 6,
    "corpus.utterances_per_speaker": 1,
    "data.fold": 0,
    "data.max_speakers": 0,
    "data.min_seconds": 0.025,
    "data.num_folds": 3,
    "targets.smoothing": 0,
    "targets.secondary_weight": 0,
    "targets.min_raters": 1,
    "backbone.window_seconds": 1,
    "backbone.overlap_seconds": 0.2,
    "extract.shard_utterances": 1,
    "extract.num_buckets": 1,
    "extract.batch_seconds": 1,
    "extract.num_threads": 1,
    "saliency.num_utterances": 2,
    "saliency.num_folds": 2,
    "model.conv_kernel": 0,
    "model.gru_units": 1,
    "model.gru_layers": 1,
    "model.embedding_size": 1,
    "model.top_features": 0,
    "model.dropout": 0,
    "loss.attribute_task_weight": 0,
    "loss.class_task_weight": 0,
    "loss.variance_task_weight": 0,
    "loss.label_smoothing": 0,
    "loss.ccc_eps": 0,
    "optim.learning_rate": 0,
    "optim.weight_decay": 0,
    "optim.clip_norm": 0,
    "train.batch_size": 2,
    "train.frames_per_row": 0,
    "train.max_epochs": 1,
    "train.patience": 1,
    "train.min_delta": 0,
    "train.keep_checkpoints": 1,
    "train.micro_batches": 1,
    "train.data_shards": 1,
    "train.checkpoint_batches": 0,
    "ensemble.folds": 0,
    "ensemble.only": 0,
    "ensemble.label_smoothings": 0,
    "ensemble.attribute_task_weights": 0,
    "ensemble.class_task_weights": 0,
    "ensemble.learning_rates": 0,
    "ensemble.weight_decays": 0,
    "ensemble.dropouts": 0,
    "eval.num_resamples": 2,
    "eval.num_permutations": 0,
}
"""Field -> its lowest value."""
