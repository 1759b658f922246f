"""CCC and the losses: independent formula, invariances, the zero-variance rule, masks, absent classes."""

import audmetric
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.spatial.distance
import scipy.special
import scipy.stats

from seremo_jax.core import vocab
from seremo_jax.training import distance_losses, losses

pytestmark = pytest.mark.stack


def _draw(num=40, columns=3, seed=0):
    rng = np.random.default_rng(seed)
    target = rng.normal(size=(num, columns)).astype(np.float32)
    pred = (0.6 * target + rng.normal(0, 0.5, (num, columns)) + 0.2).astype(np.float32)
    return jnp.asarray(pred), jnp.asarray(target), jnp.asarray(rng.random((num, columns)) > 0.3)


def _reference(pred, target):
    return audmetric.concordance_cc(np.asarray(target), np.asarray(pred))


def test_equals_audmetric_over_masked_rows():
    pred, target, mask = _draw()
    got = losses.ccc(pred, target, mask, eps=0.0)
    expected = [_reference(pred[mask[:, d], d], target[mask[:, d], d]) for d in range(3)]
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_of_itself_is_one_and_common_affine_map_changes_nothing():
    pred, target, mask = _draw()
    np.testing.assert_allclose(losses.ccc(target, target, mask), 1, atol=1e-6)
    plain, mapped = losses.ccc(pred, target, mask), losses.ccc(3 * pred + 7, 3 * target + 7, mask)
    np.testing.assert_allclose(mapped, plain, atol=1e-5)
    centred = [x - x.mean(0)[None] for x in (pred, target)]
    everything = jnp.ones_like(mask)
    np.testing.assert_allclose(
        losses.ccc(-centred[0], centred[1], everything), -losses.ccc(*centred, everything), atol=1e-6
    )


def test_masked_rows_even_nan_change_nothing():
    pred, target, mask = _draw()
    spoilt_pred, spoilt_target = jnp.where(mask, pred, jnp.nan), jnp.where(mask, target, jnp.nan)

    def value_and_gradient(pred, target):
        return jax.value_and_grad(lambda p: losses.ccc(p, target, mask).sum())(pred)

    value, gradient = value_and_gradient(spoilt_pred, spoilt_target)
    expected, expected_gradient = value_and_gradient(pred, target)
    np.testing.assert_allclose(value, expected, atol=1e-6)
    np.testing.assert_allclose(gradient, expected_gradient, atol=1e-6)
    assert np.all(gradient[~mask] == 0)


@pytest.mark.parametrize("num_rows", [0, 1, 40])
def test_constant_target_gives_zero_with_zero_gradient(num_rows):
    pred, target, _ = _draw()
    mask = jnp.arange(40)[:, None] < jnp.full((1, 3), num_rows)
    target = jnp.full_like(target, 0.25)
    value, gradient = jax.value_and_grad(lambda p: losses.ccc(p, target, mask, eps=0.0).sum())(pred)
    assert value == 0
    assert np.all(gradient == 0)


def test_constant_prediction_scores_zero():
    _, target, mask = _draw()
    np.testing.assert_allclose(losses.ccc(jnp.full_like(target, 0.3), target, mask), 0, atol=1e-12)


def test_large_mean_keeps_its_digits():
    pred, target, mask = _draw()
    shifted = losses.ccc(pred + 500, target + 500, mask, eps=0.0)
    np.testing.assert_allclose(shifted, losses.ccc(pred, target, mask, eps=0.0), atol=1e-3)


def test_mean_of_batch_values_is_not_the_value():
    pred, target, _ = _draw()
    mask = jnp.ones_like(pred, bool)
    halves = np.mean([losses.ccc(pred[i : i + 20], target[i : i + 20], mask[:20]) for i in (0, 20)])
    assert abs(halves - losses.ccc(pred, target, mask).mean()) > 1e-3


