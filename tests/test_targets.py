import hypothesis
import hypothesis.strategies as st
import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from seremo_jax import targets, vocab
from seremo_jax.schema import CorpusInfo
from seremo_jax.tables import with_info

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


def votes_of(words, class_set="iemocap4", **policies) -> targets.Targets:
    return targets.build(
        utterance_table(["u"]), rating_table([("u", w) for w in words]), class_set=class_set, **policies
    )


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
    made = votes_of(words, tie_rule=rule)
    assert made.consensus_index.tolist() == [index]
    assert made.consensus.tolist() == [consensus]
    assert made.has_consensus.tolist() == [sum(consensus) > 0]


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
    made = votes_of(["excited", "excited", "happy"])
    assert made.consensus_index[0] == -1
    assert made.votes.tolist() == [[0, 1, 0, 0]]
    assert made.counts["num_votes_of_other_class_sets"] == {"excited": 2}
    assert votes_of(["excited", "excited", "happy"], class_set="iemocap5").consensus_index[0] == 2


def test_unknown_words_are_an_error_that_lists_them():
    with pytest.raises(targets.TargetsError, match=r"'Happy' x 2, 'otherwise' x 1.*corpus parser"):
        votes_of(["Happy", "sad", "Happy", "otherwise"])


@pytest.mark.parametrize("field", ["class_set", "attribute_scale", "other_votes", "tie_rule", "modality"])
def test_unknown_settings_are_refused(field):
    with pytest.raises(targets.TargetsError, match=field):
        targets.build(
            utterance_table(["u"]), rating_table([("u", "sad")]), **{"class_set": "crema6", field: "nonsense"}
        )


def test_rows_follow_the_utterances_and_no_order_of_ratings_matters():
    rows = [("b", "sad", 1.0, 2.0, 3.0), ("a", "happy", 4.0, 5.0, None), ("b", "sad", 2.0, 7.0, 3.0), ("x", "sad", 1.0)]
    ratings = rating_table(rows)
    made = targets.build(utterance_table(["c", "a", "b"]), ratings, class_set="crema6")
    shuffled = ratings.take([3, 1, 2, 0]).select(ratings.column_names[::-1])
    again = targets.build(utterance_table(["c", "a", "b"]), shuffled, class_set="crema6")
    assert made.ids.tolist() == ["c", "a", "b"]
    assert made.consensus_index.tolist() == [-1, 3, 5]
    np.testing.assert_allclose(made.attributes, [[0, 0, 0], [0, 1 / 3, 0], [-2.5 / 3, 0.5 / 3, -1 / 3]], rtol=1e-6)
    assert made.has_attribute.tolist() == [[False] * 3, [True, True, False], [True] * 3]
    for name in ("votes", "distribution", "consensus", "attributes", "attribute_variance", "has_attribute"):
        np.testing.assert_array_equal(getattr(made, name), getattr(again, name))
    assert made.counts["num_ratings"] == 4
    assert made.counts["num_ratings_used"] == 3
    assert made.counts["num_ratings_no_utterance"] == 1
    assert made.counts["num_no_ratings"] == 1
    assert made.counts["num_rated"] == {"valence": 2, "activation": 2, "dominance": 1}


def test_missing_ratings_are_masked_and_never_filled():
    rows = [("u", None, 2.0, float("nan"), None), ("u", None, 5.0, None, 4.0), ("u", None, None, float("nan"), None)]
    made = targets.build(utterance_table(["u"]), rating_table(rows), class_set="msp8", attribute_scale="raw")
    assert made.attributes.tolist() == [[3.5, 0, 4]]
    assert made.has_attribute.tolist() == [[True, False, True]]
    assert made.attribute_variance.tolist() == [[4.5, 0, 0]]
    assert made.has_variance.tolist() == [[True, False, False]]
    assert made.counts["num_ratings_no_primary"] == 3


def test_scales_and_variance_agree_with_numpy():
    rng = np.random.default_rng(0)
    values = rng.integers(1, 6, (7, 3)).astype(np.float64)
    rows = [("u", "sad", *row) for row in values]
    ranges = dict.fromkeys(vocab.ATTRIBUTES, (1, 5))
    for scale, scaled in (("centered", (values - 3) / 2), ("unit", (values - 1) / 4), ("raw", values)):
        made = targets.build(
            utterance_table(["u"]), rating_table(rows, ranges), class_set="crema6", attribute_scale=scale
        )
        np.testing.assert_allclose(made.attributes[0], scaled.mean(axis=0), rtol=1e-6)
        np.testing.assert_allclose(made.attribute_variance[0], scaled.var(axis=0, ddof=1), rtol=1e-6)
    assert made.attribute_ranges == dict.fromkeys(vocab.ATTRIBUTES, (1.0, 5.0))


