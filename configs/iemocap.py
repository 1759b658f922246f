"""IEMOCAP, the common four classes and three attributes, logmel backbone: 5 seeds x {votes, consensus}.

Run:    python -m launch.ingest --config=configs/iemocap.py --config.corpus.root=DIR --workdir=runs/iemocap
        then with the same flags launch.extract, launch.saliency, launch.train, launch.evaluate, launch.report
Result: none here: the corpus needs a signed licence
"""

import ml_collections

from seremo_jax.core.config import Config, to_config_dict


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """The recipe; it has no variant.

    Raises:
      ValueError: Unknown `arg`.
    """
    if arg:
        raise ValueError(f"configs/iemocap.py knows no variant {arg!r}: leave it out")
    config = to_config_dict(Config())
    config.corpus.name = "iemocap"
    config.data.modality = "both"  # its raters heard and saw
    config.targets.class_set = "iemocap4"
    config.ensemble.seeds = (0, 1, 2, 3, 4)
    config.ensemble.class_targets = ("votes", "consensus")
    return config
