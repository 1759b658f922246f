"""Reads a corpus: tables with splits, every exclusion counted (utterances.parquet, ratings.parquet, ingest.json)."""

from absl import flags

from launch import cli
from seremo_jax.data import explain, ingest
from seremo_jax.reports import validation

_EXPLAIN = flags.DEFINE_bool("explain", False, "prints what each label policy does to the counts, and its alternatives")


def main(config, workdir):
    """Writes the tables, then the page of what the checks found; explains the policies where asked to."""
    ingest.run(config, workdir)
    validation.write_page(workdir)
    if _EXPLAIN.value:
        print(explain.run(config, workdir))


if __name__ == "__main__":
    cli.run(main)
