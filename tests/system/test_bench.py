"""The benchmark: every suite runs and has its rows; PyTorch's peer does the same work as ours."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from launch.bench import engine, suite, timing

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[2]
ROWS = {
    "train": (
        *("peak", "B = 32", "share of peak", "12 members", "25 members", "in sequence"),
        *("epoch", "every_speaker", "GPU"),
    ),
    "saliency": ("corrcoef", "one-pass", "bandwidth", "float64", "GPU"),
    "loader": ("page cache", "consumes", "resident memory"),
}


def test_suites_write_their_rows(tmp_path):
    """Three suites in one run; `.ci/run` runs the others."""
    suites = ",".join(ROWS)
    command = [
        sys.executable,
        "-m",
        "launch.bench",
        f"--suite={suites}",
        "--quick",
        "--rounds=1",
        f"--out={tmp_path}/b",
    ]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "b.json").read_text())
    markdown = (tmp_path / "b.md").read_text()
    assert content["machine"]["versions"]["jax"] != "absent"
    assert list(content["suites"]) == list(ROWS)
    for name, rows in content["suites"].items():
        names = " | ".join(row["name"] for row in rows)
        without_torch = content["machine"]["versions"]["torch"] == "absent" and name == "train"
        assert without_torch or all(part in names for part in ROWS[name])
        for row in rows:
            assert row["name"] in markdown
            assert row["figures"] or "not measured" in row["note"]
            assert all(np.isfinite(value) for value in row["figures"].values())


def test_the_peer_in_pytorch_trains_the_same_head():
    """Same parameters, same batches: the same losses, with either convolution and packed sequences or padded rows."""
    pytest.importorskip("torch", reason="the peer is in PyTorch")
    from launch.bench import torch_heads

    sizes, lengths = {"gru_units": 6, "embedding_size": 5}, np.array([9, 14, 11, 14, 5, 8])
    frames, targets = engine.Frames(lengths, 4), engine.random_targets(len(lengths))
    plan, shape = engine.padded_plan(lengths, 3)
    batches = [engine.source(frames, (0,), targets, plan, shape)[number] for number in range(2)]
    ours, peers = engine.Trainer(1, 4, sizes=sizes), []
    for form in torch_heads.CONVOLUTIONS:
        for is_packed in (False, True):
            peers.append(torch_heads.Trainer(1, 4, sizes, form, is_packed))
            peers[-1].heads[0].load(ours.params)
    for batch in batches * 2:
        expected, rows = ours.step(ours.place(batch)), [torch_heads.Rows.of(batch)]
        for peer in peers:
            np.testing.assert_allclose(peer.step(rows), expected, rtol=2e-5)


def test_operations_are_those_of_the_products():
    # One frame: 2 x 3H operations for each of the inputs of the two layers and their two states, forward and for the
    # weights; the features alone need no gradient.
    assert _flops(1, 10, 4) == 24 * (2 * (20 + 12) + (10 + 12))
    assert _flops(7, 10, 4) == 7 * _flops(1, 10, 4)


def _flops(*sizes):
    from launch.bench import train

    return train.step_flops(*sizes)


def test_a_round_that_others_disturb_is_run_again(monkeypatch):
    used = iter([0.0, 99.0, 99.0, 99.0])  # core seconds of others before and after each of two tries
    monkeypatch.setattr(timing, "_foreign_s", lambda pids: next(used))
    calls = []
    timed = timing.interleave({"case": lambda: calls.append(0)}, rounds=1)
    assert (timed.num_disturbed, timed.is_disturbed, len(calls)) == (1, False, 3)
    assert timed.note == "1 disturbed rounds repeated"


def test_rounds_that_stay_disturbed_are_marked(monkeypatch):
    used = iter(np.arange(100.0))
    monkeypatch.setattr(timing, "_foreign_s", lambda pids: float(next(used)))
    timed = timing.interleave({"case": lambda: None}, rounds=1)
    assert timed.is_disturbed
    assert timed.note.startswith("disturbed")


def test_lengths_are_those_of_the_corpus():
    seconds = engine.podcast_lengths(20_000) / engine.FRAME_RATE_HZ
    assert abs(seconds.mean() - 5.7) < 0.1
    assert seconds.min() >= 1.88
    assert seconds.max() <= 11.9


def test_large_pages_are_asked_for_once(monkeypatch):
    from launch import pages

    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.arena_max=2")
    is_linux = sys.platform == "linux"
    assert pages.ask() is is_linux
    assert not pages.ask()
    assert not is_linux or os.environ["GLIBC_TUNABLES"] == "glibc.malloc.arena_max=2:glibc.malloc.hugetlb=1"


def test_rows_stay_plain():
    row = suite.Row("what", {"s": 1.0}, 2.0, 1.1, "note")
    text = suite.to_markdown({"processor": "p", "cores": 1, "devices": [], "python": "3", "versions": {}}, {"t": [row]})
    assert "| what | s 1 | 2.00 | >= 1.1 | note |" in text
    assert json.loads(json.dumps(dataclasses.asdict(row)))["ratio"] == 2.0
