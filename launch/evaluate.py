"""Evaluates the trained members, speaker by speaker, with intervals (predictions/, results.jsonl)."""

from launch import cli
from launch.cores import num_cores


def main(config, workdir):
    """Evaluates the training of this workdir."""
    from seremo_jax.evaluation import evaluate

    evaluate.run(config, workdir)


if __name__ == "__main__":
    cli.run(main, num_cpu_devices=num_cores())
