"""What may be wrong with a corpus: every check gives one finding, with all its cases and what to do about them.

An error makes results wrong, or means that files are not what the corpus says. A warning is something that a reader of
the results must know. A check that came out clean is a finding without a case, so that a page can say what was looked
at.
"""

import collections
import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from seremo_jax.core import vocab
from seremo_jax.data import audio
from seremo_jax.data.names import alike_names
from seremo_jax.data.splits import as_one_test
from seremo_jax.data.tables import info_of
from seremo_jax.data.votes import pooled_word

ERROR, WARNING = "error", "warning"

_AUDIO_CHECKS = {
    "missing": (ERROR, "Correct the paths in the label files, or complete the folder of the corpus"),
    "lfs_pointer": (ERROR, "Run git lfs install and git lfs pull in the folder of the corpus"),
    "empty": (ERROR, "Fetch these files again"),
    "unreadable": (ERROR, "Fetch these files again, or convert them to WAV or FLAC"),
    "nan": (ERROR, "Write these files again from their source"),
    "unscaled": (ERROR, "Scale the samples to [-1, 1]"),
    "silent": (WARNING, "They are left out; listen to some"),
    "too_short": (WARNING, "They are left out; data.min_seconds sets the limit"),
    "too_long": (WARNING, "They are left out; data.max_seconds sets the limit"),
}


