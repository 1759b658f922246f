"""GRU: parity with torch.nn.GRU, the hand-written backward pass against autodiff, packed rows."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seremo_jax.training import gru as gru_module
from seremo_jax.training.gru import dot, gru, gru_beside

pytestmark = pytest.mark.stack


def _params(num_features: int, units: int, seed: int = 0, dtype=np.float32) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = {"w_i": (num_features, 3 * units), "w_h": (units, 3 * units), "b_i": (3 * units,), "b_h": (3 * units,)}
    return {name: jnp.asarray(rng.normal(0, 0.4, shape), dtype) for name, shape in shapes.items()}


def _starts(num_frames: int, num_rows: int, starts: dict[int, list[int]] | None = None) -> np.ndarray:
    reset = np.zeros((num_frames, num_rows), bool)
    reset[0] = True
    for row, frames in (starts or {}).items():
        reset[frames, row] = True
    return jnp.asarray(reset)


def _plain(params, x, reset):
    """The textbook cell, one frame at a time, nothing hoisted and nothing hand-differentiated."""
    h = jnp.zeros((x.shape[1], params["w_h"].shape[0]), x.dtype)
    states = []
    for t in range(x.shape[0]):
        h = jnp.where(reset[t][:, None], 0, h)
        i = jnp.split(x[t] @ params["w_i"] + params["b_i"][None, :], 3, axis=1)
        g = jnp.split(h @ params["w_h"] + params["b_h"][None, :], 3, axis=1)
        r, z = jax.nn.sigmoid(i[0] + g[0]), jax.nn.sigmoid(i[1] + g[1])
        h = (1 - z) * jnp.tanh(i[2] + r * g[2]) + z * h
        states.append(h)
    return jnp.stack(states)


@pytest.mark.parametrize("num_layers", [1, 2])
def test_equals_torch_with_every_gradient(num_layers):
    torch = pytest.importorskip("torch", reason="parity with torch.nn.GRU needs torch")
    num_frames, num_rows, num_features, units = 13, 4, 5, 7
    rng = np.random.default_rng(1)
    x = rng.normal(size=(num_frames, num_rows, num_features)).astype(np.float32)
    g = rng.normal(size=(num_frames, num_rows, units)).astype(np.float32)
    params = [_params(num_features if depth == 0 else units, units, seed=depth) for depth in range(num_layers)]
    peer = torch.nn.GRU(num_features, units, num_layers)
    names = {"w_i": "weight_ih_l", "w_h": "weight_hh_l", "b_i": "bias_ih_l", "b_h": "bias_hh_l"}
    with torch.no_grad():
        for depth, layer in enumerate(params):
            for ours, theirs in names.items():
                getattr(peer, f"{theirs}{depth}").copy_(torch.from_numpy(np.array(layer[ours].T)))
    x_torch = torch.from_numpy(x).requires_grad_()
    expected, _ = peer(x_torch)
    (expected * torch.from_numpy(g)).sum().backward()

    reset = _starts(num_frames, num_rows)

    def run(params, x):
        for layer in params:
            x = gru(layer, x, reset)
        return x

    got, pull = jax.vjp(run, params, jnp.asarray(x))
    g_params, g_x = pull(jnp.asarray(g))
    np.testing.assert_allclose(got, expected.detach().numpy(), atol=2e-6)
    np.testing.assert_allclose(g_x, x_torch.grad.numpy(), atol=2e-5)
    for depth, layer in enumerate(g_params):
        for ours, theirs in names.items():
            np.testing.assert_allclose(
                layer[ours].T, getattr(peer, f"{theirs}{depth}").grad.numpy(), atol=5e-5, err_msg=f"{theirs}{depth}"
            )


def test_backward_pass_equals_autodiff_of_the_plain_cell_in_float64():
    with jax.enable_x64(True):
        params = _params(3, 4, dtype=np.float64)
        rng = np.random.default_rng(2)
        x, g = jnp.asarray(rng.normal(size=(9, 3, 3))), jnp.asarray(rng.normal(size=(9, 3, 4)))
        reset = _starts(9, 3, {0: [4], 2: [1, 7]})
        ours, pull_ours = jax.vjp(lambda p, x: gru(p, x, reset), params, x)
        plain, pull_plain = jax.vjp(lambda p, x: _plain(p, x, reset), params, x)
        np.testing.assert_allclose(ours, plain, atol=1e-12)
        for got, expected in zip(jax.tree.leaves(pull_ours(g)), jax.tree.leaves(pull_plain(g)), strict=True):
            np.testing.assert_allclose(got, expected, atol=1e-12)


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Runs the loops that a GPU gets, with several frames a trip."""
    original = jax.lax.platform_dependent
    monkeypatch.setattr(
        gru_module.jax.lax,
        "platform_dependent",
        lambda *arrays, cuda, rocm, default: original(*arrays, default=cuda),
    )


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("num_frames", [16, 12, 9], ids=["8 a trip", "4 a trip", "1 a trip"])
def test_the_loops_of_a_gpu_equal_autodiff_of_the_plain_cell_in_float64(num_frames):
    with jax.enable_x64(True):
        params = _params(3, 4, dtype=np.float64)
        rng = np.random.default_rng(2)
        x, g = jnp.asarray(rng.normal(size=(num_frames, 3, 3))), jnp.asarray(rng.normal(size=(num_frames, 3, 4)))
        reset = _starts(num_frames, 3, {0: [4, 8], 2: [1, 7]})
        compiled = jax.jit(lambda p, x: gru(p, x, reset))
        text = compiled.lower(params, x).as_text()
        assert text.count("stablehlo.dot_general") == 1 + np.gcd(num_frames, 8)
        ours, pull_ours = jax.vjp(compiled, params, x)
        plain, pull_plain = jax.vjp(lambda p, x: _plain(p, x, reset), params, x)
        np.testing.assert_allclose(ours, plain, atol=1e-12)
        for got, expected in zip(jax.tree.leaves(pull_ours(g)), jax.tree.leaves(pull_plain(g)), strict=True):
            np.testing.assert_allclose(got, expected, atol=1e-12)


