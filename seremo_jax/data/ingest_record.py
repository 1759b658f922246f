"""The record of an ingest: counts that add up, who and what is in each split, warnings, and a summary as text.

The functions return the parts of `ingest.json` and of `validation.json`; their keys are the formats of these files.
"""

import collections
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from jaxtyping import Float, Int

from seremo_jax.core import vocab
from seremo_jax.data import tables, votes
from seremo_jax.data.audio import SAMPLE_RATE_HZ, AudioFacts
from seremo_jax.data.screening import Verdict

_LISTED, _DETAILED = 5, 3
_NUM_BINS = 30


def count_kept(utterances: pa.Table, ratings: pa.Table, verdicts: Sequence[Verdict], modality: str) -> dict[str, Any]:
    """Utterances and ratings that there are, that are kept, and that are left out by reason; the latter by name, too.

    Args:
      utterances: All that the corpus has.
      ratings: All that the corpus has.
      verdicts: What becomes of each utterance.
      modality: The one whose ratings are counted apart.
    """
    ids = utterances["id"].to_pylist()
    reasons = collections.Counter(verdict.reason for verdict in verdicts if verdict.reason)
    listed: dict[str, list[str]] = {reason: [] for reason in sorted(reasons)}
    details = {}
    for name, (reason, detail) in zip(ids, verdicts, strict=True):
        if reason:
            listed[reason].append(name)
            if detail:
                details[name] = detail
    # A row with an earlier row's id has no ratings of its own: they are the earlier row's.
    fate = {name: reason for name, (reason, _) in zip(ids, verdicts, strict=True) if reason != "duplicate_id"}
    rated = ratings["utterance"].to_pylist()
    fates = collections.Counter(fate.get(name, "no_utterance") for name in rated)
    in_modality = collections.Counter(
        name in fate and not fate[name]
        for name, kind in zip(rated, ratings["modality"].to_pylist(), strict=True)
        if kind == modality
    )
    num_kept = fates.pop("", 0)
    return {
        "utterances": {
            "found": len(ids),
            "kept": len(ids) - reasons.total(),
            "excluded": dict(sorted(reasons.items())),
        },
        "ratings": {
            "found": ratings.num_rows,
            "kept": num_kept,
            "dropped": dict(sorted(fates.items())),
            f"kept_{modality}": in_modality[True],
        },
        "excluded": listed,
        "details": details,
    }


def describe_splits(
    utterances: pa.Table, consensus_index: Int[np.ndarray, " N"], class_names: Sequence[str]
) -> dict[str, Any]:
    """Utterances and speakers of each split by gender, utterances by consensus.

    Args:
      utterances: Those kept.
      consensus_index: [N] position of each one's consensus in `class_names`, -1 where there is none.
      class_names: Words of the class set.
    """
    columns = [utterances[name].to_pylist() for name in ("split", "speaker", "gender")]
    names = [class_names[index] if index >= 0 else vocab.NO_AGREEMENT for index in consensus_index]
    rows = list(zip(*columns, names, strict=True))
    described = {}
    for split in sorted({row[0] for row in rows}, key=_position):
        members = [row for row in rows if row[0] == split]
        genders = sorted({gender for _, _, gender, _ in members})
        classes = collections.Counter(name for *_, name in members)
        described[split] = {
            "utterances": len(members),
            "speakers": len({speaker for _, speaker, _, _ in members} - {vocab.UNKNOWN}),
            "by_gender": {
                gender: {
                    "utterances": sum(row[2] == gender for row in members),
                    "speakers": len({row[1] for row in members if row[2] == gender} - {vocab.UNKNOWN}),
                }
                for gender in genders
            },
            "by_class": {name: classes[name] for name in (*class_names, vocab.NO_AGREEMENT)},
        }
    return described


def describe_audio(facts: Sequence[AudioFacts]) -> dict[str, Any]:
    """Length of the audio, and how much of it is resampled and mixed down when it is read.

    Args:
      facts: Of each file kept.
    """
    rates_hz = collections.Counter(fact.source_rate_hz for fact in facts)
    channels = collections.Counter(fact.num_channels for fact in facts)
    durations_s = [fact.duration_s for fact in facts]
    return {
        "hours": round(sum(durations_s) / 3600, 4),
        "shortest_s": round(min(durations_s), 4),
        "longest_s": round(max(durations_s), 4),
        "resampled": rates_hz.total() - rates_hz[SAMPLE_RATE_HZ],
        "mixed_down": sum(n for number, n in channels.items() if number > 1),
        "by_rate_hz": {str(rate): n for rate, n in sorted(rates_hz.items())},
        "by_channels": {str(number): n for number, n in sorted(channels.items())},
    }


