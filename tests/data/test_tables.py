"""The label tables as artefacts: validation, metadata, fingerprint."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seremo_jax.core import artefacts, schema
from seremo_jax.data import tables, text_lines

pytestmark = pytest.mark.stack

INFO = schema.CorpusInfo("toy", "1", "crema6", {"intensity": (0.0, 100.0)}, notes=("a note",))


def make_utterances(ids=("a", "b", "c"), **changes) -> pa.Table:
    n = len(ids)
    columns = {
        "id": list(ids),
        "audio": [f"{name}.wav" for name in ids],
        "corpus": ["toy"] * n,
        "release": ["1"] * n,
        "split": ["train"] * n,
        "speaker": ["s1"] * n,
        "gender": ["female"] * n,
        "duration_s": [1.5] * n,
        "audio_sha256": ["00"] * n,
        "age": [30] + [None] * (n - 1),
    }
    return tables.make_table(columns | changes, schema.UTTERANCE_SCHEMA, INFO, [pa.field("age", pa.int32())])


def make_ratings(utterances=("a", "a", "b"), **changes) -> pa.Table:
    n = len(utterances)
    columns = {
        "utterance": list(utterances),
        "rater": [f"r{i}" for i in range(n)],
        "modality": ["voice"] * n,
        "primary": ["sad", None, "happy"][:n],
        "secondary": [["fear", "angry"], [], ["sad"]][:n],
        "valence": [1.0, None, 2.5][:n],
        "activation": [None] * n,
        "dominance": [7.0] * n,
    }
    return tables.make_table(columns | changes, schema.RATING_SCHEMA, INFO)


def write_both(folder, utterances=None, ratings=None) -> None:
    tables.write_table(folder / "utterances.parquet", make_utterances() if utterances is None else utterances)
    tables.write_table(folder / "ratings.parquet", make_ratings() if ratings is None else ratings)


def test_tables_come_back_as_written_with_their_info(tmp_path):
    write_both(tmp_path)
    utterances, ratings = tables.read_utterances(tmp_path), tables.read_ratings(tmp_path)
    assert utterances.to_pylist() == make_utterances().to_pylist()
    assert ratings.to_pylist() == make_ratings().to_pylist()
    assert tables.info_of(utterances) == tables.info_of(ratings) == INFO
    assert not list(tmp_path.glob(".*"))


def test_report_of_a_parser_travels_with_the_table():
    report = text_lines.Report()
    report.add("lines_not_used", "x.csv:3: odd")
    table = tables.with_report(make_utterances(), report)
    assert tables.report_of(table) == report
    assert tables.info_of(table) == INFO
    assert tables.report_of(make_utterances()) == text_lines.Report()


def test_make_table_refuses_missing_and_additional_columns():
    columns = make_utterances().drop_columns(["speaker", "age"]).to_pydict()
    with pytest.raises(ValueError, match="'speaker'"):
        tables.make_table(columns, schema.UTTERANCE_SCHEMA, INFO)
    with pytest.raises(ValueError, match="'mood'"):
        make_ratings(mood=["x", "y", "z"])


def test_columns_with_a_default_may_be_left_out():
    utterances, ratings = make_utterances(), make_ratings(also_primary=[["sad"], [], []])
    assert utterances["session"].to_pylist() == utterances["released_consensus"].to_pylist() == [None] * 3
    assert ratings["also_primary"].to_pylist() == [["sad"], [], []]
    assert ratings["is_self_report"].to_pylist() == [False] * 3
    tables.require_schema(ratings, schema.RATING_SCHEMA, "ratings")


def test_fingerprint_survives_parquet_chunks_and_slices(tmp_path):
    utterances, ratings = make_utterances(), make_ratings()
    fingerprint = tables.tables_fingerprint(utterances, ratings)
    write_both(tmp_path)
    assert tables.tables_fingerprint(tables.read_utterances(tmp_path), tables.read_ratings(tmp_path)) == fingerprint
    cut = [pa.concat_tables([table.slice(0, 1), table.slice(1)]) for table in (utterances, ratings)]
    assert tables.tables_fingerprint(*cut) == fingerprint
    longer = pa.concat_tables([make_ratings(("z",)), ratings]).slice(1)
    assert tables.tables_fingerprint(utterances, longer) == fingerprint


def test_fingerprint_ignores_where_audio_lies_and_notes():
    fingerprint = tables.tables_fingerprint(make_utterances(), make_ratings())
    moved = make_utterances(audio=["/elsewhere/a.wav", "b.flac", "c"])
    noted = tables.with_info(moved, schema.CorpusInfo("toy", "1", "crema6", {"intensity": (0.0, 100.0)}))
    assert tables.tables_fingerprint(noted, make_ratings()) == fingerprint


@pytest.mark.parametrize(
    ("which", "changes"),
    [
        ("utterances", {"split": ["train", "train", "test"]}),
        ("utterances", {"audio_sha256": ["00", "00", "01"]}),
        ("utterances", {"duration_s": [1.5, 1.5, 1.25]}),
        ("utterances", {"age": [30, None, 0]}),
        ("ratings", {"primary": ["sad", "", "happy"]}),
        ("ratings", {"valence": [1.0, 0.0, 2.5]}),
        ("ratings", {"secondary": [["fear"], ["angry"], ["sad"]]}),
        ("ratings", {"rater": ["r0r", "1", "r2"]}),
        ("ratings", {"also_primary": [["fear"], [], []]}),
        ("ratings", {"is_self_report": [False, True, False]}),
    ],
)
def test_fingerprint_sees_every_cell(which, changes):
    fingerprint = tables.tables_fingerprint(make_utterances(), make_ratings())
    other = {"utterances": make_utterances(), "ratings": make_ratings()}
    other[which] = make_utterances(**changes) if which == "utterances" else make_ratings(**changes)
    assert tables.tables_fingerprint(other["utterances"], other["ratings"]) != fingerprint


def test_fingerprint_sees_the_range_of_an_attribute_and_the_order_of_rows():
    fingerprint = tables.tables_fingerprint(make_utterances(), make_ratings())
    info = schema.CorpusInfo("toy", "1", "crema6", {"intensity": (0.0, 10.0)})
    assert tables.tables_fingerprint(make_utterances(), tables.with_info(make_ratings(), info)) != fingerprint
    assert tables.tables_fingerprint(make_utterances().take([1, 0, 2]), make_ratings()) != fingerprint


def broken_missing_column(table):
    return table.drop_columns(["speaker"])


def broken_order(table):
    return table.select(["audio", "id", *table.column_names[2:]])


def broken_type(table):
    return table.set_column(table.column_names.index("duration_s"), "duration_s", pa.array([1, 2, 3], pa.int64()))


def broken_null(table):
    return table.set_column(5, "speaker", pa.array(["a", None, "b"]))


def broken_info(table):
    return table.replace_schema_metadata(None)


def broken_twice(table):
    return table.set_column(0, table.schema.field(0), pa.array(["a", "b", "a"]))


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (broken_missing_column, "column 'speaker' is missing"),
        (broken_order, "column 0 is not 'id'"),
        (broken_type, "'duration_s' is int64, not double"),
        (broken_null, "'speaker' has 1 empty cells"),
        (broken_info, "no metadata 'seremo_jax'"),
        (broken_twice, "'id' names 1 utterances twice"),
    ],
)
def test_reading_names_file_column_and_remedy(tmp_path, break_it, message):
    tables.write_table(tmp_path / "utterances.parquet", break_it(make_utterances()))
    with pytest.raises(artefacts.ArtefactError, match=message) as error:
        tables.read_utterances(tmp_path)
    assert "utterances.parquet" in str(error.value)
    assert "launch.ingest" in str(error.value)


def test_missing_and_damaged_files_are_told_apart(tmp_path):
    with pytest.raises(artefacts.ArtefactError, match=r"ratings\.parquet is missing; run python -m launch\.ingest"):
        tables.read_ratings(tmp_path)
    write_both(tmp_path)
    whole = (tmp_path / "ratings.parquet").read_bytes()
    (tmp_path / "ratings.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(artefacts.ArtefactError, match=r"ratings\.parquet is damaged"):
        tables.read_ratings(tmp_path)


def test_tables_without_a_fitting_stamp_are_not_read(tmp_path):
    write_both(tmp_path)
    with pytest.raises(artefacts.ArtefactError, match="ingest did not finish"):
        tables.read_tables(tmp_path)
    fingerprint = tables.tables_fingerprint(make_utterances(), make_ratings())
    artefacts.write_json(tmp_path / "ingest.json", {"fingerprint": fingerprint})
    assert tables.read_tables(tmp_path)[2] == fingerprint
    tables.write_table(tmp_path / "ratings.parquet", make_ratings(rater=["x", "y", "z"]))
    with pytest.raises(artefacts.ArtefactError, match=f"'{fingerprint}' there"):
        tables.read_tables(tmp_path)


def test_write_table_leaves_the_old_file_when_it_fails(tmp_path, monkeypatch):
    write_both(tmp_path)

    def fail(table, path, **options):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", fail)
    with pytest.raises(OSError, match="No space"):
        tables.write_table(tmp_path / "utterances.parquet", make_utterances(("z",), age=[1]))
    assert tables.read_utterances(tmp_path)["id"].to_pylist() == ["a", "b", "c"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ratings.parquet", "utterances.parquet"]
