"""The two label tables as artefacts: how they are made, written, read and validated, and their fingerprint."""

import collections
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Bool

from seremo_jax.core.artefacts import ArtefactError, atomic_path, place_of, read_json, readable, require_same, to_json
from seremo_jax.core.config import Config
from seremo_jax.core.hashed import require_files
from seremo_jax.core.schema import DEFAULTS, RATING_SCHEMA, UTTERANCE_SCHEMA, CorpusInfo, CorpusPart
from seremo_jax.data import roots
from seremo_jax.data.array_hash import update_with
from seremo_jax.data.text_lines import Report

UTTERANCES_FILE = "utterances.parquet"
RATINGS_FILE = "ratings.parquet"
STAMP_FILE = "ingest.json"
"""Written last: tables without it are those of an ingest that did not finish."""

_INFO_KEY = b"seremo_jax"
_REPORT_KEY = b"seremo_jax_report"
_PARTS_KEY = b"seremo_jax_parts"
_REMEDY = "delete the tables of this workdir and run python -m launch.ingest again"


def make_table(
    columns: Mapping[str, Any], schema: pa.Schema, info: CorpusInfo, extra: Iterable[pa.Field] = ()
) -> pa.Table:
    """A label table from column name -> values.

    Args:
      columns: Every column of `schema` and of `extra`, in any order. Those of `schema.DEFAULTS` may be left out, and so
        may `corpus` and `release`, which are those of `info`.
      schema: `UTTERANCE_SCHEMA` or `RATING_SCHEMA`.
      info: What the table says of its corpus.
      extra: Columns of this corpus, appended in this order.

    Raises:
      ValueError: `columns` lacks a column or has one too many.
    """
    whole = pa.schema([*schema, *extra])
    num_rows = len(next(iter(columns.values())))
    constants = {**DEFAULTS, "corpus": info.corpus, "release": info.release}
    columns = {name: [value] * num_rows for name, value in constants.items() if name in schema.names} | {**columns}
    if set(columns) != set(whole.names):
        raise ValueError(f"columns {sorted(set(columns) ^ set(whole.names))} are missing or not expected")
    arrays = [_as_array(columns[field.name], field.type) for field in whole]
    return with_info(pa.table(arrays, schema=whole), info)


def _as_array(values: Any, kind: pa.DataType) -> pa.Array:
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    return values.cast(kind) if isinstance(values, pa.Array) else pa.array(values, type=kind)


def with_info(table: pa.Table, info: CorpusInfo) -> pa.Table:
    """The table with `info` in its metadata."""
    return table.replace_schema_metadata({**(table.schema.metadata or {}), _INFO_KEY: to_json(info).encode()})


def info_of(table: pa.Table) -> CorpusInfo:
    """What the table says of its corpus.

    Raises:
      ArtefactError: The table was not made by this project.
    """
    text = (table.schema.metadata or {}).get(_INFO_KEY)
    if text is None:
        raise ArtefactError(f"the table has no metadata {_INFO_KEY.decode()!r}, so its corpus is unknown; {_REMEDY}")
    try:
        return _info(json.loads(text))
    except (ValueError, KeyError, TypeError) as error:
        raise ArtefactError(f"the table's metadata {_INFO_KEY.decode()!r} is damaged ({error}); {_REMEDY}") from None


def _info(fields: dict[str, Any]) -> CorpusInfo:
    ranges = fields["attribute_ranges"].items()
    fields["attribute_ranges"] = {name: (float(low), float(high)) for name, (low, high) in ranges}
    fields["notes"] = tuple(fields["notes"])
    return CorpusInfo(**fields)


def with_parts(table: pa.Table, parts: Iterable[CorpusPart]) -> pa.Table:
    """The table with the corpora that it holds in its metadata."""
    text = to_json([{"info": part.info, "settings": part.settings} for part in parts])
    return table.replace_schema_metadata({**(table.schema.metadata or {}), _PARTS_KEY: text.encode()})


def parts_of(table: pa.Table) -> tuple[CorpusPart, ...]:
    """The corpora of a table that holds several, in the order of the config; empty where it holds one.

    Raises:
      ArtefactError: What the table says of them is damaged.
    """
    text = (table.schema.metadata or {}).get(_PARTS_KEY, b"[]")
    try:
        return tuple(CorpusPart(_info(entry["info"]), entry["settings"]) for entry in json.loads(text))
    except (ValueError, KeyError, TypeError) as error:
        raise ArtefactError(f"the table's metadata {_PARTS_KEY.decode()!r} is damaged ({error}); {_REMEDY}") from None


