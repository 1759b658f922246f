"""All states of a member on random and degenerate rows, against other people's code; merged, padded and sharded."""

import functools
import warnings

import audmetric
import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest
import scipy.spatial.distance
import scipy.stats
import sklearn.metrics
from jax.sharding import PartitionSpec

from seremo_jax.core import mesh as sharding
from seremo_jax.evaluation.states import member_states

NUM_ROWS, NUM_UNITS, C, A = 32, 4, 4, 2  # nobody speaks for the last unit
NBEST = (1, 2, 3)
KINDS = {
    "consensus": ("random", "one class", "two classes", "none"),
    "predicted": ("random", "constant", "coarse", "certain", "votes"),
    "targets": ("random", "constant", "coarse", "far"),
    "values": ("random", "constant", "coarse", "targets"),
}


def rows_of(seed, consensus, predicted, targets, values):
    """Arguments of `member_states`; what is masked holds NaN."""
    rng = np.random.default_rng(seed)
    y = {"random": rng.integers(-1, C, NUM_ROWS), "one class": np.full(NUM_ROWS, 2),
         "two classes": rng.integers(0, 2, NUM_ROWS), "none": np.full(NUM_ROWS, -1)}[consensus]  # fmt: skip
    p = rng.multinomial(5, [0.4, 0.3, 0.2, 0.1], NUM_ROWS) / 5
    q = {"random": rng.dirichlet(np.ones(C), NUM_ROWS), "constant": np.full((NUM_ROWS, C), 1 / C),
         "coarse": rng.multinomial(4, np.full(C, 1 / C), NUM_ROWS) / 4,
         "certain": np.eye(C)[rng.integers(0, C, NUM_ROWS)], "votes": p}[predicted]  # fmt: skip
    shape = (NUM_ROWS, A)
    target = {"random": rng.normal(size=shape), "constant": np.full(shape, 0.1), "far": 100 + rng.normal(size=shape),
              "coarse": rng.integers(0, 3, shape) + 0.0}[targets]  # fmt: skip
    value = {"random": 0.5 * target + rng.normal(size=shape), "constant": np.full(shape, 0.3), "targets": target,
             "coarse": rng.integers(0, 3, shape) + 0.0}[values]  # fmt: skip
    has_attribute, has_votes = rng.random(shape) < 0.8, rng.random(NUM_ROWS) < 0.8
    target = np.where(has_attribute, target, np.nan)
    p, q = (np.where(has_votes[:, None] | (y >= 0)[:, None], part, np.nan) for part in (p, q))
    unit = rng.integers(0, NUM_UNITS - 1, NUM_ROWS).astype(np.int32)
    arrays = value, q, unit, target, has_attribute, p, has_votes, y.astype(np.int32)
    return tuple(part.astype(np.float32) if part.dtype == np.float64 else part for part in arrays)


cases = st.builds(rows_of, st.integers(0, 10**6), *(st.sampled_from(kinds) for kinds in KINDS.values()))
states_of = jax.jit(functools.partial(member_states, num_units=NUM_UNITS, nbest=NBEST))
scores_of = jax.jit(lambda states: [[one.compute() for one in states], [one.pool().compute() for one in states]])


def class_scores(y, ranked):
    """uar, accuracy, macro_f1, weighted_f1 of each N."""
    for n in NBEST:
        is_right = (ranked[:, :n] == y[:, None]).any(axis=1)
        found = np.where(is_right, y, ranked[:, 0])
        present = {"labels": np.unique(y), "zero_division": 0}
        yield [
            sklearn.metrics.balanced_accuracy_score(y, found),
            sklearn.metrics.accuracy_score(y, found),
            sklearn.metrics.f1_score(y, found, average="macro", **present),
            sklearn.metrics.f1_score(y, found, average="weighted", **present),
        ]


def regression_scores(x, y):
    """ccc, pearson, rmse, mae; 0 where not defined."""
    if len(y) < 2 or np.ptp(y) == 0:
        ccc = pearson = 0.0
    else:
        ccc = audmetric.concordance_cc(y, x)
        pearson = scipy.stats.pearsonr(x, y).statistic if np.ptp(x) > 0 else 0.0
    if not len(y):
        return [0.0] * 4
    return [ccc, pearson, sklearn.metrics.root_mean_squared_error(y, x), sklearn.metrics.mean_absolute_error(y, x)]


