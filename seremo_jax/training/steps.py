"""Compiled steps of the whole ensemble.

Every function here that ends in `_member` computes one member, and `over_members` maps it. Clipping, learning rate,
early stopping and best parameters belong to each member, so that no member's numbers depend on another. A single model
is an ensemble with one member; there is no other path for it.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from seremo_jax.core import sharding
from seremo_jax.core.schema import Batch
from seremo_jax.training import optim
from seremo_jax.training.arrangement import over_members
from seremo_jax.training.gradients import Draws, Reader
from seremo_jax.training.state import Inputs, Members, Normalisation, Settings, TrainState, init

batch_of = jax.jit(lambda epoch, index: jax.tree.map(lambda array: array[index], epoch))
"""(batches of an epoch, number) -> the batch of this number, without leaving the devices."""


def take(tree: Any, index: np.ndarray, where: NamedSharding) -> Any:
    """Entries `index` of the leading axis of every array, laid out as `where` says."""
    return jax.jit(lambda tree: jax.tree.map(lambda x: x[index], tree), out_shardings=where)(tree)


def _update_member(reader: Reader, state: TrainState) -> TrainState:
    settings, values = reader.settings, reader.member.values
    # The member's own seed and step make its random numbers, so they do not depend on its place or its company.
    keys = (
        jax.random.fold_in(jax.random.fold_in(jax.random.key(values.seed), salt), state.step) if is_read else None
        for salt, is_read in ((1, settings.uses_dropout), (2, settings.mixes))
    )
    loss, terms, grads, standing = reader.gradient(state.params, Draws(*keys), state.standing)
    updates, opt_state = optim.adam(settings.clip_norm).update(grads, state.opt_state, state.params)
    rate = optim.rate_at(settings.schedule, values.learning_rate, state.step, values.num_steps)
    params = jax.tree.map(lambda p, u: p + rate * (u - values.weight_decay * p), state.params, updates)
    norm = optax.tree.norm(grads)
    # One member with a loss that is not finite must not end the training of all others. It stops before this update.
    is_finite = jnp.isfinite(loss) & jnp.isfinite(norm)
    new = terms | {"gradient_norm": norm, "count": jnp.ones(())}
    tally = {name: total + new[name] for name, total in state.tally.items()}
    updated = state._replace(params=params, opt_state=opt_state, step=state.step + 1, tally=tally, standing=standing)
    frozen = state._replace(is_active=jnp.array(False), has_failed=jnp.array(True))
    return jax.tree.map(lambda new, old: jnp.where(is_finite, new, old), updated, frozen)


def _train_step(
    settings: Settings,
    num_data: int,
    num_running: int,
    state: TrainState,
    members: Members,
    batch: Batch,
    inputs: Inputs,
) -> tuple[TrainState, Array]:
    def step_member(item: tuple[TrainState, Members]) -> TrainState:
        state, member = item
        reader = Reader(settings, num_data, inputs, batch, member)
        # A member does nothing once it has stopped, or where its stream has run out. Under `map` that saves the time.
        has_work = state.is_active & (reader.utterance >= 0).any()
        if settings.member_map == "map":
            return jax.lax.cond(has_work, lambda state: _update_member(reader, state), lambda state: state, state)
        # Under `vmap` both branches of a condition are computed, and all that they read is copied for each member: the
        # frames in device memory, too.
        return jax.tree.map(lambda new, old: jnp.where(has_work, new, old), _update_member(reader, state), state)

    # Trained members sit at the first positions of each shard. The others cost nothing, as they are not even mapped.
    running = jax.tree.map(lambda x: x[:num_running], (state, members))
    new = over_members(settings.member_map, step_member, running)
    if num_running < state.step.shape[0]:
        new = jax.tree.map(lambda whole, part: whole.at[:num_running].set(part), state, new)
    # The state is donated to the next step. The host waits for this sum instead, which `+ 0` makes a buffer of its own.
    return new, new.tally["loss"] + 0


def _predict_step(
    settings: Settings, num_data: int, num_running: int, params: Any, members: Members, batch: Batch, inputs: Inputs
) -> dict[str, Array]:
    def predict_member(item: tuple[Any, Members]) -> dict[str, Array]:
        params, member = item
        raw = Reader(settings, num_data, inputs, batch, member).outputs(params)
        outputs = {"attributes": raw.attributes, "distribution": raw.distribution}
        if settings.selects_by_loss:
            outputs |= {name: x for name in ("levels", "variances") if (x := getattr(raw, name)) is not None}
        if settings.gives_embedding:
            outputs["embedding"] = raw.embedding
        return outputs

    running = jax.tree.map(lambda x: x[:num_running], (params, members))
    return over_members(settings.member_map, predict_member, running)


def _finish_epoch(state: TrainState, scores: Array, epoch: Array, patience: int, min_delta: float) -> TrainState:
    # A score of NaN is never better, so a member without a score counts an epoch without improvement.
    is_better = state.is_active & (scores > state.best_score + min_delta)
    stale = jnp.where(is_better, 0, state.stale_epochs + 1)

    def pick(new: Array, old: Array) -> Array:
        return jnp.where(is_better.reshape((-1,) + (1,) * (new.ndim - 1)), new, old)

    return state._replace(
        tally=jax.tree.map(jnp.zeros_like, state.tally),
        best_params=jax.tree.map(pick, state.params, state.best_params),
        best_score=jnp.where(is_better, scores, state.best_score),
        best_epoch=jnp.where(is_better, epoch, state.best_epoch),
        stale_epochs=jnp.where(state.is_active, stale, state.stale_epochs),
        is_active=state.is_active & (stale < patience),
    )


class Steps(NamedTuple):
    """The compiled steps of a run.

    Attributes:
      init: (values) -> state.
      train: (state, members, batch, inputs) -> state, and [P] sum of its losses to wait for. The old state is donated.
      predict: (params, members, batch, inputs) -> of the positions that are trained, by name: attributes [n, B, A],
        distribution [n, B, C], what else the loss is computed of, where it selects epochs, and the embedding
        [n, B, embedding_size] where it is asked for.
      finish_epoch: (state, scores [P], epoch []) -> state after an evaluation on the development split. The old state
        is donated.
      reorder: (tree, places [P]) -> the tree with its positions in another order.
    """

    init: Callable
    train: Callable
    predict: Callable
    finish_epoch: Callable
    reorder: Callable


def batch_specs(is_cached: bool) -> Batch:
    """How a batch lies on the mesh."""
    rows, same = PartitionSpec(None, None, sharding.DATA), PartitionSpec()
    features = None if is_cached else PartitionSpec(sharding.MEMBER, None, sharding.DATA)
    return Batch(features, rows if is_cached else None, rows, rows, same, same)


def input_specs(is_cached: bool) -> Inputs:
    """How the other inputs lie on the mesh. An entry stands for all tables of its part, be there any or none."""
    member, same = PartitionSpec(sharding.MEMBER), PartitionSpec()
    return Inputs(Normalisation(member, member), same, member if is_cached else None, same, same, member, same)


@functools.cache
def compile_steps(
    settings: Settings,
    mesh: Mesh,
    patience: int = 1,
    min_delta: float = 0.0,
    *,
    num_running: int,
    is_cached: bool = False,
) -> Steps:
    """Steps with members spread over the mesh's member axis. Inside a shard, members run by `settings.member_map`.

    Args:
      settings: Static settings.
      mesh: Mesh with the axes `("member", "data")`. Where the data axis has one device, the steps need no collective.
        Otherwise the devices of the data axis add up outputs of the head and gradients.
      patience: Evaluations without improvement after which a member stops.
      min_delta: Improvement that counts.
      num_running: Positions of each shard that are trained, see `Arrangement`.
      is_cached: Frames live in device memory.
    """
    # `shard_map` gives every device its own members and rows, so that every collective stands in the code. `jit` has
    # explicit shardings in and out, so that no array is moved unasked.
    member = PartitionSpec(sharding.MEMBER)
    num_data = mesh.shape[sharding.DATA]
    specs = (member, member, batch_specs(is_cached), input_specs(is_cached))

    def placed(spec: Any) -> Any:
        return jax.tree.map(lambda x: NamedSharding(mesh, x), spec, is_leaf=lambda x: isinstance(x, PartitionSpec))

    def spread(function: Callable, in_specs: tuple[Any, ...]) -> Callable:
        return jax.shard_map(
            function,
            mesh=mesh,
            in_specs=in_specs,
            out_specs=member,
            axis_names={sharding.MEMBER, sharding.DATA},
            check_vma=False,
        )

    def jitted(function: Callable, in_specs: tuple[Any, ...] = specs, **options: Any) -> Callable:
        return jax.jit(
            spread(function, in_specs), in_shardings=placed(in_specs), out_shardings=placed(member), **options
        )

    finish = functools.partial(_finish_epoch, patience=patience, min_delta=min_delta)
    same = PartitionSpec()
    # A donated state is written in place: parameters, optimiser state and best parameters of all members are most of
    # the memory of a device, and there is never a second copy of them.
    return Steps(
        init=jitted(functools.partial(init, settings), (member,)),
        train=jitted(functools.partial(_train_step, settings, num_data, num_running), donate_argnums=0),
        predict=jitted(functools.partial(_predict_step, settings, num_data, num_running)),
        finish_epoch=jitted(finish, (member, member, same), donate_argnums=0),
        reorder=jax.jit(
            lambda tree, places: jax.tree.map(lambda x: x[places], tree),
            in_shardings=(placed(member), placed(same)),
            out_shardings=placed(member),
        ),
    )
