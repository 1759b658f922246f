"""Train on one corpus, or on several together, and score on one that no head has heard; logmel backbone, 3 seeds.

Every recording is heard at one level, since corpora differ in it. The classes are the union of those of the corpora.

Run:    for stage in ingest extract saliency train evaluate; do
            python -m launch.$stage --config=configs/transfer.py --workdir=runs/transfer
        done
        python -m launch.evaluate --model=runs/transfer --config=configs/crema_d.py --config.corpus.root=CREMA-D \
            --workdir=runs/crema_d_on_transfer
        The same with --config=configs/transfer.py:msp_podcast+iemocap --config.corpus.root=MSP-Podcast
        --config.corpus.also_roots="('IEMOCAP',)" trains on these two.
Time:   13 minutes of training and 3 of scoring on two cores that twenty processes shared, most of it compilation
Result: trained on the simulated corpus and heard on 1,008 utterances of 24 speakers of CREMA-D (crema_d.py:subset24):
        UAR 0.282 [0.250, 0.314], class CCC 0.169 [0.142, 0.196], mean of 3 seeds; one human rater has a UAR of 0.532,
        and chance is 0.167, at e4e14f8 with this recipe. Trainings on several corpora were not measured
"""

import ml_collections

from configs import crema_d, iemocap, msp_improv, msp_podcast, simulated

_RECIPES = {
    "simulated": simulated.get_config,
    "crema_d": crema_d.get_config,
    "iemocap": iemocap.get_config,
    "msp_improv": msp_improv.get_config,
    "msp_podcast": msp_podcast.get_config,
}


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """The recipe on the simulated corpus, or on those that `arg` names with `+` between, e.g. `msp_podcast+iemocap`.

    Raises:
      ValueError: `arg` names something else.
    """
    names = arg.split("+") if arg else ["simulated"]
    if not set(names) <= _RECIPES.keys():
        raise ValueError(f"configs/transfer.py knows no variant {arg!r}: join names of {', '.join(_RECIPES)} with +")
    config, *others = (_RECIPES[name]() for name in names)
    config.backbone.level = "rms"
    config.model.gru_units = 64
    config.optim.learning_rate = 1e-3
    config.train.max_epochs = 12
    config.train.patience = 5
    config.ensemble.seeds = (0, 1, 2)
    config.ensemble.class_targets = ("votes",)
    config.targets.class_set = "+".join(dict.fromkeys(one.targets.class_set for one in (config, *others)))
    config.eval.splits = tuple(dict.fromkeys(split for one in (config, *others) for split in one.eval.splits))
    config.corpus.also = tuple(
        name if one.data.modality == "voice" else f"{name}; modality={one.data.modality}"
        for name, one in zip(names[1:], others, strict=True)
    )
    # A layer is chosen by what all corpora have.
    if "votes" in {one.saliency.targets for one in others}:
        config.saliency.targets = "votes"
    if others:
        config.loss.corpus_balance = 0.5
        config.eval.group_by = "corpus"
    return config