def check(found, rows, is_in):
    """Scores of some rows against scikit-learn, audmetric and scipy."""
    value, q, _, target, has_attribute, p, has_votes, consensus = rows
    nbest, moments, distribution = found
    is_scored, voted = is_in & (consensus >= 0), is_in & has_votes
    same = functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-6)
    assert nbest.is_defined.tolist() == [bool(is_scored.any())] * len(NBEST)
    if is_scored.any():
        ranked = np.argsort(-q[is_scored], axis=1, kind="stable")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # one class only
            expected = list(class_scores(consensus[is_scored], ranked))
        same(np.stack([nbest.uar, nbest.accuracy, nbest.macro_f1, nbest.weighted_f1], axis=1), expected)
    for a in range(A):
        kept = is_in & has_attribute[:, a]
        x, y = value[kept, a].astype(np.float64), target[kept, a].astype(np.float64)
        scores = [leaf[a] for leaf in (moments.ccc, moments.pearson, moments.rmse, moments.mae)]
        # Single precision keeps less of correlations of values far from 0.
        same(scores, regression_scores(x, y), atol=1e-6 if np.abs(y).max(initial=0) < 10 else 5e-6)
    assert distribution.num_rows == voted.sum()
    p, q = p[voted].astype(np.float64), q[voted].astype(np.float64)
    if voted.any():
        jsd = [scipy.spatial.distance.jensenshannon(*both, base=2) ** 2 for both in zip(p, q, strict=True)]
        same(distribution.jsd, np.mean(np.nan_to_num(jsd)))
        same(distribution.kl, scipy.stats.entropy(p, np.maximum(q, 1e-12), axis=1).mean())
        same(distribution.total_variation, scipy.spatial.distance.cdist(p, q, "cityblock").diagonal().mean() / 2)
        for c in range(C):
            same(distribution.class_ccc[c], regression_scores(q[:, c], p[:, c])[0])
        flags = p > 1 / C, q > 1 / C
        same(distribution.multi_label_macro_f1, sklearn.metrics.f1_score(*flags, average="macro", zero_division=0))


@hypothesis.settings(max_examples=25)
@hypothesis.given(cases)
def test_scores_of_all_of_one_and_of_an_empty_speaker_agree_with_other_code(rows):
    of_units, of_all = jax.tree.map(np.asarray, scores_of(states_of(*rows)))
    check(of_all, rows, np.ones(NUM_ROWS, bool))
    for u in (0, NUM_UNITS - 1):
        found = jax.tree.map(lambda leaf, u=u: leaf[u], of_units)
        for leaf in jax.tree.leaves(found):
            assert np.isfinite(leaf.astype(np.float64)).all()
        check(found, rows, rows[2] == u)


def parts_of(rows, batch, number):
    """States of the rows of each batch: batches as masks, so that one shape compiles once."""
    value, q, unit, target, has_attribute, p, has_votes, consensus = rows
    for i in range(number):
        is_in = batch == i
        mine = has_attribute & is_in[:, None], p, has_votes & is_in, np.where(is_in, consensus, -1).astype(np.int32)
        yield states_of(value, q, unit, target, *mine)


def merged(one, other):
    return tuple(a.merge(b) for a, b in zip(one, other, strict=True))


def assert_same_states(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        if np.issubdtype(a.dtype, np.integer):
            np.testing.assert_array_equal(a, b)
        else:
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@hypothesis.settings(max_examples=15)
@hypothesis.given(
    cases, st.lists(st.integers(0, 2), min_size=NUM_ROWS, max_size=NUM_ROWS), st.permutations(range(NUM_ROWS))
)
def test_merging_is_associative_and_free_of_order(rows, batch, order):
    one, two, three = parts_of(rows, np.asarray(batch), 3)
    whole = states_of(*rows)
    assert_same_states(merged(merged(one, two), three), whole)
    assert_same_states(merged(one, merged(two, three)), whole)
    assert_same_states(merged(three, merged(one, two)), whole)
    assert_same_states(states_of(*(part[list(order)] for part in rows)), whole)


@pytest.mark.parametrize("seed", range(3))
def test_rows_over_devices_and_padding_change_nothing(seed):
    """Eight devices each hold a part of the rows, the last of them padding only."""
    rows = rows_of(seed, "random", "random", "random", "random")
    unit = np.concatenate([rows[2], np.full(NUM_ROWS // 2, -1, np.int32)])
    fill = {"f": np.nan, "b": False, "i": -1}
    padded = [
        np.concatenate([part, np.full((NUM_ROWS // 2, *part.shape[1:]), fill[part.dtype.kind], part.dtype)])
        for part in rows
    ]
    padded[2] = unit
    mesh = sharding.make_mesh(1, 8)
    spread = [sharding.place(mesh, PartitionSpec(sharding.DATA), part) for part in padded]
    assert len(spread[0].sharding.device_set) == 8
    found = states_of(*spread)
    assert_same_states(found, states_of(*rows))
