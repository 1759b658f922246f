"""Where wall time goes: every moment in one phase, compilation wherever it happens, lines that sum to 1."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import monitoring

from seremo_jax.core import goodput
from seremo_jax.training.timing import PHASES
from tests.support import toy_training as toy


@pytest.fixture
def clock(monkeypatch):
    """A clock, and time that only moves when it is set."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    clock = goodput.Clock(PHASES)
    clock.advance = lambda seconds: now.__setitem__(0, now[0] + seconds)
    yield clock
    clock.close()


def test_every_moment_has_one_phase(clock):
    clock.advance(1)
    with clock.phase("steps"):
        clock.advance(2)
        with clock.phase("input"):
            clock.advance(4)
        with clock.phase("checkpoint"):
            clock.advance(8)
        clock.advance(16)
    with clock.phase("evaluation"):
        clock.advance(32)
    clock.advance(64)
    expected = {"steps": 18.0, "input": 4.0, "evaluation": 32.0, "checkpoint": 8.0, "compile": 0.0, "rest": 65.0}
    assert list(clock.seconds().items()) == list(expected.items())
    assert goodput.shares(expected)["steps"] == 18 / 127
    assert goodput.sentence(expected).startswith("goodput: steps 14.2 %, input 3.1 %, evaluation 25.2 %, checkpoint")


def test_compilation_is_taken_from_its_phase_and_nested_spans_count_once(clock):
    with clock.phase("steps"):
        clock.advance(10)
        monitoring.record_event_duration_secs("/jax/core/compile/jaxpr_trace_duration", 1.0)
        clock.advance(1)
        monitoring.record_event_duration_secs("/jax/core/compile/jaxpr_trace_duration", 5.0)
        clock.advance(2)
        monitoring.record_event_duration_secs("/jax/core/compile/backend_compile_duration", 2.0)
        monitoring.record_event_duration_secs("/jax/other", 2.0)
        clock.advance(7)
    assert clock.seconds() == dict.fromkeys((*PHASES, "compile", "rest"), 0.0) | {"compile": 7.0, "steps": 13.0}


def test_a_real_compilation_is_seen():
    clock = goodput.Clock(PHASES)
    with clock.phase("steps"):
        jax.jit(lambda x: jnp.sin(x) * np.float32(time.monotonic()))(jnp.ones(3)).block_until_ready()
    seconds = clock.seconds()
    clock.close()
    assert seconds["compile"] > 0
    assert seconds["steps"] >= 0


def test_no_time_at_all_is_rest():
    assert goodput.shares(dict.fromkeys((*PHASES, "compile", "rest"), 0.0))["rest"] == 1


def test_a_loop_tells_steps_input_and_evaluation_apart():
    config = toy.config()
    loop, _ = toy.run(config, toy.mesh(1), num_epochs=2)
    seconds = loop.clock.seconds()
    assert all(seconds[name] > 0 for name in ("steps", "input", "evaluation", "compile"))
    assert sum(goodput.entries(seconds)[f"goodput_{name}"] for name in seconds) == pytest.approx(1)
