"""Trained heads in ONNX operators: what `export.apply` computes, with ONNX's own GRU over the frames of each row."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from seremo_jax.core.artefacts import ArtefactError
from seremo_jax.predict.export import Heads, flatten
from seremo_jax.predict.onnx_graph import Graph, require_form
from seremo_jax.training.model import Sizes

_LEAST_VARIANCE = 1e-10
"""As in `training.pooling`, where the slope of the root would be infinite below."""

Member = Mapping[str, np.ndarray]
"""Parameters of one member by their names (`grus.0.w_i`)."""


class Outputs(NamedTuple):
    """Names of the outputs of all members.

    Attributes:
      distribution: [E, B, C] class distribution, not calibrated.
      attributes: [E, B, A] on the scale of the targets.
    """

    distribution: str
    attributes: str


class _Rows(NamedTuple):
    """The utterances of a batch.

    Attributes:
      hidden: [K, B, T, D] their frames.
      num_features: D.
      lengths: [B] int32, 1 at least.
      is_valid: [B, T, 1] which frames are theirs.
    """

    hidden: str
    num_features: int
    lengths: str
    is_valid: str


def add(graph: Graph, sizes: Sizes, heads: Heads, hidden: str, num_frames: str, num_features: int) -> Outputs:
    """Adds the heads to a graph, in float32 whatever the dtype of their products in training was.

    Args:
      graph: The graph.
      sizes: Sizes of the heads.
      heads: The members.
      hidden: [K, B, T, D] frames of the layers, not normalised, anything beyond each length.
      num_frames: [B] int32 valid frames; more than T are refused when the graph runs.
      num_features: D.

    Raises:
      ArtefactError: A pooling, convolution or activation has no form here, or the heads are relative to speakers.
    """
    if heads.kappa_s is not None:
        raise ArtefactError(
            "these heads hear features relative to the speaker (model.speaker_kappa_s), which have no form in ONNX "
            "here: head.stablehlo takes the statistics of the speaker"
        )
    require_form("model.conv_kind", sizes.conv_kind, ("depthwise", "dense"))
    require_form("model.pooling", sizes.pooling, ("last_valid", "mean", "mean_sd"))
    # The operator GRU takes no row without frames. The outputs of such a row mean nothing here either.
    lengths = graph("Max", num_frames, np.array([1], np.int32))
    rows = _Rows(hidden, num_features, lengths, graph.spread(graph.is_within(hidden, 2, num_frames), 2))
    arrays, outputs = flatten(heads.params), []
    for number in range(len(heads.layer_slot)):
        member = {name: np.asarray(array[number], np.float32) for name, array in arrays.items()}
        summary = _summary(graph, sizes, member, _normalised(graph, sizes, heads, member, rows, number), rows)
        embedding = _affine(graph, member, "embedding", summary)
        embedding = graph.activated(embedding, sizes.embedding_activation)
        distribution = graph("Softmax", _affine(graph, member, "class_head", embedding), axis=-1)
        outputs.append((distribution, _attributes(graph, sizes, member, embedding)))
    return Outputs(*map(graph.stack, zip(*outputs, strict=True)))


def _affine(graph: Graph, member: Member, name: str, x: str) -> str:
    return graph.affine(x, member[f"{name}.w"], member[f"{name}.b"])


def _normalised(graph: Graph, sizes: Sizes, heads: Heads, member: Member, rows: _Rows, number: int) -> str:
    """[B, T, M] z-scores of the layer that a member reads, or the weighted sum of all; zero beyond each length."""
    layer, place = int(heads.layer_slot[number]), int(heads.norm_slot[number])
    if sizes.num_layers:
        weights = np.exp(member["layer_weights"] - member["layer_weights"].max())
        parts = [
            graph("Mul", _z_scores(graph, heads, rows, k, place + k), float(weight))
            for k, weight in enumerate(weights / weights.sum())
        ]
        scores = graph("Sum", *parts)
    else:
        scores = _z_scores(graph, heads, rows, layer, place)
    return graph("Where", rows.is_valid, scores, 0.0)


def _z_scores(graph: Graph, heads: Heads, rows: _Rows, layer: int, place: int) -> str:
    """[B, T, M] of one layer, anything beyond each length."""
    frames, columns = graph("Gather", rows.hidden, layer, axis=0), np.asarray(heads.columns[layer], np.int64)
    if len(columns) < rows.num_features:
        frames = graph("Gather", frames, columns, axis=2)
    mean, sd = (np.asarray(table[place], np.float32) for table in (heads.mean, heads.sd))
    return graph("Div", graph("Sub", frames, mean), sd)


def _summary(graph: Graph, sizes: Sizes, member: Member, features: str, rows: _Rows) -> str:
    """[B, P] summaries of the states of each row, from features [B, T, M]; see `TCGRU.summaries`."""
    x = features
    if sizes.conv_kernel:
        x = graph("Concat", _convolved(graph, sizes, member, features), x, axis=2)
    x = graph("Transpose", x, perm=[1, 0, 2])
    for depth in range(sizes.gru_layers):
        if depth:
            # [T, directions, B, H] -> [T, B, directions * H]
            x = graph("Reshape", graph("Transpose", x, perm=[0, 2, 1, 3]), np.array([0, 0, -1]))
        x, last = _gru(graph, sizes, member, depth, x, rows.lengths)
    pooled = last if sizes.pooling == "last_valid" else _moments(graph, sizes.pooling, x, rows)
    return graph("Reshape", graph("Transpose", pooled, perm=[1, 0, 2]), np.array([0, -1]))


def _convolved(graph: Graph, sizes: Sizes, member: Member, features: str) -> str:
    """[B, T, F] behind the convolution and its activation, from features [B, T, M]; not 0 beyond each length."""
    w, is_dense = member["conv.w"], sizes.conv_kind == "dense"
    y = graph(
        "Conv",
        graph("Transpose", features, perm=[0, 2, 1]),
        w.transpose(2, 1, 0) if is_dense else w.T[:, None],
        member["conv.b"],
        group=1 if is_dense else w.shape[1],
        pads=[len(w) // 2, len(w) - 1 - len(w) // 2],
    )
    return graph("Transpose", graph("Relu", y), perm=[0, 2, 1])


def _gru(graph: Graph, sizes: Sizes, member: Member, depth: int, x: str, lengths: str) -> tuple[str, str]:
    """States [T, directions, B, H], and the last one of each direction [directions, B, H], from frames [T, B, I]."""
    names = ["grus", "backward_grus"] if sizes.bidirectional else ["grus"]
    w_i, w_h, b_i, b_h = (
        np.stack([_gates(member[f"{name}.{depth}.{kind}"]) for name in names]) for kind in ("w_i", "w_h", "b_i", "b_h")
    )
    return graph(
        "GRU",
        x,
        w_i,
        w_h,
        np.concatenate([b_i, b_h], axis=1),
        lengths,
        num_outputs=2,
        hidden_size=sizes.gru_units,
        direction="bidirectional" if sizes.bidirectional else "forward",
        # The candidate's hidden bias lies inside the product with the reset gate, as in torch.
        linear_before_reset=1,
    )


def _gates(array: np.ndarray) -> np.ndarray:
    """[*, 3H] in the order reset, update, candidate -> [3H, *] in the order update, reset, candidate."""
    r, z, n = np.split(array, 3, axis=-1)
    return np.concatenate([z, r, n], axis=-1).T


def _moments(graph: Graph, kind: str, states: str, rows: _Rows) -> str:
    """[directions, B, P] mean of the states [T, directions, B, H], and with `mean_sd` their standard deviation."""
    is_valid = graph.spread(graph("Transpose", rows.is_valid, perm=[1, 0, 2]), 1)
    num_frames = graph.spread(graph.cast(rows.lengths, "float32"), 1)

    def mean(values: str) -> str:
        return graph("Div", graph.total(graph("Where", is_valid, values, 0.0), 0), num_frames)

    centre = mean(states)
    if kind == "mean":
        return centre
    apart = graph("Sub", states, graph.spread(centre, 0))
    variance = graph("Max", mean(graph("Mul", apart, apart)), _LEAST_VARIANCE)
    return graph("Concat", centre, graph("Sqrt", variance), axis=2)


def _attributes(graph: Graph, sizes: Sizes, member: Member, embedding: str) -> str:
    """[B, A] on the scale of the targets. Variances stand behind them and are left out."""
    num_kept = sizes.num_attributes * max(len(sizes.levels), 1)
    outputs = graph.affine(embedding, member["attribute_head.w"][:, :num_kept], member["attribute_head.b"][:num_kept])
    if not sizes.levels:
        return outputs
    by_level = graph("Reshape", outputs, np.array([0, sizes.num_attributes, len(sizes.levels)]))
    return graph("MatMul", graph("Softmax", by_level, axis=-1), np.asarray(sizes.levels, np.float32))