def corpora_of(table: pa.Table) -> tuple[CorpusInfo, ...]:
    """What a table says of each of its corpora."""
    return tuple(part.info for part in parts_of(table)) or (info_of(table),)


def with_report(table: pa.Table, report: Report) -> pa.Table:
    """The table with what its parser counted and could not use in its metadata."""
    return table.replace_schema_metadata({**(table.schema.metadata or {}), _REPORT_KEY: to_json(vars(report)).encode()})


def report_of(table: pa.Table) -> Report:
    """The report that a parser attached, empty where it attached none."""
    text = (table.schema.metadata or {}).get(_REPORT_KEY, b"{}")
    fields = json.loads(text)
    return Report(collections.Counter(fields.get("counts", {})), fields.get("problems", []), fields.get("first", {}))


def in_split(utterances: pa.Table, split: str) -> Bool[np.ndarray, " N"]:
    """Which utterances of a table have this word in its column `split`."""
    return np.asarray(utterances["split"].to_pylist(), object) == split


def write_table(path: str | os.PathLike, table: pa.Table) -> None:
    """Writes a table as Parquet, whole or not at all."""
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_utterances(workdir: str | os.PathLike) -> pa.Table:
    """Reads and validates `WORKDIR/utterances.parquet`.

    Raises:
      ArtefactError: The file is missing or damaged, a column is missing or of another type, or an id occurs twice.
    """
    path = place_of(workdir) / UTTERANCES_FILE
    table = _read(path, UTTERANCE_SCHEMA)
    num_ids = pc.count_distinct(table["id"]).as_py()
    if num_ids != table.num_rows:
        raise ArtefactError(f"{path}: column 'id' names {table.num_rows - num_ids} utterances twice; {_REMEDY}")
    return table


def read_ratings(workdir: str | os.PathLike) -> pa.Table:
    """Reads and validates `WORKDIR/ratings.parquet`.

    Raises:
      ArtefactError: The file is missing or damaged, or a column is missing or of another type.
    """
    return _read(place_of(workdir) / RATINGS_FILE, RATING_SCHEMA)


def read_tables(workdir: str | os.PathLike) -> tuple[pa.Table, pa.Table, str]:
    """Utterances, ratings and their fingerprint, of an ingest that finished.

    Raises:
      ArtefactError: As above, or `ingest.json` is missing or belongs to other tables or other bytes of them.
    """
    path = place_of(workdir) / STAMP_FILE
    stamp = read_json(path, "ingest did not finish: run python -m launch.ingest with this --workdir")
    # The fingerprint below leaves out where the audio lies, and the notes; these hashes leave out nothing.
    require_files(path.parent, stamp.get("files", {}), _REMEDY)
    utterances, ratings = read_utterances(workdir), read_ratings(workdir)
    fingerprint = tables_fingerprint(utterances, ratings)
    require_same(f"fingerprint of the tables in {path}", stamp.get("fingerprint"), fingerprint, f"Remedy: {_REMEDY}.")
    return utterances, ratings, fingerprint


def read_for(config: Config, workdir: str | os.PathLike) -> tuple[pa.Table, pa.Table, str]:
    """`read_tables` for a stage behind ingest, which is refused where they were made under other settings.

    Raises:
      ArtefactError: As above, the sections `corpus` and `data` of the config are not those of the ingest, or
        `corpus.root` is the folder of another corpus.
    """
    require_settings(config, workdir)
    utterances, ratings, fingerprint = read_tables(workdir)
    require_root(config, workdir, utterances)
    return roots.from_roots(config, workdir, utterances, corpora_of(utterances)), ratings, fingerprint


def require_settings(config: Config, workdir: str | os.PathLike) -> dict[str, Any]:
    """The settings that the tables of a workdir were made under, if the config has the same.

    Raises:
      ArtefactError: It has not; the message names both sides. Or `ingest.json` is missing.
    """
    path = place_of(workdir) / STAMP_FILE
    stamp = read_json(path, "ingest did not finish: run python -m launch.ingest with this --workdir")
    # A field that the version before did not know had its default then.
    settings = Config().results_fields("corpus", "data") | stamp.get("settings", {})
    _require_name(config, workdir, settings)
    require_same(
        f"the tables in {workdir}",
        settings,
        json.loads(to_json(config.results_fields("corpus", "data"))),
        "Give the --config that they were made with, or another --workdir.",
    )
    return settings


