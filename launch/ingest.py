"""Reads a corpus: tables with splits, every exclusion counted (utterances.parquet, ratings.parquet, ingest.json)."""

import sys

from absl import flags

from launch import cli
from seremo_jax.data import explain, ingest, screening
from seremo_jax.data.corpora import tabular
from seremo_jax.reports import validation

__doc__ = f"{__doc__}\n\n{tabular.__doc__}"

_EXPLAIN = flags.DEFINE_bool("explain", False, "prints what each label policy does to the counts, and its alternatives")


def main(config, workdir):
    """Writes the tables, then the page of what the checks found; explains the policies where asked to."""
    try:
        ingest.run(config, workdir)
    except screening.LabelsAloneError as alone:
        if not _EXPLAIN.value:
            raise
        print(explain.to_text(explain.explain(config, alone.utterances, alone.ratings)))
        print("labels alone, no audio: no table was written", file=sys.stderr)
        return
    validation.write_page(workdir)
    if _EXPLAIN.value:
        print(explain.run(config, workdir))


if __name__ == "__main__":
    cli.run(main)
