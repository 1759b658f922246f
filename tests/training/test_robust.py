"""Objectives over groups, against loops in float64; and the gradient of a step with all that weighs and mixes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seremo_jax.core import vocab
from seremo_jax.training import gradients, mixing, robust
from tests.support import toy_training as toy

STRENGTHS = robust.Strengths(dro_step=0.5, cvar_share=0.3, vrex_weight=2.0)
NUM_GROUPS = 6


def _batches(seed=0):
    """Losses, weights and groups of some batches; group 5 is never there, group 4 comes late."""
    rng = np.random.default_rng(seed)
    for number in range(5):
        group = rng.integers(-1, 4 + (number > 2), 12)
        yield rng.random(12) + 0.3 * group, np.where(np.arange(12) < 10, rng.random(12), 0), group


def _reference():
    """Running means and shares under each objective after every batch."""
    running, lam = {}, {}
    for loss, weight, group in _batches():
        for g in {int(g) for g, w in zip(group, weight, strict=True) if g >= 0 and w > 0}:
            own = (group == g) & (weight > 0)
            mean = np.average(loss[own], weights=weight[own])
            running[g] = running[g] + 0.1 * (mean - running[g]) if g in running else mean
        seen = sorted(running)
        log = {g: lam.get(g, 0.0) + 0.5 * running[g] for g in seen}
        lam = {g: log[g] - np.mean(list(log.values())) for g in seen}
        values = np.array([running[g] for g in seen])
        left, cvar = 0.3 * len(seen), dict.fromkeys(seen, 0.0)
        for g in sorted(seen, key=lambda g: -running[g]):
            cvar[g] = min(1.0, max(left, 0.0))
            left -= 1
        vrex = {g: max(0.0, 1 + 2 * 2.0 * (running[g] - values.mean())) for g in seen}
        yield running, {"group_dro": {g: np.exp(lam[g]) for g in seen}, "cvar": cvar, "vrex": vrex,
                        "mean": dict.fromkeys(seen, 1.0)}  # fmt: skip


def test_shares_of_groups_equal_loops():
    standing, most = robust.empty(NUM_GROUPS), set()
    for (loss, weight, group), (running, expected) in zip(_batches(), _reference(), strict=True):
        arrays = (jnp.asarray(x, jnp.float32) for x in (loss, weight))
        standing = robust.updated(standing, *arrays, jnp.asarray(group, jnp.int32), 0.5)
        assert np.flatnonzero(standing.is_seen).tolist() == sorted(running)
        np.testing.assert_allclose(standing.loss[np.array(sorted(running))], [running[g] for g in sorted(running)],
                                   rtol=1e-5)  # fmt: skip
        for code, name in enumerate(vocab.OBJECTIVES):
            ours = robust.shares(standing, jnp.int32(code), STRENGTHS)
            wanted = [expected[name].get(g, 0.0) for g in range(NUM_GROUPS)]
            np.testing.assert_allclose(ours, wanted, rtol=1e-5, atol=1e-6, err_msg=name)
            most |= {(name, int(np.argmax(wanted)))} if name != "mean" else set()
    assert len(most) >= 3


def test_weights_of_groups_are_as_their_shares_and_unknown_ones_stay():
    weight = jnp.array([1, 2, 1, 0.5, 3, 0], jnp.float32)
    group = jnp.array([0, 0, 1, -1, 2, 1], jnp.int32)
    shares = jnp.array([0.2, 0.6, 0.0, 9.0])
    new = robust.reweighed(weight, group, shares, jnp.array(False))
    by_group = [float(new[np.asarray(group) == g].sum()) for g in range(3)]
    np.testing.assert_allclose(by_group, 7 * np.array([0.25, 0.75, 0]), rtol=1e-6)
    np.testing.assert_allclose(new[1], 2 * new[0], rtol=1e-6)
    assert new[3] == 0.5
    assert new[5] == 0
    np.testing.assert_array_equal(robust.reweighed(weight, group, shares, jnp.array(True)), weight)
    assert not robust.reweighed(weight, group, jnp.zeros(4), jnp.array(False))[jnp.array([0, 1, 2, 4])].any()


def _ccc(x, y, w):
    w = w / w.sum()
    mean_x, mean_y = (w * x).sum(), (w * y).sum()
    spread = (w * (x - mean_x) ** 2).sum() + (w * (y - mean_y) ** 2).sum() + (mean_x - mean_y) ** 2
    return 2 * (w * (x - mean_x) * (y - mean_y)).sum() / spread, (x - y) ** 2 / spread


def _torch_losses(raw, labels, w, kind, distance):
    """Loss in float64, and that of each utterance, of attributes [B, 3] and logits [B, 4] under weights."""
    import torch

    attributes, logits = raw
    values, is_rated, p = labels
    by_row, total = torch.zeros(len(w), dtype=torch.float64), 0
    for a in range(3):
        ccc, parts = _ccc(attributes[is_rated[:, a], a], values[is_rated[:, a], a], w[is_rated[:, a]])
        total = total + (1 - ccc) / 3
        full = torch.zeros(len(w), dtype=torch.float64)
        full[is_rated[:, a]] = parts
        by_row = by_row + full / torch.tensor(is_rated.sum(1).clip(1), dtype=torch.float64)
    q, share = torch.softmax(logits, -1), w / w.sum()
    if kind == "ccc":
        pairs = [_ccc(q[:, c], p[:, c], w) for c in range(4)]
        total, by_row = total + 1 - sum(c for c, _ in pairs) / 4, by_row + sum(parts for _, parts in pairs) / 4
    else:
        entropy = -(p * torch.log_softmax(logits, -1)).sum(-1)
        total, by_row = total + (share * entropy).sum(), by_row + entropy
    apart = 0.5 * torch.einsum("bc,ck,bk->b", p, distance, q)
    return total + (share * apart).sum(), by_row + apart


KEY = jax.random.key(7)


@pytest.fixture(scope="module")
def company():
    """Members of every objective and two class losses, and a function of one member and its parameters."""
    strengths = {"cvar_share": 0.4, "vrex_weight": 1.0, "dro_step": 2.0}
    loss = {"speaker_balance": 1.0, "closeness_weight": 0.5} | strengths
    axes = {"class_kinds": ("ccc", "soft_ce"), "objectives": ("cvar", "group_dro", "vrex")}
    axes |= {"layers": (), "class_targets": (), "seeds": ()}
    loop = toy.loop(toy.config(loss=loss, train={"mixup": 0.8, "batch_size": 24}, ensemble=axes), toy.mesh(1))
    batch, standing = next(iter(loop._train.batches(1))), robust.empty(loop.settings.num_groups)

    @jax.jit
    def step(member, params):
        reader = gradients.Reader(loop.settings, 1, loop._train.inputs, batch, member)
        draws = gradients.Draws(None, KEY)
        return reader.gradient(params, draws, standing), reader.forward(params, 0, None, is_summary=True)

    return loop, np.asarray(batch.utterance[0]), step


@pytest.mark.parametrize(("objective", "kind"), [("cvar", "ccc"), ("group_dro", "soft_ce"), ("vrex", "soft_ce")])
def test_gradient_of_a_step_with_everything_is_that_of_torch(company, objective, kind):
    """Weights, closeness, mixup and an objective over speakers, behind the summaries; first batch of a training."""
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    loop, utterance, step = company
    wanted = [(member.objective, member.class_kind) for member in loop.members].index((objective, kind))
    params = jax.tree.map(lambda x: x[wanted], loop._state.params)
    ours, summary = step(jax.tree.map(lambda x: x[wanted], loop._train.members), params)
    used = utterance >= 0
    rows = utterance[used]
    to_partner, to_share = jax.random.split(KEY)
    speaker = toy.GROUPS.speaker[np.maximum(utterance, 0)]
    partner, has = mixing.partners(to_partner, jnp.asarray(utterance), jnp.asarray(speaker))
    share = np.where(has, mixing.shares(to_share, jnp.asarray(utterance), jnp.float32(0.8)), 1)[used].astype(np.float64)
    partner, data = np.asarray(partner)[used], loop._data
    assert (share < 1).sum() > 5

    def mixed(values):
        values, by_row = np.asarray(values, np.float64), share.reshape(-1, *[1] * (np.ndim(values) - 1))
        return by_row * values[: len(share)] + (1 - by_row) * values[partner]

    t, w = data.training_targets, data.weights(loop.members).table[0][rows].astype(np.float64)
    is_rated = t.has_attribute[rows] & (t.has_attribute[rows][partner] | (share == 1)[:, None])
    labels = mixed(t.attributes[rows]), is_rated, torch.tensor(mixed(t.distribution[rows]))
    labels = torch.tensor(labels[0]), is_rated, labels[2]
    leaves = {name: {k: torch.tensor(np.asarray(v, np.float64), requires_grad=True) for k, v in params[name].items()}
              for name in ("embedding", "attribute_head", "class_head")}  # fmt: skip
    x = torch.tensor(mixed(np.asarray(summary)[used])) @ leaves["embedding"]["w"] + leaves["embedding"]["b"]
    raw = [x @ leaves[name]["w"] + leaves[name]["b"] for name in ("attribute_head", "class_head")]
    distance = torch.tensor(data.class_distances(loop.members)[0])
    by_row = _torch_losses(raw, labels, torch.tensor(w), kind, distance)[1].detach().numpy()
    who, weight = speaker[used], w.copy()
    seen = sorted(set(who[who >= 0].tolist()))
    of = {g: np.average(by_row[who == g], weights=w[who == g]) for g in seen}
    if objective == "group_dro":
        new = {g: np.exp(2.0 * of[g]) for g in seen}
    elif objective == "vrex":
        new = {g: max(0, 1 + 2 * (of[g] - np.mean(list(of.values())))) for g in seen}
    else:
        rank = {g: i for i, g in enumerate(sorted(seen, key=lambda g: -of[g]))}
        new = {g: np.clip(0.4 * len(seen) - rank[g], 0, 1) for g in seen}
    for g in seen:
        weight[who == g] *= new[g] / w[who == g].sum() * w[who >= 0].sum() / sum(new.values())
    assert not np.allclose(weight, w, rtol=0.05)
    expected, _ = _torch_losses(raw, labels, torch.tensor(weight), kind, distance)
    np.testing.assert_allclose(ours.loss, expected.item(), rtol=1e-5)
    expected.backward()
    for name, tensors in leaves.items():
        for leaf, tensor in tensors.items():
            np.testing.assert_allclose(ours.grads[name][leaf], tensor.grad, atol=3e-6, err_msg=f"{name}.{leaf}")
    np.testing.assert_allclose(ours.standing.loss[np.array(seen)], [of[g] for g in seen], rtol=1e-5)