@pytest.mark.parametrize("of_gpu", [False, True])
def test_a_neighbour_that_is_not_finite_changes_nothing(of_gpu, request):
    if of_gpu:
        request.getfixturevalue("as_on_a_gpu")
    params, rng = _params(3, 4), np.random.default_rng(6)
    x, g = np.float32(rng.normal(size=(16, 2, 3))), np.float32(rng.normal(size=(16, 2, 4)))
    bad_x, bad_g = x.copy(), g.copy()
    bad_x[:5, 0], bad_x[11:, 0], bad_g[11:, 0] = np.nan, np.inf, np.inf
    reset = _starts(16, 2, {0: [5, 11]})
    own = np.ones((16, 2), bool)
    own[:5, 0] = own[11:, 0] = False
    states, g_x = [], []
    for some_x, some_g in ((x, g), (bad_x, bad_g)):
        state, pull = jax.vjp(lambda x: gru(params, x, reset), jnp.asarray(some_x))
        states.append(np.asarray(state)[own])
        g_x.append(np.asarray(pull(jnp.asarray(some_g))[0])[own])
    np.testing.assert_array_equal(*states)
    np.testing.assert_array_equal(*g_x)


@pytest.mark.parametrize("of_gpu", [False, True])
def test_backwards_is_forwards_on_frames_in_the_other_order(of_gpu, request):
    if of_gpu:
        request.getfixturevalue("as_on_a_gpu")
    with jax.enable_x64(True):
        params = _params(3, 4, dtype=np.float64)
        rng = np.random.default_rng(7)
        x, g = jnp.asarray(rng.normal(size=(16, 2, 3))), jnp.asarray(rng.normal(size=(16, 2, 4)))
        reset = _starts(16, 2, {0: [5, 11]})
        ours, pull = jax.vjp(lambda p, x: gru_beside(p, (x,), reset[::-1], is_reverse=True), params, x)
        other, pull_other = jax.vjp(lambda p, x: _plain(p, x[::-1], reset)[::-1], params, x)
        np.testing.assert_allclose(ours, other, atol=1e-12)
        for got, expected in zip(jax.tree.leaves(pull(g)), jax.tree.leaves(pull_other(g)), strict=True):
            np.testing.assert_allclose(got, expected, atol=1e-12)


def test_features_in_parts_equal_them_side_by_side():
    params, rng = _params(5, 4), np.random.default_rng(5)
    parts = tuple(jnp.asarray(rng.normal(size=(9, 3, width)), jnp.float32) for width in (2, 3))
    reset, g = _starts(9, 3, {1: [4]}), jnp.asarray(rng.normal(size=(9, 3, 4)), jnp.float32)
    in_parts, pull_parts = jax.vjp(lambda p, parts: gru_beside(p, parts, reset), params, parts)
    whole, pull_whole = jax.vjp(lambda p, parts: gru(p, jnp.concatenate(parts, -1), reset), params, parts)
    np.testing.assert_allclose(in_parts, whole, atol=1e-6)
    for got, expected in zip(jax.tree.leaves(pull_parts(g)), jax.tree.leaves(pull_whole(g)), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-5)


def test_packed_equals_alone():
    params = _params(3, 4)
    rng = np.random.default_rng(3)
    first, second = (jnp.asarray(rng.normal(size=(n, 1, 3)), jnp.float32) for n in (5, 8))
    packed = jnp.concatenate([first, jnp.zeros((1, 1, 3)), second])
    states = gru(params, packed, _starts(14, 1, {0: [6]}))
    np.testing.assert_allclose(states[:5], gru(params, first, _starts(5, 1)), atol=1e-6)
    np.testing.assert_allclose(states[6:], gru(params, second, _starts(8, 1)), atol=1e-6)


def test_bfloat16_accumulates_in_float32():
    params = _params(6, 8)
    x = jnp.asarray(np.random.default_rng(4).normal(size=(20, 2, 6)), jnp.float32)
    exact = gru(params, x, _starts(20, 2))
    rounded = gru(params, x.astype(jnp.bfloat16), _starts(20, 2))
    assert rounded.dtype == jnp.bfloat16
    np.testing.assert_allclose(rounded.astype(jnp.float32), exact, atol=0.05)


def test_every_product_of_bfloat16_takes_operands_in_it():
    """Those of the gradient, too, which automatic differentiation would compute in float32."""

    def loss(params, x, kernel):
        x = x * dot(x.reshape(-1, 6), kernel).reshape(20, 2, 6).astype(x.dtype)
        return gru(params, x, _starts(20, 2)).astype(jnp.float32).sum()

    arguments = (_params(6, 8), jnp.ones((20, 2, 6), jnp.bfloat16), jnp.ones((6, 6), jnp.bfloat16))
    text = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(*arguments).as_text()
    products = re.findall(r"stablehlo\.dot_general .*: (\(.*\) -> .*)", text)
    assert len(products) == 9  # forwards three, of which one in the loop, and two each backwards
    dtypes = [re.findall(r"x(b?f\d+)>", product) for product in products]
    assert dtypes == [["bf16", "bf16", "f32"]] * 9, products
