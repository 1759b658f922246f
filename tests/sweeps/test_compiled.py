"""What the compilers of a TPU slice and of an H100 say of small programs: collectives, memory, kernels a frame.

The recorded figures are those of the versions in constraints-3.12.txt. Explain a change that makes one worse, and
record one that makes it better.
"""

import dataclasses
import os
import sys

import pytest

from seremo_jax.core.config import from_config_dict
from seremo_jax.sweeps import compiled_report, targets
from tests.conftest import is_ci
from tests.support.small_models import GOLDEN

pytestmark = pytest.mark.stack

SLICE, GPU = "v5e:2x4", "h100"
MEMBERS, DATA_AXIS = "members", "data axis"
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
    """A job: programs with members over all devices, and on the slice a step with a data axis in bfloat16, too."""
    rows = {(target.name, row.program, MEMBERS): row for row in _rows(work, target, devices, judge, names)}
    if target.name == SLICE:
        config = from_config_dict(CONFIG | {
            "train": CONFIG["train"] | {"data_shards": 2}, "model": CONFIG["model"] | {"dtype": "bfloat16"}
        })  # fmt: skip
        shared = dataclasses.replace(work, config=config)
        (rows[SLICE, "train", DATA_AXIS],) = _rows(shared, target, devices, judge, ("train",))
    return rows


def _rows(*arguments):
    from seremo_jax.sweeps import compile_all

    return compile_all.compile_together(*arguments)


@pytest.fixture(scope="module")
def compiled():
    """(target, program, arrangement) -> what the compiler says."""
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
    return {
        key: row for part in compile_all.run(source, tasks, _compile, lambda part: None) for key, row in part.items()
    }


def test_members_need_no_collective(compiled):
    row = compiled[SLICE, "train", MEMBERS]
    assert row.details["mesh"] == {"member": 8, "data": 1}
    assert row.collectives == {}


def test_a_data_axis_needs_two_all_reduces(compiled):
    row = compiled[SLICE, "train", DATA_AXIS]
    assert row.details["mesh"] == {"member": 4, "data": 2}
    assert set(row.collectives) == {"all-reduce"}
    assert row.collectives["all-reduce"][0] == 2


def test_products_in_bfloat16_have_an_operand_in_it(compiled):
    """The compiler may have a product read one operand in float32 and round it on the way, but not both."""
    products = compiled[SLICE, "train", DATA_AXIS].products
    assert products["bf16 x bf16 -> f32"] > 0
    assert not [name for name in products if name.startswith("f32 x f32")], products


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
