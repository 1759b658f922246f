"""Several corpora to the tables of one training: each is read, looked at and split as it would be alone.

Names of utterances, speakers, sessions and raters get that of their corpus in front (`parts`). The column `audio` stays
relative to the folder of each corpus, since folders move.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from seremo_jax.core import further_corpora, vocab
from seremo_jax.core.config import Config
from seremo_jax.core.schema import CorpusInfo, CorpusPart
from seremo_jax.data import joint_targets, policies, screening, tables
from seremo_jax.data.parts import SEPARATOR, apart, prefixed
from seremo_jax.data.roots import IngestError
from seremo_jax.data.screening import ScreenedCorpus
from seremo_jax.data.text_lines import Report


def merged(config: Config, corpora: Sequence[ScreenedCorpus]) -> ScreenedCorpus:
    """One corpus of several.

    A recording that two corpora have stays in the first of them by name.

    Args:
      config: The experiment.
      corpora: What was read under the config itself and under each of `further_corpora.configs`, in this order.

    Raises:
      IngestError: Two corpora have one name, or one has no votes.
    """
    infos = [tables.info_of(one.utterances) for one in corpora]
    names = [info.corpus for info in infos]
    if twice := [name for i, name in enumerate(names) if name in names[:i]]:
        raise IngestError(
            f"corpus.also: two corpora are called {twice[0]}: one training has every corpus once, and tables say their "
            "name in corpus.json"
        )
    if strange := [name for name in names if SEPARATOR in name]:
        raise IngestError(f"corpus.also: a corpus cannot be called {strange[0]!r}, with {SEPARATOR!r} in its name")
    alone = (config, *further_corpora.configs(config))
    for one, info, own in zip(corpora, infos, alone, strict=True):
        _require_votes(one.ratings, info, own.data.modality)
    parts = [
        CorpusPart(dataclasses.replace(info, notes=()), further_corpora.data_settings(config, own) if i else {})
        for i, (info, own) in enumerate(zip(infos, alone, strict=True))
    ]
    info = _joint(infos)
    pairs = [
        prefixed(_with_one_consensus(one.utterances, own.data.modality), one.ratings, name)
        for one, own, name in zip(corpora, alone, names, strict=True)
    ]
    utterances, ratings = (
        tables.with_parts(tables.with_info(_stacked([pair[i] for pair in pairs]), info), parts) for i in (0, 1)
    )
    whole = ScreenedCorpus(
        root=corpora[0].root,
        utterances=tables.with_report(utterances, _report([one.utterances for one in corpora], names)),
        ratings=ratings,
        facts=[fact for one in corpora for fact in one.facts],
        verdicts=[verdict for one in corpora for verdict in one.verdicts],
        parts=tuple((one, own.data) for one, own in zip(corpora, alone, strict=True)),
    )
    screening.judge_audio(whole.utterances, whole.facts, whole.verdicts)
    return whole


def _require_votes(ratings: pa.Table, info: CorpusInfo, modality: str) -> None:
    is_asked = pc.equal(ratings["modality"], modality)
    if pc.any(is_asked).as_py() and not pc.any(pc.and_(is_asked, ratings["primary"].is_valid())).as_py():
        raise IngestError(
            f"corpus.also: {info.corpus} has no votes for classes in data.modality = {modality!r}, and corpora that "
            "are trained together share a set of classes: leave it out, or train on it alone"
        )


def problem_of(screened: ScreenedCorpus, modality: str) -> str:
    """`screening.problem_of_ratings` of a corpus, or of those of several that have one."""
    asked = [(part, own.modality) for part, own in screened.parts] or [(screened, modality)]
    found = [screening.problem_of_ratings(part.utterances, part.ratings, own) for part, own in asked]
    return "; ".join(problem for problem in found if problem)


def _joint(infos: Sequence[CorpusInfo]) -> CorpusInfo:
    ranges: dict[str, tuple[float, float]] = {}
    for info in infos:
        ranges = info.attribute_ranges | ranges
    return CorpusInfo(
        corpus=vocab.UNION.join(info.corpus for info in infos),
        release=vocab.UNION.join(info.release for info in infos),
        class_set=_union([info.class_set for info in infos]),
        attribute_ranges=ranges,
        is_simulated=any(info.is_simulated for info in infos),
        notes=tuple(f"{info.corpus}: {note}" for info in infos for note in info.notes),
    )


def _union(class_sets: Sequence[str]) -> str:
    """The union of class sets, without those that add nothing to the ones before."""
    kept: list[str] = []
    for class_set in class_sets:
        known = set(vocab.classes_of(vocab.UNION.join(kept))) if kept else set()
        if not set(vocab.classes_of(class_set)) <= known or vocab.merged_words(class_set):
            kept.append(class_set)
    return vocab.UNION.join(dict.fromkeys(kept))


def _with_one_consensus(utterances: pa.Table, modality: str) -> pa.Table:
    """The utterances with the released consensus of their modality in the column that all corpora have."""
    column = f"released_consensus_{modality}"
    if column in utterances.column_names:
        utterances = screening.with_column(utterances, "released_consensus", utterances[column].to_pylist())
    further = [name for name in utterances.column_names if name.startswith("released_consensus_")]
    return utterances.drop_columns(further)


def _stacked(parts: Sequence[pa.Table]) -> pa.Table:
    """Rows of all tables; a column that some lack is empty there, one whose types differ has texts."""
    kinds: dict[str, set[pa.DataType]] = {}
    for table in parts:
        for field in table.schema:
            kinds.setdefault(field.name, set()).add(field.type)
    same = {name: kind for name, (kind, *others) in kinds.items() if not others}
    columns = {
        name: pa.concat_arrays(
            [chunk for table in parts for chunk in _chunks(table, name, same.get(name, pa.string()))]
        )
        for name in kinds
    }
    first = parts[0].schema
    fields = [first.field(name) if name in _LEADING else pa.field(name, same.get(name, pa.string())) for name in kinds]
    return pa.table([pa.chunked_array(chunks) for chunks in columns.values()], schema=pa.schema(fields))


_LEADING = {*tables.UTTERANCE_SCHEMA.names, *tables.RATING_SCHEMA.names}


def _chunks(table: pa.Table, name: str, kind: pa.DataType) -> list[pa.Array]:
    if name not in table.column_names:
        return [pa.nulls(table.num_rows, kind)]
    column = table[name]
    if column.type == kind:
        return column.chunks
    texts = [None if value is None else str(value) for value in column.to_pylist()]
    return [pa.array(texts, pa.string())]


def _report(utterances: Sequence[pa.Table], names: Sequence[str]) -> Report:
    """What the parsers of all corpora counted and could not use."""
    whole = Report()
    for name, table in zip(names, utterances, strict=True):
        own = tables.report_of(table)
        whole.counts.update({f"{name}: {what}": number for what, number in own.counts.items()})
        whole.problems += [f"{name}: {problem}" for problem in own.problems]
        whole.first |= {f"{name}: {what}": text for what, text in own.first.items()}
    return whole


def describe(kept: pa.Table, ratings: pa.Table, config: Config) -> list[dict[str, Any]]:
    """Of each corpus of an ingest its name, release, numbers by split, and the classes that its raters could choose.

    Args:
      kept: The utterances kept, in their splits.
      ratings: Theirs.
      config: The experiment.

    Returns:
      Entries with `corpus`, `release`, `utterances`, `speakers`, `ratings`, `splits` (split -> utterances), `classes`
      and `not_offered`, the classes of the other corpora that its raters could not choose; none of one corpus.
    """
    described = []
    class_set = tables.info_of(kept).class_set
    for part in apart(kept, ratings):
        asked = policies.corpus_policies(part.info, part.data(config.data))
        there, _ = joint_targets.offered(part.ratings, part.info.class_set, class_set, asked)
        words = part.utterances["split"].to_pylist()
        splits = {split: words.count(split) for split in dict.fromkeys((*vocab.SPLITS, *words)) if split in words}
        described.append(
            {
                "corpus": part.info.corpus,
                "release": part.info.release,
                "utterances": part.utterances.num_rows,
                "speakers": len(set(part.utterances["speaker"].to_pylist()) - {vocab.UNKNOWN}),
                "ratings": part.ratings.num_rows,
                "splits": splits,
                "classes": there,
                "not_offered": [name for name in vocab.classes_of(class_set) if name not in there],
            }
        )
    return described


def lines(described: Sequence[dict[str, Any]], class_set: str) -> list[str]:
    """What a user reads of each corpus of `describe`, and how to train on the classes of all."""
    result = []
    for entry in described:
        splits = ", ".join(f"{split} {number}" for split, number in entry["splits"].items())
        line = (
            f"  {entry['corpus']} ({entry['release']}): {entry['utterances']} utterances of {entry['speakers']} "
            f"speakers ({splits}); classes {', '.join(entry['classes'])}"
        )
        if entry["not_offered"]:
            line += f"; masked in all of them, as its raters could not choose them: {', '.join(entry['not_offered'])}"
        result.append(line)
    if described:
        result.append(f"  the classes of all corpora are --config.targets.class_set={class_set}")
    return result
