"""Reads a corpus: tables with splits, every exclusion counted (utterances.parquet, ratings.parquet, ingest.json)."""

from launch import cli
from seremo_jax import ingest, validation


def main(config, workdir):
    """Writes the tables, then the page of what the checks found."""
    ingest.run(config, workdir)
    validation.write_page(workdir)


if __name__ == "__main__":
    cli.run(main)
