"""The log: resumed runs drop what they will repeat, NaN becomes null, TensorBoard has the same numbers."""

import json

from seremo_jax.training.log import Writer, read_log


def test_resumed_log_drops_later_and_half_written_lines(tmp_path):
    first = Writer(tmp_path, 0, ["a", "b"])
    for epoch in (1, 2, 3):
        first.write(epoch, {"loss": [0.5, float("nan")], "speed": 3.0})
    first.close()
    log = tmp_path / "log.jsonl"
    log.write_text(log.read_text() + '{"epoch": 4, "lo')
    again = Writer(tmp_path, 2, ["a", "b"])
    again.write(3, {"loss": [0.1, 0.2]})
    again.close()
    lines = read_log(log)
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert lines[0]["loss"] == [0.5, None]
    assert lines[2]["loss"] == [0.1, 0.2]
    assert "NaN" not in log.read_text()


def test_tensorboard_gets_a_curve_a_member(tmp_path):
    writer = Writer(tmp_path, 0, ["left", "right"])
    writer.write(1, {"loss": [0.5, 0.25], "speed": 3.0})
    writer.close()
    events = b"".join(path.read_bytes() for path in (tmp_path / "tensorboard").iterdir())
    for tag in (b"loss/left", b"loss/right", b"speed"):
        assert tag in events
    assert json.loads((tmp_path / "log.jsonl").read_text())["speed"] == 3.0
