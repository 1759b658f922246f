"""What the compiler says of a training: kept by the program's text, and what is decided by it."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import pytest

from seremo_jax.core.config import ConfigError
from seremo_jax.training import fitting, lowering, memory
from seremo_jax.training.fitting import Judge
from seremo_jax.training.memory import Memory, Records
from tests.support import toy_training as toy


@pytest.fixture
def compilations(monkeypatch):
    """Programs that were compiled."""
    seen, compiled = [], memory.compiled
    monkeypatch.setattr(memory, "compiled", lambda lowered: seen.append(lowered) or compiled(lowered))
    return seen


def _program(size):
    return jax.jit(lambda x: jnp.sin(x) @ x).lower(jax.ShapeDtypeStruct((size, size), jnp.float32))


def test_a_program_is_compiled_once_and_its_figures_are_those_of_its_arrays(tmp_path, compilations):
    device = jax.devices()[0]
    first = Records(tmp_path)(_program(50), device)
    assert (first.argument_bytes, first.output_bytes, first.refusal) == (10_000, 10_000, "")
    assert first.num_bytes >= 20_000
    again = Records(tmp_path)
    assert again(_program(50), device) == first
    assert len(compilations) == 1
    assert again(_program(60), device).argument_bytes == 14_400
    assert len(compilations) == 2


def test_another_device_version_or_flag_is_another_program(monkeypatch):
    key, program, device = Records.key_of, _program(50), jax.devices()[0]
    other = dataclasses.make_dataclass("Device", ["device_kind"])("NVIDIA H100 80GB HBM3")
    keys = {key(program, device), key(_program(51), device), key(program, other)}
    with monkeypatch.context() as patch:
        patch.setattr(jax, "__version__", "0.0.1")
        keys.add(key(program, device))
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_enable_command_buffer=")
    keys.add(key(program, device))
    assert len(keys) == 5


def _flip(text):
    return text.replace('"argument_bytes": 1', '"argument_bytes": 9')


def _other_format(text):
    return json.dumps(json.loads(text) | {"format": 99, "content_fingerprint": None})


def _no_programs(text):
    return json.dumps({"format": 1, "programs": {"key": {"argument_bytes": 1, "words": 2}}})


@pytest.mark.parametrize("damage", [_flip, _other_format, _no_programs, lambda text: text[:-20], lambda text: "[1]"])
def test_a_damaged_or_foreign_file_is_not_used(tmp_path, compilations, damage):
    device, path = jax.devices()[0], tmp_path / memory.FILE
    first = Records(tmp_path)(_program(50), device)
    path.write_text(damage(path.read_text()))
    assert Records(tmp_path)(_program(50), device) == first
    assert len(compilations) == 2
    assert Records(tmp_path)(_program(50), device) == first
    assert len(compilations) == 2


def test_only_want_of_memory_is_a_refusal():
    class Lowered:
        def __init__(self, words):
            self.words = words

        def compile(self):
            raise RuntimeError(self.words)

    executable, takes = memory.compiled(Lowered("RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm.\nUsed 20G"))
    assert executable is None
    assert takes == Memory(refusal="RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 20G")
    with pytest.raises(RuntimeError, match="UNIMPLEMENTED"):
        memory.compiled(Lowered("UNIMPLEMENTED: no such operation"))


@pytest.fixture(scope="module")
def judged():
    """A toy training, its records, and what it takes with frames in device memory and without."""
    config = toy.config(train={"device_cache": "auto", "member_map": "vmap"}, model={"gru_layers": 1})
    loop = toy.loop(
        dataclasses.replace(config, train=dataclasses.replace(config.train, device_cache="off")), toy.mesh(1)
    )
    data, records = dataclasses.replace(loop._data, config=config), Records()
    judge = Judge(records, 1e12, jax.devices()[0])
    with_frames, without = (
        judge.needed(lowering.training_on(data, loop.members, toy.mesh(1), "cpu", is_cached))
        for is_cached in (True, False)
    )
    return data, loop.members, judge, with_frames, without


def test_a_training_takes_its_step_and_the_batches_that_wait(judged):
    data, members, _, _, without = judged
    training = lowering.training_on(data, members, toy.mesh(1), "cpu", False)
    step = memory.compiled(training.lower()["train"]())[1]
    held = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tuple(training.train)))
    # The compiler drops arguments that the step does not read.
    assert 0.9 * held < step.argument_bytes <= held
    assert step.num_bytes + 2 * training.batch_bytes <= without.num_bytes < 2 * step.num_bytes


def test_frames_live_in_device_memory_where_the_compiler_says_that_they_fit(judged):
    data, members, judge, with_frames, without = judged
    cache = lowering.training_on(data, members, toy.mesh(1), "cpu", True).cache
    assert with_frames.argument_bytes - without.argument_bytes > 0.5 * cache.num_bytes(2)
    needed = with_frames.num_bytes
    answers = [
        fitting.keeps_frames(data, members, toy.mesh(1), "cpu", dataclasses.replace(judge, **changes))
        for changes in (
            {"room_bytes": float(needed)},
            {"room_bytes": needed - 1.0},
            {"host_bytes": 1.0},
            {"room_bytes": 1.0},
        )
    ]
    assert answers == [True, False, False, False]
    for wanted in ("on", "off"):
        config = dataclasses.replace(data.config, train=dataclasses.replace(data.config.train, device_cache=wanted))
        fixed = dataclasses.replace(data, config=config)
        assert fitting.keeps_frames(fixed, members, toy.mesh(1), "cpu", judge) == (wanted == "on")


def test_a_training_that_does_not_fit_is_refused_before_it_begins(judged):
    data, members, judge, _, without = judged
    fitting.require_room(data, members, toy.mesh(1), "cpu", judge, False)
    small = dataclasses.replace(judge, room_bytes=without.num_bytes - 1.0)
    with pytest.raises(
        ConfigError, match=r"8 members a device do not fit: cpu has .* Raise train\.micro_batches"
    ) as raised:
        fitting.require_room(data, members, toy.mesh(1), "cpu", small, False)
    assert "by the compiler's count" in str(raised.value)


def test_processors_are_not_judged(tmp_path):
    assert fitting.judge_here(tmp_path) is None
    assert not list(tmp_path.iterdir())