def test_class_loss_ignores_a_class_absent_from_the_batch():
    rng = np.random.default_rng(1)
    p, q = (jnp.asarray(rng.dirichlet(np.ones(4), 30), jnp.float32) for _ in range(2))
    mask = jnp.asarray(rng.random(30) > 0.2)
    absent = jnp.zeros((30, 1))
    with_absent = losses.class_ccc_loss(jnp.hstack([q, absent + 0.1]), jnp.hstack([p, absent]), mask)
    np.testing.assert_allclose(with_absent, losses.class_ccc_loss(q, p, mask), atol=1e-6)
    expected = 1 - np.mean([_reference(q[mask, c], p[mask, c]) for c in range(4)])
    np.testing.assert_allclose(losses.class_ccc_loss(q, p, mask), expected, atol=1e-5)


def test_losses_without_labels_are_zero_with_zero_gradient():
    pred, target, _ = _draw()
    nothing = jnp.zeros((40, 3), bool)
    weights = jnp.full(3, 1 / 3)
    value, gradient = jax.value_and_grad(losses.attribute_loss)(pred, target, nothing, weights)
    assert value == 0
    assert np.all(gradient == 0)
    value, gradient = jax.value_and_grad(losses.class_ccc_loss)(pred, target, nothing[:, 0])
    assert value == 0
    assert np.all(gradient == 0)


def test_attribute_loss_weights_by_attribute():
    pred, target, mask = _draw()
    weights = jnp.array([0.5, 0.3, 0.2])
    expected = 1 - (weights * losses.ccc(pred, target, mask)).sum()
    np.testing.assert_allclose(losses.attribute_loss(pred, target, mask, weights), expected, atol=1e-6)


def _drawn_distributions():
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(30, 4)).astype(np.float32)
    p = rng.dirichlet(np.full(4, 0.4), 30).astype(np.float32)
    p[:5] = np.eye(4)[[0, 1, 2, 3, 0]]
    mask = rng.random(30) > 0.2
    q = np.exp(logits - scipy.special.logsumexp(logits, axis=1, keepdims=True))
    return jnp.asarray(logits), jnp.asarray(p), jnp.asarray(mask), q.astype(np.float64)


WEIGHTS = jnp.array([0.5, 1.0, 2.0, 0.25])


def _mean_over_utterances(formula):
    return lambda p, q: np.mean([formula(*row) for row in zip(p, q, strict=True)])


CROSS_ENTROPY = _mean_over_utterances(lambda p, q: -np.sum(p * np.log(q)))
REFERENCES = {
    "ccc": lambda p, q: 1 - np.mean([_reference(q[:, c], p[:, c]) for c in range(p.shape[1])]),
    "soft_ce": CROSS_ENTROPY,
    "hard_ce": CROSS_ENTROPY,
    "balanced_soft_ce": _mean_over_utterances(lambda p, q: -np.sum(np.asarray(WEIGHTS) * p * np.log(q))),
    "kl": _mean_over_utterances(scipy.stats.entropy),
    "jsd": _mean_over_utterances(lambda p, q: scipy.spatial.distance.jensenshannon(p, q, base=2) ** 2),
}


def test_every_class_loss_has_a_name_a_formula_and_independent_code():
    assert list(losses.CLASS_LOSSES) == list(vocab.CLASS_LOSSES)
    assert set(REFERENCES) == set(vocab.CLASS_LOSSES)
    logits, p, mask, _ = _drawn_distributions()
    with pytest.raises(ValueError, match="computes no class loss 'focal'; it has ccc, soft_ce"):
        losses.class_loss("focal", logits, p, mask, WEIGHTS)


@pytest.mark.parametrize("kind", vocab.CLASS_LOSSES)
def test_class_losses_equal_independent_code(kind):
    logits, p, mask, q = _drawn_distributions()
    for share in (0.0, 0.1):
        target = losses.smoothed(p, share)
        expected = REFERENCES[kind](np.asarray(target, np.float64)[mask], q[mask])
        np.testing.assert_allclose(losses.class_loss(kind, logits, target, mask, WEIGHTS), expected, atol=1e-5)


def _drawn_offers():
    """Votes of raters of three kinds: those who could choose all classes, three of them, or two."""
    logits, p, mask, _ = _drawn_distributions()
    is_offered = np.ones((30, 4), bool)
    is_offered[10:20, 3] = is_offered[20:, :2] = False
    p = np.where(is_offered, np.asarray(p) + 0.01, 0)
    return logits, p / p.sum(axis=1, keepdims=True), np.asarray(mask), is_offered


