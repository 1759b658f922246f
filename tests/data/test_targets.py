import dataclasses

import hypothesis
import hypothesis.strategies as st
import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from seremo_jax.core import vocab
from seremo_jax.core.config import from_config_dict
from seremo_jax.core.schema import CorpusInfo
from seremo_jax.data import policies, targets
from seremo_jax.data.tables import with_info

RANGES = {"valence": (1, 7), "activation": (1, 7), "dominance": (1, 7)}
LETTERS = dict(zip("ADFHNS", vocab.CLASS_SETS["crema6"], strict=True))


def utterance_table(ids) -> pa.Table:
    return pa.table({"id": pa.array(ids, pa.string())})


def rating_table(rows, ranges=RANGES, **extra) -> pa.Table:
    """One row a rating: (utterance, primary, valence, activation, dominance), the last three optional."""
    rows = [(*row, *[None] * (5 - len(row))) for row in rows]
    columns = {
        "utterance": pa.array([row[0] for row in rows], pa.string()),
        "rater": pa.array([f"r{i}" for i in range(len(rows))], pa.string()),
        "modality": pa.array(["voice"] * len(rows), pa.string()),
        "primary": pa.array([row[1] for row in rows], pa.string()),
        "secondary": pa.array([[]] * len(rows), pa.list_(pa.string())),
        **{name: pa.array([row[i] for row in rows], pa.float32()) for i, name in enumerate(vocab.ATTRIBUTES, start=2)},
    }
    table = pa.table({**columns, **extra})
    return with_info(
        table,
        CorpusInfo("made", "1", "crema6", {name: (float(low), float(high)) for name, (low, high) in ranges.items()}),
    )


def build(utterances: pa.Table, ratings: pa.Table, **fields) -> targets.Targets:
    """Targets by policies of these fields, whichever of the two records has them."""
    names = {field.name for field in dataclasses.fields(policies.RatingPolicies)} & fields.keys()
    counting = policies.RatingPolicies(**{name: fields.pop(name) for name in names})
    return targets.build(utterances, ratings, policies.TargetPolicies(**fields, ratings=counting))


def votes_of(words, class_set="iemocap4", **fields) -> targets.Targets:
    return build(utterance_table(["u"]), rating_table([("u", w) for w in words]), class_set=class_set, **fields)


@hypothesis.given(
    st.lists(st.lists(st.integers(0, 9), min_size=3, max_size=3), max_size=6), st.sampled_from([0.0, 0.5])
)
def test_shares_sum_to_one_and_rows_without_votes_are_masked(rows, smoothing):
    counts = np.asarray(rows, np.int64).reshape(-1, 3)
    shares, has_votes = targets.vote_distribution(counts, smoothing)
    assert shares.dtype == np.float32
    for row, share, has in zip(rows, shares, has_votes, strict=True):
        assert has == (sum(row) > 0)
        expected = [(n + smoothing) / (sum(row) + 3 * smoothing) if has else 0 for n in row]
        np.testing.assert_allclose(share, expected, atol=1e-7)
        assert not has or abs(share.sum() - 1) < 1e-6


@pytest.mark.parametrize(("counts", "smoothing"), [([[1, -1]], 0.0), ([[1.0, np.nan]], 0.0), ([[1, 1]], -0.1)])
def test_impossible_counts_are_refused(counts, smoothing):
    with pytest.raises(targets.TargetsError, match="at least 0"):
        targets.vote_distribution(np.asarray(counts), smoothing)


@pytest.mark.parametrize(
    ("words", "rule", "index", "consensus"),
    [
        (["sad", "sad", "angry"], "no_agreement", 2, [0, 0, 1, 0]),
        (["sad", "angry"], "no_agreement", -1, [0, 0, 0, 0]),
        (["sad", "angry"], "share", -1, [0.5, 0, 0.5, 0]),
        (["sad", "angry"], "first", 0, [1, 0, 0, 0]),
        # Three different texts are three votes for O, which wins, ties and loses like any word.
        (["sad", "sad", "other-a", "other-b; c", 'other-"d", (e/f)'], "no_agreement", -1, [0, 0, 0, 0]),
        (["sad", "sad", "other-a", "other-b"], "no_agreement", -1, [0, 0, 0, 0]),
        (["sad", "sad", "other-a", "other-b"], "first", 2, [0, 0, 1, 0]),
        (["sad", "sad", "other-a", "other-b"], "share", -1, [0, 0, 1, 0]),
        (["sad", "sad", "other-a", "happy"], "no_agreement", 2, [0, 0, 1, 0]),
        (["other"], "first", -1, [0, 0, 0, 0]),
        ([None], "share", -1, [0, 0, 0, 0]),
    ],
)
def test_plurality_over_the_full_vocabulary(words, rule, index, consensus):
    result = votes_of(words, tie_rule=rule)
    assert result.consensus_index.tolist() == [index]
    assert result.consensus.tolist() == [consensus]
    assert result.has_consensus.tolist() == [sum(consensus) > 0]


