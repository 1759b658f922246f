"""The contract that every parser keeps, on every corpus in every layout."""

import collections
import importlib
import math
import pkgutil
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from seremo_jax.core import schema, vocab
from seremo_jax.core.config import from_config_dict
from seremo_jax.data import corpora, ingest, tables, targets
from seremo_jax.data.policies import RatingPolicies, TargetPolicies
from tests.support.corpus_writers import CASES, Case

WITH_FILES = [name for name, case in CASES.items() if case.ratings is not None]
SPOILT = [name for name, case in CASES.items() if case.spoil is not None]
ROW = ("utterance", "modality", "rater")


def parse(name: str, root: Path):
    return corpora.parse(CASES[name].corpus, root, is_quiet=True, **CASES[name].policies)


@pytest.fixture(scope="module")
def parsed(tmp_path_factory):
    """Each case, written and parsed once."""
    actual = {}

    def get(name: str):
        if name not in actual:
            root = tmp_path_factory.mktemp("corpus")
            CASES[name].write(root, None)
            actual[name] = parse(name, root)
        return actual[name]

    return get


def rows_of(case: Case, ratings) -> list[dict]:
    """The rows in the columns that the case knows of, and its own; raters only where it names them."""
    names = list(case.ratings[0])
    order = [name for name in ROW if name in names]
    rows = [{name: row[name] for name in names} for row in ratings.to_pylist()]
    if "rater" not in names:
        return sorted(rows, key=lambda row: (*(row[name] for name in order), str(row["primary"])))
    return sorted(rows, key=lambda row: tuple(row[name] for name in order))


def expected_rows(case: Case) -> list[dict]:
    order = [name for name in ROW if name in case.ratings[0]]
    if "rater" not in case.ratings[0]:
        return sorted(case.ratings, key=lambda row: (*(row[name] for name in order), str(row["primary"])))
    return sorted(case.ratings, key=lambda row: tuple(row[name] for name in order))


def accounts_close(counts: collections.Counter) -> bool:
    """Whether every rating read is kept or left out for a reason."""
    reasons = ("ratings_not_used", "ratings_joined", "ratings_replaced_by_copies", "slow_clicks_left_out")
    return counts["ratings_read"] == counts["ratings_kept"] + sum(counts[reason] for reason in reasons)


def test_every_parser_has_an_entry_and_a_case():
    found = (
        importlib.import_module(f"{corpora.__name__}.{item.name}") for item in pkgutil.iter_modules(corpora.__path__)
    )
    assert {module.parse for module in found if hasattr(module, "parse")} == set(corpora.PARSERS.values())
    assert {case.corpus for case in CASES.values()} == set(corpora.PARSERS)


@pytest.mark.parametrize("name", CASES)
def test_tables_keep_the_schemas_and_survive_parquet(parsed, name, tmp_path):
    utterances, ratings = parsed(name)
    tables.require_schema(utterances, schema.UTTERANCE_SCHEMA, name)
    tables.require_schema(ratings, schema.RATING_SCHEMA, name)
    assert tables.info_of(utterances) == tables.info_of(ratings)
    assert tables.info_of(utterances).corpus in (CASES[name].corpus, "mine")
    tables.write_table(tmp_path / tables.UTTERANCES_FILE, utterances)
    tables.write_table(tmp_path / tables.RATINGS_FILE, ratings)
    again = tables.read_utterances(tmp_path), tables.read_ratings(tmp_path)
    assert again[0].to_pylist() == utterances.to_pylist()
    assert again[1].to_pylist() == ratings.to_pylist()
    assert tables.tables_fingerprint(*again) == tables.tables_fingerprint(utterances, ratings)
    assert tables.report_of(again[0]) == tables.report_of(utterances)


@pytest.mark.parametrize("name", CASES)
def test_ids_are_unique_and_every_rating_is_of_one(parsed, name):
    utterances, ratings = parsed(name)
    ids = utterances["id"].to_pylist()
    assert len(set(ids)) == len(ids)
    assert set(ids) == set(CASES[name].speakers)
    assert set(ratings["utterance"].to_pylist()) <= set(ids)


@pytest.mark.parametrize("name", CASES)
def test_speakers_are_persons_of_one_gender(parsed, name):
    utterances, _ = parsed(name)
    rows = utterances.to_pylist()
    assert {row["id"]: row["speaker"] for row in rows} == CASES[name].speakers
    assert {(row["speaker"], row["gender"]) for row in rows} == set(CASES[name].genders.items())


@pytest.mark.parametrize("name", CASES)
def test_official_splits_share_no_speaker(parsed, name):
    utterances, _ = parsed(name)
    splits_of = collections.defaultdict(set)
    for row in utterances.to_pylist():
        assert row["split"] in ("", *vocab.SPLITS)
        if row["speaker"] != vocab.UNKNOWN:
            splits_of[row["speaker"]].add(row["split"])
    assert all(len(splits) == 1 for splits in splits_of.values())


