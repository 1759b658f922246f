"""MSP-Podcast: podcast speech, five raters and more an utterance, eight classes and three attributes.

It reads the releases 1.6 to 2.0 in each of their layouts. LABELS.md, section 1, has the formats and their traps:
columns stand in other orders in CSV and JSON, file names changed their spelling, the free text of raters holds every
sign that parts cells, and ratings of one file stand in several others that are compared.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import polars as pl
import pyarrow as pa

from seremo_jax.core import vocab
from seremo_jax.core.schema import RATING_SCHEMA, UTTERANCE_SCHEMA, CorpusInfo
from seremo_jax.data.corpora import msp_podcast_people as people_files
from seremo_jax.data.corpora import msp_podcast_ratings as rating_files
from seremo_jax.data.corpora.class_words import read_word_map
from seremo_jax.data.corpora.msp_podcast_release import Signs, detect
from seremo_jax.data.tables import make_table, with_report
from seremo_jax.data.text_lines import CorpusError, Report

_LABEL_FOLDERS = ("label", "labels")
_AUDIO_FOLDERS = ("Audios", "Audio")
_SPELLINGS = ("labels_consensus", "labels_concensus")
# A mean in labels.txt is rounded to one decimal.
_MEAN_TOLERANCE = 0.051


class _Files(NamedTuple):
    """Path of each label file, None where it is missing, and the folder that holds most of them."""

    consensus: Path | None
    consensus_json: Path | None
    detailed: Path | None
    detailed_json: Path | None
    labels_txt: Path | None
    aggregated: Path | None
    speakers: Path | None
    partitions: Path | None
    label_folder: str


def parse(
    root: str | os.PathLike, *, word_map: Iterable[str] = (), is_quiet: bool = False
) -> tuple[pa.Table, pa.Table]:
    """Utterances and ratings of whatever release lies there.

    Ratings come from the first there is of `labels_detailed.csv`, `labels_detailed.json`, `labels.txt` and, anonymous
    and without attributes, `labels_detailed_aggregated.csv`; the numbers of ratings in the others are compared.
    Utterances without ratings (Test3) are rows, too. `released_<attribute>` are the means that the corpus released.

    Args:
      root: Folder with `Labels/` and `Audios/`.
      word_map: Texts `WORD=CLASS` for primary words that the parser does not know.
      is_quiet: Prints nothing; this parser never does.

    Raises:
      CorpusError: No label file, both spellings of one, a column missing, or unknown words.
    """
    del is_quiet
    root, report = Path(root), Report()
    files = _find(root)
    mapped = read_word_map(word_map)
    people_report = Report()
    consensus = files.consensus or files.consensus_json
    described = people_files.read_consensus(consensus, people_report) if consensus is not None else None
    partitions = people_files.read_partitions(files.partitions, people_report) if files.partitions else None
    names = [frame["utterance"] for frame in (described, partitions) if frame is not None]
    named = pl.concat(names).unique() if names else None
    ratings, released, layout, source = _read_ratings(files, named, mapped, report)
    released = released if described is None else described
    report.merge(people_report)
    people, of_file = people_files.read_speakers(files.speakers, report) if files.speakers else (None, None)
    names = [frame["split"] for frame in (released, partitions) if frame is not None and "split" in frame.columns]
    utterances = people_files.merge(released, people, of_file, partitions, ratings["utterance"].unique(), report)
    signs = _signs(files, layout, names, utterances, ratings)
    release, remark = detect(signs)
    if remark:
        report.problems.append(remark)
    report.counts["ratings_kept"] = ratings.height
    _compare(files, source, utterances, ratings, named, report)
    _count_repeats(ratings, report)
    notes = [f"Ratings are those of {source}.", *([f"{remark[0].upper()}{remark[1:]}."] if remark else [])]
    ranges = dict.fromkeys(vocab.ATTRIBUTES, rating_files.RANGE)
    info = CorpusInfo("msp_podcast", release, "msp8", ranges, notes=tuple(notes))
    _report_audio(root, utterances["utterance"], report)
    return with_report(_utterance_table(utterances, root, info), report), _rating_table(ratings, info)


def _find(root: Path) -> _Files:
    folders = {"": root}
    if root.is_dir():
        folders |= {path.name: path for path in sorted(root.iterdir()) if path.name.lower() in _LABEL_FOLDERS}
    paths_of: dict[str, list[Path]] = {}
    for folder in folders.values():
        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            if path.is_file():
                paths_of.setdefault(path.name.lower(), []).append(path)

    def only(*names: str) -> Path | None:
        paths = [path for name in names for path in paths_of.get(name, [])]
        if len(paths) > 1:
            raise CorpusError(f"{' and '.join(map(str, paths))} are both there: only one can be the corpus's; "
                              "move the other away")  # fmt: skip
        return paths[0] if paths else None

    if all(any(name.startswith(spelling) for name in paths_of) for spelling in _SPELLINGS):
        raise CorpusError(f"{root} holds files of both spellings, {' and '.join(_SPELLINGS)}, thus of two releases: "
                          "move those of one away")  # fmt: skip
    files = _Files(
        consensus=only(*(f"{spelling}.csv" for spelling in _SPELLINGS)),
        consensus_json=only(*(f"{spelling}.json" for spelling in _SPELLINGS)),
        detailed=only("labels_detailed.csv"),
        detailed_json=only("labels_detailed.json"),
        labels_txt=only("labels.txt"),
        aggregated=only("labels_detailed_aggregated.csv"),
        speakers=only("speaker_ids.txt"),
        partitions=only("partitions.txt", "partition.txt"),
        label_folder="",
    )
    label_files = [path for path in files[:6] if path is not None]
    if not label_files:
        raise CorpusError(f"{root} holds no labels of MSP-Podcast, neither itself nor in Labels/: set "
                          "--config.corpus.root to the folder of the release")  # fmt: skip
    folder = label_files[0].parent
    return files._replace(label_folder="" if folder == root else folder.name)


def _read_ratings(
    files: _Files, named: pl.Series | None, mapped: dict[str, str], report: Report
) -> tuple[pl.DataFrame, pl.DataFrame | None, str, str]:
    """Ratings, what `labels.txt` released where that was read, the layout of the CSV, the name of the source."""
    released, layout = None, ""
    if files.detailed is not None:
        raw, layout = rating_files.read_detailed_csv(files.detailed, report)
        source = files.detailed
    elif files.detailed_json is not None:
        raw, source = rating_files.read_detailed_json(files.detailed_json, report), files.detailed_json
    elif files.labels_txt is not None:
        raw, blocks = rating_files.read_labels_txt(files.labels_txt, report)
        released, source = people_files.clean_released(blocks, files.labels_txt.name, report), files.labels_txt
    elif files.aggregated is not None:
        counts = rating_files.read_aggregated(files.aggregated, report, named)
        return rating_files.expand_counts(counts, report), None, "", files.aggregated.name
    else:
        report.problems.append("no file of single ratings (labels_detailed.csv, .json, labels.txt)")
        empty = rating_files.finish(rating_files.no_ratings(), mapped, report)
        return empty, None, "", "no file"
    ratings = rating_files.finish(raw, mapped, report, named)
    # Stable, so that of one rater's two answers the later one stays behind.
    return ratings.sort("utterance", "rater", maintain_order=True), released, layout, source.name


def _signs(
    files: _Files, layout: str, split_columns: list[pl.Series], utterances: pl.DataFrame, ratings: pl.DataFrame
) -> Signs:
    consensus = files.consensus or files.consensus_json
    words = {word for column in split_columns for word in column.drop_nulls().str.to_lowercase().unique()}
    development = sorted(words & {"validation", "development"})
    is_labelled = utterances["released_consensus"].is_not_null() | utterances["utterance"].is_in(
        ratings["utterance"].implode()
    )
    return Signs(
        spelling=consensus.name.split(".")[0].removeprefix("labels_").lower() if consensus else "",
        layout=layout,
        label_folder=files.label_folder,
        labels_txt=files.labels_txt.name if files.labels_txt else "",
        has_aggregated=files.aggregated is not None,
        development=development[0] if len(development) == 1 else "",
        num_in=dict(utterances["split"].value_counts().sort("split").iter_rows()),
        num_labelled_in=dict(utterances.filter(is_labelled)["split"].value_counts().sort("split").iter_rows()),
    )


def _compare(
    files: _Files,
    source: str,
    utterances: pl.DataFrame,
    ratings: pl.DataFrame,
    named: pl.Series | None,
    report: Report,
) -> None:
    """Counts in which the other files differ from the ratings read."""
    num_read = report.counts["ratings_read"]
    for path in (files.detailed_json, files.labels_txt):
        if path is not None and path.name != source and (number := rating_files.glance(path)) != num_read:
            report.add("sources_differ", f"{path.name} holds {number:,} ratings, {source} {num_read:,}")
    if files.aggregated is not None and files.aggregated.name != source:
        counted = rating_files.read_aggregated(files.aggregated, report, named)
        differing = rating_files.cells_unlike(counted, ratings)
        if differing.len():
            report.counts["utterances_unlike_aggregated"] = differing.len()
            report.problems.append(f"{files.aggregated.name} counts other votes than {source} for {differing.len():,} "
                                   f"utterances ({', '.join(differing.head(5))} ...)")  # fmt: skip
    means = ratings.group_by("utterance").agg(pl.col(name).mean() for name in vocab.ATTRIBUTES)
    joined = utterances.join(means, on="utterance", how="inner")
    for name in vocab.ATTRIBUTES:
        is_off = (pl.col(f"released_{name}") - pl.col(name)).abs() > _MEAN_TOLERANCE
        off = joined.filter(is_off)["utterance"].sort()
        if off.len():
            report.counts[f"means_unlike_released_{name}"] = off.len()
            report.problems.append(f"the released mean of {name} is not that of the ratings for {off.len():,} "
                                   f"utterances ({', '.join(off.head(5))} ...)")  # fmt: skip


def _count_repeats(ratings: pl.DataFrame, report: Report) -> None:
    report.counts["repeated_raters"] = ratings.height - ratings.select("utterance", "rater").unique().height


def _report_audio(root: Path, utterances: pl.Series, report: Report) -> None:
    """Counts the audio files that no label file names."""
    folder = root / _audio_folder(root)
    if folder.is_dir():
        names = {name.removesuffix(".wav") for name in os.listdir(folder) if name.endswith(".wav")}
        report.counts["audio_files_without_labels"] = len(names.difference(utterances.to_list()))


def _audio_folder(root: Path) -> str:
    return next((name for name in _AUDIO_FOLDERS if (root / name).is_dir()), _AUDIO_FOLDERS[0])


def _utterance_table(frame: pl.DataFrame, root: Path, info: CorpusInfo) -> pa.Table:
    folder = _audio_folder(root)
    released = [f"released_{name}" for name in vocab.ATTRIBUTES]
    columns = frame.select(
        pl.col("utterance").alias("id"),
        pl.format(f"{folder}/{{}}.wav", "utterance").alias("audio"),
        "split",
        "speaker",
        "gender",
        "released_consensus",
        *released,
    )
    extra = [pa.field(name, pa.float64()) for name in released]
    return make_table({name: columns[name].to_arrow() for name in columns.columns}, UTTERANCE_SCHEMA, info, extra)


def _rating_table(frame: pl.DataFrame, info: CorpusInfo) -> pa.Table:
    frame = frame.with_columns(modality=pl.lit("voice"))
    return make_table({name: frame[name].to_arrow() for name in frame.columns}, RATING_SCHEMA, info)
