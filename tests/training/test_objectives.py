"""The total loss of a member: slots without an utterance count in no term."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seremo_jax.core import vocab
from seremo_jax.core.schema import Labels
from seremo_jax.training import objectives
from seremo_jax.training.model import Raw

SLOTS, USED, CLASSES, ATTRIBUTES, LEVELS = 12, 7, 4, 3, 5


def _drawn():
    """Outputs and labels of every slot, each with labels of every kind: only `is_used` tells which ones count."""
    rng = np.random.default_rng(0)
    has_all, has_each = np.ones(SLOTS, bool), np.ones((SLOTS, ATTRIBUTES), bool)
    # One class in four utterances of five could not be chosen.
    is_offered = np.arange(CLASSES) != np.arange(SLOTS)[:, None] % 5
    votes = rng.dirichlet(np.ones(CLASSES), SLOTS) * is_offered
    labels = Labels(
        distribution=(votes / votes.sum(axis=1, keepdims=True)).astype(np.float32),
        has_votes=has_all,
        consensus=np.eye(CLASSES, dtype=np.float32)[votes.argmax(axis=1)],
        has_consensus=has_all,
        attributes=rng.normal(size=(SLOTS, ATTRIBUTES)).astype(np.float32),
        has_attribute=has_each,
        attribute_variance=rng.random((SLOTS, ATTRIBUTES)).astype(np.float32),
        has_variance=has_each,
        attribute_shares=rng.dirichlet(np.ones(LEVELS), (SLOTS, ATTRIBUTES)).astype(np.float32),
        is_offered=is_offered,
    )
    shapes = ((SLOTS, ATTRIBUTES), (SLOTS, ATTRIBUTES, LEVELS), (SLOTS, ATTRIBUTES), (SLOTS, CLASSES), (SLOTS, 1))
    raw = Raw(*(rng.normal(size=shape).astype(np.float32) for shape in shapes))
    return jax.tree.map(jnp.asarray, (raw, labels))


def _member(class_target, class_kind):
    numbers = {name: jnp.float32(0.5) for name in objectives.Values._fields}
    return objectives.Values(**numbers)._replace(
        seed=jnp.uint32(0),
        class_target=jnp.int32(vocab.CLASS_TARGETS.index(class_target)),
        class_kind=jnp.int32(list(vocab.CLASS_LOSSES).index(class_kind)),
        class_weight=jnp.arange(1.0, CLASSES + 1),
        label_smoothing=jnp.float32(0.1),
    )


@pytest.mark.parametrize(
    ("class_target", "class_kind", "attribute_kind"), [("votes", "ccc", "ccc"), ("consensus", "soft_ce", "emd")]
)
def test_slots_without_an_utterance_count_in_no_term(class_target, class_kind, attribute_kind):
    raw, labels = _drawn()
    member = _member(class_target, class_kind)
    fixed = objectives.Fixed((), attribute_kind, 0.3, 1e-8, (class_kind,))
    is_used = jnp.arange(SLOTS) < USED

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def total(raw, labels, is_used):
        return objectives.total(fixed, raw, labels, is_used, member, None)

    (_, terms), gradient = total(raw, labels, is_used)
    (_, expected), gradient_used = total(*jax.tree.map(lambda x: x[:USED], (raw, labels, is_used)))
    assert terms.keys() == {"loss", "attribute_loss", "class_loss", "variance_loss"}
    for name, value in terms.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-6, err_msg=name)
    for ours, theirs in zip(gradient, gradient_used, strict=True):
        np.testing.assert_allclose(ours[:USED], theirs, rtol=1e-4, atol=1e-6)
        assert not np.asarray(ours[USED:]).any()
    # What raters could not choose is not learned from, in any term.
    assert not np.asarray(gradient.logits)[~np.asarray(labels.is_offered)].any()
