"""The whole evaluation of a test set, predictions given: every metric, group, interval and test between systems."""

import dataclasses
import subprocess
import sys
import types
from typing import Any

from launch.bench.timing import Options, Row

MOST_SECONDS, MOST_BOOTSTRAP_SECONDS, MOST_MB = 60, 20, 3_000
NUM_RESAMPLES = (1_000, 10_000)


def run(options: Options) -> list[Row]:
    """A row a number of members a system, and of resamples: 30,000 utterances of 1,200 speakers, 8 classes."""
    number = 1_000 if options.is_quick else 30_000
    rows = []
    for num_systems, num_seeds in ((1, 25), (5, 5)):
        for num_resamples in NUM_RESAMPLES[:1] if options.is_quick else NUM_RESAMPLES:
            # In a process of its own, so that its memory is its own, compilation and imports included.
            code = "import sys; from launch.bench import evaluation; evaluation.measure(*map(int, sys.argv[1:]))"
            sizes = map(str, (number, num_systems, num_seeds, num_resamples))
            command = [sys.executable, "-c", code, *sizes]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            seconds, core_s, bootstrap_s, tests_s, peak_mb, num_metrics = map(float, done.stdout.split()[-6:])
            is_kept = seconds < MOST_SECONDS and bootstrap_s < MOST_BOOTSTRAP_SECONDS and peak_mb < MOST_MB
            rows.append(Row(
                f"scores of {number:,} utterances, {num_systems} x {num_seeds} members, {num_resamples:,} resamples",
                {"whole s": seconds, "core s": core_s, "bootstrap s": bootstrap_s, "tests s": tests_s,
                 "peak MB": peak_mb, "metrics": num_metrics},
                note=f"limits {MOST_SECONDS} s, {MOST_BOOTSTRAP_SECONDS} s of it resampling, and {MOST_MB:,} MB: "
                f"{'kept' if is_kept else 'BROKEN'}",
            ))  # fmt: skip
    return rows


def measure(number: int, num_systems: int, num_seeds: int, num_resamples: int) -> None:
    """Scores made-up predictions.

    Prints seconds, seconds of all cores, seconds of them in the bootstrap and in the tests between systems, peak MB,
    and the metrics of its records.
    """
    import resource
    import time

    import jax

    from seremo_jax.core import members as ensemble
    from seremo_jax.core.config_fields import EvalConfig
    from seremo_jax.evaluation import scoring
    from seremo_jax.evaluation.alignment import align
    from seremo_jax.evaluation.states import member_states
    from seremo_jax.metrics import resampling, significance

    parts = {"bootstrap_groups": 0.0, "permutation_p": 0.0}

    def timed(module: types.ModuleType, name: str) -> None:
        whole = getattr(module, name)

        def measured(*args: Any, **options: Any) -> Any:
            begin = time.perf_counter()
            found = whole(*args, **options)
            parts[name] += time.perf_counter() - begin
            return found

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
    print(seconds, core_s, *parts.values(), peak_mb, sum(len(record.metrics) for record in records))


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
