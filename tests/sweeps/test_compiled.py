"""What the compilers of a TPU slice and of an H100 say of small programs: collectives, memory, kernels a frame.

The recorded figures are those of the versions in constraints-3.12.txt. Explain a change that makes one worse, and
record one that makes it better.
"""

import dataclasses
import functools
import os
import re
import sys

import pytest

from seremo_jax.core.config import from_config_dict
from seremo_jax.sweeps import compiled_report, targets
from tests.conftest import is_ci
from tests.support.small_models import GOLDEN

pytestmark = pytest.mark.stack

SLICE, GPU = "v5e:2x4", "h100"
MEMBERS, DATA_AXIS, FLOAT32, SCAN, REFUSED = "members", "data axis", "products in float32", "a scan's bytes", "sizes"
TOO_MANY = 1 << 20
RECORDED_MB = {(SLICE, "train", MEMBERS): 2.59, (SLICE, "extract", MEMBERS): 1.17, (GPU, "train", MEMBERS): 5.01}
RECORDED_KERNELS_A_FRAME = (2.5, 2.875)
"""Backward and forward."""
CONFIG = {
    "backbone": {"name": os.fspath(GOLDEN / "wavlm-base")},
    "extract": {"layers": "all", "batch_seconds": 2.0},
    "model": {"layer": 1, "gru_units": 16, "gru_layers": 1, "embedding_size": 8},
    "train": {"batch_size": 8, "device_cache": "on"},
    "ensemble": {"seeds": tuple(range(8))},
}


def _compile(work, target, devices, judge, names):
    """A job: programs with members over all devices, and on the slice a step with a data axis in bfloat16, too.

    Besides, what these programs multiply in float32, and the bytes that a scan moves.
    """
    from seremo_jax.sweeps import fit

    rows = {(target.name, row.program, MEMBERS): row for row in _rows(work, target, devices, judge, names)}
    facts = {(FLOAT32, target.name): _in_float32(judge), (SCAN, target.name): _scan_bytes(target, devices[0])}
    if target.name == SLICE:
        config = from_config_dict(CONFIG | {
            "train": CONFIG["train"] | {"data_shards": 2}, "model": CONFIG["model"] | {"dtype": "bfloat16"}
        })  # fmt: skip
        shared = dataclasses.replace(work, config=config)
        (rows[SLICE, "train", DATA_AXIS],) = _rows(shared, target, devices, judge, ("train",))
        sizes = {n: fit._batch_needs(work, target, devices, judge, n) for n in (4, TOO_MANY)}
        facts[REFUSED, target.name] = {n: (judge.fits(memory), memory) for n, memory in sizes.items()}
    return rows, facts


def _in_float32(judge):
    """Names of the operations of all programs whose products have no operand in bfloat16."""
    from seremo_jax.sweeps import hlo, hlo_products

    names = set()
    for executable, _, _ in judge.records._executables.values():
        for inside in hlo.computations_of(executable.as_text())[0].values():
            for instruction in filter(hlo_products.is_product, inside.values()):
                if "bf16" not in {hlo.arrays(inside[name].type)[0].dtype for name in instruction.operands[:2]}:
                    names.add(re.search(r'op_name="[^"/]*/([^"/]*)', instruction.attributes).group(1))
    return names


def _scan_bytes(target, device):
    """Bytes of a scan over frames as the GRU makes it for the device, by the arrays that it reads and fills."""
    import jax
    import jax.numpy as jnp

    from seremo_jax.sweeps import traffic
    from seremo_jax.training import gru

    def step(state, frame):
        state = jnp.tanh(0.5 * state + frame)
        return state, state

    frames = jax.ShapeDtypeStruct((240, 16, 128), jnp.float32, sharding=jax.sharding.SingleDeviceSharding(device))
    scan = functools.partial(gru._scan, step, jnp.zeros((16, 128)), num_together=8 if target.name == GPU else 1)
    moved = traffic.moved_bytes(jax.jit(scan).lower(frames).compile().as_text())
    return moved / (2 * 4 * 240 * 16 * 128)


def _rows(*arguments):
    from seremo_jax.sweeps import compile_all

    return compile_all.compile_together(*arguments)


@pytest.fixture(scope="module")
def answers():
    """(target, program, arrangement) -> what the compiler says, and other facts."""
    if sys.version_info < (3, 12):
        pytest.skip("the compilers for devices elsewhere (aot-tpu, aot-cuda) need the newest jax, on Python 3.12")
    wanted = {name: targets.parse(name) for name in (SLICE, GPU)}
    try:
        for target in wanted.values():
            targets.require_compiler(target)
    except targets.TargetError as error:
        pytest.fail(str(error)) if is_ci() else pytest.skip(str(error))
    from seremo_jax.sweeps import compile_all

    source = compile_all.Source(from_config_dict(CONFIG), None, 60, 0.04, 0.02, 0.06)
    # One process a compiler.
    tasks = [(wanted[SLICE], ("extract", "train")), (wanted[GPU], ("train",))]
    parts = compile_all.run(source, tasks, _compile, lambda part: None)
    return tuple({key: value for part in parts for key, value in part[place].items()} for place in (0, 1))


