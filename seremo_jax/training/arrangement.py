"""Where members sit on the devices, and what the members of one device read there.

A *stream* is an order of batches over some utterances; members of one fold and data seed share one. A *view* is the
frames of one layer in one stream. Each shard of the member axis holds the views of its own members and no others.
"""

import dataclasses
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int


@dataclasses.dataclass(frozen=True)
class Arrangement:
    """E members at P positions, P a multiple of the shards; positions beyond the members hold inactive copies.

    Attributes:
      num_members: E.
      num_shards: Shards of the member axis.
      num_running: Positions of each shard, its first ones, that are trained.
      order: [P] member at each position; E and above are the copies.
    """

    num_members: int
    num_shards: int
    num_running: int
    order: Int[np.ndarray, " P"]

    @property
    def per_shard(self) -> int:
        """Positions of a shard."""
        return len(self.order) // self.num_shards

    @property
    def member(self) -> Int[np.ndarray, " P"]:
        """[P] member whose values each position has: copies take the last one's."""
        return np.minimum(self.order, self.num_members - 1)

    @property
    def places(self) -> Int[np.ndarray, " P"]:
        """[P] position of each member and copy: `x[order][places]` is `x`."""
        return np.argsort(self.order)

    @property
    def running(self) -> Int[np.ndarray, " n"]:
        """Positions that are trained, shard by shard."""
        within = np.arange(self.num_running)[None, :] + self.per_shard * np.arange(self.num_shards)[:, None]
        return within.reshape(-1)


def arrange(num_members: int, num_shards: int, is_active: Bool[np.ndarray, " E"] | None = None) -> Arrangement:
    """Spreads the active members evenly over the shards, in their order.

    Args:
      num_members: E.
      num_shards: Shards of the member axis.
      is_active: Members that still train; None keeps all where they are.
    """
    per_shard = -(-num_members // num_shards)
    if is_active is None:
        return Arrangement(num_members, num_shards, per_shard, np.arange(per_shard * num_shards))
    is_running = np.append(is_active, np.zeros(per_shard * num_shards - num_members, bool))
    running, resting = np.flatnonzero(is_running).tolist(), np.flatnonzero(~is_running).tolist()
    num_running, order = max(1, -(-len(running) // num_shards)), []
    for _ in range(num_shards):
        mine, running = running[:num_running], running[num_running:]
        order += mine + resting[: per_shard - len(mine)]
        resting = resting[per_shard - len(mine) :]
    return Arrangement(num_members, num_shards, num_running, np.array(order))


def is_worth_compacting(current: Arrangement, is_active: Bool[np.ndarray, " E"], is_one_by_one: bool) -> bool:
    """Whether spreading the members that are left anew halves the time of a step, or a whole shard has nothing to do.

    Args:
      current: How members sit now.
      is_active: Members that still train.
      is_one_by_one: A stopped member costs nothing, as the members of a shard run one after the other.
    """
    num_left = int(is_active.sum())
    if not num_left:
        return False
    padded = np.append(is_active, np.zeros(len(current.order) - current.num_members, bool))
    busy = padded[current.order[current.running]].reshape(current.num_shards, -1).sum(axis=1)
    now, then = busy.max() if is_one_by_one else current.num_running, -(-num_left // current.num_shards)
    return bool(2 * then <= now or (busy.min() == 0 and then < now))


def share_out(
    current: Arrangement, keys: Sequence[tuple[Hashable, ...]]
) -> tuple[list[list[Hashable]], Int[np.ndarray, " P"]]:
    """What each shard must hold for its members, and where each member finds it.

    Args:
      current: How members sit.
      keys: What each member reads, as many entries for every member.

    Returns:
      Entries of each shard, lists of one length (a shard with fewer repeats its first), and [P] the first entry of the
      member at each position within its shard; 0 for positions that are not trained.
    """
    entries, slot = [], np.zeros(len(current.order), np.int32)
    for positions in current.running.reshape(current.num_shards, -1):
        groups: dict[tuple[Hashable, ...], int] = {}
        for position in positions:
            key = tuple(keys[current.member[position]])
            slot[position] = groups.setdefault(key, len(groups)) * len(key)
        entries.append([entry for key in groups for entry in key])
    most = max(map(len, entries))
    return [shard + [shard[0]] * (most - len(shard)) for shard in entries], slot


def over_members(member_map: str, one: Callable[[Any], Any], items: Any) -> Any:
    """What `one` gives for each member, stacked.

    Args:
      member_map: `vmap`, or `map` for one member after the other.
      one: Function of what one member has.
      items: The same for all members, with a leading axis.
    """
    return _one_after_the_other(one, items) if member_map == "map" else jax.vmap(one)(items)


def _one_after_the_other(one: Callable, items: Any) -> Any:
    """`lax.map`, but with a trip count XLA cannot see.

    A loop of one would be inlined, fused with its surroundings, and rounded differently from the member in company.
    """
    num = jax.tree.leaves(items)[0].shape[0]

    def pick(i: Array) -> Any:
        return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, i, keepdims=False), items)

    def body(i: Array, outputs: Any) -> Any:
        return jax.tree.map(lambda all_, new: all_.at[i].set(new), outputs, one(pick(i)))

    shapes = jax.eval_shape(one, jax.eval_shape(pick, jnp.int32(0)))
    outputs = jax.tree.map(lambda shape: jnp.zeros((num, *shape.shape), shape.dtype), shapes)
    return jax.lax.fori_loop(0, jax.lax.optimization_barrier(jnp.int32(num)), body, outputs)
