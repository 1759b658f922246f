"""The walk-through, run from top to bottom as a script on the simulated corpus."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from seremo_jax.evaluation import records as result_records

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "launch" / "walkthrough.py"


def test_it_runs_from_top_to_bottom(tmp_path):
    command = [sys.executable, str(SCRIPT), "--small", f"--workdir={tmp_path}"]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    records = [record for record in result_records.read(tmp_path / "results.jsonl") if record.group == "all"]
    for record in records:
        assert f"{record.system}: UAR {record.metrics['UAR']['value']:.3f}" in done.stdout
    worst = min(records[0].speakers, key=lambda speaker: speaker["uar"][0])
    assert re.search(rf"{worst['speaker']}\s+UAR {worst['uar'][0]:.2f}", done.stdout)
    assert "2-best: (" in done.stdout


def test_it_opens_as_a_notebook():
    cells = re.split(r"^# %%", SCRIPT.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    words = [cell for cell in cells if cell.startswith(" [markdown]")]
    assert len(cells) - len(words) >= 9
    # A Markdown cell holds comments alone, but for the docstring below the first.
    for cell in words[1:]:
        assert all(line.startswith("#") or not line for line in cell.splitlines()[1:])