def _among(logits, is_offered):
    """Softmax over the classes of each row that were offered, row by row."""
    q = np.zeros(logits.shape)
    for row, (own, there) in enumerate(zip(np.asarray(logits, np.float64), is_offered, strict=True)):
        q[row, there] = scipy.special.softmax(own[there])
    return q


@pytest.mark.parametrize("kind", vocab.CLASS_LOSSES)
def test_classes_that_raters_could_not_choose_take_no_part(kind):
    logits, p, mask, is_offered = _drawn_offers()
    share = 0.0 if kind == "hard_ce" else 0.1
    target = np.where(is_offered, (1 - share) * p + share / is_offered.sum(axis=1, keepdims=True), 0)
    np.testing.assert_allclose(
        losses.smoothed(jnp.asarray(p, jnp.float32), share, jnp.asarray(is_offered)), target, atol=1e-6
    )
    q = _among(logits, is_offered)
    if kind == "ccc":
        rows = [mask & is_offered[:, c] for c in range(4)]
        expected = 1 - np.mean([_reference(q[own, c], target[own, c]) for c, own in enumerate(rows)])
    else:
        weights = np.asarray(WEIGHTS)[None] if kind == "balanced_soft_ce" else np.ones((1, 4))
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = {
                "kl": target * np.log(target / q),
                "jsd": (target * np.log2(2 * target / (target + q)) + q * np.log2(2 * q / (target + q))) / 2,
            }.get(kind, -weights * target * np.log(q))
        expected = np.where(is_offered, terms, 0).sum(axis=1)[mask].mean()

    votes, is_in, there = jnp.asarray(target, jnp.float32), jnp.asarray(mask), jnp.asarray(is_offered)
    value, gradient = jax.value_and_grad(
        lambda logits: losses.class_loss(kind, logits, votes, is_in, WEIGHTS, is_offered=there)
    )(logits)
    np.testing.assert_allclose(value, expected, atol=1e-5)
    assert np.isfinite(gradient).all()
    assert not np.asarray(gradient)[~is_offered].any()
    assert np.asarray(gradient)[mask[:, None] & is_offered].all()
    options = {"weight": jnp.linspace(0.5, 2, 30), "is_offered": there}
    whole = losses.class_loss(kind, logits, votes, is_in, WEIGHTS, **options)
    by_row = losses.class_loss_by_row(kind, logits, votes, is_in, WEIGHTS, **options)
    np.testing.assert_allclose(np.average(by_row[mask], weights=options["weight"][mask]), whole, atol=1e-5)


@pytest.mark.parametrize("kind", vocab.CLASS_LOSSES)
def test_class_losses_have_finite_gradients_and_none_without_utterances(kind):
    logits, p, mask, _ = _drawn_distributions()

    def value_and_gradient(logits, mask):
        return jax.value_and_grad(lambda logits: losses.class_loss(kind, logits, p, mask, WEIGHTS))(logits)

    _, gradient = value_and_gradient(logits * 200, mask)
    assert np.isfinite(gradient).all()
    assert np.abs(gradient[~np.asarray(mask)]).max() == 0
    value, gradient = value_and_gradient(logits, jnp.zeros_like(mask))
    assert value == 0
    assert np.all(gradient == 0)


def _attribute_case(kind, seed=5):
    """Loss of outputs, mask and weight; and the same of rows that count once each, in float64."""
    rng, by_attribute = np.random.default_rng(seed), jnp.array([0.5, 0.3, 0.2])
    if kind == "attributes, ccc":
        outputs, target = (rng.normal(size=(30, 3)).astype(np.float32) for _ in range(2))

        def ours(outputs, mask, weight):
            return losses.attribute_loss(outputs, jnp.asarray(target), mask, by_attribute, 1e-8, weight)

        def theirs(x, rows):
            return 1 - sum(w * _torch_ccc(x[:, a], target[rows, a]) for a, w in enumerate((0.5, 0.3, 0.2)))
    else:
        outputs = rng.normal(size=(30, 3, 5)).astype(np.float32)
        target = rng.dirichlet(np.ones(5), (30, 3)).astype(np.float32)

        def ours(outputs, mask, weight):
            return distance_losses.earth_mover_loss(outputs, jnp.asarray(target), mask, by_attribute, weight)

        def theirs(x, rows):
            import torch

            apart = torch.cumsum(torch.softmax(x, -1) - torch.tensor(target[rows], dtype=torch.float64), -1)
            return ((apart**2).mean(-1).mean(0) * torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)).sum()

    return outputs, ours, theirs


