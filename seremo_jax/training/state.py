"""Containers of a training: values of the members, state with a leading member axis, settings that all share."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from seremo_jax.core import ensemble, vocab
from seremo_jax.core.config import Config
from seremo_jax.core.schema import Labels
from seremo_jax.training import model, objectives, optim, robust, roofline
from seremo_jax.training.arrangement import over_members
from seremo_jax.training.objectives import Values
from seremo_jax.training.robust import Standing, Strengths

TASK_SCALES = "task_scales"
"""Name of the entry of the parameters that holds the learned log variances of the tasks."""


class Relative(NamedTuple):
    """How members read features relative to speakers, see `speakers`.

    Attributes:
      kappa_s: [P] seconds of a speaker that the training split counts as, infinite where it alone counts.
      slot: [P] int32, first layer of a member in the statistics of its shard.
      fold: [P] int32, row of `Spoken.voice`.
    """

    kappa_s: Array
    slot: Array
    fold: Array


class Members(NamedTuple):
    """The members by position: their values, and where they find what they read.

    Attributes:
      values: Values that differ between members, each [P].
      stream: [P] int32, stream of batches.
      view_slot: [P] int32, index into the views of the member's shard.
      norm_slot: [P] int32, index into the feature statistics of the member's shard.
      relative: None where no member reads features relative to speakers.
    """

    values: Values
    stream: Array
    view_slot: Array
    norm_slot: Array
    relative: Relative | None = None


def values_of(
    members: Sequence[ensemble.Member],
    class_weights: Sequence[np.ndarray],
    num_steps: Sequence[int] | None = None,
    weight_slot: np.ndarray | None = None,
    class_distances: Sequence[np.ndarray] | None = None,
    group_slot: np.ndarray | None = None,
) -> Values:
    """The values of these members, in their order.

    Args:
      members: The members.
      class_weights: [C] weights of the classes for each member.
      num_steps: Updates over which the learning rate of each member falls; None where none does.
      weight_slot: Row of the weights of utterances of each member; None where they have one row, or none.
      class_distances: [C, C] distance between classes for each member; None where no loss reads it.
      group_slot: Row of each member's groups among several, see `balance.GroupTables`; None where there is one.
    """

    def column(name: str, dtype: type, convert: Callable = lambda value: value) -> np.ndarray:
        return np.array([convert(getattr(member, name)) for member in members], dtype)

    numbers = ("label_smoothing", "attribute_task_weight", "class_task_weight", "learning_rate", "weight_decay")
    numbers += ("closeness_weight", "mixup")
    kinds = column("objective_group", np.int32, list(vocab.OBJECTIVE_GROUPS).index)
    num_classes = len(class_weights[0])
    class_distances = class_distances or [np.zeros((num_classes, num_classes))] * len(members)
    return Values(
        seed=column("seed", np.uint32),
        class_target=column("class_target", np.int32, vocab.CLASS_TARGETS.index),
        class_kind=column("class_kind", np.int32, list(vocab.CLASS_LOSSES).index),
        objective=column("objective", np.int32, list(vocab.OBJECTIVES).index),
        objective_group=kinds if group_slot is None else np.where(kinds > 0, kinds + group_slot, 0).astype(np.int32),
        class_weight=np.stack(class_weights).astype(np.float32),
        class_distance=np.stack(class_distances).astype(np.float32),
        dropout=column("dropout", np.float32),
        num_steps=np.zeros(len(members), np.int32) if num_steps is None else np.array(num_steps, np.int32),
        weight_slot=np.zeros(len(members), np.int32) if weight_slot is None else np.array(weight_slot, np.int32),
        **{name: column(name, np.float32) for name in numbers},
    )


class TrainState(NamedTuple):
    """Training state. Every leaf has the leading axis P of positions.

    Attributes:
      params: Parameters.
      opt_state: State of the optimiser.
      step: [P] int32, number of updates so far.
      tally: Sums over the updates of this epoch: loss terms and gradient norm by name, and `count`, each [P].
      best_params: Parameters of the best epoch on the development split.
      best_score: [P] score of that epoch, -inf before the first evaluation.
      best_epoch: [P] int32, number of that epoch, from 1; 0 before the first evaluation.
      stale_epochs: [P] int32, epochs since then.
      is_active: [P] bool, False once the member has stopped.
      has_failed: [P] bool, True where the loss or its gradient was not finite. The member stopped before that update.
      standing: How groups stand with each member; None where no objective is over groups.
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
    standing: Standing | None = None


