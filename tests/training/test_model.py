"""TC-GRU: parameter counts, a NumPy loop, packing and padding, dropout."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seremo_jax.core import vocab
from seremo_jax.training import loader, model, pooling

CONVOLUTIONS = ((0, "depthwise"), (3, "depthwise"), (5, "depthwise"), (9, "depthwise"), (5, "dense"))
SIZES = model.Sizes(num_features=5, num_attributes=3, num_classes=6, gru_units=8, embedding_size=4)


@pytest.mark.parametrize(
    ("num_features", "num_outputs", "expected"),
    [(1024, 11, 2_204_171), (384, 11, 1_218_571), (768, 11, 1_809_931), (1280, 11, 2_598_411), (1024, 14, 2_204_558)],
)
def test_parameter_count_of_the_method(num_features, num_outputs, expected):
    sizes = model.Sizes(num_features, num_attributes=num_outputs - 8, num_classes=8)
    assert model.count_parameters(jax.eval_shape(lambda: model.init(sizes, jax.random.key(0)))) == expected


@pytest.mark.parametrize(
    ("changes", "expected"), [({"conv_kind": "dense"}, 2_181_843), ({"bidirectional": True}, 4_795_915)]
)
def test_parameter_count_of_the_options(changes, expected):
    sizes = model.Sizes(1024, num_attributes=3, num_classes=8, **changes)
    assert model.count_parameters(jax.eval_shape(lambda: model.init(sizes, jax.random.key(0)))) == expected


def test_dense_convolution_is_that_of_torch_with_every_gradient():
    torch = pytest.importorskip("torch", reason="parity with torch.nn.Conv1d needs torch")
    sizes, rng = dataclasses.replace(SIZES, conv_kind="dense", conv_filters=7, conv_kernel=3), np.random.default_rng(4)
    x, g = (rng.normal(size=(13, 2, width)).astype(np.float32) for width in (5, 7))
    peer = torch.nn.Conv1d(5, 7, 3, padding=1)
    params = model.init(sizes, jax.random.key(2))["conv"]
    assert np.abs(params["w"]).max() <= (3 * 5) ** -0.5 == pytest.approx(peer.weight.abs().max().item(), abs=0.02)
    with torch.no_grad():
        peer.weight.copy_(torch.from_numpy(np.array(params["w"]).transpose(2, 1, 0).copy()))
        peer.bias.copy_(torch.from_numpy(np.array(params["b"])))
    expected = peer(torch.from_numpy(x.transpose(1, 2, 0).copy()))
    (expected * torch.from_numpy(g.transpose(1, 2, 0).copy())).sum().backward()

    def convolve(params):
        conv = model.DenseConv(sizes, model.initial.zeros)
        conv.w[...], conv.b[...] = params["w"], params["b"]
        return conv(jnp.asarray(x))

    ours, pull = jax.vjp(convolve, params)
    (gradient,) = pull(jnp.asarray(g))
    np.testing.assert_allclose(ours, expected.detach().numpy().transpose(2, 0, 1), atol=2e-6)
    np.testing.assert_allclose(gradient["w"], peer.weight.grad.numpy().transpose(2, 1, 0), atol=2e-5)
    np.testing.assert_allclose(gradient["b"], peer.bias.grad.numpy(), atol=2e-5)


@pytest.mark.parametrize("name", vocab.ACTIVATIONS)
def test_activations_of_the_embedding_are_those_of_torch(utterances, name):
    torch = pytest.importorskip("torch", reason="parity with torch.nn.functional needs torch")
    sizes = dataclasses.replace(SIZES, embedding_activation=name)
    params, rows = model.init(SIZES, jax.random.key(1)), _rows(utterances, 16, [[0, 1], [2]])
    linear = torch.from_numpy(np.array(model.apply(SIZES, params, *rows).embedding))
    expected = linear if name == "none" else getattr(torch.nn.functional, name)(linear)
    out = model.apply(sizes, params, *rows)
    np.testing.assert_allclose(out.embedding, expected.numpy(), atol=1e-6)
    logits = expected.numpy() @ np.asarray(params["class_head"]["w"]) + np.asarray(params["class_head"]["b"])
    np.testing.assert_allclose(out.logits, logits, atol=1e-6)


def test_what_a_head_does_not_compute_is_refused():
    assert list(model.CONVOLUTIONS) == list(vocab.CONVOLUTIONS)
    assert list(model.ACTIVATIONS) == list(vocab.ACTIVATIONS)
    for changes, message in (
        ({"conv_kind": "separable"}, "compute no convolution 'separable'; they have depthwise, dense"),
        ({"embedding_activation": "elu"}, "compute no activation 'elu'; they have none, tanh, relu, gelu"),
    ):
        with pytest.raises(ValueError, match=message):
            model.init(dataclasses.replace(SIZES, **changes), jax.random.key(0))


@pytest.mark.stack
def test_initial_parameters_are_the_draws_of_jax_one_after_the_other():
    key, params = jax.random.key(3), jax.jit(model.init, static_argnums=0)(SIZES, jax.random.key(3))
    layers = [params["conv"], *(params["grus"][depth] for depth in range(2))]
    layers += [params[name] for name in ("embedding", "attribute_head", "class_head")]
    # A convolution is bounded by its kernel, a GRU by its units, an affine map by its inputs.
    bounds = [3**-0.5, 8**-0.5, 8**-0.5, 8**-0.5, 4**-0.5, 4**-0.5]
    arrays = [
        (layer[name], b)
        for layer, b in zip(layers, bounds, strict=True)
        for name in ("w", "w_i", "w_h", "b", "b_i", "b_h")
        if name in layer
    ]
    assert len(arrays) == len(jax.tree.leaves(params)) == 16
    for number, (array, bound) in enumerate(arrays):
        drawn = jax.random.uniform(jax.random.fold_in(key, number), array.shape, minval=-bound, maxval=bound)
        # A compiled program may round the product and the sum at once.
        np.testing.assert_allclose(array, drawn, rtol=0, atol=1e-7 * bound)


def _numpy(params, x):
    """The whole head for one utterance [T, D], by loops."""

    def sigmoid(v):
        return 1 / (1 + np.exp(-v))

    if "conv" in params:
        w, b = params["conv"]["w"], params["conv"]["b"]
        padded = np.pad(x, ((len(w) // 2, len(w) // 2), (0, 0)))
        over = np.matmul if w.ndim == 3 else np.multiply
        u = np.stack([b + sum(over(padded[t + o], w[o]) for o in range(len(w))) for t in range(len(x))])
        x = np.concatenate([np.maximum(u, 0), x], axis=1)
    for depth in range(2):
        layer = params["grus"][depth]
        h, states = np.zeros(layer["w_h"].shape[0]), []
        for frame in x:
            i = np.split(frame @ layer["w_i"] + layer["b_i"], 3)
            g = np.split(h @ layer["w_h"] + layer["b_h"], 3)
            r, z = sigmoid(i[0] + g[0]), sigmoid(i[1] + g[1])
            h = (1 - z) * np.tanh(i[2] + r * g[2]) + z * h
            states.append(h)
        x = np.array(states)
    e = x[-1] @ params["embedding"]["w"] + params["embedding"]["b"]
    logits = e @ params["class_head"]["w"] + params["class_head"]["b"]
    p = np.exp(logits - logits.max())
    return e @ params["attribute_head"]["w"] + params["attribute_head"]["b"], p / p.sum()


def _rows(utterances, num_frames, order, gap=1, gap_content=0.0):
    """Utterances packed into one row each by `order`: list of rows, each a list of utterance numbers."""
    features = np.full((num_frames, len(order), 5), gap_content, np.float32)
    reset, slot = np.zeros((num_frames, len(order)), bool), np.full((num_frames, len(order)), -1, np.int32)
    last = np.zeros(len(utterances), np.int32)
    for row, numbers in enumerate(order):
        start = 0
        for number in numbers:
            stop = start + len(utterances[number])
            features[start:stop, row], slot[start:stop, row], reset[start, row] = utterances[number], number, True
            last[number] = (stop - 1) * len(order) + row
            features[stop : stop + gap, row] = 0
            start = stop + gap
    return tuple(map(jnp.asarray, (features, reset, slot, last)))


@pytest.fixture
def utterances():
    rng = np.random.default_rng(0)
    return [rng.normal(size=(n, 5)).astype(np.float32) for n in (6, 9, 4)]


@pytest.mark.stack
@pytest.mark.parametrize(("kernel", "kind"), CONVOLUTIONS)
def test_packed_predictions_equal_a_numpy_loop(utterances, kernel, kind):
    sizes = dataclasses.replace(SIZES, conv_kernel=kernel, conv_kind=kind, conv_filters=7)
    params = model.init(sizes, jax.random.key(1))
    gap = loader.gap_of(kernel)
    out = model.apply(sizes, params, *_rows(utterances, 15 + gap, [[0, 1], [2]], gap))
    host = jax.tree.map(np.asarray, params)
    for number, x in enumerate(utterances):
        attributes, distribution = _numpy(host, x)
        np.testing.assert_allclose(out.attributes[number], attributes, atol=2e-6)
        np.testing.assert_allclose(out.distribution[number], distribution, atol=2e-6)


@pytest.mark.stack
def test_order_padding_and_neighbours_change_nothing(utterances):
    params = model.init(SIZES, jax.random.key(1))
    expected = model.apply(SIZES, params, *_rows(utterances, 16, [[0, 1], [2]]))
    for num_frames, order in ((30, [[2, 0, 1]]), (10, [[1], [2], [0]]), (21, [[1, 0], [2]])):
        out = model.apply(SIZES, params, *_rows(utterances, num_frames, order))
        np.testing.assert_allclose(out.distribution, expected.distribution, atol=1e-6)
        np.testing.assert_allclose(out.attributes, expected.attributes, atol=1e-6)


@pytest.mark.parametrize(("kernel", "kind"), CONVOLUTIONS)
def test_packed_gradient_equals_the_sum_alone(utterances, kernel, kind):
    sizes = dataclasses.replace(SIZES, conv_kernel=kernel, conv_kind=kind, conv_filters=7)
    params = model.init(sizes, jax.random.key(1))
    gap = loader.gap_of(kernel)

    def loss(params, *rows):
        out = model.apply(sizes, params, *rows)
        return (out.distribution[:, 0] ** 2).sum() + (out.attributes**3).sum()

    packed = jax.jit(jax.grad(loss))(params, *_rows(utterances, 19 + 2 * gap, [[0, 1, 2]], gap))
    alone = [jax.jit(jax.grad(loss))(params, *_rows([x], len(x), [[0]])) for x in utterances]
    for got, *parts in zip(jax.tree.leaves(packed), *map(jax.tree.leaves, alone), strict=True):
        np.testing.assert_allclose(got, sum(parts), atol=1e-5)


@pytest.mark.stack
@pytest.mark.parametrize("kind", ["last_valid", "mean_sd"])
def test_both_directions_are_those_of_torch_on_packed_sequences_with_every_gradient(utterances, kind):
    torch = pytest.importorskip("torch", reason="parity with torch.nn.GRU needs torch")
    sizes = dataclasses.replace(SIZES, conv_kernel=0, bidirectional=True, pooling=kind)
    params = model.init(sizes, jax.random.key(5))
    peer, names = torch.nn.GRU(5, 8, 2, bidirectional=True), ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    ours = {"": params["grus"], "_reverse": params["backward_grus"]}
    of_torch = [
        (f"{name}_l{depth}{way}", way, depth, own)
        for way in ours for depth in range(2) for name, own in zip(names, ("w_i", "w_h", "b_i", "b_h"), strict=True)
    ]  # fmt: skip
    with torch.no_grad():
        for name, way, depth, own in of_torch:
            getattr(peer, name).copy_(torch.from_numpy(np.array(ours[way][depth][own].T)))
    packed = torch.nn.utils.rnn.pack_sequence([torch.from_numpy(x) for x in utterances], enforce_sorted=False)
    states, last = peer(packed)
    states, lengths = torch.nn.utils.rnn.pad_packed_sequence(states)
    if kind == "last_valid":
        summary = torch.cat([last[-2], last[-1]], dim=1)
    else:
        own = [states[:length, i] for i, length in enumerate(lengths)]
        halves = [[x[:, :8] for x in own], [x[:, 8:] for x in own]]
        parts = [[torch.cat([x.mean(0), x.std(0, correction=0)]) for x in half] for half in halves]
        summary = torch.cat([torch.stack(half) for half in parts], dim=1)
    embedding = summary @ torch.from_numpy(np.array(params["embedding"]["w"])) + torch.from_numpy(
        np.array(params["embedding"]["b"])
    )
    (embedding**3).sum().backward()

    # What lies in the rows beyond the utterances comes in from neither side.
    rows = _rows(utterances, 19, [[0, 1], [2]], gap_content=9.0)
    out, pull = jax.vjp(lambda params: model.apply(sizes, params, *rows).embedding, params)
    (gradient,) = pull(3 * out**2)
    np.testing.assert_allclose(out, embedding.detach().numpy(), atol=2e-6)
    for name, way, depth, own in of_torch:
        got = gradient["grus" if not way else "backward_grus"][depth][own].T
        np.testing.assert_allclose(got, getattr(peer, name).grad.numpy(), atol=2e-5, err_msg=name)


def test_without_convolution_the_branch_is_gone():
    sizes = dataclasses.replace(SIZES, conv_kernel=0, gru_layers=1)
    params = model.init(sizes, jax.random.key(0))
    assert "conv" not in params
    assert params["grus"][0]["w_i"].shape == (5, 24)


def _dropout(key, rate, rows):
    return model.Dropout(key, jnp.float32(rate), jnp.asarray(rows))


@pytest.mark.stack
def test_dropout_keeps_the_mean(utterances):
    sizes = dataclasses.replace(SIZES, gru_layers=1)
    params = model.init(sizes, jax.random.key(1))
    rows = _rows(utterances, 16, [[0, 1], [2]])
    plain = model.apply(sizes, params, *rows).embedding
    keys = jax.random.split(jax.random.key(2), 600)

    def embed(key):
        return model.apply(sizes, params, *rows, dropout=_dropout(key, 0.5, [0, 1])).embedding

    dropped = jax.vmap(embed)(keys)
    assert 0.45 < np.mean(dropped == 0) < 0.55
    np.testing.assert_allclose(dropped.mean(0), plain, atol=5 * float(jnp.abs(plain).max()) / 600**0.5)


def test_dropout_of_a_row_depends_on_its_number_in_the_whole_batch(utterances):
    x = jnp.ones((4, 3, 5))
    whole = _dropout(jax.random.key(0), 0.5, [0, 1, 2]).of_rows(x, 1)
    part = _dropout(jax.random.key(0), 0.5, [2]).of_rows(x[:, :1], 1)
    np.testing.assert_array_equal(whole[:, 2:], part)
    assert not np.array_equal(whole[:, 0], whole[:, 1])


POOLED = {
    "last_valid": lambda x: x[-1],
    "mean": lambda x: x.mean(0),
    "mean_sd": lambda x: np.concatenate([x.mean(0), x.std(0)]),
}


@pytest.mark.stack
@pytest.mark.parametrize("kind", vocab.POOLINGS)
def test_pooling_is_over_the_frames_of_each_utterance(utterances, kind):
    utterances = [*utterances, utterances[0][:1]]
    features, _, slot, last = _rows(utterances, 16, [[0, 1], [2, 3]], gap_content=9.0)
    # A slot without an utterance, as batches have them: its summary is not used, but must not spoil the gradient.
    last = jnp.append(last, 0)

    def pool(features):
        pooled = pooling.pool(features, slot, last, kind)
        return pooled[:4].sum(), pooled

    gradient, pooled = jax.grad(pool, has_aux=True)(features)
    np.testing.assert_allclose(pooled[:4], np.array([POOLED[kind](x) for x in utterances]), atol=2e-5)
    assert np.isfinite(pooled).all()
    assert np.isfinite(gradient).all()


def test_every_pooling_has_a_name_and_a_formula():
    assert list(pooling.POOLINGS) == list(vocab.POOLINGS)
    with pytest.raises(ValueError, match="compute no pooling 'max'; they have last_valid"):
        model.init(dataclasses.replace(SIZES, pooling="max"), jax.random.key(0))


def test_levels_give_attributes_as_means_of_distributions(utterances):
    sizes = dataclasses.replace(SIZES, levels=(-1.0, 0.0, 1.0), predicts_variance=True)
    out = model.apply(sizes, model.init(sizes, jax.random.key(0)), *_rows(utterances, 16, [[0, 1], [2]]))
    p = np.exp(out.levels) / np.exp(out.levels).sum(-1, keepdims=True)
    np.testing.assert_allclose(out.attributes, p[..., 2] - p[..., 0], atol=1e-6)
    assert out.variances.shape == out.attributes.shape == (3, 3)


def test_sum_of_layers_starts_as_their_mean(utterances):
    sizes = dataclasses.replace(SIZES, num_layers=2)
    params = model.init(sizes, jax.random.key(0))
    features, *rows = _rows(utterances, 16, [[0, 1], [2]])
    summed = model.apply(sizes, params, jnp.stack([features, 3 * features]), *rows)
    params.pop("layer_weights")
    single = model.apply(SIZES, params, 2 * features, *rows)
    np.testing.assert_allclose(summed.logits, single.logits, atol=1e-6)
