"""Tables of several corpora, taken apart: each corpus as it would be alone, and where its utterances stand.

In tables of several corpora the ids of utterances, speakers, sessions and raters begin with the name of their corpus,
so that no two corpora share any. Whatever is decided corpus by corpus (splits, targets) is decided from the parts, in
which every name is what it is in the corpus.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int

from seremo_jax.core import vocab
from seremo_jax.core.config_fields import DataConfig
from seremo_jax.core.schema import CorpusInfo
from seremo_jax.data.tables import parts_of, with_info

SEPARATOR = "/"
"""Stands between the name of a corpus and a name in it."""

_OF_UTTERANCES, _OF_RATINGS = ("id", "speaker", "session"), ("utterance", "rater")
NOT_ASKED = "not asked"
"""Modality of ratings that do not count, in a view of ratings (`with_one_modality`)."""


class Part(NamedTuple):
    """One corpus of tables that hold several.

    Attributes:
      info: What its own tables say of it.
      settings: Fields of the section `data` that are its own.
      rows: [n] where its utterances stand in the utterance table.
      utterances: They alone, with the names that they have in their corpus.
      ratings: Their ratings; None where none were given.
    """

    info: CorpusInfo
    settings: Mapping[str, Any]
    rows: Int[np.ndarray, " n"]
    utterances: pa.Table
    ratings: pa.Table | None

    def data(self, data: DataConfig) -> DataConfig:
        """The section `data` of the experiment as it is for this corpus."""
        own = {name: tuple(value) if isinstance(value, list) else value for name, value in self.settings.items()}
        return dataclasses.replace(data, **own)


def apart(utterances: pa.Table, ratings: pa.Table | None) -> list[Part]:
    """The corpora of tables that hold several, in their order; empty where they hold one.

    Args:
      utterances: Utterance table, or some rows of it.
      ratings: Ratings table; may be None.
    """
    parts = []
    for info, settings in parts_of(utterances):
        rows = np.flatnonzero(pc.equal(utterances["corpus"], info.corpus).to_numpy(zero_copy_only=False))
        own = _renamed(utterances.take(pa.array(rows)), _OF_UTTERANCES, info.corpus, is_prefixed=False)
        rated = None
        if ratings is not None:
            is_own = pc.starts_with(ratings["utterance"], info.corpus + SEPARATOR)
            rated = _renamed(ratings.filter(is_own), _OF_RATINGS, info.corpus, is_prefixed=False)
            rated = with_info(rated.replace_schema_metadata(), info)
        parts.append(Part(info, settings, rows, with_info(own.replace_schema_metadata(), info), rated))
    return parts


def prefixed(utterances: pa.Table, ratings: pa.Table, corpus: str) -> tuple[pa.Table, pa.Table]:
    """The tables of a corpus with its name before those of utterances, speakers, sessions and raters."""
    return (
        _renamed(utterances, _OF_UTTERANCES, corpus, is_prefixed=True),
        _renamed(ratings, _OF_RATINGS, corpus, is_prefixed=True),
    )


def _renamed(table: pa.Table, columns: tuple[str, ...], corpus: str, *, is_prefixed: bool) -> pa.Table:
    prefix = corpus + SEPARATOR
    for name in columns:
        position, values = table.schema.get_field_index(name), table[name]
        if is_prefixed:
            renamed = pc.binary_join_element_wise(prefix, values, "")
            renamed = pc.if_else(pc.equal(values, vocab.UNKNOWN), values, renamed) if name == "speaker" else renamed
        else:
            cut = pc.utf8_slice_codeunits(values, len(prefix))
            renamed = pc.if_else(pc.starts_with(values, prefix), cut, values)
        table = table.set_column(position, table.schema.field(position), renamed)
    return table


def with_one_modality(utterances: pa.Table, ratings: pa.Table, modality: str) -> pa.Table:
    """A view of ratings to count in: those that count in their own corpus have one modality, and no others have it.

    Args:
      utterances: Utterance table, which says what its corpora are.
      ratings: Their ratings.
      modality: The one whose ratings count in the first corpus.
    """
    parts = parts_of(utterances)
    if not parts:
        return ratings
    counts = pa.array(np.zeros(ratings.num_rows, bool))
    for info, settings in parts:
        is_own = pc.starts_with(ratings["utterance"], info.corpus + SEPARATOR)
        counts = pc.or_(counts, pc.and_(is_own, pc.equal(ratings["modality"], settings.get("modality", modality))))
    position = ratings.schema.get_field_index("modality")
    values = pc.if_else(counts, modality, NOT_ASKED)
    return ratings.set_column(position, ratings.schema.field(position), values)