@pytest.fixture(scope="module")
def compiled(answers):
    """(target, program, arrangement) -> what the compiler says."""
    return answers[0]


def test_members_need_no_collective(compiled):
    row = compiled[SLICE, "train", MEMBERS]
    assert row.details["mesh"] == {"member": 8, "data": 1}
    assert row.collectives == {}


def test_a_data_axis_needs_two_all_reduces(compiled):
    row = compiled[SLICE, "train", DATA_AXIS]
    assert row.details["mesh"] == {"member": 4, "data": 2}
    assert set(row.collectives) == {"all-reduce"}
    assert row.collectives["all-reduce"][0] == 2


def test_a_training_step_multiplies_in_bfloat16(compiled):
    """The compiler may have a product read one operand in float32 and round it on the way, but not both."""
    row = compiled[SLICE, "train", DATA_AXIS]
    assert row.products["bf16 x bf16 -> f32"][0] > 0
    assert row.bfloat16_share == 1, row.products


def test_an_extraction_multiplies_in_bfloat16_but_for_its_transforms(answers):
    """The positional convolution asks for float32: its Fourier transforms are products on a TPU.

    A product of bfloat16 with a result in it accumulates in float32 all the same (METHOD.md, section 4.6).
    """
    compiled, facts = answers
    row = compiled[SLICE, "extract", MEMBERS]
    assert row.details["dtype"] == "bfloat16"
    assert set(row.products) == {"bf16 x bf16 -> bf16", "bf16 x bf16 -> f32", "f32 x f32 -> f32 (highest)"}
    assert facts[FLOAT32, SLICE] == {"jit(fft)", "nfgi,fgio->nfgo"}
    # The transforms are a quarter of the operations of so small a model.
    assert row.bfloat16_share > 0.7


def test_a_tpu_s_compiler_itself_refuses_what_does_not_fit(answers):
    """As `--fit` asks it, with so many utterances on each device; with fewer it says what they take."""
    (fits, few), (does_not, many) = answers[1][REFUSED, SLICE].values()
    assert fits
    assert 0 < few.num_bytes < 1e7
    assert not does_not
    assert many.num_bytes == 0
    assert many.refusal.startswith("RESOURCE_EXHAUSTED")
    assert re.search(r"requires?d?\b.* \(\d[\d.]*G\) exceeds available HBM \(15\.75G\)", many.refusal)


@pytest.mark.parametrize("target", [SLICE, GPU])
def test_a_scan_moves_what_it_reads_and_fills_and_not_that_for_each_trip(answers, target):
    assert 1 <= answers[1][SCAN, target] <= 4


def test_an_extraction_moves_no_frames(compiled):
    row = compiled[SLICE, "extract", MEMBERS]
    assert row.details["num_devices"] == 8  # of one host, whose devices share a batch
    assert row.collectives == {}


@pytest.mark.parametrize(("key", "megabytes"), RECORDED_MB.items())
def test_memory_is_what_was_recorded(compiled, key, megabytes):
    assert compiled[key].memory.num_bytes / 1e6 == pytest.approx(megabytes, rel=0.1)


def test_kernels_a_frame_are_no_more_than_recorded(compiled):
    row = compiled[GPU, "train", MEMBERS]
    # A trip of a loop on a GPU takes several frames.
    frames = row.details["num_frames"]
    a_frame = sorted(kernels * trips / frames for trips, kernels, _ in row.loops if trips > 1 and not frames % trips)
    assert len(a_frame) == len(RECORDED_KERNELS_A_FRAME)
    assert all(now <= then for now, then in zip(a_frame, RECORDED_KERNELS_A_FRAME, strict=True)), a_frame


def test_a_report_says_what_fits_and_what_binds(compiled):
    about = {"workload": "60 utterances", "backbone": "wavlm-base", "notes": []}
    text = compiled_report.markdown(about, list(compiled.values()))
    assert "Compiled for, not run on." in text
    assert "| yes |" in text
    assert "2 all-reduce" in text
    for row in compiled.values():
        assert row.fits
        assert row.binds in row.seconds
        assert row.flops > 0
    assert len(compiled_report.to_json(about, list(compiled.values()))["programs"]) == len(compiled)
