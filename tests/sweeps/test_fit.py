"""The search for the largest size that fits, and what a sweep makes of it."""

import os

import jax
import pytest

from seremo_jax.core.config import from_config_dict
from seremo_jax.sweeps import cost, fit, workload
from seremo_jax.training import fitting
from seremo_jax.training.fitting import Judge
from seremo_jax.training.memory import Memory, Records
from tests.support.small_models import GOLDEN
from tests.support.uncompiled import Uncompiled

ROOM = 1e5


def _judge(room):
    return Judge(Records(), room, None)


@pytest.mark.parametrize("has_figures", [True, False])
@pytest.mark.parametrize("guess", [1, 8, 4_096])
@pytest.mark.parametrize("limit", [0, 1, 7, 8, 9, 250, 3_000])
def test_the_search_ends_at_the_limit(limit, guess, has_figures):
    """Also where a compiler refuses without a figure, and where what a size takes is no straight line."""
    asked = []

    def needed(n):
        asked.append(n)
        if n > limit and not has_figures:
            return Memory(refusal="RESOURCE_EXHAUSTED")
        return Memory(int(ROOM * ((n + 0.5) / (limit + 1)) ** 1.2))

    low, high = fit.largest_that_fits(needed, _judge(ROOM), guess)
    assert low <= limit < high
    assert high - low <= max(1, 0.1 * low)
    assert len(set(asked)) == len(asked) <= 16


def test_a_straight_line_takes_few_compilations():
    asked = []
    low, high = fit.largest_that_fits(lambda n: asked.append(n) or Memory(7_000 + 40 * n), _judge(ROOM), 8)
    assert low <= (ROOM - 7_000) // 40 < high
    assert len(asked) <= 5


def test_what_always_fits_ends():
    assert fit.largest_that_fits(lambda n: Memory(n), _judge(1e12), 8) == (fit.MOST, 0)
    assert fit.largest_that_fits(lambda n: Memory(n), _judge(1e12), 8, most=30) == (30, 0)


@pytest.fixture(scope="module")
def work():
    """40 members, one after another on one device."""
    config = from_config_dict(
        {
            "backbone": {"name": os.fspath(GOLDEN / "wav2vec2-base")},
            "model": {"gru_units": 6, "gru_layers": 1, "embedding_size": 5, "layer": 1},
            "extract": {"layers": "all"},
            "train": {"batch_size": 8, "member_map": "vmap"},
            "ensemble": {"seeds": tuple(range(40))},
        }
    )
    return workload.drawn(config, 60, 0.04, 0.02, 0.06)


def test_the_compiler_decides_how_many_members_train_at_once(work, tmp_path, monkeypatch):
    records, device = Uncompiled(), jax.devices()[0]
    needs = {n: fit.members_need(work, "cpu", [device], Judge(records, 1e12, device), n).num_bytes for n in (20, 40)}
    monkeypatch.setattr(jax, "devices", lambda: [device])
    monkeypatch.setattr(cost, "_workload", lambda config, workdir: work)
    counts = {}
    for name, room in {"all": float(needs[40]), "half": needs[20] + 1.0, "none": 1.0}.items():
        judge = Judge(records, room, device)
        monkeypatch.setattr(fitting, "judge_here", lambda folder, judge=judge: judge)
        counts[name] = cost.most_members(work.config, tmp_path)
    assert counts["all"] == 40
    assert 18 <= counts["half"] <= 20
    assert counts["none"] == 1


def test_tables_are_made_before_the_compiler_is_asked(work, tmp_path, monkeypatch):
    device, made = jax.devices()[0], []
    monkeypatch.setattr(fitting, "judge_here", lambda folder: Judge(Records(), 1e12, device))
    monkeypatch.setattr(cost, "_estimated_members", lambda config: 17)
    assert cost.most_members(work.config, tmp_path, lambda: made.append(1)) == 17  # it made none
    assert cost.most_members(work.config, tmp_path) == 17
    assert made == [1]