@dataclasses.dataclass(frozen=True)
class Finding:
    """The outcome of one check.

    Attributes:
      name: Name of the check.
      severity: `error` or `warning`.
      meaning: What was looked for.
      remedy: What to do about it.
      count: How many cases there are, 0 where all is well.
      cases: Each of them in words.
    """

    name: str
    severity: str
    meaning: str
    remedy: str
    count: int
    cases: tuple[str, ...]

    @property
    def is_error(self) -> bool:
        """Whether it is an error that was found."""
        return self.severity == ERROR and self.count > 0


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What the checks look at: all that the corpus has, whether an ingest keeps it or not.

    Attributes:
      utterances: Utterance table of the parser.
      ratings: Ratings table of the parser.
      facts: Facts of each utterance's audio, None where it was not looked at.
      splits: Split of each utterance, "" where it is in none.
      is_kept: Whether an ingest keeps it.
      modality: The ratings that count.
      problems: What the parser could not use, each with file and line.
      split_problem: Why the utterances cannot be split as asked, or "".
      rating_problem: Why no rating can be used, or "".
    """

    utterances: pa.Table
    ratings: pa.Table
    facts: Sequence[audio.AudioFacts | None]
    splits: Sequence[str]
    is_kept: Sequence[bool]
    modality: str
    problems: Sequence[str]
    split_problem: str = ""
    rating_problem: str = ""


def _finding(name: str, severity: str, meaning: str, remedy: str, cases: Iterable[str], count: int = -1) -> Finding:
    cases = tuple(cases)
    return Finding(name, severity, meaning, remedy, len(cases) if count < 0 else count, cases)


def run(evidence: Evidence) -> list[Finding]:
    """Every check, audio first, then labels, speakers and splits; errors and warnings are not sorted apart."""
    ratings = votes_frame(evidence.ratings)
    asked = ratings.filter(pl.col("modality") == evidence.modality)
    consensus = recomputed_consensus(asked)
    return [
        *_audio_findings(evidence),
        *_duplicate_findings(evidence),
        *_rating_findings(evidence, ratings),
        *_unusable_findings(evidence),
        *_unrated_findings(evidence, asked),
        _released_finding(evidence, consensus),
        _finding("parser", WARNING, "what the parser could not use, or found strange", "Look at the lines named",
                 evidence.problems),
        *_people_findings(evidence),
        *_split_findings(evidence, consensus),
    ]  # fmt: skip


def votes_frame(ratings: pa.Table) -> pl.DataFrame:
    """The columns of a ratings table that votes are counted from."""
    names = ["utterance", "modality", "primary", "also_primary", "is_self_report"]
    return pl.DataFrame(pl.from_arrow(ratings.select(names)))


def _audio_findings(evidence: Evidence) -> Iterable[Finding]:
    ids, paths = evidence.utterances["id"].to_pylist(), evidence.utterances["audio"].to_pylist()
    named = [(name, path, fact) for name, path, fact in zip(ids, paths, evidence.facts, strict=True) if fact]
    for reason, (severity, remedy) in _AUDIO_CHECKS.items():
        meaning = audio.REASONS[reason]
        cases = (
            f"{name}: {path}" + (f" ({fact.detail})" if fact.detail != meaning else "")
            for name, path, fact in named
            if fact.reason == reason
        )
        yield _finding(f"audio_{reason}", severity, meaning, remedy, cases)
    unnamed = (name for name, path in zip(ids, paths, strict=True) if not path)
    yield _finding("audio_not_given", WARNING, "the corpus gives no audio file",
                   "They are left out; complete the corpus if there should be audio", unnamed)  # fmt: skip
    rates = (
        f"{name}: {fact.source_rate_hz} Hz"
        for name, _, fact in named
        if fact.source_rate_hz not in (0, audio.SAMPLE_RATE_HZ)
    )
    yield _finding("sampling_rate", WARNING, f"sampled at another rate than {audio.SAMPLE_RATE_HZ} Hz",
                   "They are resampled when read; a few among many of another are worth a look", rates)  # fmt: skip
    channels = (f"{name}: {fact.num_channels} channels" for name, _, fact in named if fact.num_channels > 1)
    yield _finding("channels", WARNING, "more than one channel", "Channels are averaged when read; where each holds "
                   "another speaker, cut them apart first", channels)  # fmt: skip


def _duplicate_findings(evidence: Evidence) -> Iterable[Finding]:
    same: dict[str, list[int]] = collections.defaultdict(list)
    ids = evidence.utterances["id"].to_pylist()
    for row, fact in enumerate(evidence.facts):
        if fact is not None and fact.sha256 and fact.reason != "silent":
            same[fact.sha256].append(row)
    groups = [sorted(rows, key=ids.__getitem__) for rows in same.values() if len({ids[row] for row in rows}) > 1]
    within, across = [], []
    for rows in sorted(groups, key=lambda rows: ids[rows[0]]):
        splits = {evidence.splits[row] for row in rows} - {""}
        words = " = ".join(f"{ids[row]} ({evidence.splits[row] or 'in no split'})" for row in rows)
        (across if len(splits) > 1 else within).append(words)
    remedy = "Of each group the first id is kept"
    yield _finding("duplicate_audio", WARNING, "utterances of one split with the same samples", remedy, within)
    yield _finding("duplicate_audio_across_splits", ERROR, "utterances of different splits with the same samples",
                   f"{remedy}; find out which label is right, and remove the other", across)  # fmt: skip


def _rating_findings(evidence: Evidence, ratings: pl.DataFrame) -> Iterable[Finding]:
    ids = evidence.utterances["id"].to_pylist()
    numbers = collections.Counter(ids)
    twice = (f"{name}: {number} rows" for name, number in numbers.items() if number > 1)
    yield _finding("duplicate_id", ERROR, "an id that several rows have", "The first row is kept; give each utterance "
                   "an id of its own", twice)  # fmt: skip
    voted = pl.concat([ratings["primary"], ratings["also_primary"].explode()]).drop_nulls()
    known = [*vocab.CLASS_WORDS, *vocab.classes_of(info_of(evidence.utterances).class_set), vocab.OTHER]
    words = voted.filter(~voted.is_in(known) & ~voted.str.starts_with(f"{vocab.OTHER}-"))
    counted = words.value_counts(sort=True, name="n").rows()
    yield _finding("unknown_words", ERROR, "votes for a word that no class set knows", "Map each to a class or to "
                   "'other' (data.word_map), or correct the label files",
                   (f"{word!r}: {number} votes" for word, number in counted), len(words))  # fmt: skip
    astray = collections.Counter(name for name in ratings["utterance"].to_list() if name not in numbers)
    yield _finding("ratings_of_no_utterance", WARNING, "ratings of an utterance that is not in the corpus",
                   "They are dropped; compare the ids in the files of ratings with those of the utterances",
                   (f"{name}: {number} ratings" for name, number in astray.items()), astray.total())  # fmt: skip


def _unusable_findings(evidence: Evidence) -> Iterable[Finding]:
    problems = [evidence.rating_problem] if evidence.rating_problem else []
    yield _finding("unusable_ratings", ERROR, "no rating can be used", "Correct the files of ratings as the message "
                   "says, or set data.modality to what was rated", problems)  # fmt: skip
    is_asked = pc.equal(evidence.ratings["modality"], evidence.modality)
    labels = [evidence.ratings[name].is_valid() for name in ("primary", *vocab.ATTRIBUTES)]
    has_label = pc.any(pc.and_(is_asked, functools.reduce(pc.or_, labels))).as_py()
    number = pc.sum(is_asked).as_py() or 0
    cases = [] if has_label or not number else [f"none of {number:,} ratings has a word or a value"]
    yield _finding("empty_ratings", ERROR, "ratings without a class and without an attribute", "Look whether the "
                   "labels stand in columns of other names than primary and the attributes", cases)  # fmt: skip


def _unrated_findings(evidence: Evidence, ratings: pl.DataFrame) -> Iterable[Finding]:
    rated = set(ratings["utterance"].to_list())
    rows = list(zip(*(evidence.utterances[name].to_pylist() for name in ("id", "split")), strict=True))
    splits_rated = {split for name, split in rows if name in rated}
    unrated = [(name, split) for name, split in rows if name not in rated]
    withheld = (name for name, split in unrated if split and split not in splits_rated)
    yield _finding("withheld_labels", WARNING, "utterances of a split whose ratings are withheld",
                   "They are left out: nothing can be scored there", withheld)  # fmt: skip
    others = (name for name, split in unrated if not split or split in splits_rated)
    yield _finding("no_ratings", WARNING, f"utterances that nobody rated (modality {evidence.modality})",
                   "They are left out; data.modality says which ratings count", others)  # fmt: skip


def recomputed_consensus(ratings: pl.DataFrame) -> dict[str, str]:
    """Utterance -> plurality of all its votes, `no_agreement` where they tie.

    Further primary words of a rater count as votes of their own and free text is pooled as `other`; self-reports are
    left out. This is how the corpora made the consensus they released.

    Args:
      ratings: Columns `utterance`, `primary`, `also_primary`, `is_self_report`; of one modality.
    """
    others = ratings.filter(~pl.col("is_self_report"))
    votes = pl.concat(
        [
            others.select("utterance", word="primary"),
            others.select("utterance", word="also_primary").explode("word"),
        ]
    ).drop_nulls()
    counts = votes.with_columns(pooled_word("word")).group_by("utterance", "word").len()
    best = counts.filter(pl.col("len") == pl.col("len").max().over("utterance"))
    won = best.group_by("utterance").agg(
        pl.when(pl.len() == 1).then(pl.col("word").first()).otherwise(pl.lit(vocab.NO_AGREEMENT))
    )
    return dict(won.select("utterance", "word").iter_rows())


def _released_finding(evidence: Evidence, consensus: Mapping[str, str]) -> Finding:
    of_modality = f"released_consensus_{evidence.modality}"
    column = of_modality if of_modality in evidence.utterances.column_names else "released_consensus"
    pairs = zip(*(evidence.utterances[name].to_pylist() for name in ("id", column)), strict=True)
    cases = (
        f"{name}: released {released}, votes say {consensus[name]}"
        for name, released in pairs
        if released is not None and consensus.get(name, released) != released
    )
    return _finding("released_consensus", WARNING, "the released consensus is not the plurality of the votes",
                    "Targets come from the votes; where there are many, compare data.modality and the release with the "
                    "label files", cases)  # fmt: skip


def _people_findings(evidence: Evidence) -> Iterable[Finding]:
    genders: dict[str, set[str]] = collections.defaultdict(set)
    splits: dict[str, set[str]] = collections.defaultdict(set)
    columns = [evidence.utterances[name].to_pylist() for name in ("id", "speaker", "gender")]
    unknown = []
    for name, speaker, gender, split in zip(*columns, evidence.splits, strict=True):
        if speaker == vocab.UNKNOWN:
            unknown.append(name)
            continue
        genders[speaker].add(gender)
        if split:
            splits[speaker].add(split)
    cases = (f"{speaker}: {' and '.join(sorted(names))}" for speaker, names in _several(splits, as_one_test))
    yield _finding("speaker_in_two_splits", ERROR, "a speaker in two splits (test sets may share some)",
                   "Results by speaker would be worthless: correct the split of the corpus, or choose another "
                   "data.split_kind", cases)  # fmt: skip
    cases = (f"{speaker}: {' and '.join(sorted(names))}" for speaker, names in _several(genders, str))
    yield _finding("two_genders", ERROR, "a speaker with two genders", "One id is one person: correct the speakers",
                   cases)  # fmt: skip
    yield _finding("unknown_speaker", WARNING, "utterances of unknown speakers", "They take part in overall scores and "
                   "not in those by speaker; data.unknown_speakers says what becomes of them", unknown)  # fmt: skip

    yield _finding("names_alike", WARNING, "names that differ only in case, Unicode form, blanks or a .0",
                   "If they mean the same, write them alike: a speaker of two names may stand in two splits",
                   people_alike(evidence.utterances, evidence.ratings))  # fmt: skip


def people_alike(utterances: pa.Table, ratings: pa.Table) -> list[str]:
    """Sentences about speakers, sessions and raters whose names look alike, and about utterances."""
    columns = {"speaker": utterances["speaker"], "session": utterances["session"], "rater": ratings["rater"]}
    columns["utterance"] = utterances["id"]
    return [
        f"{what}: {sentence}"
        for what, column in columns.items()
        for sentence in alike_names(filter(None, pc.unique(column).to_pylist()))
    ]


def _several(values_of: Mapping[str, set[str]], key: Callable[[str], str]) -> Iterable[tuple[str, set[str]]]:
    """Names with several values that `key` does not take for the same one."""
    return ((name, values) for name, values in sorted(values_of.items()) if len(set(map(key, values))) > 1)


def _split_findings(evidence: Evidence, consensus: Mapping[str, str]) -> Iterable[Finding]:
    problems = [evidence.split_problem] if evidence.split_problem else []
    yield _finding(
        "splits", ERROR, "the utterances cannot be split as data.split_kind asks", "See the message", problems
    )
    ids, genders = (evidence.utterances[name].to_pylist() for name in ("id", "gender"))
    kept = [(name, gender, split) for name, gender, split, is_kept in
            zip(ids, genders, evidence.splits, evidence.is_kept, strict=True) if is_kept]  # fmt: skip
    there = {split for _, _, split in kept if split}
    wanted = (vocab.TRAIN, vocab.DEVELOPMENT, vocab.TEST)
    missing = (split for split in wanted if split not in {*there, *map(as_one_test, there)})
    yield _finding("missing_split", WARNING, "a split that holds no utterance", "Heads are trained on train, chosen on "
                   "development and scored on test", missing)  # fmt: skip
    pairs = {(split, gender) for _, gender, split in kept}
    known = {gender for _, gender in pairs} - {vocab.UNKNOWN}
    cases = (
        f"{split}: {gender}" for split in sorted(there) for gender in sorted(known) if (split, gender) not in pairs
    )
    yield _finding("missing_gender", WARNING, "a split without speakers of a gender that the corpus has", "Scores by "
                   "gender are not defined there; derived splits have all genders in each", cases)  # fmt: skip
    class_set = info_of(evidence.utterances).class_set
    merged = vocab.merged_words(class_set)
    won = {(split, merged.get(consensus.get(name), consensus.get(name))) for name, _, split in kept}
    words = vocab.classes_of(class_set)
    cases = (f"{split}: {word}" for split in sorted(there) for word in words if (split, word) not in won)
    yield _finding("missing_class", WARNING, "a split without an utterance of a consensus of the class set",
                   "The recall of the class is not defined there, nor UAR over all classes", cases)  # fmt: skip
