"""The compiler's count of a program with loops, against what the program was written to do."""

import importlib.util

import jax
import jax.numpy as jnp
import pytest

from seremo_jax.sweeps import counted, hlo_text

pytestmark = [
    pytest.mark.stack,
    pytest.mark.skipif(
        importlib.util.find_spec("jaxlib._hlo") is None, reason="this jaxlib cannot read its own programs"
    ),
]
WIDTH, ROWS = 64, 32


def _flops(function, *shapes):
    text = jax.jit(function).lower(*(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)).compile().as_text()
    return counted.flops(text, hlo_text.read(text).loops)


def _steps(weights, frames):
    def step(state, frame):
        state = state @ weights + frame
        return state, state

    return jax.lax.scan(step, jnp.zeros((ROWS, WIDTH)), frames)[1]


@pytest.mark.parametrize("num_frames", [20, 200])
def test_a_loop_counts_with_its_trips(num_frames):
    flops = _flops(_steps, (WIDTH, WIDTH), (num_frames, ROWS, WIDTH))
    products = 2 * ROWS * WIDTH * WIDTH * num_frames
    assert products <= flops <= 1.1 * products


def test_loops_inside_loops_multiply():
    def outer(weights, batches):
        return jax.lax.map(lambda frames: _steps(weights, frames), batches)

    flops = _flops(outer, (WIDTH, WIDTH), (5, 20, ROWS, WIDTH))
    products = 2 * ROWS * WIDTH * WIDTH * 20 * 5
    assert products <= flops <= 1.1 * products


def test_a_program_without_loops_is_what_xla_counts():
    shapes = [jax.ShapeDtypeStruct((WIDTH, WIDTH), jnp.float32)] * 2
    compiled = jax.jit(lambda a, b: jnp.tanh(a @ b)).lower(*shapes).compile()
    assert counted.flops(compiled.as_text(), ()) == compiled.cost_analysis()["flops"]
