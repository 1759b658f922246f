"""What a training holds: the members' values, the state with a leading member axis, and the settings all share."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from seremo_jax.core import members as ensemble
from seremo_jax.core import vocab
from seremo_jax.core.config import Config
from seremo_jax.core.schema import Labels
from seremo_jax.training import model, objectives, optim, roofline
from seremo_jax.training.objectives import Values

TASK_SCALES = "task_scales"
"""Entry of the parameters with the learned log variances of the tasks."""


class Members(NamedTuple):
    """The members by position: their values, and what they read.

    Attributes:
      values: What tells them apart, each [P].
      stream: [P] int32, stream of batches.
      view_slot: [P] int32, index into the views of the member's shard.
      norm_slot: [P] int32, index into the feature statistics of the member's shard.
    """

    values: Values
    stream: Array
    view_slot: Array
    norm_slot: Array


def values_of(members: Sequence[ensemble.Member], class_weights: Sequence[np.ndarray]) -> Values:
    """The values of these members, in their order; `class_weights` [C] of each."""

    def column(name: str, dtype: type, convert: Callable = lambda value: value) -> np.ndarray:
        return np.array([convert(getattr(member, name)) for member in members], dtype)

    numbers = ("label_smoothing", "attribute_task_weight", "class_task_weight", "learning_rate", "weight_decay")
    return Values(
        seed=column("seed", np.uint32),
        class_target=column("class_target", np.int32, vocab.CLASS_TARGETS.index),
        class_kind=column("class_kind", np.int32, vocab.CLASS_KINDS.index),
        class_weight=np.stack(class_weights).astype(np.float32),
        dropout=column("dropout", np.float32),
        **{name: column(name, np.float32) for name in numbers},
    )


class TrainState(NamedTuple):
    """Training state; leading axis P, the positions, on every leaf.

    Attributes:
      params: Parameters.
      opt_state: Optimiser state.
      step: [P] int32, updates so far.
      tally: Sums over the updates of this epoch: loss terms and gradient norm by name, and `count`, each [P].
      best_params: Parameters of the best epoch on the development split.
      best_score: [P] its score, -inf before the first evaluation.
      best_epoch: [P] int32 its number, counted from 1.
      stale_epochs: [P] int32, epochs since.
      is_active: [P] bool, False once the member has stopped.
      has_failed: [P] bool, the loss or its gradient was not finite: the member stopped before that update.
    """

    params: Any
    opt_state: Any
    step: Array
    tally: dict[str, Array]
    best_params: Any
    best_score: Array
    best_epoch: Array
    stale_epochs: Array
    is_active: Array
    has_failed: Array


class Settings(NamedTuple):
    """Static settings shared by all members. Hashable, so that a step compiles once for them.

    Attributes:
      sizes: Arguments of `model.TCGRU`, as sorted items.
      fixed: Settings of the losses.
      clip_norm: Gradient norm to clip at; 0 does not.
      learns_task_weights: Weights between tasks are learned.
      uses_dropout: Some member drops.
      member_map: `vmap`, or `map` for one member after the other.
      micro_batches: Parts that the rows of a device are computed in, one after the other.
    """

    sizes: tuple[tuple[str, Any], ...]
    fixed: objectives.Fixed
    clip_norm: float
    learns_task_weights: bool
    uses_dropout: bool
    member_map: str
    micro_batches: int = 1

    @classmethod
    def of(
        cls,
        config: Config,
        num_features: int,
        num_classes: int,
        num_layers: int = 0,
        levels: tuple[float, ...] = (),
    ) -> "Settings":
        """The settings an experiment asks for; `train.member_map = auto` is decided by the platform.

        Args:
          config: The experiment.
          num_features: D of the frames as the head reads them.
          num_classes: C.
          num_layers: Layers that are summed; 0 where members read one.
          levels: Values of the levels of the rating scale, for `loss.attribute_kind = emd`.
        """
        sizes = {
            "num_features": num_features,
            "num_attributes": len(config.targets.attributes),
            "num_classes": num_classes,
            "num_layers": num_layers,
            "levels": tuple(levels),
            "predicts_variance": config.targets.predict_variance,
            **{
                name: getattr(config.model, name)
                for name in ("conv_kernel", "gru_units", "gru_layers", "pooling", "embedding_size", "dtype")
            },
        }
        member_map = config.train.member_map
        if member_map == "auto":
            # Measured on CPU: batching small GEMMs over members gains nothing and costs cache.
            member_map = "map" if jax.default_backend() == "cpu" else "vmap"
        loss = config.loss
        return cls(
            sizes=tuple(sorted(sizes.items())),
            fixed=objectives.Fixed(
                attribute_weights=loss.attribute_weights,
                attribute_kind=loss.attribute_kind,
                variance_task_weight=loss.variance_task_weight,
                ccc_eps=loss.ccc_eps,
                class_kinds=tuple(sorted(config.ensemble.class_kinds or (loss.class_kind,))),
            ),
            clip_norm=config.optim.clip_norm,
            learns_task_weights=loss.task_weighting == "uncertainty",
            uses_dropout=max(config.ensemble.dropouts or (config.model.dropout,)) > 0,
            member_map=member_map,
            micro_batches=config.train.micro_batches,
        )

    @property
    def num_layers(self) -> int:
        """Layers that a member sums; 0 where it reads one."""
        return dict(self.sizes)["num_layers"]


class Normalisation(NamedTuple):
    """Statistics of features over a training split: mean and sd, both [n, D], one entry a fold and layer of a shard."""

    mean: Array
    sd: Array


class Inputs(NamedTuple):
    """What a step reads besides state and batch.

    Attributes:
      norm: Statistics of features.
      labels: Of every utterance.
      frames: [V, F, D] frames in device memory that `Batch.frame` points into, or None.
    """

    norm: Normalisation
    labels: Labels
    frames: Array | None = None


def init(settings: Settings, values: Values) -> TrainState:
    """Initial state; a member's parameters depend on its seed alone."""

    def one(seed: Array) -> TrainState:
        params = model.init(dict(settings.sizes), jax.random.key(seed))
        if settings.learns_task_weights:
            params[TASK_SCALES] = jnp.zeros(2)
        zero = jnp.zeros((), jnp.int32)
        names = ("loss", "attribute_loss", "class_loss", "gradient_norm", "count")
        names += ("variance_loss",) * dict(settings.sizes)["predicts_variance"]
        return TrainState(
            params=params,
            opt_state=optim.adam(settings.clip_norm).init(params),
            step=zero,
            tally={name: jnp.zeros(()) for name in names},
            best_params=params,
            best_score=jnp.array(-jnp.inf, jnp.float32),
            best_epoch=zero,
            stale_epochs=zero,
            is_active=jnp.array(True),
            has_failed=jnp.array(False),
        )

    return jax.lax.map(one, values.seed)


def member_bytes(settings: Settings, num_frames: int) -> tuple[int, int]:
    """Bytes of device memory of one member: its state, and what a step of it takes besides.

    Members that take turns (`Settings.member_map` `map`) need the second only once.

    Args:
      settings: Static settings.
      num_frames: Frames of a batch, `T * R` of its rows, padding and all.
    """

    def one(seed: Array) -> TrainState:
        return init(settings, Values(seed=seed, **dict.fromkeys(Values._fields[1:])))

    state = jax.eval_shape(one, jax.ShapeDtypeStruct((1,), jnp.uint32))
    num_bytes = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    return num_bytes, roofline.head_bytes(dict(settings.sizes), -(-num_frames // settings.micro_batches))
