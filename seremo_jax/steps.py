"""Pure steps of the whole ensemble: every leaf of the training state has a leading member axis.

One model is an ensemble of one. Clipping, learning rate, early stopping and best parameters live inside a member, so
no member ever sees another.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float

from seremo_jax import ensemble, losses, model, optim, sharding, vocab
from seremo_jax.config import Config
from seremo_jax.member_map import over_members
from seremo_jax.schema import Batch

VOTES = vocab.CLASS_TARGETS.index("votes")
"""Code of vote distributions in `Members.class_target`; the other code is the consensus."""


class Members(NamedTuple):
    """What tells members apart, one value each.

    Attributes:
      layer_slot: [E] int32, index into the leading axis of `Batch.features`.
      class_target: [E] int32, index into vocab.CLASS_TARGETS.
      seed: [E] uint32, seed of initial parameters and dropout.
      class_weight: [E, C] weight of each class in `balanced_soft_ce`; None for other losses.
    """

    layer_slot: Array
    class_target: Array
    seed: Array
    class_weight: Array | None = None

    @classmethod
    def of(cls, members: Sequence[ensemble.Member], class_weights: Mapping[str, np.ndarray] | None = None) -> "Members":
        """The members of a run as arrays; `class_weights` [C] by class target, where the loss is balanced."""
        slots = {layer: slot for slot, layer in enumerate(ensemble.layers(members))}
        return cls(
            layer_slot=np.array([slots[member.layer] for member in members], np.int32),
            class_target=np.array([vocab.CLASS_TARGETS.index(member.class_target) for member in members], np.int32),
            seed=np.array([member.seed for member in members], np.uint32),
            class_weight=class_weights and np.stack([class_weights[member.class_target] for member in members]),
        )


class TrainState(NamedTuple):
    """Training state; leading axis E on every leaf.

    Attributes:
      params: Parameters.
      opt_state: Optimiser state.
      step: [E] int32, updates so far.
      best_params: Parameters of the best epoch on the development split.
      best_score: [E] its score, -inf before the first evaluation.
      best_epoch: [E] int32 its number, counted from 1.
      stale_epochs: [E] int32, epochs since.
      is_active: [E] bool, False once the member has stopped.
      has_failed: [E] bool, the loss or its gradient was not finite: the member stopped before that update.
    """

    params: Any
    opt_state: Any
    step: Array
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
      learning_rate: Step size.
      weight_decay: Decoupled weight decay.
      clip_norm: Gradient norm to clip at; 0 does not.
      attribute_task_weight: Weight of the attribute loss.
      class_task_weight: Weight of the class loss.
      attribute_weights: Weight of each attribute; empty means equal.
      class_kind: `ccc`, or one of `losses.DISTRIBUTION_KINDS`.
      label_smoothing: Of the class target inside these.
      ccc_eps: Added to the denominator of CCC.
      member_map: `vmap`, or `map` for one member after the other.
    """

    sizes: tuple[tuple[str, Any], ...]
    learning_rate: float
    weight_decay: float
    clip_norm: float
    attribute_task_weight: float
    class_task_weight: float
    attribute_weights: tuple[float, ...]
    class_kind: str
    label_smoothing: float
    ccc_eps: float
    member_map: str

    @classmethod
    def of(cls, config: Config, num_features: int, num_classes: int) -> "Settings":
        """The settings an experiment asks for; `train.member_map = auto` is decided by the platform."""
        sizes = {
            "num_features": num_features,
            "num_attributes": len(config.targets.attributes),
            "num_classes": num_classes,
            "conv_kernel": config.model.conv_kernel,
            "gru_units": config.model.gru_units,
            "gru_layers": config.model.gru_layers,
            "embedding_size": config.model.embedding_size,
            "dropout": config.model.dropout,
        }
        member_map = config.train.member_map
        if member_map == "auto":
            # Measured on CPU: batching small GEMMs over members gains nothing and costs cache.
            member_map = "map" if jax.default_backend() == "cpu" else "vmap"
        return cls(
            sizes=tuple(sorted(sizes.items())),
            learning_rate=config.optim.learning_rate,
            weight_decay=config.optim.weight_decay,
            clip_norm=config.optim.clip_norm,
            attribute_task_weight=config.loss.attribute_task_weight,
            class_task_weight=config.loss.class_task_weight,
            attribute_weights=config.loss.attribute_weights,
            class_kind=config.loss.class_kind,
            label_smoothing=config.loss.label_smoothing,
            ccc_eps=config.loss.ccc_eps,
            member_map=member_map,
        )

    def transformation(self) -> optax.GradientTransformation:
        """The optimiser, for a step size of one."""
        return optim.adam(self.clip_norm, self.weight_decay)


