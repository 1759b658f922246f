"""Scores of member states on random and degenerate rows, against other people's code; merged, padded and sharded."""

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

from seremo_jax.core import sharding
from seremo_jax.evaluation import system_scores, system_sums
from seremo_jax.evaluation.alignment import Cells
from seremo_jax.evaluation.states import RowTargets, Settings, member_states
from seremo_jax.metrics.catalogue import metric

NUM_ROWS, NUM_UNITS, C, A = 32, 4, 4, 2  # nobody speaks for the last unit
NBEST = (1, 2, 3)
KINDS = {
    "consensus": ("random", "one class", "two classes", "none"),
    "predicted": ("random", "constant", "coarse", "certain", "votes"),
    "targets": ("random", "constant", "coarse", "far"),
    "values": ("random", "constant", "coarse", "targets"),
}


NAMES = ("angry", "happy", "neutral", "sad")
NUM_PANELS, NUM_OTHERS = 2, 3
SETTINGS = Settings(NAMES, ("valence", "activation"), NBEST, (50,), "present", None, NUM_OTHERS)


def rows_of(seed, consensus, predicted, targets, values):
    """Predictions, and targets with the unit as cell; what is masked holds NaN."""
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
    value, q, p, target = (part.astype(np.float32) for part in (value, q, p, target))
    is_heard = (rng.random(NUM_ROWS) < 0.7) & (has_votes | (y >= 0))
    panel = np.where(is_heard[:, None], rng.dirichlet(np.ones(C), NUM_ROWS) * 0.9, 0)
    strata = rng.integers(-1, [3, 6], (NUM_ROWS, 2)).astype(np.int32)
    panel = panel.astype(np.float32)
    return value, q, RowTargets(unit, y.astype(np.int32), p, has_votes, target, has_attribute, panel, strata)


cases = st.builds(rows_of, st.integers(0, 10**6), *(st.sampled_from(kinds) for kinds in KINDS.values()))
states_of = jax.jit(functools.partial(member_states, nbest=NBEST), static_argnames=("num_cells",))


def scores_of(rows, unit_of_cell, is_in, batch=0):
    """Scores of the units that are in, as scoring makes them: states of cells, sums of units, sums over units.

    Args:
      rows: As of `rows_of`.
      unit_of_cell: Unit of each cell, ascending.
      is_in: Units that count.
      batch: Place of each row's cell among those of its unit.
    """
    value, q, targets = rows
    per_unit = len(unit_of_cell) // NUM_UNITS
    states = states_of(value, q, targets._replace(cell=targets.cell * per_unit + batch), num_cells=len(unit_of_cell))
    group = np.where(is_in[unit_of_cell], 1, 2)
    cells = Cells(targets.cell, unit_of_cell, group, ("all", "those", "others"))
    support = np.zeros((NUM_UNITS, C), np.int64)
    is_scored = (targets.consensus >= 0) & is_in[targets.cell]
    np.add.at(support, (targets.cell[is_scored], targets.consensus[is_scored]), 1)
    nothing = system_sums.GroupTargets(support, np.zeros((NUM_UNITS, 2), bool), np.zeros((2, len(NBEST), 1)))
    sums = system_sums.cell_sums([states], 1, cells, SETTINGS)
    # Panels of one and of two raters who hit half and three quarters of the targets.
    panel = np.zeros((len(unit_of_cell), C))
    np.add.at(panel, targets.cell * per_unit + batch, targets.panel)
    sums.sums[system_sums.PANEL_SUPPORT] = panel[:, None]
    sums.sums[system_sums.PANEL_ANSWERS] = np.stack([panel * 0.5, panel * 0.75], axis=1)[:, None]
    statistics = system_sums.unit_statistics(sums, cells, "those", nothing, SETTINGS)
    return system_scores.point(statistics, SETTINGS)


