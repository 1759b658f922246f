"""What an ingest has to say for itself: counts that add up, who and what is in each split, warnings, a summary."""

import collections
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from jaxtyping import Float, Int

from seremo_jax.core import vocab
from seremo_jax.data import tables

_LISTED = 5
_NUM_BINS = 30


def of_exclusions(
    utterances: pa.Table, ratings: pa.Table, exclusions: Sequence[tuple[str, str]], modality: str
) -> dict[str, Any]:
    """Utterances and ratings found, kept, and left out by reason; every left-out utterance by name.

    Args:
      utterances: All that the corpus has.
      ratings: All that the corpus has.
      exclusions: (reason, detail) of each utterance, the reason empty where it is kept.
      modality: The one whose ratings are counted apart.
    """
    ids = utterances["id"].to_pylist()
    reasons = collections.Counter(reason for reason, _ in exclusions if reason)
    listed: dict[str, list[str]] = {reason: [] for reason in sorted(reasons)}
    details = {}
    for name, (reason, detail) in zip(ids, exclusions, strict=True):
        if reason:
            listed[reason].append(name)
            if detail:
                details[name] = detail
    # A row with an earlier row's id has no ratings of its own: they are the earlier row's.
    fate = {name: reason for name, (reason, _) in zip(ids, exclusions, strict=True) if reason != "duplicate_id"}
    rated = ratings["utterance"].to_pylist()
    fates = collections.Counter(fate.get(name, "no_utterance") for name in rated)
    asked = collections.Counter(
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
            f"kept_{modality}": asked[True],
        },
        "excluded": listed,
        "details": details,
    }


