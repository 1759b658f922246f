"""Speech to scores, with a trained model.

In: a workdir with a finished training, or a model folder, and recordings of any length. Out: for each recording the
vote distribution, its ranking, attributes and a conformal set (`result.Result`); files of them; the model folder; and
result records of a model on another corpus (`cross_corpus`).
May be touched by launchers and by users (`seremo_jax.predict.load`); nothing of the package imports from here.
"""

from seremo_jax.predict.predictor import Predictor, load

__all__ = ["Predictor", "load"]