def test_other_votes_are_dropped_or_spread():
    words = ["sad", "other-a", "other"]
    dropped, spread = votes_of(words), votes_of(words, other_votes="spread")
    np.testing.assert_allclose(dropped.distribution, [[0, 0, 1, 0]])
    np.testing.assert_allclose(spread.distribution, [[1 / 6, 1 / 6, 1 / 2, 1 / 6]], rtol=1e-6)
    assert dropped.votes.tolist() == spread.votes.tolist() == [[0, 0, 1, 0]]
    assert dropped.counts["num_other_votes"] == 2
    assert dropped.counts["num_consensus_other"] == 1
    alone = votes_of(["other"])
    assert not alone.has_votes[0]
    assert not alone.distribution.any()
    assert alone.counts["num_no_votes"] == 1
    assert votes_of(["other"], other_votes="spread").distribution.tolist() == [[0.25] * 4]


def test_words_of_another_class_set_are_pooled_and_counted():
    result = votes_of(["frustrated", "frustrated", "happy"])
    assert result.consensus_index[0] == -1
    assert result.votes.tolist() == [[0, 1, 0, 0]]
    assert result.counts["num_votes_of_other_class_sets"] == {"frustrated": 2}
    assert votes_of(["frustrated", "frustrated", "happy"], class_set="iemocap6").consensus_index[0] == 4


def test_excited_is_happy_in_the_class_set_that_merges_them():
    words = ["excited", "happy", "sad"]
    merged = votes_of(words)
    assert merged.votes.tolist() == [[0, 2, 1, 0]]
    assert merged.counts["num_votes_of_other_class_sets"] == {}
    assert votes_of(words, class_set="iemocap5").votes.tolist() == [[0, 1, 1, 1, 0]]


def test_unknown_words_are_an_error_that_lists_them():
    with pytest.raises(targets.TargetsError, match=r"'Happy' x 2, 'otherwise' x 1.*corpus parser"):
        votes_of(["Happy", "sad", "Happy", "otherwise"])


@pytest.mark.parametrize("field", ["self_reports", "repeated_rater", "multi_primary"])
def test_unknown_policies_are_refused(field):
    with pytest.raises(targets.TargetsError, match=field):
        policies.RatingPolicies(**{field: "nonsense"})


@pytest.mark.parametrize("field", ["class_set", "attribute_scale", "other_votes", "tie_rule", "modality"])
def test_unknown_settings_are_refused(field):
    with pytest.raises(targets.TargetsError, match=field):
        build(utterance_table(["u"]), rating_table([("u", "sad")]), **{"class_set": "crema6", field: "nonsense"})


def test_rows_follow_the_utterances_and_no_order_of_ratings_matters():
    rows = [("b", "sad", 1.0, 2.0, 3.0), ("a", "happy", 4.0, 5.0, None), ("b", "sad", 2.0, 7.0, 3.0), ("x", "sad", 1.0)]
    ratings = rating_table(rows)
    result = build(utterance_table(["c", "a", "b"]), ratings, class_set="crema6")
    shuffled = ratings.take([3, 1, 2, 0]).select(ratings.column_names[::-1])
    again = build(utterance_table(["c", "a", "b"]), shuffled, class_set="crema6")
    assert result.ids.tolist() == ["c", "a", "b"]
    assert result.consensus_index.tolist() == [-1, 3, 5]
    np.testing.assert_allclose(result.attributes, [[0, 0, 0], [0, 1 / 3, 0], [-2.5 / 3, 0.5 / 3, -1 / 3]], rtol=1e-6)
    assert result.has_attribute.tolist() == [[False] * 3, [True, True, False], [True] * 3]
    for name in ("votes", "distribution", "consensus", "attributes", "attribute_variance", "has_attribute"):
        np.testing.assert_array_equal(getattr(result, name), getattr(again, name))
    assert result.counts["num_ratings"] == 4
    assert result.counts["num_ratings_used"] == 3
    assert result.counts["num_ratings_no_utterance"] == 1
    assert result.counts["num_no_ratings"] == 1
    assert result.counts["num_rated"] == {"valence": 2, "activation": 2, "dominance": 1}


