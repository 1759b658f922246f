"""The benchmark of an evaluation runs, and scores what it says it scores."""

from launch.suites import evaluation


def test_a_small_one(capsys):
    evaluation.measure(200, 2, 2, 20)
    seconds, core_s, peak_mb, num_metrics = map(float, capsys.readouterr().out.split())
    assert min(seconds, core_s, peak_mb) > 0
    predictions, targets, table, members = evaluation.made_up(200, 2, 2)
    assert predictions.distribution.shape == (len(members), 200, 8) == (4, *targets.distribution.shape)
    assert table.num_rows == 200
    assert num_metrics > 2 * 6 * 70
