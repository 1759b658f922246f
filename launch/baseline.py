"""Logistic regression on pooled frames, the row to beat, scored as heads are (baseline/results.jsonl)."""

from launch import cli


def main(config, workdir):
    """Fits and evaluates the regression on the stored layers of this workdir."""
    from seremo_jax.evaluation import baseline

    baseline.run(config, workdir)


if __name__ == "__main__":
    cli.run(main)
