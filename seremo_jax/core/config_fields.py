"""The sections of the config that say what is heard and scored: every field with its default, meaning and values.

Those of the head and its training stand in `config_head_fields`; a field stands in one of the two and nowhere else.
"""

import dataclasses

from seremo_jax.core import vocab
from seremo_jax.core.config_field import field as _field


@dataclasses.dataclass(frozen=True)
class CorpusConfig:
    """Which recordings and ratings."""

    name: str = _field("simulated", "corpus parser: see seremo_jax.data.corpora.PARSERS")
    root: str = _field("", "folder of the corpus; empty for the simulated one", changes_results=False)
    seed: int = _field(0, "seed of the simulated corpus")
    num_speakers: int = _field(48, "speakers to simulate, before those of unknown gender", lowest=6)
    utterances_per_speaker: int = _field(14, "utterances to simulate for each speaker", lowest=1)
    class_by_gender: float = _field(
        0.0,
        "share of the women's angry, happy and fearful utterances in training that the simulated corpus replaces by "
        "other emotions: a gap between genders of known cause",
        lowest=0,
        is_silent=True,
    )
    speaker_shift: float = _field(
        0.0,
        "how far simulated speakers sound apart in all that they say, in units of what they differ by without it",
        lowest=0,
        is_silent=True,
    )
    also: tuple[str, ...] = _field(
        (),
        "further corpora of the same training: NAME, or NAME; FIELD=VALUE; ... with what its recipe sets in the "
        "sections data and corpus, e.g. iemocap; modality=both",
        is_silent=True,
    )
    also_roots: tuple[str, ...] = _field(
        (), "folder of each corpus of also; empty for the simulated one", changes_results=False
    )


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which utterances and ratings are kept, and how speakers are split."""

    modality: str = _field("voice", "what the ratings that count were given to (CREMA-D)", choices=vocab.MODALITIES)
    slow_clicks: str = _field(
        "out", "ratings whose response took over 10 s (CREMA-D, per-rater file only)", choices=("in", "out")
    )
    max_speakers: int = _field(
        0, "keep this many speakers, gender-balanced, drawn by split_seed; 0 keeps all", lowest=0
    )
    split_kind: str = _field("auto", "how utterances are split", choices=vocab.SPLIT_KINDS)
    split_seed: int = _field(0, "seed of derived splits and of kfold")
    fold: int = _field(0, "which session or fold is test, from 0; the next one is development", lowest=0)
    num_folds: int = _field(5, "folds of split_kind kfold", lowest=3)
    split_shares: tuple[float, ...] = _field((0.6, 0.2, 0.2), "shares of speakers in train, development, test")
    min_seconds: float = _field(0.1, "shorter audio is excluded and counted", lowest=0.025)
    max_seconds: float = _field(60.0, "longer audio is excluded and counted")
    on_bad_audio: str = _field(
        "exclude", "what unusable audio leads to", choices={"exclude": "counted and listed", "error": ""}
    )
    keep_no_agreement: str = _field(
        "keep", "vote distributions of utterances without a consensus", choices=("keep", "drop", "train_only")
    )
    unknown_speakers: str = _field(
        "train",
        "utterances of unknown speakers",
        choices={"train": "kept in training", "drop": "", "each": "a speaker of its own"},
    )
    self_reports: str = _field("out", "what actors said of themselves (IEMOCAP)", choices=("out", "in"))
    reverse_activation: bool = _field(True, "turn activation round where the corpus has 1 for high (MSP-IMPROV)")
    word_map: tuple[str, ...] = _field((), "WORD=CLASS for primary words that the parser does not know")
    smoothed: str = _field(
        "refuse", "vote shares that others smoothed (corpora as tables)", choices=("refuse", "invert")
    )


@dataclasses.dataclass(frozen=True)
class TargetsConfig:
    """How ratings become targets."""

    class_set: str = _field(
        "crema6",
        f"class set: {', '.join(vocab.CLASS_SETS)}, classes with commas between, e.g. angry,boredom,calm, or the union "
        "of some, e.g. crema6+msp8",
    )
    class_target: str = _field(
        "votes", "what the class output is trained on: vote shares or the consensus", choices=vocab.CLASS_TARGETS
    )
    attributes: tuple[str, ...] = _field(vocab.ATTRIBUTES, "attributes to predict; those the corpus lacks are masked")
    attribute_scale: str = _field(
        "centered",
        "scale of the attributes",
        choices={"centered": "[-1, 1]", "unit": "[0, 1]", "raw": "", "minmax": "of the training split"},
    )
    distribution_of: str = _field(
        "shares", "vote distribution", choices={"shares": "of the votes", "dawid_skene": "extra raters"}
    )
    other_votes: str = _field(
        "drop", "votes outside the class set", choices={"drop": "", "spread": "over the classes", "class": "of its own"}
    )
    other_map: tuple[str, ...] = _field((), "WORD=CLASS for words and free texts outside the class set")
    secondary_weight: float = _field(
        0.0, "what a secondary word of the class set counts beside a primary one", lowest=0
    )
    repeated_rater: str = _field(
        "keep", "one rater twice on an utterance", choices={"keep": "both", "average": "", "last": ""}
    )
    multi_primary: str = _field(
        "share", "several primary words of one rating", choices={"share": "its vote", "each": "a vote", "first": ""}
    )
    min_raters: int = _field(1, "utterances with fewer raters are masked", lowest=1)
    tie_rule: str = _field("no_agreement", "ties for the plurality", choices=("no_agreement", "share", "first"))
    smoothing: float = _field(0.0, "added to every class count before dividing", lowest=0)
    predict_variance: bool = _field(False, "predict the raters' variance of each attribute, too (CCC loss)")


@dataclasses.dataclass(frozen=True)
class BackboneConfig:
    """The frozen foundation model."""

    name: str = _field("logmel", "logmel, a folder with a published checkpoint, or its hub id (org/name[@revision])")
    dtype: str = _field(
        "auto",
        "compute dtype",
        choices={"auto": "bfloat16 on accelerators, float32 on CPU", "float32": "", "bfloat16": ""},
    )
    final_norm: bool = _field(False, "take the last layer of pre-norm models after their final layer norm")
    window: str = _field(
        "padded",
        "what Whisper hears",
        choices={"padded": "30 s, padded with silence", "cut": "2 s more than the audio"},
    )
    window_seconds: float = _field(30.0, "longer audio is heard in windows of this length", lowest=1)
    overlap_seconds: float = _field(5.0, "of a window that the next one hears again", lowest=0.2)
    level: str = _field(
        "none",
        "level at which audio is heard",
        choices={"none": "as recorded", "rms": "active speech of every recording at level_dbfs"},
    )
    level_dbfs: float = _field(
        -26.0, "RMS of active speech that level=rms brings audio to, in dB of full scale", lowest=-100
    )
    shards_params: bool = _field(False, "spread the weights over the devices of a process, too", changes_results=False)


@dataclasses.dataclass(frozen=True)
class ExtractConfig:
    """One pass over the audio."""

    layers: str | tuple[int, ...] = _field("saliency", "layers to store: all, saliency (the chosen one), or a list")
    dtype: str = _field("float16", "dtype of the stored frames", choices=("float16", "float32"))
    shard_utterances: int = _field(
        256, "utterances in a shard; a killed run repeats at most one", lowest=1, changes_results=False
    )
    num_buckets: int = _field(8, "padded lengths, each compiled once", lowest=1, changes_results=False)
    batch_seconds: str | float = _field(
        "auto",
        "padded audio in one batch; auto, for each device: 10 on CPU, whose caches hold no more, 160 on accelerators",
        lowest=1,
        changes_results=False,
    )
    num_threads: int = _field(4, "threads that decode audio", lowest=1, changes_results=False)
    conditions: tuple[str, ...] = _field(
        (),
        "conditions that copies of the training utterances are heard in, one drawn for each copy; their values may be "
        "ranges, such as noise:steady:0..20db (core/condition_ranges.py)",
        is_silent=True,
    )
    num_copies: int = _field(
        1, "copies of each training utterance, where there are conditions", lowest=1, is_silent=True
    )
    condition_seed: int = _field(0, "seed of what copies draw, utterance by utterance", is_silent=True)
    noise_dir: str = _field("", "recorded noises for copies, others than eval.noise_dir", changes_results=False)
    rir_dir: str = _field("", "measured responses for copies, others than eval.rir_dir", changes_results=False)


@dataclasses.dataclass(frozen=True)
class SaliencyConfig:
    """Which layer carries emotion."""

    num_utterances: int = _field(30_000, "training utterances behind the curve, a seeded draw; all if fewer", lowest=2)
    targets: str = _field(
        "attributes",
        "what frames are correlated with",
        choices={"attributes": "", "votes": "required where a corpus has no attributes"},
    )
    kind: str = _field(
        "dccs",
        "what picks the layer",
        choices={
            "ccs": "mean absolute correlation of single features, as in the paper",
            "dccs": "share of variance that all features explain together; its sums take 0.6 MB a layer",
            "probe": "ridge regression, on held-out speakers",
        },
    )
    num_folds: int = _field(5, "speaker folds of the probe", lowest=2)
    seed: int = _field(0, "seed of the draw and of the folds")


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """Evaluation, all of it by speaker."""

    splits: tuple[str, ...] = _field(("test",), "splits to evaluate", choices=vocab.SPLITS)
    nbest: tuple[int, ...] = _field((1, 2, 3), "N of the N-best scores")
    pa_uar_thresholds: tuple[int, ...] = _field((50, 75), "T of paUAR-T, in %")
    f1_classes: str = _field(
        "present", "classes that macro-F1 is over", choices={"present": "those of the split", "all": "the class set"}
    )
    group_by: str = _field("gender", "column of the utterance table whose groups are compared")
    num_resamples: int = _field(1_000, "bootstrap resamples of speakers", lowest=2)
    num_permutations: int = _field(
        1_000, "exchanges of two systems, speaker by speaker, behind each test; 0 for none", lowest=0
    )
    seed: int = _field(0, "seed of the bootstrap")
    calibrate: bool = _field(True, "fit temperature and conformal sets on the development split")
    coverage: float = _field(0.9, "share of the votes that conformal sets should hold")
    means: tuple[str, ...] = _field(
        (),
        "mean predictions to score, too, as systems of their own: over what",
        choices={
            "seeds": "",
            "class_kinds": "and seeds",
            "layers": "of ensemble.layers, and seeds",
            "layers_and_class_kinds": "and seeds",
        },
    )
    speaker_prior: tuple[str, ...] = _field(
        (),
        "systems to score, too: each head and mean, corrected for how often a test speaker shows each class, which is "
        "estimated from the speaker's other utterances without their labels",
        choices=vocab.SPEAKER_PRIORS,
        is_silent=True,
    )
    speaker_prior_kappa: float = _field(
        160.0, "utterances that the training prior counts as in the estimate of a speaker's", is_silent=True
    )
    speaker_prior_by: str = _field(
        "speaker",
        "whose prior is estimated: each speaker's; a column of the utterance table (gender) takes treats_groups_apart",
        is_silent=True,
    )
    treats_groups_apart: bool = _field(
        False, "lets scores depend on the group that a person is in, which is refused otherwise", is_silent=True
    )
    enrolment: tuple[int, ...] = _field(
        (),
        "labelled utterances of each test speaker that models are adapted by, for the curves of enrolment and of the "
        "prior over their number, e.g. (1, 2, 4, 8); empty for no curves",
        lowest=1,
        is_silent=True,
    )
    enrolment_kappa: float = _field(
        16.0, "utterances that the training's mean of a class counts as in that of a speaker", is_silent=True
    )
    enrolment_weight: float = _field(
        0.25, "weight of the speaker's means of classes beside the head", lowest=0, is_silent=True
    )
    enrolment_draws: int = _field(
        5, "draws of the utterances behind each point of the curves", lowest=1, is_silent=True
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


FOLDERS = (
    *("corpus.root", "corpus.also_roots", "backbone.name"),
    *(f"{section}.{name}" for section in ("extract", "eval") for name in ("noise_dir", "rir_dir")),
)
"""Fields that may name a folder, in which `~` is that of the user."""
