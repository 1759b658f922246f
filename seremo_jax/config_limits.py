"""What single config fields may be: choices by name, and lowest values."""

from seremo_jax import vocab

CHOICES: dict[str, tuple] = {
    "data.modality": vocab.MODALITIES,
    "data.slow_clicks": ("in", "out"),
    "data.on_bad_audio": ("exclude", "error"),
    "targets.class_set": tuple(vocab.CLASS_SETS),
    "targets.class_target": vocab.CLASS_TARGETS,
    "targets.attribute_scale": ("centered", "unit", "raw"),
    "targets.other_votes": ("drop", "spread"),
    "targets.tie_rule": ("no_agreement", "share", "first"),
    "backbone.dtype": ("auto", "float32", "bfloat16"),
    "backbone.window": ("padded", "cut"),
    "extract.dtype": ("float16", "float32"),
    "saliency.targets": ("attributes", "votes"),
    "model.feature_norm": ("zscore", "none"),
    "loss.class_kind": ("ccc", "soft_ce", "kl", "jsd", "balanced_soft_ce", "hard_ce"),
    "train.member_map": ("auto", "vmap", "map"),
    "ensemble.class_targets": vocab.CLASS_TARGETS,
    "eval.splits": vocab.SPLITS,
    "eval.f1_classes": ("present", "all"),
}
"""Field -> its allowed values; of each value, where the field is a tuple."""

LOWEST: dict[str, float] = {
    "corpus.num_speakers": 6,
    "corpus.utterances_per_speaker": 1,
    "data.max_speakers": 0,
    "data.min_seconds": 0.025,
    "targets.smoothing": 0,
    "backbone.window_seconds": 1,
    "backbone.overlap_seconds": 0.2,
    "extract.shard_utterances": 1,
    "extract.num_buckets": 1,
    "extract.batch_seconds": 1,
    "extract.num_threads": 1,
    "saliency.num_utterances": 2,
    "model.conv_kernel": 0,
    "model.gru_units": 1,
    "model.gru_layers": 1,
    "model.embedding_size": 1,
    "loss.attribute_task_weight": 0,
    "loss.class_task_weight": 0,
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
    "eval.num_resamples": 2,
}
"""Field -> its lowest value."""
