"""Records that travel between rooms, and the Arrow schemas of the two label tables."""

import dataclasses
from typing import Any, NamedTuple

import pyarrow as pa

UTTERANCE_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("audio", pa.string(), nullable=False),
        pa.field("corpus", pa.string(), nullable=False),
        pa.field("release", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("speaker", pa.string(), nullable=False),
        pa.field("gender", pa.string(), nullable=False),
        pa.field("session", pa.string()),
        pa.field("released_consensus", pa.string()),
        pa.field("duration_s", pa.float64(), nullable=False),
        pa.field("audio_sha256", pa.string(), nullable=False),
    ]
)
"""Leading columns of `utterances.parquet`. A corpus may append columns of its own (age, race, acted_class ...).
`session` is the recording session (null where there are none). `released_consensus` is the class word that the corpus
itself released for the utterance, `no_agreement` or `other` (null where it released none): never a target, but checked
against the votes."""

RATING_SCHEMA = pa.schema(
    [
        pa.field("utterance", pa.string(), nullable=False),
        pa.field("rater", pa.string(), nullable=False),
        pa.field("modality", pa.string(), nullable=False),
        pa.field("primary", pa.string()),
        pa.field("secondary", pa.list_(pa.string()), nullable=False),
        pa.field("also_primary", pa.list_(pa.string()), nullable=False),
        pa.field("is_self_report", pa.bool_(), nullable=False),
        pa.field("valence", pa.float32()),
        pa.field("activation", pa.float32()),
        pa.field("dominance", pa.float32()),
    ]
)
"""Leading columns of `ratings.parquet`, one row a rating, on the corpus's own scale. Null means not rated.
`also_primary` holds further primary words where the rater gave several, `is_self_report` says that the rater is the
speaker. A corpus may append attributes of its own (`intensity`), named in the table's metadata."""

DEFAULTS = {
    "split": "",
    "session": None,
    "released_consensus": None,
    "duration_s": 0.0,
    "audio_sha256": "",
    "also_primary": (),
    "is_self_report": False,
}
"""Leading columns that a parser may leave out, and what they then hold in every row. Ingest fills in the duration and
hash of the audio, and the split where the corpus has no official one."""


@dataclasses.dataclass(frozen=True)
class CorpusInfo:
    """What both tables say of the corpus as a whole; stored as JSON under the Arrow metadata key `seremo_jax`.

    Attributes:
      corpus: Name of the corpus.
      release: Release as detected from the content.
      class_set: Name of the class set whose words the ratings use.
      attribute_ranges: Attribute name -> (lowest, highest) value of its rating scale.
      is_simulated: Whether the audio and the ratings were made by this project.
      notes: Sentences that belong under every table made from this corpus.
    """

    corpus: str
    release: str
    class_set: str
    attribute_ranges: dict[str, tuple[float, float]]
    is_simulated: bool = False
    notes: tuple[str, ...] = ()


class CorpusPart(NamedTuple):
    """One of the corpora of tables that hold several; stored under the Arrow metadata key `seremo_jax_parts`.

    Attributes:
      info: What its own tables say of it, without the notes, which are in those of the whole.
      settings: Fields of the section `data` under which it was read and split, where it has its own.
    """

    info: CorpusInfo
    settings: dict[str, Any]


class Batch(NamedTuple):
    """Packed batches, one of each stream, NumPy on the host and JAX on the device. Rows are time-major.

    Attributes:
      features: [V, T, R, D] frames of each view, zero in gaps; None where frames live in device memory.
      frame: [S, T, R] int32 place of each frame in device memory, 0 in gaps; None where `features` has them.
      reset: [S, T, R] bool, True on the first frame of an utterance.
      slot: [S, T, R] int32 slot of the utterance a frame belongs to, -1 in gaps and padding.
      last_frame: [S, B] int32 index `t * R + r` of the last frame of the utterance in each slot.
      utterance: [S, B] int32 row in the table of labels, -1 where the slot is not used.
    """

    features: Any
    frame: Any
    reset: Any
    slot: Any
    last_frame: Any
    utterance: Any