def class_scores(y, ranked):
    """uar, accuracy, macro_f1, weighted_f1 of each N."""
    for n in NBEST:
        is_right = (ranked[:, :n] == y[:, None]).any(axis=1)
        actual = np.where(is_right, y, ranked[:, 0])
        present = {"labels": np.unique(y), "zero_division": 0}
        yield [
            sklearn.metrics.balanced_accuracy_score(y, actual),
            sklearn.metrics.accuracy_score(y, actual),
            sklearn.metrics.f1_score(y, actual, average="macro", **present),
            sklearn.metrics.f1_score(y, actual, average="weighted", **present),
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


def check(actual, rows, is_in):
    """Scores of some rows against scikit-learn, audmetric and scipy."""
    value, q, targets = rows
    _, consensus, p, has_votes, target, has_attribute, panel, *_ = targets
    is_scored, voted = is_in & (consensus >= 0), is_in & has_votes
    same = functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-6)

    def score(kind, n=1, **fields):
        return actual[metric(kind, n, **fields)].values[0, 0]

    for n in NBEST:
        assert actual[metric("uar", n)].is_defined.tolist() == [bool(is_scored.any())]
    if is_scored.any():
        ranked = np.argsort(-q[is_scored], axis=1, kind="stable")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # one class only
            expected = list(class_scores(consensus[is_scored], ranked))
        same([[score("uar", n), score("micro_f1", n), score("macro_f1", n, classes="present")] for n in NBEST],
             [row[:3] for row in expected])  # fmt: skip
        same([score("accuracy"), score("weighted_f1")], expected[0][1::2])
    heard = is_in & panel.any(axis=1)
    size, own = metric("raters_worth", most=NUM_PANELS), metric("panel_uar", raters=NUM_OTHERS)
    assert actual[own].is_defined.tolist() == actual[size].is_defined.tolist() == [bool(heard.any())]
    if heard.any():
        # Every class of an utterance is its target with the weight of its probability.
        best = np.repeat(q[heard].argmax(axis=1), C), np.tile(np.arange(C), heard.sum())
        uar = sklearn.metrics.recall_score(best[1], best[0], average="macro", sample_weight=panel[heard].ravel())
        same(score("panel_uar", raters=NUM_OTHERS), uar)
        same(score("raters_worth", most=NUM_PANELS), np.interp(uar, [1 / C, 0.5, 0.75], [0, 1, 2]), atol=1e-5)
    for a, name in enumerate(SETTINGS.attribute_names):
        kept = is_in & has_attribute[:, a]
        x, y = value[kept, a].astype(np.float64), target[kept, a].astype(np.float64)
        assert (metric("ccc", attribute=name) in actual) == kept.any()
        if kept.any():
            scores = [score(kind, attribute=name) for kind in ("ccc", "pearson", "rmse", "mae")]
            # Single precision keeps less of correlations of values far from 0.
            same(scores, regression_scores(x, y), atol=1e-6 if np.abs(y).max(initial=0) < 10 else 5e-6)
    assert actual[metric("jsd")].count.tolist() == [voted.sum()]
    p, q = p[voted].astype(np.float64), q[voted].astype(np.float64)
    if voted.any():
        jsd = [scipy.spatial.distance.jensenshannon(*both, base=2) ** 2 for both in zip(p, q, strict=True)]
        same(score("jsd"), np.mean(np.nan_to_num(jsd)))
        same(score("kl"), scipy.stats.entropy(p, np.maximum(q, 1e-12), axis=1).mean())
        same(score("total_variation"), scipy.spatial.distance.cdist(p, q, "cityblock").diagonal().mean() / 2)
        cccs = [regression_scores(q[:, c], p[:, c])[0] for c in range(C)]
        same([score("class_ccc", label=name) for name in NAMES], cccs)
        is_varying = np.ptp(p, axis=0) > 0
        same(score("class_ccc_mean"), np.sum(cccs) / max(is_varying.sum(), 1))
        flags = p > 1 / C, q > 1 / C
        same(score("multi_label_f1", num_classes=C), sklearn.metrics.f1_score(*flags, average="macro", zero_division=0))


@hypothesis.settings(max_examples=25)
@hypothesis.given(cases)
def test_scores_of_all_of_one_and_of_an_empty_speaker_agree_with_other_code(rows):
    units = np.arange(NUM_UNITS)
    for is_in in (np.ones(NUM_UNITS, bool), units == 0, units == NUM_UNITS - 1):
        actual = scores_of(rows, units, is_in)
        for value in actual.values():
            assert np.isfinite(value.values).all()
        check(actual, rows, is_in[rows[2].cell])


@hypothesis.settings(max_examples=15)
@hypothesis.given(
    cases, st.lists(st.integers(0, 2), min_size=NUM_ROWS, max_size=NUM_ROWS), st.permutations(range(NUM_ROWS))
)
def test_how_rows_are_cut_into_cells_and_ordered_changes_no_score(rows, batch, order):
    """Statistics are merged: three cells a unit, in any order of rows, score as one cell a unit does."""
    everyone, order = np.ones(NUM_UNITS, bool), list(order)
    whole = scores_of(rows, np.arange(NUM_UNITS), everyone)
    value, q, targets = rows
    moved = value[order], q[order], RowTargets(*(part[order] for part in targets if part is not None))
    cut = scores_of(moved, np.repeat(np.arange(NUM_UNITS), 3), everyone, np.asarray(batch, np.int32)[order])
    assert cut.keys() == whole.keys()
    for key, score in whole.items():
        assert cut[key].is_defined.tolist() == score.is_defined.tolist()
        np.testing.assert_allclose(cut[key].values, score.values, rtol=1e-5, atol=1e-5, err_msg=key.name)


def assert_same_states(item, other):
    for a, b in zip(jax.tree.leaves(item), jax.tree.leaves(other), strict=True):
        if np.issubdtype(a.dtype, np.integer):
            np.testing.assert_array_equal(a, b)
        else:
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_rows_over_devices_and_padding_change_nothing(seed):
    """Eight devices each hold a part of the rows, the last of them padding only."""
    value, q, targets = rows_of(seed, "random", "random", "random", "random")
    fill = {"f": np.nan, "b": False, "i": -1}

    def padded(part):
        junk = np.full((NUM_ROWS // 2, *part.shape[1:]), fill[part.dtype.kind], part.dtype)
        return np.concatenate([part, junk])

    mesh = sharding.make_mesh(1, 8)
    spread = [
        sharding.place(mesh, PartitionSpec(sharding.DATA), padded(part))
        for part in (value, q, *targets)
        if part is not None
    ]
    assert len(spread[0].sharding.device_set) == 8
    actual = states_of(*spread[:2], RowTargets(*spread[2:]), num_cells=NUM_UNITS)
    assert_same_states(actual, states_of(value, q, targets, num_cells=NUM_UNITS))