def _class_case(kind):
    logits, p, _, _ = _drawn_distributions()

    def ours(logits, mask, weight):
        return losses.class_loss(kind, logits, p, mask[:, 0], WEIGHTS, 1e-8, weight)

    def theirs(x, rows):
        import torch

        log_q, target = torch.log_softmax(x, -1), torch.tensor(np.asarray(p, np.float64)[rows])
        entropy = torch.xlogy(target, target)
        if kind == "ccc":
            return 1 - sum(_torch_ccc(log_q.exp()[:, c], target[:, c]) for c in range(4)) / 4
        if kind == "jsd":
            log_m = torch.log((target + log_q.exp()) / 2)
            both = entropy - target * log_m + log_q.exp() * (log_q - log_m)
            return both.sum(-1).mean() / (2 * np.log(2))
        by_class = torch.tensor(np.asarray(WEIGHTS), dtype=torch.float64) if kind.startswith("balanced") else 1
        return ((entropy if kind == "kl" else 0) - target * log_q * by_class).sum(-1).mean()

    return np.asarray(logits), ours, theirs


def _torch_ccc(x, y):
    import torch

    y = torch.as_tensor(y, dtype=torch.float64)
    c = ((x - x.mean()) * (y - y.mean())).mean()
    return 2 * c / (x.var(correction=0) + y.var(correction=0) + (x.mean() - y.mean()) ** 2)


@pytest.mark.parametrize("kind", [*vocab.CLASS_LOSSES, "attributes, ccc", "attributes, emd"])
def test_a_weight_counts_an_utterance_so_often(kind):
    """Whole numbers as weights, value and gradient in float64; a common factor changes nothing, 0 leaves out."""
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    outputs, ours, theirs = (_attribute_case if kind.startswith("attributes") else _class_case)(kind)
    weight = np.random.default_rng(7).integers(0, 4, 30)
    is_in = np.arange(30) % 9 != 4
    mask = jnp.asarray(np.broadcast_to(is_in[:, None], (30, 3)))
    spoilt = np.where((weight > 0).reshape(-1, *[1] * (outputs.ndim - 1)), outputs, np.nan)
    for factor in (1.0, 0.01):
        value, gradient = jax.value_and_grad(ours)(
            jnp.asarray(outputs), mask, jnp.asarray(factor * weight, jnp.float32)
        )
        rows = np.repeat(np.arange(30), np.where(is_in, weight, 0))
        x = torch.tensor(outputs.astype(np.float64), requires_grad=True)
        expected = theirs(x[torch.tensor(rows)], rows)
        (expected_gradient,) = torch.autograd.grad(expected, x)
        np.testing.assert_allclose(value, expected.item(), atol=2e-6)
        np.testing.assert_allclose(gradient, expected_gradient, atol=2e-6)
    assert np.isfinite(ours(jnp.asarray(spoilt), mask, jnp.asarray(weight, jnp.float32)))
    nothing = jax.value_and_grad(ours)(jnp.asarray(outputs), mask, jnp.zeros(30))
    assert [float(np.abs(x).max()) for x in nothing] == [0, 0]
    same = ours(jnp.asarray(outputs), mask, jnp.full(30, 0.3)), ours(jnp.asarray(outputs), mask, None)
    np.testing.assert_allclose(*same, atol=1e-6)


