"""Parsing, checking and aggregating the ratings of a corpus of the size of MSP-Podcast 2.0."""

import itertools
import subprocess
import sys
import tempfile
from pathlib import Path

from launch.bench.timing import Options, Row

LAYOUTS = ("columns", "answers")
MOST_SECONDS, MOST_MB = 20, 1_500


def run(options: Options) -> list[Row]:
    """A row a layout of `labels_detailed`."""
    rows = []
    for layout in LAYOUTS:
        with tempfile.TemporaryDirectory() as folder:
            number = 2_000 if options.is_quick else 256_000
            # In a process of its own, so that its memory is its own.
            code = "import sys; from launch.bench import corpora; corpora.measure(*sys.argv[1:])"
            command = [sys.executable, "-c", code, folder, layout, str(number)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
        num_ratings, parse_s, check_s, targets_s, peak_mb = map(float, done.stdout.split()[-5:])
        whole_s = parse_s + check_s + targets_s
        figures = {"ratings": num_ratings, "parse s": parse_s, "check s": check_s, "aggregate s": targets_s}
        figures |= {"whole s": whole_s, "peak MB": peak_mb}
        note = f"limits {MOST_SECONDS} s and {MOST_MB:,} MB: " + (
            "kept" if whole_s < MOST_SECONDS and peak_mb < MOST_MB else "BROKEN"
        )
        rows.append(Row(f"MSP-Podcast in the layout `{layout}`: files to targets", figures, note=note))
    return rows


def measure(folder: str, layout: str, number: str) -> None:
    """Writes the files, reads them; prints ratings, seconds of each step, and peak MB of the reading."""
    import multiprocessing
    import resource
    import time

    # The generator's memory must not count.
    writer = multiprocessing.get_context("spawn").Process(target=_write, args=(folder, int(number), layout))
    writer.start()
    writer.join()

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
    print(ratings.num_rows, *(b - a for a, b in itertools.pairwise(times)), peak_mb)


def _write(folder: str, number: int, layout: str) -> None:
    from tests.support.msp_podcast_files import write_msp_podcast

    write_msp_podcast(Path(folder), number, layout, 0)