def describe_kept(utterances: pa.Table, ratings: pa.Table, num_all: int, modality: str) -> dict[str, Any]:
    """What the plots of a validation show: votes by class, votes and entropy by utterance, durations, speakers.

    Votes are primary words of others than the speaker; free text is pooled as `other`. Words stand in the order of the
    class set, then those outside it.

    Args:
      utterances: Those kept, with their splits.
      ratings: Theirs.
      num_all: Utterances of the corpus, kept or not.
      modality: The one whose ratings count.
    """
    frame = pl.DataFrame(pl.from_arrow(ratings.select(["utterance", "modality", "primary", "is_self_report"])))
    voted = frame.filter((pl.col("modality") == modality) & ~pl.col("is_self_report")).select(
        "utterance", word=votes.pooled_word("primary")
    )
    table = pl.DataFrame(pl.from_arrow(utterances.select(["id", "split", "duration_s"]))).rename({"id": "utterance"})
    counts = voted.drop_nulls().join(table, on="utterance").group_by("split", "utterance", "word").len()
    share = (pl.col("len") / pl.col("len").sum()).alias("share")
    by_utterance = counts.group_by("utterance").agg(
        pl.col("len").sum().alias("votes"), (-share * share.log(2)).sum().alias("entropy_bits")
    )
    used = set(counts["word"])
    words = [word for word in vocab.classes_of(tables.info_of(utterances).class_set) if word in used]
    words += sorted(used - set(words))
    cells = {(split, word): n for split, word, n in counts.group_by("split", "word").agg(pl.col("len").sum()).rows()}
    numbers = collections.Counter(by_utterance["votes"].to_list())
    people = {
        row
        for row in zip(*(utterances[name].to_pylist() for name in ("split", "gender", "speaker")), strict=True)
        if row[2] != vocab.UNKNOWN
    }
    speakers = collections.Counter((split, gender) for split, gender, _ in people)
    order = sorted(set(table["split"].to_list()), key=_position)
    return {
        "found": num_all,
        "utterances": utterances.num_rows,
        "hours": round(float(table["duration_s"].sum()) / 3600, 4),
        "ratings": voted.height,
        "splits": order,
        "words": words,
        "votes_by_class": [[cells.get((split, word), 0) for word in words] for split in order],
        "speakers": {
            gender: [speakers[split, gender] for split in order]
            for gender in sorted({gender for _, gender in speakers})
        },
        "votes_per_utterance": [[number, numbers[number]] for number in sorted(numbers)],
        "entropy_bits": _histogram(by_utterance["entropy_bits"].to_numpy(), np.log2(max(len(words), 2))),
        "duration_s": _histogram(table["duration_s"].to_numpy(), max(table["duration_s"].max() or 0.0, 0.1)),
    }


def _histogram(values: Float[np.ndarray, " n"], top: float) -> dict[str, Any]:
    """Counts over equal bins from 0 to `top`, mean and median."""
    counts, edges = np.histogram(np.clip(values, 0, top), _NUM_BINS, (0, top))
    return {
        "edges": edges.round(6),
        "counts": counts,
        "mean": round(float(values.mean()), 6) if len(values) else None,
        "median": round(float(np.median(values)), 6) if len(values) else None,
    }


def warnings(record: Mapping[str, Any], problems: Sequence[str]) -> list[str]:
    """Sentences about what a reader of the results must know.

    Args:
      record: What `ingest.json` holds so far.
      problems: What the parser could not use.
    """
    sentences = list(problems)
    splits = record["splits"]
    genders = {gender for split in splits.values() for gender in split["by_gender"]} - {vocab.UNKNOWN}
    for split in (vocab.TRAIN, vocab.DEVELOPMENT):
        if split not in splits:
            sentences.append(f"there is no split {split}")
    if not any(split.startswith(vocab.TEST) for split in splits):
        sentences.append(f"there is no split {vocab.TEST}")
    for name, split in splits.items():
        for gender in sorted(genders - set(split["by_gender"])):
            sentences.append(f"split {name} has no {gender} speaker: scores by gender are not defined there")
        for word, number in split["by_class"].items():
            if not number and word != vocab.NO_AGREEMENT:
                sentences.append(
                    f"split {name} has no utterance with consensus {word}: its recall is not defined there"
                )
    if number := record["utterances"]["excluded"].get("lfs_pointer"):
        sentences.append(f"{number} audio files are Git LFS pointers: run git lfs pull in the folder of the corpus")
    if number := record["audio"]["resampled"]:
        rates = ", ".join(f"{rate} Hz {n}" for rate, n in record["audio"]["by_rate_hz"].items())
        sentences.append(f"{number} utterances are resampled when read ({rates})")
    if number := record["audio"]["mixed_down"]:
        sentences.append(f"{number} utterances have several channels, which are averaged when read")
    return sentences


def to_text(record: Mapping[str, Any], reasons: Mapping[str, str]) -> str:
    """The record in a few lines for the terminal.

    Args:
      record: What `ingest.json` holds.
      reasons: Reason -> what it means.
    """
    number, rated = record["utterances"], record["ratings"]
    lines = [
        f"{record['corpus']['corpus']} ({record['corpus']['release']}): kept {number['kept']} of {number['found']} "
        f"utterances ({record['audio']['hours']:.2f} h) and {rated['kept']} of {rated['found']} ratings"
    ]
    for reason, names in record["excluded"].items():
        some = ", ".join(names[:_LISTED]) + (" ..." if len(names) > _LISTED else "")
        lines.append(f"  left out, {reason} ({reasons[reason]}): {len(names)}: {some}")
        detailed = [
            (name, detail) for name in names if (detail := record["details"].get(name)) not in (None, reasons[reason])
        ]
        lines += [f"    {name}: {detail}" for name, detail in detailed[:_DETAILED]]
    for name, split in record["splits"].items():
        genders = ", ".join(f"{part['speakers']} {gender}" for gender, part in split["by_gender"].items())
        lines.append(f"  {name}: {split['utterances']} utterances of {split['speakers']} speakers ({genders})")
    notes = record["warnings"]
    lines += [f"  note: {note}" for note in notes[:_LISTED]]
    if len(notes) > _LISTED:
        lines.append(f"  and {len(notes) - _LISTED} more notes, in ingest.json")
    return "\n".join(lines)


def _position(split: str) -> tuple[int, str]:
    return (vocab.SPLITS.index(split) if split in vocab.SPLITS else len(vocab.SPLITS), split)