class Labels(NamedTuple):
    """Targets of N utterances as the head is trained on them; see `targets.Targets` for the fields.

    Attributes:
      distribution: [N, C] float32 vote distribution.
      has_votes: [N] bool.
      consensus: [N, C] float32 one-hot consensus (shares where the tie policy says so).
      has_consensus: [N] bool.
      attributes: [N, A] float32 scaled attribute means.
      has_attribute: [N, A] bool.
      attribute_variance: [N, A] float32.
      has_variance: [N, A] bool.
      attribute_shares: [N, A, L] float32 shares of the raters at each level of the scale; L = 0 where not asked for.
      is_offered: [N, C] bool, the raters could choose the class; None where all could choose all.
    """

    distribution: Any
    has_votes: Any
    consensus: Any
    has_consensus: Any
    attributes: Any
    has_attribute: Any
    attribute_variance: Any
    has_variance: Any
    attribute_shares: Any
    is_offered: Any = None


class Predictions(NamedTuple):
    """What the members say of the utterances of one split in one condition, in the order of `utterances`.

    Attributes:
      utterances: [B] utterance ids.
      attributes: [E, B, A] float32, on the scale of the targets.
      distribution: [E, B, C] float32, rows sum to 1.
    """

    utterances: Any
    attributes: Any
    distribution: Any


System = tuple[list[int], dict[str, Any]]
"""A system: its members, as rows of the predictions, and what its records say of it (`core.ensemble.systems`)."""


@dataclasses.dataclass(frozen=True)
class ResultRecord:
    """One line of `results.jsonl`: every number of one system on one split, condition and group of speakers.

    Attributes:
      system: Label of the row, e.g. `votes` or `consensus` (members that differ only in seed share a system).
      layer: Layer the head reads.
      seeds: Seeds of the members behind the row.
      split: Split evaluated.
      condition: Acoustic condition.
      group: `all`, or the value of the grouping column (`female`, `male`, `unknown`), or of a comparison of groups a
        name of its own.
      num_utterances: Utterances of the group in the split.
      num_scored: Those with a consensus inside the class set.
      num_speakers: Known speakers among the scored utterances.
      metrics: Name -> {metric, value, low, high, members, sd, count, defined}: its kind and parameters
        (`metrics.catalogue`), mean over members, 95 % interval resampled by speaker, the value of each member, standard
        deviation over members, number of things the mean is over.
      states: The mergeable sums behind the metrics, as nested lists.
      speakers: One entry a known speaker (group `all` only): {speaker, gender, num_scored, num_classes, uar}, uar one
        value per N averaged over members.
      protocol: The protocol card.
      axes: What tells this system from others, as data: `model` (`head`, `mean` or `regression`), `num_heads` behind
        it, every field of its members but seeds and fold (`class_kind` is a list where a mean is over several), and
        under `varying` the names of those fields that differ between the systems of this evaluation. A regression has
        `layer`, `class_target` and `is_balanced` (whether its classes weigh the same) instead of a member's fields; a
        mean of regressions has a list of the latter, and `both` for its class target. A system whose predictions were
        adapted to each test speaker has `adaptation`, which says how, and `adapted_by`, the settings of that.
        `system` is these in words.
      comparison: Of a comparison of groups its `kind` (`gap`, `worst` or `ratio`), the grouping `column`, and for a gap
        with a sign the two `groups`; empty for a group by itself.
      predictions: What the numbers were computed from: `file`, below the folder of the records, its `num_bytes` and
        `sha256`; empty in records of earlier versions.
    """

    system: str
    layer: int
    seeds: tuple[int, ...]
    split: str
    condition: str
    group: str
    num_utterances: int
    num_scored: int
    num_speakers: int
    metrics: dict[str, dict[str, Any]]
    states: dict[str, Any]
    speakers: list[dict[str, Any]]
    protocol: dict[str, Any]
    axes: dict[str, Any] = dataclasses.field(default_factory=dict)
    comparison: dict[str, Any] = dataclasses.field(default_factory=dict)
    predictions: dict[str, Any] = dataclasses.field(default_factory=dict)
