"""The table of policies: each alternative is what targets.build gives with that one policy changed."""

import pyarrow as pa

from seremo_jax.core.config import from_config_dict
from seremo_jax.core.schema import RATING_SCHEMA, UTTERANCE_SCHEMA, CorpusInfo
from seremo_jax.data import explain, policies, targets
from seremo_jax.data.tables import make_table

RATINGS = [
    ("a", "r1", "sad", [], ["happy"], False),
    ("a", "r1", "sad", [], [], False),
    ("a", "r2", "happy", ["angry"], [], False),
    ("b", "r1", "other-bored", [], [], False),
    ("b", "r3", "sad", [], [], True),
]


def corpus() -> tuple[pa.Table, pa.Table]:
    info = CorpusInfo("made", "1", "iemocap4", {})
    ids = ["a", "b"]
    utterances = {
        "id": ids, "audio": ["", ""], "corpus": ["made"] * 2, "release": ["1"] * 2, "split": ["train"] * 2,
        "speaker": ["s", "t"], "gender": ["female"] * 2, "duration_s": [1.0, 1.0], "audio_sha256": ["", ""],
    }  # fmt: skip
    names = ("utterance", "rater", "primary", "also_primary", "secondary", "is_self_report")
    ratings = {name: [row[i] for row in RATINGS] for i, name in enumerate(names)}
    ratings |= {"modality": ["voice"] * 5, "valence": [None] * 5, "activation": [None] * 5, "dominance": [None] * 5}
    return make_table(utterances, UTTERANCE_SCHEMA, info), make_table(ratings, RATING_SCHEMA, info)


def test_every_line_is_one_policy_changed():
    config, tables = from_config_dict({"targets": {"class_set": "iemocap4"}}), corpus()
    lines = explain.explain(config, *tables)
    by_value = {(line.policy, line.value): line for line in lines}
    assert {line.policy for line in lines if line.is_configured} == set(explain.ALTERNATIVES)
    for policy, alternatives in explain.ALTERNATIVES.items():
        assert all((policy, value) in by_value for value in alternatives)
    assert by_value["data.self_reports", "in"].num_voted == 2
    assert by_value["data.self_reports", "out"].num_voted == 1
    assert by_value["targets.repeated_rater", "last"].num_votes == 2
    assert by_value["targets.multi_primary", "each"].num_votes == 4
    assert by_value["targets.secondary_weight", 0.5].num_votes == 3.5
    assert by_value["targets.min_raters", 3].num_voted == 0
    assert by_value["targets.other_votes", "spread"].num_moved == 1
    assert by_value["data.modality", "face"].problem
    result = targets.build(*tables, policies.target_policies(config))
    assert by_value["targets.smoothing", 0.0].num_consensus == result.has_consensus.sum()


def test_the_table_marks_what_is_configured():
    text = explain.to_text(explain.explain(from_config_dict({"targets": {"class_set": "iemocap4"}}), *corpus()))
    assert "* keep" in text
    assert "  average" in text
    assert text.count("*") == len(explain.ALTERNATIVES)
