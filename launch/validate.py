"""Checks a corpus: audio, labels, speakers and splits (validation/index.html); exit code 1 where it finds errors."""

import sys

from launch import cli
from seremo_jax.data.corpora import tabular
from seremo_jax.reports import validation

__doc__ = f"{__doc__}\n\n{tabular.__doc__}"


def main(config, workdir):
    """Writes the page and ends the process with 1 where a check found an error."""
    if any(finding.is_error for finding in validation.run(config, workdir)):
        sys.exit(1)


if __name__ == "__main__":
    cli.run(main)
