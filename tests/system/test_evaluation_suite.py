"""The benchmark of an evaluation runs, and scores what it says it scores."""

from launch.bench import evaluation
from seremo_jax.metrics import resampling, significance


def test_a_small_one(monkeypatch):
    for module, name in ((resampling, "bootstrap_groups"), (significance, "permutation_p")):
        monkeypatch.setattr(module, name, getattr(module, name))  # measured in place, and put back
    seconds, core_s, bootstrap_s, tests_s, peak_mb, num_metrics = evaluation.measure(200, 2, 2, 20)
    assert min(core_s, bootstrap_s, tests_s, peak_mb) > 0
    assert bootstrap_s + tests_s < seconds
    predictions, targets, table, members = evaluation.made_up(200, 2, 2)
    assert predictions.distribution.shape == (len(members), 200, 8) == (4, *targets.distribution.shape)
    assert table.num_rows == 200
    assert num_metrics > 2 * 6 * 70
