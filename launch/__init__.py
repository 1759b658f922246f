"""Thin launchers, one a stage: `python -m launch.STAGE --config=configs/NAME.py --workdir=DIR`."""
