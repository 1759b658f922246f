"""Tables, figures and one self-contained page from the artefacts of a workdir (report/index.html)."""

from launch import cli
from seremo_jax import report


def main(config, workdir):
    """Writes the report and prints its main table."""
    report.run(workdir)
    print(report.markdown_summary(workdir))


if __name__ == "__main__":
    cli.run(main)