@pytest.mark.parametrize("name", WITH_FILES)
def test_every_rating_is_there_as_it_was_given(parsed, name):
    _, ratings = parsed(name)
    assert rows_of(CASES[name], ratings) == expected_rows(CASES[name])


@pytest.mark.parametrize("name", CASES)
def test_missing_is_null_and_values_lie_on_the_scale(parsed, name):
    _, ratings = parsed(name)
    ranges = tables.info_of(ratings).attribute_ranges
    own = [field.name for field in ratings.schema if field.type == "float" or field.name in vocab.ATTRIBUTES]
    for column in own:
        values = [value for value in ratings[column].to_pylist() if value is not None]
        assert not any(math.isnan(value) for value in values)
        assert not values or ranges[column][0] <= min(values) <= max(values) <= ranges[column][1]


@pytest.mark.parametrize("name", CASES)
def test_words_are_those_that_targets_know(parsed, name):
    utterances, ratings = parsed(name)
    info = tables.info_of(ratings)
    modality = ratings["modality"].to_pylist()[0]
    attributes = tuple(attribute for attribute in vocab.ATTRIBUTES if attribute in info.attribute_ranges)
    result = targets.build(
        utterances, ratings, TargetPolicies(info.class_set, attributes, ratings=RatingPolicies(modality))
    )
    assert result.has_votes.any()
    known = {*vocab.CLASS_SETS["msp8"], *vocab.CLASS_SETS["iemocap6"], vocab.OTHER, vocab.NO_AGREEMENT, None}
    assert set(utterances["released_consensus"].to_pylist()) <= known


@pytest.mark.parametrize("name", WITH_FILES)
def test_votes_are_never_lost(parsed, name):
    utterances, ratings = parsed(name)
    counts = tables.report_of(utterances).counts
    assert counts["ratings_kept"] == ratings.num_rows > 0
    assert accounts_close(counts)


@pytest.mark.parametrize("name", SPOILT)
def test_malformed_ratings_are_reported_with_file_and_line_and_cost_nothing_else(name, tmp_path):
    case = CASES[name]
    case.write(tmp_path, None)
    before = tables.report_of(parse(name, tmp_path)[0])
    places = case.spoil(tmp_path)
    utterances, ratings = parse(name, tmp_path)
    after = tables.report_of(utterances)
    assert rows_of(case, ratings) == expected_rows(case)
    assert accounts_close(after.counts)
    for place in places:
        assert any(re.match(rf"(?:.*/)?{re.escape(place)}:", problem) for problem in after.problems), place
    # A line of counts is no rating, so there it is the line that is counted.
    more = after.counts - before.counts
    assert (more["ratings_not_used"] or more["lines_not_used"]) == len(places)
    assert (more["ratings_read"] or more["lines_read"]) == len(places)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", WITH_FILES)
def test_order_in_the_files_changes_nothing(parsed, name, seed, tmp_path):
    CASES[name].write(tmp_path, np.random.default_rng(seed))
    shuffled, plain = parse(name, tmp_path), parsed(name)
    assert shuffled[0].to_pylist() == plain[0].to_pylist()
    assert shuffled[1].to_pylist() == plain[1].to_pylist()
    assert tables.report_of(shuffled[0]).counts == tables.report_of(plain[0]).counts


FIRST_OF_CORPUS = {CASES[name].corpus: name for name in reversed(WITH_FILES)}


@pytest.mark.parametrize("name", FIRST_OF_CORPUS.values())
def test_a_small_corpus_goes_through_ingest(name, tmp_path):
    case = CASES[name]
    case.write(tmp_path / "corpus", None)
    utterances, ratings = parse(name, tmp_path / "corpus")
    for seed, audio in enumerate(utterances["audio"].to_pylist()):
        path = tmp_path / "corpus" / audio
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.random.default_rng(seed).uniform(-0.1, 0.1, 4_000), 16_000)
    config = from_config_dict(
        {
            "corpus": {"name": case.corpus, "root": str(tmp_path / "corpus")},
            "data": {"modality": ratings["modality"].to_pylist()[0]},
        }
    )
    record = ingest.run(config, tmp_path / "workdir", is_quiet=True)
    assert record["utterances"]["kept"] == len(set(ratings["utterance"].to_pylist()))
    assert record["utterances"]["found"] == utterances.num_rows
    assert record["parser"]["ratings_kept"] == ratings.num_rows
    assert {"train", "development"} <= set(record["splits"])


def test_unknown_names_and_policies_are_refused(tmp_path):
    with pytest.raises(corpora.CorpusError, match="did you mean msp_podcast"):
        corpora.parse("msp_podcasts", tmp_path)
    with pytest.raises(corpora.CorpusError, match="knows no policy slow_clicks"):
        corpora.parse("iemocap", tmp_path, slow_clicks="in")
    assert corpora.policies_of("msp_improv") == {"reverse_activation", "word_map"}
    assert corpora.policies_of("table") == {"smoothed", "word_map"}
