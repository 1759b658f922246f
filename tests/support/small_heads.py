"""Models with heads of random weights on a real backbone, for the tests of prediction."""

import dataclasses
import os

import jax
import jax.numpy as jnp
import numpy as np

from seremo_jax import backbones
from seremo_jax.predict import export, model_folder
from seremo_jax.training import model

CLASSES = ("angry", "sad", "neutral")
SIZES = model.Sizes(num_features=6, num_attributes=3, num_classes=3, gru_units=8, embedding_size=5)
OPTIONS = dataclasses.replace(SIZES, conv_kind="dense", conv_filters=4, embedding_activation="gelu", bidirectional=True)
"""The same with what is not the default."""


def heads_of(sizes, num_members, num_layers, seed=0):
    """Heads whose parameters are far from their initial size, and statistics that are not 0 and 1."""
    keys = jax.random.split(jax.random.key(seed), num_members)
    params = jax.tree.map(lambda x: np.asarray(3 * x), jax.vmap(lambda key: model.init(sizes, key))(keys))
    rng = np.random.default_rng(seed)
    shape = (num_layers, sizes.num_features)
    mean, sd = rng.normal(size=shape).astype(np.float32), rng.uniform(1, 3, shape).astype(np.float32)
    slot = np.arange(num_members, dtype=np.int32) % num_layers
    columns = np.tile(np.arange(sizes.num_features, dtype=np.int32), (num_layers, 1))
    return export.Heads(params, slot, slot, mean, sd, columns)


def make(backbone="logmel", layers=(0,), num_members=2, *, longest_s=5.0, threshold=None, temperature=None):
    """A model on a backbone with these layers, attributes rated from 1 to 7, dominance not trained."""
    loaded = backbones.load(backbone, layers)
    sizes = dataclasses.replace(SIZES, num_features=loaded.num_features)
    attribute = {"is_trained": True, "offset": 4.0, "factor": 3.0}
    about = {
        "format_version": model_folder.FORMAT_VERSION,
        "code_version": "test",
        "head": sizes,
        "members": [{"name": f"m{e}", "layer": layers[e % len(layers)], "seed": e} for e in range(num_members)],
        "layers": list(layers),
        "classes": list(CLASSES),
        "attributes": [
            {"name": "valence", **attribute},
            {"name": "activation", **attribute},
            {"name": "dominance", **attribute, "is_trained": False},
        ],
        "backbone": {
            "location": os.fspath(backbone),
            "name": loaded.name,
            "revision": loaded.revision,
            "final_norm": loaded.final_norm,
            "final_norm_asked_for": False,
            "dtype": "float32",
            "stored_dtype": "float32",
            "num_features": loaded.num_features,
            "frame_rate_hz": loaded.frame_rate_hz,
            "window": "padded",
            "window_seconds": 30.0,
            "overlap_seconds": 5.0,
        },
        "longest_s": longest_s,
        "shortest_s": 0.1,
        "calibration": {"temperature": temperature, "conformal_threshold": threshold},
        "checkpoint": "c",
        "protocol": {"corpus": "test"},
    }
    return model_folder.Model(about, heads_of(sizes, num_members, len(layers)))


def one_head(params, member):
    """Parameters of one member."""
    return jax.tree.map(lambda x: jnp.asarray(x[member]), params)