def test_arousal_is_read_as_activation():
    ratings = rating_table([("u", "sad", 1.0), ("u", "sad", 7.0)], {"valence": (1, 7), "arousal": (1, 5)})
    ratings = ratings.append_column("arousal", pa.array([1.0, 2.0], pa.float32()))
    for wanted in (("valence", "activation"), ("valence", "arousal")):
        made = targets.build(utterance_table(["u"]), ratings, class_set="crema6", attributes=wanted)
        assert made.attribute_names == ("valence", "activation")
        assert made.attributes.tolist() == [[0.0, -0.75]]
    both = ratings.set_column(ratings.column_names.index("activation"), "activation", ratings["arousal"])
    with pytest.raises(targets.TargetsError, match="both hold activation"):
        targets.build(utterance_table(["u"]), both, class_set="crema6")


def test_attributes_of_a_corpus_and_those_it_lacks():
    ratings = rating_table([("u", "sad")], {"intensity": (0, 100)}, intensity=pa.array([80.0], pa.float32()))
    made = targets.build(utterance_table(["u"]), ratings, class_set="crema6", attributes=("valence", "intensity"))
    np.testing.assert_allclose(made.attributes, [[0, 0.6]], rtol=1e-6)
    assert made.has_attribute.tolist() == [[False, True]]
    with pytest.raises(targets.TargetsError, match="no column 'intensty'"):
        targets.build(utterance_table(["u"]), ratings, class_set="crema6", attributes=("intensty",))


def test_attribute_ranges_are_required_and_enforced():
    with pytest.raises(targets.TargetsError, match=r"column valence: 1 values outside \[1.0, 7.0\], e.g. 8.0"):
        targets.build(utterance_table(["u"]), rating_table([("u", "sad", 8.0)]), class_set="crema6")
    with pytest.raises(targets.TargetsError, match="no range"):
        targets.build(utterance_table(["u"]), rating_table([("u", "sad", 8.0)], {}), class_set="crema6")


def test_only_the_modality_counts():
    ratings = rating_table([("u", "sad"), ("u", "angry"), ("u", "angry")])
    ratings = ratings.set_column(2, "modality", pa.array(["voice", "face", "face"]))
    made = targets.build(utterance_table(["u"]), ratings, class_set="crema6")
    assert made.votes.sum() == 1
    assert made.counts["num_ratings_other_modality"] == 2
    assert targets.build(utterance_table(["u"]), ratings, class_set="crema6", modality="face").consensus_index[0] == 0
    with pytest.raises(targets.TargetsError, match=r"'both' \(there: face, voice\)"):
        targets.build(utterance_table(["u"]), ratings, class_set="crema6", modality="both")


def test_duplicate_utterances_are_an_error_and_empty_tables_are_none():
    with pytest.raises(targets.TargetsError, match="occur twice"):
        targets.build(utterance_table(["u", "u"]), rating_table([("u", "sad")]), class_set="crema6")
    made = targets.build(utterance_table(["u"]), rating_table([]), class_set="crema6")
    assert made.distribution.shape == (1, 6)
    assert not made.has_votes.any()
    assert made.counts["num_no_ratings"] == 1


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
    made = targets.build(utterance_table(table["fileName"]), rating_table(rows, {}), class_set="crema6")
    is_tied = made.consensus_index < 0
    sizes = (made.votes == made.votes.max(axis=1, keepdims=True)).sum(axis=1)[is_tied]
    assert dict(zip(*np.unique(sizes, return_counts=True), strict=True)) == ties
    assert made.counts["num_ties"] == sum(ties.values())
    assert tuple(made.counts["num_consensus"].values()) == plurality
    assert sum(made.counts["num_votes"].values()) == table["numResponses"].sum()
    letters = np.asarray(list(LETTERS))
    best = [":".join(letters[row == row.max()]) for row in made.votes]
    assert best == table["emoVote"].to_list()
    acted = np.asarray([name.split("_")[2][0] for name in made.ids])
    assert (letters[made.consensus_index] == acted)[~is_tied].sum() == num_acted
    assert not made.has_attribute.any()