def test_missing_ratings_are_masked_and_never_filled():
    rows = [("u", None, 2.0, float("nan"), None), ("u", None, 5.0, None, 4.0), ("u", None, None, float("nan"), None)]
    result = build(utterance_table(["u"]), rating_table(rows), class_set="msp8", attribute_scale="raw")
    assert result.attributes.tolist() == [[3.5, 0, 4]]
    assert result.has_attribute.tolist() == [[True, False, True]]
    assert result.attribute_variance.tolist() == [[4.5, 0, 0]]
    assert result.has_variance.tolist() == [[True, False, False]]
    assert result.counts["num_ratings_no_primary"] == 3


def test_scales_and_variance_agree_with_numpy():
    rng = np.random.default_rng(0)
    values = rng.integers(1, 6, (7, 3)).astype(np.float64)
    rows = [("u", "sad", *row) for row in values]
    ranges = dict.fromkeys(vocab.ATTRIBUTES, (1, 5))
    for scale, scaled in (("centered", (values - 3) / 2), ("unit", (values - 1) / 4), ("raw", values)):
        result = build(utterance_table(["u"]), rating_table(rows, ranges), class_set="crema6", attribute_scale=scale)
        np.testing.assert_allclose(result.attributes[0], scaled.mean(axis=0), rtol=1e-6)
        np.testing.assert_allclose(result.attribute_variance[0], scaled.var(axis=0, ddof=1), rtol=1e-6)
    assert result.attribute_ranges == dict.fromkeys(vocab.ATTRIBUTES, (1.0, 5.0))


def test_arousal_is_read_as_activation():
    ratings = rating_table([("u", "sad", 1.0), ("u", "sad", 7.0)], {"valence": (1, 7), "arousal": (1, 5)})
    ratings = ratings.append_column("arousal", pa.array([1.0, 2.0], pa.float32()))
    for wanted in (("valence", "activation"), ("valence", "arousal")):
        result = build(utterance_table(["u"]), ratings, class_set="crema6", attributes=wanted)
        assert result.attribute_names == ("valence", "activation")
        assert result.attributes.tolist() == [[0.0, -0.75]]
    both = ratings.set_column(ratings.column_names.index("activation"), "activation", ratings["arousal"])
    with pytest.raises(targets.TargetsError, match="both hold activation"):
        build(utterance_table(["u"]), both, class_set="crema6")


def test_attributes_of_a_corpus_and_those_it_lacks():
    ratings = rating_table([("u", "sad")], {"intensity": (0, 100)}, intensity=pa.array([80.0], pa.float32()))
    result = build(utterance_table(["u"]), ratings, class_set="crema6", attributes=("valence", "intensity"))
    np.testing.assert_allclose(result.attributes, [[0, 0.6]], rtol=1e-6)
    assert result.has_attribute.tolist() == [[False, True]]
    with pytest.raises(targets.TargetsError, match="no column 'intensty'"):
        build(utterance_table(["u"]), ratings, class_set="crema6", attributes=("intensty",))


def test_attribute_ranges_are_required_and_enforced():
    with pytest.raises(targets.TargetsError, match=r"column valence: 1 values outside \[1.0, 7.0\], e.g. 8.0"):
        build(utterance_table(["u"]), rating_table([("u", "sad", 8.0)]), class_set="crema6")
    with pytest.raises(targets.TargetsError, match="no range"):
        build(utterance_table(["u"]), rating_table([("u", "sad", 8.0)], {}), class_set="crema6")


def test_only_the_modality_counts():
    ratings = rating_table([("u", "sad"), ("u", "angry"), ("u", "angry")])
    ratings = ratings.set_column(2, "modality", pa.array(["voice", "face", "face"]))
    result = build(utterance_table(["u"]), ratings, class_set="crema6")
    assert result.votes.sum() == 1
    assert result.counts["num_ratings_other_modality"] == 2
    assert build(utterance_table(["u"]), ratings, class_set="crema6", modality="face").consensus_index[0] == 0
    with pytest.raises(targets.TargetsError, match=r"'both' \(there: face, voice\)"):
        build(utterance_table(["u"]), ratings, class_set="crema6", modality="both")


