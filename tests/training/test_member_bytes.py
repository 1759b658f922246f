"""The estimate of what a member takes of a device, against what the compiler plans for a step."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seremo_jax.core import ensemble, sharding
from seremo_jax.core.config import from_config_dict
from seremo_jax.core.schema import Batch, Labels
from seremo_jax.training import state as training_state
from seremo_jax.training import steps


def _bytes_of_step(num_features, units, num_layers, num_members, batch, kappa_s):
    """Temporary bytes that XLA plans for a training step with members at once, and bytes of a member's state."""
    slots, frames, rows = batch
    config = from_config_dict({
        "model": {"layer": 0, "gru_units": units, "gru_layers": num_layers, "speaker_kappa_s": kappa_s},
        "train": {"member_map": "vmap"}, "ensemble": {"seeds": tuple(range(num_members))},
        "targets": {"class_set": "msp8"},
    })  # fmt: skip
    settings = training_state.Settings.of(config, num_features, 8)
    values = training_state.values_of(ensemble.members(config, 0), [np.ones(8)] * num_members)
    place = np.zeros(num_members, np.int32)
    shape = jax.ShapeDtypeStruct
    state = jax.eval_shape(lambda values: training_state.init(settings, values), values)
    widths = {"distribution": 8, "consensus": 8, "has_votes": (), "has_consensus": (), "attribute_shares": (3, 0)}
    labels = {}
    for name in (name for name in Labels._fields if name != "is_offered"):
        width = widths.get(name, 3)
        kind = bool if name.startswith("has_") else jnp.float32
        labels[name] = shape((9, *(width if isinstance(width, tuple) else (width,))), kind)
    of_rows = {"reset": shape((1, frames, rows), bool), "slot": shape((1, frames, rows), jnp.int32)}
    of_slots = {name: shape((1, slots), jnp.int32) for name in ("last_frame", "utterance")}
    features = shape((1, frames, rows, num_features), jnp.float16)
    norm = training_state.Normalisation(*[shape((1, num_features), jnp.float32)] * 2)
    relative, heard = None, {}
    if kappa_s != "inf":
        relative = training_state.Relative(np.zeros(num_members, np.float32), place, place)
        moments = training_state.SpeakerMoments(*[shape((1, 30, num_features), jnp.float32)] * 2)
        spoken = training_state.Spoken(shape((30,), jnp.float32), shape((1, 9), jnp.int32))
        heard = {"speakers": moments, "spoken": spoken}
    step = steps.compile_steps(settings, sharding.make_mesh(1), num_running=num_members).train.lower(
        state,
        training_state.Members(values, place, place, place, relative),
        Batch(features=features, frame=None, **of_rows, **of_slots),
        training_state.Inputs(norm, Labels(**labels), **heard),
    )
    held = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    return step.compile().memory_analysis().temp_size_in_bytes, held / num_members, settings


@pytest.mark.parametrize(("num_features", "units", "num_layers", "kappa_s"), [(256, 64, 2, "inf"), (192, 48, 1, 10.0)])
def test_memory_of_a_member_is_what_the_compiled_step_takes(num_features, units, num_layers, kappa_s):
    batch = (8, 200, 20)
    actual, held, settings = _bytes_of_step(num_features, units, num_layers, 2, batch, kappa_s)
    state, step = training_state.member_bytes(settings, batch[1] * batch[2], kappa_s != "inf")
    assert state == held
    assert step == pytest.approx(actual / 2, rel=0.12)
