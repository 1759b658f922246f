"""Reads a corpus: tables with splits, every exclusion counted (utterances.parquet, ratings.parquet, ingest.json)."""

from absl import flags

from launch import cli
from seremo_jax import explain, ingest

_EXPLAIN = flags.DEFINE_bool("explain", False, "prints what each label policy does to the counts, and its alternatives")


def main(config, workdir):
    """Ingests, and explains the policies where asked to."""
    ingest.run(config, workdir)
    if _EXPLAIN.value:
        print(explain.run(config, workdir))


if __name__ == "__main__":
    cli.run(main)