class Normalisation(NamedTuple):
    """Statistics of each layer's features over the training split: mean and sd, both [K, D]."""

    mean: Array
    sd: Array


def init(settings: Settings, members: Members) -> TrainState:
    """Initial state; a member's parameters depend on its seed alone."""

    def one(seed: Array) -> TrainState:
        params = model.init(dict(settings.sizes), jax.random.key(seed))
        zero = jnp.zeros((), jnp.int32)
        return TrainState(
            params=params,
            opt_state=settings.transformation().init(params),
            step=zero,
            best_params=params,
            best_score=jnp.array(-jnp.inf, jnp.float32),
            best_epoch=zero,
            stale_epochs=zero,
            is_active=jnp.array(True),
            has_failed=jnp.array(False),
        )

    return jax.lax.map(one, members.seed)


def member_loss(
    settings: Settings, params: Any, batch: Batch, features: Array, member: Members, key: Array | None
) -> tuple[Array, dict[str, Array]]:
    """Loss of one member on one batch.

    Args:
      settings: Static settings.
      params: Parameters of the member.
      batch: Labels and row layout.
      features: [T, R, D] normalised frames of the member's layer.
      member: The member.
      key: Random key for dropout, None for none.

    Returns:
      Total loss, and the terms by name.

    Source: method.md section 5.4.
    """
    out = model.apply(dict(settings.sizes), params, features, batch.reset, batch.is_valid, batch.last_frame, key=key)
    num_attributes = out.attributes.shape[1]
    weights = jnp.asarray(settings.attribute_weights or (1 / num_attributes,) * num_attributes, jnp.float32)
    rated = batch.has_attribute & batch.is_used[:, None]
    attribute = losses.attribute_loss(out.attributes, batch.attributes, rated, weights, settings.ccc_eps)
    target, mask = class_targets(batch, member.class_target)
    if settings.class_kind == "ccc":
        class_ = losses.class_loss(out.distribution, target, mask, settings.ccc_eps)
    else:
        class_ = losses.distribution_loss(
            out.logits, target, mask, settings.class_kind, member.class_weight, settings.label_smoothing
        )
    total = settings.attribute_task_weight * attribute + settings.class_task_weight * class_
    return total, {"loss": total, "attribute_loss": attribute, "class_loss": class_}


def class_targets(batch: Batch, class_target: Array) -> tuple[Float[Array, "B C"], Array]:
    """Target [B, C] and mask [B] for a member's kind of class target."""
    is_votes = class_target == VOTES
    target = jnp.where(is_votes, batch.distribution, batch.consensus)
    return target, jnp.where(is_votes, batch.has_votes, batch.has_consensus) & batch.is_used


def normalise(features: Array, is_valid: Array, mean: Float[Array, "D"], sd: Float[Array, "D"]) -> Array:
    """Z-scores of [T, R, D] frames in float32, zero where not valid.

    Source: INFERRED, method.md section 4.2, step 1.
    """
    scaled = (features.astype(jnp.float32) - mean[None, None, :]) / sd[None, None, :]
    return jnp.where(is_valid[:, :, None], scaled, 0)


def _update_member(
    settings: Settings, state: TrainState, members: Members, batch: Batch, features: Array
) -> tuple[TrainState, dict[str, Array]]:
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(members.seed), 1), state.step)
    gradient = jax.value_and_grad(
        lambda params: member_loss(settings, params, batch, features, members, key), has_aux=True
    )
    (loss, terms), grads = gradient(state.params)
    updates, opt_state = settings.transformation().update(grads, state.opt_state, state.params)
    params = jax.tree.map(lambda p, u: p + settings.learning_rate * u, state.params, updates)
    norm = optax.tree.norm(grads)
    is_finite = jnp.isfinite(loss) & jnp.isfinite(norm)
    updated = state._replace(params=params, opt_state=opt_state, step=state.step + 1)
    frozen = state._replace(is_active=jnp.array(False), has_failed=jnp.array(True))
    state = jax.tree.map(lambda new, old: jnp.where(is_finite, new, old), updated, frozen)
    return state, terms | {"gradient_norm": norm}


