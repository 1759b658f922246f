"""Your own corpus in tables (see seremo_jax/data/LABELS.md, section 8), logmel backbone: 5 seeds x {votes, consensus}.

Run:    python -m launch.ingest --config=configs/table.py --config.corpus.root=DIR --workdir=runs/table
        then with the same flags launch.extract, launch.saliency, launch.train, launch.evaluate, launch.report
Result: yours; set targets.class_set to the one that fits, or to your own (angry,boredom,calm), and saliency.targets
        to votes where there are no attributes
"""

import ml_collections

from seremo_jax.core.config import Config, to_config_dict


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """The recipe; it has no variant.

    Raises:
      ValueError: Unknown `arg`.
    """
    if arg:
        raise ValueError(f"configs/table.py knows no variant {arg!r}: leave it out")
    config = to_config_dict(Config())
    config.corpus.name = "table"
    config.targets.class_set = "msp8"
    config.ensemble.seeds = (0, 1, 2, 3, 4)
    config.ensemble.class_targets = ("votes", "consensus")
    return config
