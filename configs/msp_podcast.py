"""MSP-Podcast, eight classes and three attributes, logmel backbone: 5 seeds x {votes, consensus}.

Run:    python -m launch.ingest --config=configs/msp_podcast.py --config.corpus.root=DIR --workdir=runs/msp_podcast
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
        raise ValueError(f"configs/msp_podcast.py knows no variant {arg!r}: leave it out")
    config = to_config_dict(Config())
    config.corpus.name = "msp_podcast"
    config.targets.class_set = "msp8"
    config.eval.splits = ("test1", "test2")  # the labels of test3 are withheld
    config.ensemble.seeds = (0, 1, 2, 3, 4)
    config.ensemble.class_targets = ("votes", "consensus")
    return config