def _train_step(
    settings: Settings, state: TrainState, members: Members, batch: Batch, norm: Normalisation
) -> tuple[TrainState, dict[str, Array]]:
    def one(item: tuple[TrainState, Members]) -> tuple[TrainState, dict[str, Array]]:
        state, member = item
        slot = member.layer_slot

        def update(state: TrainState) -> tuple[TrainState, dict[str, Array]]:
            features = normalise(batch.features[slot], batch.is_valid, norm.mean[slot], norm.sd[slot])
            return _update_member(settings, state, member, batch, features)

        def rest(state: TrainState) -> tuple[TrainState, dict[str, Array]]:
            terms = jax.eval_shape(update, state)[1]
            return state, jax.tree.map(lambda term: jnp.full(term.shape, jnp.nan, term.dtype), terms)

        # Under `map` a stopped member costs nothing; under `vmap` this is a select.
        return jax.lax.cond(state.is_active, update, rest, state)

    return over_members(settings.member_map, one, (state, members))


def _eval_step(
    settings: Settings, params: Any, members: Members, batch: Batch, norm: Normalisation
) -> tuple[Array, Array]:
    def one(item: tuple[Any, Members]) -> tuple[Array, Array]:
        params, member = item
        slot = member.layer_slot
        features = normalise(batch.features[slot], batch.is_valid, norm.mean[slot], norm.sd[slot])
        out = model.apply(dict(settings.sizes), params, features, batch.reset, batch.is_valid, batch.last_frame)
        return out.attributes, out.distribution

    return over_members(settings.member_map, one, (params, members))


def _finish_epoch(state: TrainState, scores: Array, epoch: Array, patience: int, min_delta: float) -> TrainState:
    is_better = state.is_active & (scores > state.best_score + min_delta)
    stale = jnp.where(is_better, 0, state.stale_epochs + 1)

    def pick(new: Array, old: Array) -> Array:
        return jnp.where(is_better.reshape((-1,) + (1,) * (new.ndim - 1)), new, old)

    return state._replace(
        best_params=jax.tree.map(pick, state.params, state.best_params),
        best_score=jnp.where(is_better, scores, state.best_score),
        best_epoch=jnp.where(is_better, epoch, state.best_epoch),
        stale_epochs=jnp.where(state.is_active, stale, state.stale_epochs),
        is_active=state.is_active & (stale < patience),
    )


class Steps(NamedTuple):
    """The compiled steps of a run.

    Attributes:
      train: (state, members, batch, norm) -> (state, terms by name, each [E]); the old state is given up.
      predict: (params, members, batch, norm) -> attributes [E, B, A], distribution [E, B, C].
      finish_epoch: (state, scores [E], epoch []) -> state, after an evaluation on the development split.
    """

    train: Callable
    predict: Callable
    finish_epoch: Callable


def compile_steps(settings: Settings, mesh: Mesh, patience: int = 1, min_delta: float = 0.0) -> Steps:
    """Steps with members spread over the mesh's member axis; inside a device they run by `settings.member_map`.

    Args:
      settings: Static settings.
      mesh: Mesh with the axes `("member", "data")`.
      patience: Evaluations without improvement after which a member stops.
      min_delta: Improvement that counts.
    """
    member, same = PartitionSpec(sharding.MEMBER), PartitionSpec()

    def spread(function: Callable, num_member_args: int) -> Callable:
        # Manual over members: each device loops over its own. The data axis has one device so far.
        return jax.shard_map(
            functools.partial(function, settings),
            mesh=mesh,
            in_specs=(member,) * num_member_args + (same, same),
            out_specs=member,
            axis_names={sharding.MEMBER, sharding.DATA},
            check_vma=False,
        )

    by_member, copied = sharding.by_member(mesh), sharding.replicated(mesh)
    finish = functools.partial(_finish_epoch, patience=patience, min_delta=min_delta)
    inputs = (by_member, by_member, copied, copied)
    return Steps(
        train=jax.jit(spread(_train_step, 2), in_shardings=inputs, out_shardings=by_member, donate_argnums=0),
        predict=jax.jit(spread(_eval_step, 2), in_shardings=inputs, out_shardings=by_member),
        finish_epoch=jax.jit(finish, in_shardings=(by_member, by_member, copied), out_shardings=by_member),
    )
