"""Where members sit on the devices, and what the members of one device read there.

A *stream* is an order of batches over some utterances; members of one fold and one data seed share a stream. A *view*
is the frames of one layer in one stream. Each shard of the member axis holds the views that its own members read and no
others, so that the memory of a device does not grow with the number of layers of the whole ensemble.
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
    """E members at P positions. P is a multiple of the number of shards.

    Where E is not such a multiple, the positions beyond the members hold inactive copies of the last member.

    Attributes:
      num_members: E.
      num_shards: Shards of the member axis.
      num_running: Number of positions that are trained in each shard. They are the first ones of the shard.
      order: [P] number of the member at each position. Numbers from E on stand for the copies.
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
        """[P] number of the member whose values each position has; copies have those of the last member."""
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
      is_active: Members that still train. None means all, each at the position of its own number.
    """
    per_shard = -(-num_members // num_shards)
    if is_active is None:
        return Arrangement(num_members, num_shards, per_shard, np.arange(per_shard * num_shards))
    is_running = np.append(is_active, np.zeros(per_shard * num_shards - num_members, bool))
    running, resting = np.flatnonzero(is_running).tolist(), np.flatnonzero(~is_running).tolist()
    # Every shard runs the same compiled step, so every shard trains the same number of positions. Where the active
    # members do not fill the last shards, stopped members take the positions that are left.
    num_running, order = max(1, -(-len(running) // num_shards)), []
    for _ in range(num_shards):
        here, running = running[:num_running], running[num_running:]
        order += here + resting[: per_shard - len(here)]
        resting = resting[per_shard - len(here) :]
    return Arrangement(num_members, num_shards, num_running, np.array(order))


def is_worth_compacting(current: Arrangement, is_active: Bool[np.ndarray, " E"], is_one_by_one: bool) -> bool:
    """Whether it saves enough time to spread the members that are left over the shards anew.

    It does where a step then takes at most half as long, or where a shard has nothing left to do and the longest turn
    gets shorter.

    Args:
      current: How members sit now.
      is_active: Members that still train.
      is_one_by_one: The members of a shard run one after the other, so that a stopped member costs no time.
    """
    num_left = int(is_active.sum())
    if not num_left:
        return False
    padded = np.append(is_active, np.zeros(len(current.order) - current.num_members, bool))
    busy = padded[current.order[current.running]].reshape(current.num_shards, -1).sum(axis=1)
    # Steps for another number of trained positions are compiled anew. Asking for half the time keeps the number of such
    # compilations low.
    now, then = busy.max() if is_one_by_one else current.num_running, -(-num_left // current.num_shards)
    return bool(2 * then <= now or (busy.min() == 0 and then < now))


def share_out(
    current: Arrangement, keys: Sequence[tuple[Hashable, ...]]
) -> tuple[list[list[Hashable]], Int[np.ndarray, " P"]]:
    """What each shard must hold for its members, and where each member finds it there.

    Args:
      current: How members sit.
      keys: The entries that each member reads, the same number for every member.

    Returns:
      The entries of each shard, and [P] index of the first entry of the member at each position within its shard (0 at
      positions that are not trained). The lists of all shards have one length: a shard with fewer repeats its first
      entry.
    """
    entries, slot = [], np.zeros(len(current.order), np.int32)
    for positions in current.running.reshape(current.num_shards, -1):
        groups: dict[tuple[Hashable, ...], int] = {}
        for position in positions:
            key = tuple(keys[current.member[position]])
            # Members with the same key share its entries. The entries of a key stand next to each other, so that a
            # member that sums layers finds them all with one slice.
            slot[position] = groups.setdefault(key, len(groups)) * len(key)
        entries.append([entry for key in groups for entry in key])
    # An array that is sharded over the member axis has equally many entries in every shard.
    most = max(map(len, entries))
    return [shard + [shard[0]] * (most - len(shard)) for shard in entries], slot


def over_members(member_map: str, function: Callable[[Any], Any], items: Any) -> Any:
    """Results of a function for each member, stacked along a leading axis.

    Members are mapped twice. The outer axis is the member axis of the mesh. Members are numbered with layers outermost,
    so a shard holds few layers and only their views. The inner axis is this one, over the members of a shard, which
    are mostly seeds and settings of the same layers. They share the batch: `function` closes over it (`in_axes=None`
    in terms of `jax.vmap`), so that no member has a copy, and each member picks its view by an index.

    Args:
      member_map: `vmap`, or `map` for one member after the other.
      function: Function of one member's entries of `items`.
      items: Arrays with a leading axis of members.
    """
    return _one_after_the_other(function, items) if member_map == "map" else jax.vmap(function)(items)


def _one_after_the_other(function: Callable, items: Any) -> Any:
    """`jax.lax.map` with a trip count that XLA cannot see.

    XLA inlines a loop that runs once. The body would then be fused with its surroundings and rounded in another way
    than the same member in company, and a member trained alone would not equal itself in an ensemble bit by bit.
    """
    num = jax.tree.leaves(items)[0].shape[0]

    def pick(i: Array) -> Any:
        return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, i, keepdims=False), items)

    def body(i: Array, outputs: Any) -> Any:
        return jax.tree.map(lambda stacked, new: stacked.at[i].set(new), outputs, function(pick(i)))

    # Traced once here and once in the loop: `jit` remembers the first time, and `inline` leaves no call behind.
    function = jax.jit(function, inline=True)
    shapes = jax.eval_shape(function, jax.eval_shape(pick, jnp.int32(0)))
    outputs = jax.tree.map(lambda shape: jnp.zeros((num, *shape.shape), shape.dtype), shapes)
    # The barrier hides that the number is a constant.
    return jax.lax.fori_loop(0, jax.lax.optimization_barrier(jnp.int32(num)), body, outputs)