class Settings(NamedTuple):
    """Static settings that all members share. Hashable, so that steps are compiled once for them.

    Attributes:
      sizes: Sizes and options of the head.
      fixed: Settings of the losses.
      clip_norm: Gradient norm to clip at; 0 does not clip.
      schedule: How learning rates go over the updates.
      learns_task_weights: Weights between tasks are learned.
      uses_dropout: Some member has dropout.
      member_map: `vmap`, or `map` for one member after the other.
      micro_batches: Number of parts in which the rows of a device are computed, one after the other.
      selects_by_loss: Predictions bring all that the loss is computed of.
      mixes: Some member mixes utterances.
      num_groups: Groups whose standing the state holds; 0 where no objective is over groups.
      strengths: How strong the objectives are.
      gives_embedding: Predictions bring the embedding of each utterance.
    """

    sizes: model.Sizes
    fixed: objectives.Fixed
    clip_norm: float
    schedule: optim.Schedule
    learns_task_weights: bool
    uses_dropout: bool
    member_map: str
    micro_batches: int = 1
    selects_by_loss: bool = False
    mixes: bool = False
    num_groups: int = 0
    strengths: Strengths = Strengths(0.0, 1.0, 0.0)
    gives_embedding: bool = False

    @classmethod
    def of(
        cls,
        config: Config,
        num_features: int,
        num_classes: int,
        num_layers: int = 0,
        levels: tuple[float, ...] = (),
        platform: str | None = None,
        num_groups: int = 0,
    ) -> "Settings":
        """The settings that an experiment asks for. The platform decides what `train.member_map = auto` is.

        Args:
          config: The experiment.
          num_features: D of the frames as the head reads them.
          num_classes: C.
          num_layers: Layers that are summed; 0 where members read one layer.
          levels: Values of the levels of the rating scale, for `loss.attribute_kind = emd`.
          platform: `cpu`, `gpu` or `tpu`; None means that of these devices.
          num_groups: Groups that the corpus has at most.
        """
        sizes = model.Sizes(
            num_features=num_features,
            num_attributes=len(config.targets.attributes),
            num_classes=num_classes,
            num_layers=num_layers,
            levels=tuple(levels),
            predicts_variance=config.targets.predict_variance,
            conv_kernel=config.model.conv_kernel,
            conv_kind=config.model.conv_kind,
            conv_filters=config.model.conv_filters,
            gru_units=config.model.gru_units,
            gru_layers=config.model.gru_layers,
            bidirectional=config.model.bidirectional,
            pooling=config.model.pooling,
            embedding_size=config.model.embedding_size,
            embedding_activation=config.model.embedding_activation,
            dtype=config.model.dtype,
        )
        member_map = config.train.member_map
        if member_map == "auto":
            # Measured on CPU: small products that are batched over members gain nothing and fall out of the cache.
            member_map = "map" if (platform or jax.default_backend()) == "cpu" else "vmap"
        loss = config.loss
        return cls(
            sizes=sizes,
            fixed=objectives.Fixed(
                attribute_weights=loss.attribute_weights,
                attribute_kind=loss.attribute_kind,
                variance_task_weight=loss.variance_task_weight,
                ccc_eps=loss.ccc_eps,
                class_kinds=tuple(sorted(config.ensemble.class_kinds or (loss.class_kind,))),
                has_closeness=any(ensemble.values_of(config, "closeness_weight")),
            ),
            clip_norm=config.optim.clip_norm,
            schedule=optim.Schedule(config.optim.schedule, config.optim.warmup_steps),
            learns_task_weights=loss.task_weighting == "uncertainty",
            uses_dropout=max(config.ensemble.dropouts or (config.model.dropout,)) > 0,
            member_map=member_map,
            micro_batches=config.train.micro_batches,
            selects_by_loss=config.train.selection == "loss",
            mixes=any(ensemble.values_of(config, "mixup")),
            num_groups=num_groups if set(ensemble.values_of(config, "objective")) - {"mean"} else 0,
            strengths=Strengths(loss.dro_step, loss.cvar_share, loss.vrex_weight),
        )

    @property
    def reads_groups(self) -> bool:
        """Whether a step reads who speaks."""
        return self.mixes or self.num_groups > 0

    @property
    def num_layers(self) -> int:
        """Layers that a member sums; 0 where it reads one layer."""
        return self.sizes.num_layers


