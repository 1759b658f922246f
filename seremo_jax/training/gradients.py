"""Loss of one member and its gradient over the whole batch, in however many parts its rows are computed, to 1e-6.

CCC is a statistic of the whole batch, and the mean of the losses of parts is another loss with another gradient. The
loss is therefore never split. The computation has three steps:

1. The outputs of the head are computed for all parts and added up. They are small: a few numbers for each utterance.
2. The loss and its gradient with respect to the outputs are computed once, over the whole batch.
3. The gradient of the outputs is pulled back through the head part by part, and the parameter gradients are added up.

By the chain rule the sum of step 3 is the gradient of the loss over the whole batch. Memory is that of one part, at the
cost of a second forward pass.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from seremo_jax.core import sharding, vocab
from seremo_jax.core.schema import Batch, Labels
from seremo_jax.training import mixing, model, objectives, robust, zscore
from seremo_jax.training.robust import Standing
from seremo_jax.training.state import TASK_SCALES, Inputs, Members, Settings


class Draws(NamedTuple):
    """Random keys of a step of one member.

    Attributes:
      dropout: None switches dropout off.
      mixing: None where no member mixes utterances.
    """

    dropout: Array | None
    mixing: Array | None


class Gradient(NamedTuple):
    """Loss of one member on a batch, and what follows from it.

    Attributes:
      loss: Total loss.
      terms: Its terms by name.
      grads: Its gradient.
      standing: How groups stand after the batch; None where no objective is over groups.
    """

    loss: Array
    terms: dict[str, Array]
    grads: Any
    standing: Standing | None


class Reader(NamedTuple):
    """The inputs of one member on one device: its stream of the batch, and its views.

    Attributes:
      settings: Static settings.
      num_data: Devices of the data axis, which share the rows of each batch.
      inputs: Inputs besides the batch.
      batch: The batch, with this device's rows.
      member: The member, without its leading axis.
    """

    settings: Settings
    num_data: int
    inputs: Inputs
    batch: Batch
    member: Members

    @property
    def utterance(self) -> Array:
        """[B] row of the labels, -1 where the slot is not used."""
        return self.batch.utterance[self.member.stream]

    def labels(self) -> Labels:
        """Labels of the utterance in each slot, and those of any utterance where the slot is not used."""
        rows = jnp.maximum(self.utterance, 0)
        return jax.tree.map(lambda table: table[rows], self.inputs.labels)

    def weight(self) -> Float[Array, " B"] | None:
        """Weight of the utterance in each slot, see `balance`; None where all members weigh all utterances alike."""
        table = self.inputs.weights
        return None if table is None else table[self.member.values.weight_slot, jnp.maximum(self.utterance, 0)]

    def _entries(self, table: Array, slot: Array) -> Array:
        """The member's entries of a table by layers: one entry, or as many as the layers that it sums."""
        num = self.settings.num_layers
        return jax.lax.dynamic_slice_in_dim(table, slot, num) if num else table[slot]

    def _normalised(self, features: Array, slot: Array) -> Array:
        """Z-scores of frames [*K, T, R, D] whose utterances are in `slot` [T, R]."""
        plain = tuple(self._entries(table, self.member.norm_slot) for table in self.inputs.norm)
        if self.member.relative is None:
            return zscore.normalise(features, slot >= 0, *plain)
        relative, spoken, num = self.member.relative, self.inputs.spoken, self.settings.num_layers
        voice = spoken.voice[relative.fold, jnp.maximum(self.utterance, 0)]
        # One gather takes layer and voice at once, so that no member has a copy of all voices.
        views = relative.slot + jnp.arange(num)[:, None] if num else relative.slot
        own = tuple(table[views, jnp.maximum(voice, 0)] for table in self.inputs.speakers)
        seconds = jnp.where(voice >= 0, spoken.seconds[jnp.maximum(voice, 0)], 0)
        return zscore.normalise_by_slot(features, slot, *zscore.drawn_together(plain, own, seconds, relative.kappa_s))

    def forward(self, params: Any, part: Array | int, dropout_key: Array | None, *, is_summary: bool = False) -> Any:
        """Outputs of the head for the utterances in one part of this device's rows; zero for all others.

        Args:
          params: The member's parameters.
          part: Number of the part.
          dropout_key: Random key of the step; None switches dropout off.
          is_summary: Gives the summaries of the states [B, P] instead of what the head makes of them.
        """
        num_parts, stream = self.settings.micro_batches, self.member.stream
        num_local = self.batch.slot.shape[2]
        num_rows = num_local // num_parts

        def rows_of_part(array: Array) -> Array:
            return array if num_parts == 1 else jax.lax.dynamic_slice_in_dim(array, part * num_rows, num_rows, axis=-1)

        slot, reset = rows_of_part(self.batch.slot[stream]), rows_of_part(self.batch.reset[stream])
        if self.inputs.frames is not None:
            # The batch says where each frame lies in device memory. Gaps point at frame 0, and are set to 0 below. One
            # gather takes layer and frame at once: a layer that is taken first is copied whole, once for each member.
            # The barrier keeps the compiler from converting all frames of the store in front of it.
            frame, num = rows_of_part(self.batch.frame[stream]), self.settings.num_layers
            views = self.member.view_slot + jnp.arange(num)[:, None, None] if num else self.member.view_slot
            features = jax.lax.optimization_barrier(self.inputs.frames[views, frame])
        else:
            features = self._entries(self.batch.features, self.member.view_slot)
            features = rows_of_part(jnp.swapaxes(features, -1, -2)).swapaxes(-1, -2) if num_parts > 1 else features
        features = self._normalised(features, slot)
        device = jax.lax.axis_index(sharding.DATA) if self.num_data > 1 else 0
        first_row = device * num_local + part * num_rows
        dropout = None
        if dropout_key is not None:
            # Masks are drawn by the number of a row in the whole batch, so that parts and devices drop what the whole
            # batch drops.
            rows = first_row + jnp.arange(num_rows)
            dropout = model.Dropout(dropout_key, self.member.values.dropout, rows)
        # `last_frame` counts over all rows of the batch. An utterance whose row lies elsewhere reads the state of frame
        # 0 here, and its output is set to zero, so that outputs of parts and devices can be added up.
        frame, row = jnp.divmod(self.batch.last_frame[stream], num_local * self.num_data)
        is_here = (row >= first_row) & (row < first_row + num_rows)
        last_frame = jnp.where(is_here, frame * num_rows + row - first_row, 0)
        head = {name: value for name, value in params.items() if name != TASK_SCALES}
        module = model.module(self.settings.sizes, head)
        raw = (module.summaries if is_summary else module)(features, reset, slot, last_frame, dropout=dropout)
        return jax.tree.map(lambda x: jnp.where(is_here.reshape((-1,) + (1,) * (x.ndim - 1)), x, 0), raw)

    def whole(self, raw: Any) -> Any:
        """Outputs for the rows of all devices of the data axis. Each utterance has its row on one of them."""
        return jax.lax.psum(raw, sharding.DATA) if self.num_data > 1 else raw

    def outputs(self, params: Any) -> model.Raw:
        """Outputs of the head for every slot, without dropout."""
        return self.whole(_sum_of_parts(self.settings.micro_batches, lambda part: self.forward(params, part, None)))

    def gradient(self, params: Any, draws: Draws, standing: Standing | None) -> Gradient:
        """Loss over the whole batch, its terms by name, its gradient, and how groups stand after the batch.

        They are equal for every number of parts and devices, to rounding.

        Args:
          params: The member's parameters.
          draws: Random keys of the step.
          standing: How groups stand before the batch; None where no objective is over groups.
        """
        num_parts, mixes = self.settings.micro_batches, self.settings.mixes

        def forward_of(part: Array | int) -> Callable[[Any], Any]:
            if mixes:
                return lambda params: self.forward(params, part, draws.dropout, is_summary=True)
            # The loss does not read the embedding. Without it there is less to add up.
            return lambda params: self.forward(params, part, draws.dropout)._replace(embedding=None)

        # A single part keeps what its backward pass needs. With several parts that would be the memory of the whole
        # batch, so they are computed once more in the third step.
        if num_parts == 1:
            outputs, pull = jax.vjp(forward_of(0), params)
        else:
            outputs = _sum_of_parts(num_parts, lambda part: forward_of(part)(params))
        outputs, labels, is_used, weight = self.whole(outputs), self.labels(), self.utterance >= 0, self.weight()

        def loss(outputs: Any, behind: Any) -> tuple[Array, tuple[dict[str, Array], Standing | None]]:
            values, raw, of_slots = self.member.values, outputs, labels
            if mixes:
                raw, of_slots = self._mixed(params | behind, outputs, labels, draws)
            of_rows, then = self._emphasis(raw, of_slots, weight, standing)
            scales = behind.get(TASK_SCALES)
            total, terms = objectives.total(self.settings.fixed, raw, of_slots, is_used, values, scales, of_rows)
            return total, (terms, then)

        # Every device has the outputs of all rows now, so each computes the same loss and the same gradient there.
        names = (TASK_SCALES,) * self.settings.learns_task_weights + model.BEHIND_SUMMARY * mixes
        gradient = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
        (value, (terms, then)), (g_outputs, g_behind) = gradient(outputs, {name: params[name] for name in names})
        if num_parts == 1:
            (grads,) = pull(g_outputs)
        else:
            # There is a row for every utterance. `forward` is zero for those of other parts, and so is their share.
            grads = _sum_of_parts(num_parts, lambda part: jax.vjp(forward_of(part), params)[1](g_outputs)[0])
        # Each device has pulled back through its own rows only. What is behind that is the same on all of them.
        grads = jax.lax.psum(grads, sharding.DATA) if self.num_data > 1 else grads
        return Gradient(value, terms, grads | g_behind, then)

    def _mixed(self, params: Any, summary: Array, labels: Labels, draws: Draws) -> tuple[model.Raw, Labels]:
        """Outputs of the head for utterances that are mixed with those of other speakers, and their labels."""
        rows, sizes = self.utterance, self.settings.sizes
        to_partner, to_share = jax.random.split(draws.mixing)
        partner, has_partner = mixing.partners(to_partner, rows, self._group(0))
        share = jnp.where(has_partner, mixing.shares(to_share, rows, self.member.values.mixup), 1)
        summary, labels = mixing.mixed((summary, labels), partner, share)
        dropout = None
        if draws.dropout is not None:
            dropout = model.Dropout(draws.dropout, self.member.values.dropout, jnp.arange(0))
        head = {name: value for name, value in params.items() if name != TASK_SCALES}
        return model.module(sizes, head).outputs(summary, dropout)._replace(embedding=None), labels

    def _emphasis(
        self, raw: model.Raw, labels: Labels, weight: Array | None, standing: Standing | None
    ) -> tuple[Array | None, Standing | None]:
        """Weights of the slots under the member's objective, and how groups stand after the batch."""
        if standing is None:
            return weight, None
        values, fixed, is_used = self.member.values, self.settings.fixed, self.utterance >= 0
        weight = jnp.where(is_used, 1.0 if weight is None else weight, 0)
        group = jnp.where(is_used, self._group(values.objective_group), -1)
        # Shares of groups are no function that is differentiated: the loss is linear in them.
        loss = objectives.by_row(fixed, jax.lax.stop_gradient(raw), labels, is_used, values, weight)
        then = robust.updated(standing, loss, weight, group, self.settings.strengths.dro_step)
        shares = robust.shares(then, values.objective, self.settings.strengths)
        is_mean = values.objective == list(vocab.OBJECTIVES).index("mean")
        return robust.reweighed(weight, group, shares, is_mean), then

    def _group(self, kind: Array | int) -> Array:
        """[B] speaker or group of the utterance in each slot, by a row of `Inputs.groups`."""
        return self.inputs.groups[kind, jnp.maximum(self.utterance, 0)]


def _sum_of_parts(num_parts: int, function: Callable[[Array | int], Any]) -> Any:
    """Sum of a function of the number of a part, with the memory of one part."""
    if num_parts == 1:
        return function(0)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(function, 0))
    return jax.lax.fori_loop(0, num_parts, lambda part, sums: jax.tree.map(jnp.add, sums, function(part)), zeros)