@pytest.mark.parametrize("kind", [*vocab.CLASS_LOSSES, "attributes"])
def test_a_loss_is_the_weighted_mean_of_what_each_row_has(kind):
    logits, p, mask, _ = _drawn_distributions()
    weight = jnp.asarray(np.random.default_rng(4).random(30) * (np.arange(30) % 7 != 2), jnp.float32)
    if kind == "attributes":
        mask = jnp.broadcast_to(mask[:, None], p.shape)
        whole = losses.attribute_loss(logits, p, mask, jnp.full(4, 0.25), 1e-8, weight)
        parts = losses.ccc_by_row(logits, p, mask, 1e-8, weight).mean(axis=1)
    else:
        whole = losses.class_loss(kind, logits, p, mask, WEIGHTS, 1e-8, weight)
        parts = losses.class_loss_by_row(kind, logits, p, mask, WEIGHTS, 1e-8, weight)
    share = np.where(mask if mask.ndim == 1 else mask[:, 0], weight, 0)
    np.testing.assert_allclose((np.asarray(parts) * share).sum() / share.sum(), whole, atol=2e-6)


def test_closeness_is_the_expected_distance_and_its_gradient():
    _, p, mask, q = _drawn_distributions()
    distance = scipy.spatial.distance.squareform(np.arange(1.0, 7) / 6)
    weight = jnp.asarray(np.random.default_rng(2).random(30), jnp.float32)
    q = jnp.asarray(q, jnp.float32)
    value, gradient = jax.value_and_grad(distance_losses.closeness)(
        q, p, mask, jnp.asarray(distance, jnp.float32), weight
    )
    of_row, share = np.asarray(p, np.float64) @ distance, np.where(mask, weight, 0)
    share = share.astype(np.float64) / share.sum()
    expected = sum(share[i] * p[i, c] * distance[c, k] * q[i, k] for i in range(30) for c in range(4) for k in range(4))
    np.testing.assert_allclose(value, expected, atol=1e-6)
    np.testing.assert_allclose(gradient, share[:, None] * of_row, atol=1e-7)


def test_soft_cross_entropy_equals_torch():
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    logits, p, _, _ = _drawn_distributions()
    everyone = jnp.ones(30, bool)
    theirs = torch.nn.functional.cross_entropy(torch.tensor(np.asarray(logits)), torch.tensor(np.asarray(p)))
    np.testing.assert_allclose(losses.class_loss("soft_ce", logits, p, everyone, WEIGHTS), theirs, atol=1e-6)
    theirs = torch.nn.functional.cross_entropy(
        torch.tensor(np.asarray(logits)),
        torch.tensor(np.asarray(p)),
        weight=torch.tensor(np.asarray(WEIGHTS)),
        reduction="sum",
    )
    ours = losses.class_loss("balanced_soft_ce", logits, p, everyone, WEIGHTS)
    np.testing.assert_allclose(ours, theirs / 30, atol=1e-6)


def test_balanced_weights_favour_rare_classes_and_skip_absent_ones():
    weights = losses.balanced_weights(np.array([800.0, 190.0, 10.0, 0.0]))
    assert weights[0] < weights[1] < weights[2]
    assert weights[3] == 0
    assert weights.sum() == pytest.approx(3)
    b = 999 / 1000
    raw = [(1 - b) / (1 - b**n) for n in (800, 190, 10)]
    np.testing.assert_allclose(weights[:3], 3 * np.array(raw) / sum(raw), rtol=1e-5)
    np.testing.assert_allclose(losses.balanced_weights(np.full(4, 50.0)), 1, rtol=1e-6)


def test_earth_mover_loss_equals_scipy_on_the_line():
    """In one dimension the squared distance between cumulative shares is scipy's energy distance, halved."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(6, 2, 5)).astype(np.float32)
    shares = rng.dirichlet(np.ones(5), (6, 2)).astype(np.float32)
    mask = np.array([[True, True], [True, False], [False, False], [True, True], [True, True], [True, True]])
    q = scipy.special.softmax(logits, axis=-1)
    levels, weights, expected = np.arange(5), np.array([0.25, 0.75]), 0.0
    for a in range(2):
        rows = [
            scipy.stats.energy_distance(levels, levels, shares[i, a], q[i, a]) ** 2 / 2 / 5
            for i in np.flatnonzero(mask[:, a])
        ]
        expected += weights[a] * np.mean(rows)
    ours = distance_losses.earth_mover_loss(
        jnp.asarray(logits), jnp.asarray(shares), jnp.asarray(mask), jnp.asarray(weights, jnp.float32)
    )
    np.testing.assert_allclose(ours, expected, atol=1e-6)