class Normalisation(NamedTuple):
    """Mean and sd of features over a training split, both [n, D]: an entry for each fold and layer of a shard."""

    mean: Array
    sd: Array


class SpeakerMoments(NamedTuple):
    """Mean and variance of features over each of G voices, both [n, G, D]: an entry for each layer of a shard."""

    mean: Array
    variance: Array


class Spoken(NamedTuple):
    """Whose statistics each utterance is read by.

    Attributes:
      seconds: [G] speech of each voice.
      voice: [F, N] int32 voice of every utterance in each fold, -1 where it has none.
    """

    seconds: Array
    voice: Array


class Inputs(NamedTuple):
    """Inputs of a step besides state and batch.

    Attributes:
      norm: Statistics of the features.
      labels: Labels of every utterance.
      frames: [V, F, D] frames in device memory that `Batch.frame` points into; None where batches bring theirs.
      weights: [U, N] weights of every utterance that `Values.weight_slot` points into; None where all weigh the same.
      groups: [1 + U, N] int32 speaker of every utterance, and its group in each of U ways to group them, -1 where not
        known; None where no member reads them.
      speakers: Statistics of the voices; None where no member reads features relative to speakers.
      spoken: Whose each utterance is, likewise.
    """

    norm: Normalisation
    labels: Labels
    frames: Array | None = None
    weights: Array | None = None
    groups: Array | None = None
    speakers: SpeakerMoments | None = None
    spoken: Spoken | None = None


def init(settings: Settings, values: Values) -> TrainState:
    """Initial state. A member's parameters depend on its seed alone, and not on its company."""

    def init_member(seed: Array) -> TrainState:
        params = model.init(settings.sizes, jax.random.key(seed))
        if settings.learns_task_weights:
            params[TASK_SCALES] = jnp.zeros(2)
        zero = jnp.zeros((), jnp.int32)
        names = ("loss", "attribute_loss", "class_loss", "gradient_norm", "count")
        names += ("variance_loss",) * settings.sizes.predicts_variance
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
            standing=robust.empty(settings.num_groups) if settings.num_groups else None,
        )

    # A loop that the compiler cannot unroll, as in the steps: a member alone must get the bits that it has in company.
    return over_members("map", init_member, values.seed)


def member_bytes(settings: Settings, num_frames: int, is_relative: bool = False) -> tuple[int, int]:
    """Bytes of device memory of one member: those of its state, and those that a step of it takes besides.

    Where members take turns (`Settings.member_map` is `map`), the second number is needed only once.

    Args:
      settings: Static settings.
      num_frames: Frames of a batch, `T * R` of its rows, with all padding.
      is_relative: Whether some member reads features relative to speakers.
    """

    def state_of(seed: Array) -> TrainState:
        return init(settings, Values(seed=seed, **dict.fromkeys(Values._fields[1:])))

    state = jax.eval_shape(state_of, jax.ShapeDtypeStruct((1,), jnp.uint32))
    num_bytes = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    of_a_part = -(-num_frames // settings.micro_batches)
    return num_bytes, roofline.head_bytes(settings.sizes, of_a_part, is_relative)