def of_splits(
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
    account = {}
    for split in sorted({row[0] for row in rows}, key=_position):
        own = [row for row in rows if row[0] == split]
        genders = sorted({gender for _, _, gender, _ in own})
        classes = collections.Counter(name for *_, name in own)
        account[split] = {
            "utterances": len(own),
            "speakers": len({speaker for _, speaker, _, _ in own} - {vocab.UNKNOWN}),
            "by_gender": {
                gender: {
                    "utterances": sum(row[2] == gender for row in own),
                    "speakers": len({row[1] for row in own if row[2] == gender} - {vocab.UNKNOWN}),
                }
                for gender in genders
            },
            "by_class": {name: classes[name] for name in (*class_names, vocab.NO_AGREEMENT)},
        }
    return account


def of_audio(
    rates_hz: Sequence[int], channels: Sequence[int], durations_s: Sequence[float], rate_hz: int
) -> dict[str, Any]:
    """Length of the audio, and how much of it is resampled and mixed down when it is read.

    Args:
      rates_hz: Sampling rate of each file kept.
      channels: Channels of each.
      durations_s: Length of each.
      rate_hz: The rate everything is converted to.
    """
    return {
        "hours": round(sum(durations_s) / 3600, 4),
        "shortest_s": round(min(durations_s), 4),
        "longest_s": round(max(durations_s), 4),
        "resampled": sum(rate != rate_hz for rate in rates_hz),
        "mixed_down": sum(number > 1 for number in channels),
        "by_rate_hz": {str(rate): n for rate, n in sorted(collections.Counter(rates_hz).items())},
        "by_channels": {str(number): n for number, n in sorted(collections.Counter(channels).items())},
    }


def of_kept(utterances: pa.Table, ratings: pa.Table, num_found: int, modality: str) -> dict[str, Any]:
    """What the plots of a validation show: votes by class, votes and entropy by utterance, durations, speakers.

    Votes are primary words of others than the speaker; free text is pooled as `other`. Words stand in the order of the
    class set, then those outside it.

    Args:
      utterances: Those kept, with their splits.
      ratings: Theirs.
      num_found: Utterances of the corpus.
      modality: The one whose ratings count.
    """
    frame = pl.DataFrame(pl.from_arrow(ratings.select(["utterance", "modality", "primary", "is_self_report"])))
    is_other = pl.col("primary").str.starts_with(f"{vocab.OTHER}-")
    votes = frame.filter((pl.col("modality") == modality) & ~pl.col("is_self_report")).select(
        "utterance", word=pl.when(is_other).then(pl.lit(vocab.OTHER)).otherwise("primary")
    )
    own = pl.DataFrame(pl.from_arrow(utterances.select(["id", "split", "duration_s"]))).rename({"id": "utterance"})
    counts = votes.drop_nulls().join(own, on="utterance").group_by("split", "utterance", "word").len()
    share = (pl.col("len") / pl.col("len").sum()).alias("share")
    by_utterance = counts.group_by("utterance").agg(
        pl.col("len").sum().alias("votes"), (-share * share.log(2)).sum().alias("entropy_bits")
    )
    found = dict(counts.group_by("word").agg(pl.col("len").sum()).sort("word").iter_rows())
    words = [word for word in vocab.CLASS_SETS[tables.info_of(utterances).class_set] if word in found]
    words += sorted(set(found) - set(words))
    cells = {(split, word): n for split, word, n in counts.group_by("split", "word").agg(pl.col("len").sum()).rows()}
    numbers = collections.Counter(by_utterance["votes"].to_list())
    people = {
        row
        for row in zip(*(utterances[name].to_pylist() for name in ("split", "gender", "speaker")), strict=True)
        if row[2] != vocab.UNKNOWN
    }
    speakers = collections.Counter((split, gender) for split, gender, _ in people)
    order = sorted(set(own["split"].to_list()), key=_position)
    return {
        "found": num_found,
        "utterances": utterances.num_rows,
        "hours": round(float(own["duration_s"].sum()) / 3600, 4),
        "ratings": votes.height,
        "splits": order,
        "words": words,
        "votes_by_class": [[cells.get((split, word), 0) for word in words] for split in order],
        "speakers": {
            gender: [speakers[split, gender] for split in order]
            for gender in sorted({gender for _, gender in speakers})
        },
        "votes_per_utterance": [[number, numbers[number]] for number in sorted(numbers)],
        "entropy_bits": _histogram(by_utterance["entropy_bits"].to_numpy(), np.log2(max(len(words), 2))),
        "duration_s": _histogram(own["duration_s"].to_numpy(), max(own["duration_s"].max() or 0.0, 0.1)),
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


def warnings_of(record: Mapping[str, Any], problems: Sequence[str]) -> list[str]:
    """Sentences about what a reader of the results must know."""
    warnings = list(problems)
    found = record["splits"]
    genders = {gender for split in found.values() for gender in split["by_gender"]} - {vocab.UNKNOWN}
    for split in (vocab.TRAIN, vocab.DEVELOPMENT):
        if split not in found:
            warnings.append(f"there is no split {split}")
    if not any(split.startswith(vocab.TEST) for split in found):
        warnings.append(f"there is no split {vocab.TEST}")
    for name, split in found.items():
        for gender in sorted(genders - set(split["by_gender"])):
            warnings.append(f"split {name} has no {gender} speaker: scores by gender are not defined there")
        for word, number in split["by_class"].items():
            if not number and word != vocab.NO_AGREEMENT:
                warnings.append(f"split {name} has no utterance with consensus {word}: its recall is not defined there")
    if number := record["utterances"]["excluded"].get("lfs_pointer"):
        warnings.append(f"{number} audio files are Git LFS pointers: run git lfs pull in the folder of the corpus")
    if number := record["audio"]["resampled"]:
        rates = ", ".join(f"{rate} Hz {n}" for rate, n in record["audio"]["by_rate_hz"].items())
        warnings.append(f"{number} utterances are resampled when read ({rates})")
    if number := record["audio"]["mixed_down"]:
        warnings.append(f"{number} utterances have several channels, which are averaged when read")
    return warnings


def describe(record: Mapping[str, Any], reasons: Mapping[str, str]) -> str:
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
    for name, split in record["splits"].items():
        genders = ", ".join(f"{part['speakers']} {gender}" for gender, part in split["by_gender"].items())
        lines.append(f"  {name}: {split['utterances']} utterances of {split['speakers']} speakers ({genders})")
    warnings = record["warnings"]
    lines += [f"  note: {warning}" for warning in warnings[:_LISTED]]
    if len(warnings) > _LISTED:
        lines.append(f"  and {len(warnings) - _LISTED} more notes, in ingest.json")
    return "\n".join(lines)


def _position(split: str) -> tuple[int, str]:
    return (vocab.SPLITS.index(split) if split in vocab.SPLITS else len(vocab.SPLITS), split)