def test_duplicate_utterances_are_an_error_and_empty_tables_are_none():
    with pytest.raises(targets.TargetsError, match="occur twice"):
        build(utterance_table(["u", "u"]), rating_table([("u", "sad")]), class_set="crema6")
    result = build(utterance_table(["u"]), rating_table([]), class_set="crema6")
    assert result.distribution.shape == (1, 6)
    assert not result.has_votes.any()
    assert result.counts["num_no_ratings"] == 1


@pytest.mark.parametrize(
    ("modality", "ties", "plurality", "num_acted"),
    [
        (1, {2: 484, 3: 48, 4: 10, 5: 1}, (832, 475, 521, 303, 3224, 314), 2587),
        (2, {2: 355, 3: 40, 4: 8}, (795, 899, 676, 1056, 1732, 651), 4091),
        (3, {2: 322, 3: 36, 4: 2}, (843, 962, 877, 1010, 1654, 506), 4443),
    ],
)
def test_published_counts_of_crema_d(shared, modality, ties, plurality, num_acted):
    table = pl.read_csv(shared / "data/crema_d/labels/tabulatedVotes.csv", null_values="NA")
    table = table.filter(pl.col("").cast(pl.Int64) // 100_000 == modality)
    long = table.unpivot(index="fileName", on=list(LETTERS)).filter(pl.col("value") > 0)
    rows = [(name, LETTERS[letter]) for name, letter, votes in long.iter_rows() for _ in range(votes)]
    result = build(utterance_table(table["fileName"]), rating_table(rows, {}), class_set="crema6")
    is_tied = result.consensus_index < 0
    sizes = (result.votes == result.votes.max(axis=1, keepdims=True)).sum(axis=1)[is_tied]
    assert dict(zip(*np.unique(sizes, return_counts=True), strict=True)) == ties
    assert result.counts["num_ties"] == sum(ties.values())
    assert tuple(result.counts["num_consensus"].values()) == plurality
    assert sum(result.counts["num_votes"].values()) == table["numResponses"].sum()
    letters = np.asarray(list(LETTERS))
    best = [":".join(letters[row == row.max()]) for row in result.votes]
    assert best == table["emoVote"].to_list()
    acted = np.asarray([name.split("_")[2][0] for name in result.ids])
    assert (letters[result.consensus_index] == acted)[~is_tied].sum() == num_acted
    assert not result.has_attribute.any()


def build_of(rows, class_set="iemocap4", splits=None, **fields):
    """Targets of ratings given as dicts, whose keys are columns."""
    ids = list(dict.fromkeys(row["utterance"] for row in rows))
    columns = {
        "utterance": pa.array([row["utterance"] for row in rows], pa.string()),
        "rater": pa.array([row.get("rater", f"r{i}") for i, row in enumerate(rows)], pa.string()),
        "modality": pa.array(["voice"] * len(rows), pa.string()),
        "primary": pa.array([row.get("primary") for row in rows], pa.string()),
        "secondary": pa.array([row.get("secondary", []) for row in rows], pa.list_(pa.string())),
        "also_primary": pa.array([row.get("also_primary", []) for row in rows], pa.list_(pa.string())),
        "is_self_report": pa.array([row.get("is_self_report", False) for row in rows], pa.bool_()),
        **{name: pa.array([row.get(name) for row in rows], pa.float32()) for name in vocab.ATTRIBUTES},
    }
    info = CorpusInfo("made", "1", class_set, dict.fromkeys(vocab.ATTRIBUTES, (1.0, 7.0)))
    utterances = pa.table({"id": ids, "split": [(splits or {}).get(name, "train") for name in ids]})
    return build(utterances, with_info(pa.table(columns), info), class_set=class_set, **fields)


@pytest.mark.parametrize(
    ("policy", "votes", "valence"),
    [("keep", [1, 2, 0, 0], 4.0), ("average", [1, 1, 0, 0], 4.5), ("last", [1, 1, 0, 0], 5.5)],
)
def test_a_repeated_rater_counts_as_the_policy_says(policy, votes, valence):
    """LABELS.md L13: three policies, three known results; found and counted whatever the policy."""
    rows = [
        {"utterance": "u", "rater": "a", "primary": "happy", "valence": 1.0},
        {"utterance": "u", "rater": "b", "primary": "angry", "valence": 7.0},
        {"utterance": "u", "rater": "a", "primary": "happy", "valence": 4.0 if policy != "average" else 3.0},
    ]
    result = build_of(rows, repeated_rater=policy, attribute_scale="raw", attributes=("valence",))
    assert result.votes.tolist() == [votes]
    np.testing.assert_allclose(result.attributes, [[valence]])
    assert result.counts["num_repeated_ratings"] == 2
    assert result.counts["num_ratings_replaced"] == (1 if policy == "last" else 0)


@pytest.mark.parametrize(
    ("policy", "votes"), [("share", [0.5, 1.5, 0, 0]), ("each", [1, 2, 0, 0]), ("first", [0, 2, 0, 0])]
)
def test_several_categories_of_one_rater_follow_the_policy(policy, votes):
    """LABELS.md L8: under `share` a rater's votes weigh 1 in all."""
    rows = [{"utterance": "u", "primary": "happy", "also_primary": ["angry"]}, {"utterance": "u", "primary": "happy"}]
    result = build_of(rows, multi_primary=policy)
    assert result.votes.tolist() == [votes]
    assert result.consensus_index.tolist() == [1]


def test_thirds_of_votes_tie_with_whole_ones():
    third = {"utterance": "u", "primary": "happy", "also_primary": ["angry", "sad"]}
    result = build_of([third] * 3)
    assert result.counts["num_ties"] == 1
    assert build_of([third] * 3 + [{"utterance": "u", "primary": "neutral"}]).counts["num_ties"] == 1


def test_self_reports_stay_apart_unless_asked_for():
    rows = [{"utterance": "u", "primary": "sad"}, {"utterance": "u", "primary": "happy", "is_self_report": True}]
    assert build_of(rows).votes.tolist() == [[0, 0, 1, 0]]
    assert build_of(rows).counts["num_self_reports"] == 1
    assert build_of(rows, self_reports="in").votes.tolist() == [[0, 1, 1, 0]]


def test_secondary_words_weigh_what_they_are_told_and_only_inside_the_class_set():
    rows = [{"utterance": "u", "primary": "sad", "secondary": ["angry", "amused", "other-x"]}]
    assert build_of(rows).votes.tolist() == [[0, 0, 1, 0]]
    weighed = build_of(rows, secondary_weight=0.5)
    assert weighed.votes.tolist() == [[0.5, 0, 1, 0]]
    assert weighed.counts["num_secondary_words_counted"] == 1
    np.testing.assert_allclose(weighed.distribution, [[1 / 3, 0, 2 / 3, 0]], rtol=1e-6)


def test_too_few_raters_mask_an_utterance_and_are_counted():
    rows = [{"utterance": "u", "primary": "sad", "valence": 2.0}] + [{"utterance": "v", "primary": "sad"}] * 2
    result = build_of(rows, min_raters=2)
    assert result.has_votes.tolist() == result.has_consensus.tolist() == [False, True]
    assert not result.has_attribute.any()
    assert result.counts["num_utterances_below_min_raters"] == 1


def test_other_votes_as_a_class_of_their_own_and_mapped():
    rows = [{"utterance": "u", "primary": word} for word in ("other-Bored; tired", "other", "sad")]
    result = build_of(rows, other_votes="class")
    assert result.class_names == (*vocab.CLASS_SETS["iemocap4"], "other")
    assert result.votes.tolist() == [[0, 0, 1, 0, 2]]
    assert result.consensus_index.tolist() == [4]
    mapped = build_of(rows, other_map=("bored; tired=neutral",))
    assert mapped.votes.tolist() == [[0, 0, 1, 1]]
    assert mapped.counts["num_other_votes"] == 1
    with pytest.raises(targets.TargetsError, match="must read WORD=CLASS"):
        build_of(rows, other_map=("bored",))


def test_minmax_scale_looks_at_the_training_split_alone():
    """LABELS.md T7: another development split changes no training target."""
    rows = [{"utterance": name, "primary": "sad", "valence": v} for name, v in (("a", 2), ("b", 4), ("c", 3), ("d", 7))]
    result = build_of(rows, splits={"d": "test"}, attribute_scale="minmax", attributes=("valence",))
    np.testing.assert_allclose(result.attributes[:, 0], [0, 1, 0.5, 2.5])
    with pytest.raises(targets.TargetsError, match=r"minmax.*needs training utterances"):
        build_of(rows, splits=dict.fromkeys("abcd", "test"), attribute_scale="minmax", attributes=("valence",))


def test_dawid_skene_trusts_the_raters_who_agree():
    pytest.importorskip("crowdkit", reason="needs crowd-kit (extra raters)")
    rng, rows = np.random.default_rng(0), []
    truth = rng.integers(0, 4, 60)
    names = vocab.CLASS_SETS["iemocap4"]
    for u, c in enumerate(truth):
        rows += [{"utterance": f"u{u}", "rater": f"good{r}", "primary": names[c]} for r in range(2)]
        rows += [{"utterance": f"u{u}", "rater": f"bad{r}", "primary": names[rng.integers(4)]} for r in range(2)]
    shares, weighed = build_of(rows), build_of(rows, distribution_of="dawid_skene")
    np.testing.assert_allclose(weighed.distribution.sum(axis=1), 1, atol=1e-5)
    picked = np.arange(60), truth
    assert weighed.distribution[picked].mean() > shares.distribution[picked].mean() + 0.2
    assert (weighed.distribution.argmax(axis=1) == truth).mean() > 0.95
    np.testing.assert_array_equal(weighed.consensus_index, shares.consensus_index)
    anonymous = [{**row, "rater": "anon-voice-0"} for row in rows]
    with pytest.raises(targets.TargetsError, match="without the raters"):
        build_of(anonymous, distribution_of="dawid_skene")


@pytest.mark.parametrize(
    ("policy", "has_votes"),
    [("keep", [True] * 4), ("drop", [True, False, True, False]), ("train_only", [True, True, True, False])],
)
def test_utterances_without_agreement_stay_where_the_policy_says(policy, has_votes):
    rows = [(name, word) for name in "abcd" for word in (("sad", "happy") if name in "bd" else ("sad", "sad"))]
    utterances = utterance_table(list("abcd")).append_column("split", [["train", "train", "test", "test"]])
    config = from_config_dict({"data": {"keep_no_agreement": policy}, "targets": {"class_set": "iemocap4"}})
    result = targets.build(utterances, rating_table(rows), policies.target_policies(config))
    assert result.has_votes.tolist() == has_votes
    np.testing.assert_allclose(result.distribution.sum(axis=1), np.array(has_votes, float))
    assert result.counts.get("num_no_agreement_left_out", 0) == 4 - sum(has_votes)


def test_dawid_skene_knows_mapped_words_and_masks_what_has_no_vote_of_a_class():
    pytest.importorskip("crowdkit", reason="needs crowd-kit (extra raters)")
    words = {"u": ["sad", "sad"], "v": ["other", "other-x"], "w": ["other-bored", "other-bored"]}
    rows = [{"utterance": u, "rater": f"r{i}", "primary": w} for u, said in words.items() for i, w in enumerate(said)]
    plain = build_of(rows, distribution_of="dawid_skene", other_votes="spread")
    assert plain.has_votes.tolist() == [True, False, False]
    mapped = build_of(rows, distribution_of="dawid_skene", other_map=("bored=neutral",))
    assert mapped.has_votes.tolist() == [True, False, True]
    assert mapped.distribution[2].argmax() == 3
    own = build_of(rows, distribution_of="dawid_skene", other_votes="class")
    assert own.has_votes.all()
    np.testing.assert_allclose(own.distribution.sum(axis=1), 1, atol=1e-5)


def test_an_average_of_missing_and_given_is_what_was_given():
    """LABELS.md L3: a missing rating is missing."""
    rows = [{"utterance": "u", "rater": "a", "valence": value} for value in (float("nan"), 4.0)]
    result = build_of(rows, repeated_rater="average", attribute_scale="raw", attributes=("valence",))
    np.testing.assert_allclose(result.attributes, [[4.0]])


def test_raters_who_gave_no_class_do_not_make_up_the_minimum():
    rows = [{"utterance": "u", "primary": "sad"}, {"utterance": "u", "valence": 3.0}]
    assert not build_of(rows, min_raters=2).has_votes.any()
    only_attributes = [{"utterance": "u", "valence": 3.0}, {"utterance": "u", "valence": 4.0}]
    assert build_of(only_attributes, min_raters=2, attributes=("valence",)).has_attribute.all()
