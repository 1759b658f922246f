"""The whole evaluation of a test set, predictions given: every metric, group, interval and test between systems."""

import dataclasses
import types
from collections.abc import Iterator
from typing import Any

from launch.bench.suite import Part, Row, Session

MOST_SECONDS, MOST_BOOTSTRAP_SECONDS, MOST_MB = 60, 20, 3_000
NUM_RESAMPLES = (1_000, 10_000)
SIZES = ((1, 25), (5, 5))
"""(Systems, members of each): tests between systems need several."""


def parts(session: Session) -> list[Part]:
    """A row for each number of members of a system, and of resamples."""
    if session.is_quick:
        return [_scores(*SIZES[-1], NUM_RESAMPLES[0], session)]
    return [_scores(*sizes, number, session) for sizes in SIZES for number in NUM_RESAMPLES]


def _scores(num_systems: int, num_seeds: int, num_resamples: int, session: Session) -> Part:
    """30,000 utterances of 1,200 speakers, 8 classes."""
    number = 1_000 if session.is_quick else 30_000
    name = f"scores of {number:,} utterances, {num_systems} x {num_seeds} members, {num_resamples:,} resamples"

    def rows() -> Iterator[Row]:
        sizes = (number, num_systems, num_seeds, num_resamples)
        seconds, core_s, bootstrap_s, tests_s, peak_mb, num_metrics = session.in_own_process(
            "evaluation.measure", *sizes
        )
        is_kept = seconds < MOST_SECONDS and bootstrap_s < MOST_BOOTSTRAP_SECONDS and peak_mb < MOST_MB
        figures = {"whole s": seconds, "core s": core_s, "bootstrap s": bootstrap_s, "tests s": tests_s}
        figures |= {"peak MB": peak_mb, "metrics": num_metrics}
        note = f"limits {MOST_SECONDS} s, {MOST_BOOTSTRAP_SECONDS} s of it resampling, and {MOST_MB:,} MB: "
        yield Row(name, figures, note=note + ("kept" if is_kept else "BROKEN"))

    return Part((name,), rows)


def measure(number: int, num_systems: int, num_seeds: int, num_resamples: int) -> list[float]:
    """Scores made-up predictions.

    Returns:
      Seconds, seconds of all cores, seconds of them in the bootstrap and in the tests between systems, peak MB, and the
      metrics of its records.
    """
    import resource
    import time

    import jax

    from seremo_jax.core import ensemble
    from seremo_jax.core.config_fields import EvalConfig
    from seremo_jax.evaluation import scoring
    from seremo_jax.evaluation.alignment import align
    from seremo_jax.evaluation.states import member_states
    from seremo_jax.metrics import resampling, significance

    seconds_in = {"bootstrap_groups": 0.0, "permutation_p": 0.0}

    def timed(module: types.ModuleType, name: str) -> None:
        whole = getattr(module, name)

        def measured(*args: Any, **options: Any) -> Any:
            begin = time.perf_counter()
            result = whole(*args, **options)
            seconds_in[name] += time.perf_counter() - begin
            return result

        setattr(module, name, measured)

    timed(resampling, "bootstrap_groups")
    timed(significance, "permutation_p")
    predictions, targets, table, members = made_up(number, num_systems, num_seeds)
    start, start_cores = time.perf_counter(), time.process_time()
    section = dataclasses.replace(EvalConfig(), num_resamples=num_resamples)
    aligned = align(predictions, targets, table, num_members=len(members), split="test", group_by=section.group_by)
    request = scoring.ScoreRequest(ensemble.systems(members), "test", section, protocol={})
    records = scoring.score(aligned, request, jax.jit(member_states, static_argnames=("num_cells", "nbest")))
    seconds, core_s = time.perf_counter() - start, time.process_time() - start_cores
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return [seconds, core_s, *seconds_in.values(), peak_mb, sum(len(record.metrics) for record in records)]


def made_up(number: int, num_systems: int, num_seeds: int) -> tuple:
    """Predictions, targets, utterance table and members: five raters, 25 utterances a speaker on average."""
    import numpy as np
    import pyarrow as pa

    from seremo_jax.core import vocab
    from seremo_jax.core.schema import Predictions
    from seremo_jax.data.targets import Targets, plurality, vote_distribution

    rng = np.random.default_rng(0)
    classes, num_members = vocab.CLASS_SETS["msp8"], num_systems * num_seeds
    num_speakers = max(2, number // 25)
    ids = [f"u{i:06}" for i in range(number)]
    speaker, gender = rng.integers(0, num_speakers, number), rng.integers(0, 2, num_speakers)
    table = pa.table({
        "id": ids, "corpus": ["made"] * number, "split": ["test"] * number, "speaker": [f"s{s}" for s in speaker],
        "gender": [vocab.GENDERS[gender[s]] for s in speaker],
    })  # fmt: skip
    shares = rng.dirichlet(np.full(len(classes), 0.6), number)
    votes = rng.multinomial(5, shares).astype(np.int32)
    index, consensus, _ = plurality(votes, np.zeros(number, np.int64))
    distribution, has_votes = vote_distribution(votes)
    attributes, is_rated = rng.normal(size=(number, 3)).astype(np.float32), np.ones((number, 3), bool)
    targets = Targets(
        np.asarray(ids, object), votes, distribution, has_votes, index, consensus, consensus.sum(axis=1) > 0,
        attributes, is_rated, 0 * attributes, is_rated, classes, vocab.ATTRIBUTES, {}, {},
    )  # fmt: skip
    predicted = np.stack([
        (0.7 * shares + 0.3 * rng.dirichlet(np.full(len(classes), 0.5), number)).astype(np.float32)
        for _ in range(num_members)
    ])  # fmt: skip
    noisy = attributes + rng.normal(size=(num_members, number, 3)).astype(np.float32)
    members = [
        {"layer": layer, "seed": seed, "class_target": "votes"}
        for layer in range(num_systems)
        for seed in range(num_seeds)
    ]
    return Predictions(ids, noisy, predicted), targets, table, members
