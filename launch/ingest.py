"""Reads a corpus: tables with splits, every exclusion counted (utterances.parquet, ratings.parquet, ingest.json)."""

from launch import cli
from seremo_jax import ingest

if __name__ == "__main__":
    cli.run(lambda config, workdir: ingest.run(config, workdir))
