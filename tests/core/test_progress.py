"""progress: sparse lines where nobody watches, a bar on a terminal, nothing when quiet."""

import io

import pytest
from jax import monitoring

from seremo_jax.core import compiling, progress
from seremo_jax.core.progress import Progress, track


class Clock:
    """A `time.monotonic` that moves only when told to."""

    def __init__(self):
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    result = Clock()
    monkeypatch.setattr(progress, "time", result)
    monkeypatch.setattr(compiling, "time", result)
    return result


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_lines_come_every_15_seconds_with_rate_and_time_left(clock: Clock, capsys: pytest.CaptureFixture):
    with Progress(100, "extract", "utterances") as bar:
        for _ in range(40):
            clock.now_s += 0.5
            bar.update()
        said = capsys.readouterr().err
    assert said == "extract: 30/100 utterances, 2 utterances/s, 35 s left\n"
    assert capsys.readouterr().err == "extract: 40/100 utterances, 2 utterances/s, 30 s left\n"


def test_resumed_work_counts_as_done_but_not_as_speed(clock: Clock, capsys: pytest.CaptureFixture):
    with Progress(100, "extract", "utterances", done=80) as bar:
        clock.now_s += 20
        bar.update(10, note="bad audio 2")
    line = "extract: 90/100 utterances, 0.5 utterances/s, 20 s left, bad audio 2\n"
    assert capsys.readouterr().err == line, "said after 15 s, and not again at the end"


def compiled(seconds: float, clock: Clock) -> None:
    """JAX compiles for so long."""
    clock.now_s += seconds
    monitoring.record_event_duration_secs("/jax/core/compile/backend_compile_duration", seconds)


def test_time_left_leaves_out_what_was_compiled(clock: Clock, capsys: pytest.CaptureFixture):
    with Progress(100, "train", "epochs") as bar:
        compiled(40.0, clock)
        bar.update(0, note="batch 1/2")
        assert capsys.readouterr().err == "train: 0/100 epochs, 0 epochs/s, time left unknown, batch 1/2\n"
        clock.now_s += 4
        bar.update(note="UAR 0.5")
        compiled(8.0, clock)
        clock.now_s += 4
        bar.update()
    assert capsys.readouterr().err == "train: 2/100 epochs, 0.25 epochs/s, 392 s left, UAR 0.5\n"


def test_the_bar_leaves_it_out_too(clock: Clock, monkeypatch: pytest.MonkeyPatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with Progress(100, "train", "epochs") as bar:
        compiled(40.0, clock)
        bar.update(0, note="batch 1/2")
        assert "<?" in terminal.getvalue().rsplit("\r", 1)[1]
        clock.now_s += 4
        bar.update(note="UAR 0.5")
    assert "<06:36" in terminal.getvalue().rsplit("\r", 1)[1]


def test_the_last_note_stays(clock: Clock, capsys: pytest.CaptureFixture):
    with Progress(3, "train", "epochs") as bar:
        bar.update(note="UAR 0.5")
        clock.now_s += 1
        bar.update()
    assert capsys.readouterr().err == "train: 2/3 epochs, 2 epochs/s, 0 s left, UAR 0.5\n"


def test_nothing_done_says_nothing(clock: Clock, capsys: pytest.CaptureFixture):
    with Progress(100, "extract", "utterances", done=100):
        clock.now_s += 60
    assert capsys.readouterr().err == ""


def test_the_line_says_how_far_it_came_before_an_error(clock: Clock, capsys: pytest.CaptureFixture):
    def work() -> None:
        with Progress(10, "ingest", "utterances") as bar:
            bar.update(4)
            clock.now_s += 2
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert "ingest: 4/10 utterances" in capsys.readouterr().err


def test_quiet_is_quiet(clock: Clock, capsys: pytest.CaptureFixture):
    with Progress(2, "train", "epochs", is_quiet=True) as bar:
        clock.now_s += 60
        bar.update(2, note="x")
    assert list(track("ab", 2, "train", "epochs", is_quiet=True)) == ["a", "b"]
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with Progress(4, "extract", "utterances", done=1) as bar:
        bar.update(3, note="bad audio 1")
    last = terminal.getvalue().rstrip("\n").rsplit("\r", 1)[1]
    assert last.startswith("extract: 100%")
    assert "4/4" in last
    assert "utterances/s" in last
    assert last.rstrip("] ").endswith("bad audio 1")


def test_track_yields_all_and_counts(clock: Clock, capsys: pytest.CaptureFixture):
    def items():
        for item in range(5):
            clock.now_s += 1
            yield item

    assert list(track(items(), 5, "ingest", "utterances")) == [0, 1, 2, 3, 4]
    assert capsys.readouterr().err == "ingest: 5/5 utterances, 1 utterances/s, 0 s left\n"
