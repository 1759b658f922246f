"""Parsing, checking and aggregating the ratings of a corpus of the size of MSP-Podcast 2.0.

The label files come from the writer of the tests, `tests.support.msp_podcast_files`.
"""

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

from launch.bench.suite import Part, Row, Session

LAYOUTS = ("columns", "answers")
NUM_UTTERANCES, QUICK_UTTERANCES = 256_000, 2_000
MOST_SECONDS, MOST_MB = 20, 1_500


def parts(session: Session) -> list[Part]:
    """A row for each layout of `labels_detailed`."""
    return [_layout(layout, session) for layout in LAYOUTS]


def _layout(layout: str, session: Session) -> Part:
    name = f"MSP-Podcast in the layout `{layout}`: files to targets"

    def rows() -> Iterator[Row]:
        with tempfile.TemporaryDirectory() as folder:
            number = QUICK_UTTERANCES if session.is_quick else NUM_UTTERANCES
            # Written by another process than the one that reads: the writer's memory must not count.
            session.in_own_process("corpora.write", folder, number, layout)
            num_ratings, parse_s, check_s, targets_s, peak_mb = session.in_own_process("corpora.measure", folder)
        whole_s = parse_s + check_s + targets_s
        figures = {"ratings": num_ratings, "parse s": parse_s, "check s": check_s, "aggregate s": targets_s}
        figures |= {"whole s": whole_s, "peak MB": peak_mb}
        is_kept = whole_s < MOST_SECONDS and peak_mb < MOST_MB
        note = f"limits {MOST_SECONDS} s and {MOST_MB:,} MB: {'kept' if is_kept else 'BROKEN'}"
        yield Row(name, figures, note=note)

    return Part((name,), rows)


def write(folder: str, num_utterances: int, layout: str) -> list[float]:
    """Writes the label files; returns how many ratings they hold."""
    from tests.support.msp_podcast_files import write_msp_podcast

    return [write_msp_podcast(Path(folder), num_utterances, layout, 0)]


def measure(folder: str) -> list[float]:
    """Reads the label files; returns ratings, seconds of each step, and peak MB."""
    import resource
    import time

    from seremo_jax.core.schema import RATING_SCHEMA, UTTERANCE_SCHEMA
    from seremo_jax.data import corpora, policies, targets
    from seremo_jax.data.tables import require_schema, tables_fingerprint

    times = [time.perf_counter()]
    utterances, ratings = corpora.parse("msp_podcast", folder, is_quiet=True)
    times.append(time.perf_counter())
    require_schema(utterances, UTTERANCE_SCHEMA, "utterances")
    require_schema(ratings, RATING_SCHEMA, "ratings")
    tables_fingerprint(utterances, ratings)
    times.append(time.perf_counter())
    targets.build(utterances, ratings, policies.TargetPolicies("msp8"))
    times.append(time.perf_counter())
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return [ratings.num_rows, *(after - before for before, after in itertools.pairwise(times)), peak_mb]