def require_corpus(config: Config, workdir: str | os.PathLike) -> None:
    """Refuses a workdir with tables of another corpus than the config names; one without tables has none to mistake.

    Raises:
      ArtefactError: Names both, and how a model that was trained on the one is scored on the other.
    """
    path = place_of(workdir) / STAMP_FILE
    if not path.exists() or not (path.parent / UTTERANCES_FILE).exists():
        return
    _require_name(config, workdir, read_json(path, _REMEDY).get("settings", {}))
    require_root(config, workdir, read_utterances(workdir))


def _require_name(config: Config, workdir: str | os.PathLike, settings: Mapping[str, Any]) -> None:
    there, asked = settings.get("corpus.name", config.corpus.name), config.corpus.name
    if there != asked:
        raise ArtefactError(
            f"{workdir} holds the corpus {there}, and --config asks for {asked}: give the --config of {there}, or "
            f"another --workdir. A model that was trained here is scored on {asked} by python -m launch.evaluate "
            f"--model={workdir} with this --config and a --workdir of its own"
        )


def require_root(config: Config, workdir: str | os.PathLike, utterances: pa.Table) -> None:
    """`roots.require_root` of the corpora of a table."""
    roots.require_root(config, workdir, utterances, corpora_of(utterances))


def _read(path: PurePath, schema: pa.Schema) -> pa.Table:
    try:
        table = pq.ParquetFile(readable(path)).read()
    except FileNotFoundError:
        raise ArtefactError(f"{path} is missing; run python -m launch.ingest with this --workdir") from None
    except (pa.ArrowException, OSError) as error:
        raise ArtefactError(f"{path} is damaged ({error}); {_REMEDY}") from None
    require_schema(table, schema, str(path))
    try:
        info_of(table)
    except ArtefactError as error:
        raise ArtefactError(f"{path}: {error}") from None
    return table


def require_schema(table: pa.Table, schema: pa.Schema, what: str) -> None:
    """Checks that the table begins with the columns of `schema` and has no null where none may be.

    Raises:
      ArtefactError: Names `what`, the column, and what is wrong with it.
    """
    for position, field in enumerate(schema):
        if field.name not in table.column_names:
            raise ArtefactError(f"{what}: column {field.name!r} is missing; {_REMEDY}")
        if table.column_names[position] != field.name:
            raise ArtefactError(f"{what}: column {position} is not {field.name!r}; {_REMEDY}")
        column = table[field.name]
        if column.type != field.type:
            raise ArtefactError(f"{what}: column {field.name!r} is {column.type}, not {field.type}; {_REMEDY}")
        if not field.nullable and column.null_count:
            raise ArtefactError(f"{what}: column {field.name!r} has {column.null_count} empty cells; {_REMEDY}")


def tables_fingerprint(utterances: pa.Table, ratings: pa.Table) -> str:
    """Hash of what both tables say: 16 hexadecimal digits.

    Independent of Parquet encoding and chunking, of the notes, and of where the audio lies (the column `audio` is left
    out: `audio_sha256` stands for it). Rows count in their order.
    """
    digest = hashlib.sha256()
    for table in (utterances, ratings):
        info = json.loads(to_json(info_of(table)))
        del info["notes"]
        digest.update(to_json(info).encode())
        digest.update((table.schema.metadata or {}).get(_PARTS_KEY, b""))
        for name in table.column_names:
            if name == "audio" and table is utterances:
                continue
            digest.update(f"{name}:{table.num_rows};".encode())
            update_with(digest, table[name].combine_chunks())
    return digest.hexdigest()[:16]


def stamp(config: Config, utterances: pa.Table, ratings: pa.Table) -> dict[str, Any]:
    """What `ingest.json` must say for the stages behind it: the settings that the tables were made with, their hash."""
    settings = config.results_fields("corpus", "data")
    return {"settings": settings, "fingerprint": tables_fingerprint(utterances, ratings)}
