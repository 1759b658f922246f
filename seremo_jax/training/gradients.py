"""One member's loss and its exact gradient, whatever parts the rows of a batch are computed in.

CCC is a statistic of the whole batch: what the head puts out for all rows comes first, then the loss and its gradient
there, then the backward passes of the parts. Averaging the losses of parts would be another loss.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from seremo_jax.core import mesh
from seremo_jax.core.schema import Batch, Labels
from seremo_jax.training import model, objectives
from seremo_jax.training.state import TASK_SCALES, Inputs, Members, Settings


def normalise(features: Array, is_valid: Array, mean: Float[Array, "*K D"], sd: Float[Array, "*K D"]) -> Array:
    """Z-scores of [*K, T, R, D] frames in float32, zero where not valid.

    Source: INFERRED, method.md section 4.2, step 1.
    """
    mean, sd = mean[..., None, None, :], sd[..., None, None, :]
    is_valid = jnp.broadcast_to(is_valid[..., None], features.shape)
    return jnp.where(is_valid, (features.astype(jnp.float32) - mean) / sd, 0)


class Reader(NamedTuple):
    """What one member reads on one device: its stream of the batch, and its views."""

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
        """Labels of the utterance in each slot; anything where the slot is not used."""
        rows = jnp.maximum(self.utterance, 0)
        return jax.tree.map(lambda table: table[rows], self.inputs.labels)

    def _entries(self, table: Array, slot: Array) -> Array:
        """The member's entries of a table by layers: one, or as many as it sums."""
        num = self.settings.num_layers
        return jax.lax.dynamic_slice_in_dim(table, slot, num) if num else table[slot]

    def forward(self, params: Any, part: Array | int, dropout_key: Array | None) -> model.Raw:
        """What the head puts out for the utterances of one part of this device's rows; zero for all others."""
        num_parts, stream = self.settings.micro_batches, self.member.stream
        num_local = self.batch.slot.shape[2]
        num_rows = num_local // num_parts

        def rows_of(array: Array) -> Array:
            return array if num_parts == 1 else jax.lax.dynamic_slice_in_dim(array, part * num_rows, num_rows, axis=-1)

        slot, reset = rows_of(self.batch.slot[stream]), rows_of(self.batch.reset[stream])
        if self.inputs.frames is not None:
            features = self._entries(self.inputs.frames, self.member.view_slot)
            features = features[..., rows_of(self.batch.frame[stream]), :]
        else:
            features = self._entries(self.batch.features, self.member.view_slot)
            features = rows_of(jnp.swapaxes(features, -1, -2)).swapaxes(-1, -2) if num_parts > 1 else features
        mean, sd = (self._entries(table, self.member.norm_slot) for table in self.inputs.norm)
        features = normalise(features, slot >= 0, mean, sd)
        device = jax.lax.axis_index(mesh.DATA) if self.num_data > 1 else 0
        first_row = device * num_local + part * num_rows
        dropout = None
        if dropout_key is not None:
            rows = first_row + jnp.arange(num_rows)
            dropout = model.Dropout(dropout_key, self.member.values.dropout, rows)
        frame, row = jnp.divmod(self.batch.last_frame[stream], num_local * self.num_data)
        is_here = (row >= first_row) & (row < first_row + num_rows)
        last_frame = jnp.where(is_here, frame * num_rows + row - first_row, 0)
        head = {name: value for name, value in params.items() if name != TASK_SCALES}
        raw = model.apply(dict(self.settings.sizes), head, features, reset, slot, last_frame, dropout=dropout)
        return jax.tree.map(lambda x: jnp.where(is_here.reshape((-1,) + (1,) * (x.ndim - 1)), x, 0), raw)

    def whole(self, raw: model.Raw) -> model.Raw:
        """Outputs of all devices' rows."""
        return jax.lax.psum(raw, mesh.DATA) if self.num_data > 1 else raw

    def outputs(self, params: Any) -> model.Raw:
        """What the head puts out for every slot, without dropout."""
        return self.whole(_sum_of_parts(self.settings.micro_batches, lambda part: self.forward(params, part, None)))

    def gradient(self, params: Any, dropout_key: Array | None) -> tuple[Array, dict[str, Array], Any]:
        """Loss over the whole batch, its terms, and its gradient.

        Equal for every number of parts and devices, to rounding: the loss is never split.
        """
        num_parts = self.settings.micro_batches

        def part_of(part: Array | int) -> Callable[[Any], model.Raw]:
            # The loss does not read the embedding: without it, there is less to add up.
            return lambda params: self.forward(params, part, dropout_key)._replace(embedding=None)

        if num_parts == 1:
            raw, pull = jax.vjp(part_of(0), params)
        else:
            raw = _sum_of_parts(num_parts, lambda part: part_of(part)(params))
        raw, labels, is_used = self.whole(raw), self.labels(), self.utterance >= 0

        def loss(raw: model.Raw, scales: Array | None) -> tuple[Array, dict[str, Array]]:
            return objectives.total(self.settings.fixed, raw, labels, is_used, self.member.values, scales)

        learns = self.settings.learns_task_weights
        gradient = jax.value_and_grad(loss, argnums=(0, 1) if learns else (0,), has_aux=True)
        (value, terms), (g_raw, *g_scales) = gradient(raw, params.get(TASK_SCALES))
        if num_parts == 1:
            (grads,) = pull(g_raw)
        else:
            grads = _sum_of_parts(num_parts, lambda part: jax.vjp(part_of(part), params)[1](g_raw)[0])
        grads = jax.lax.psum(grads, mesh.DATA) if self.num_data > 1 else grads
        return value, terms, grads | ({TASK_SCALES: g_scales[0]} if learns else {})


def _sum_of_parts(num_parts: int, of_part: Callable[[Array | int], Any]) -> Any:
    if num_parts == 1:
        return of_part(0)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(of_part, 0))
    return jax.lax.fori_loop(0, num_parts, lambda part, sums: jax.tree.map(jnp.add, sums, of_part(part)), zeros)
