"""Parts that Transformer speech models share: Flax modules that hold parameters, and where each is published.

The parameters of a module are shapes without memory, until `filling.fill` makes arrays of them from a checkpoint.
Every leaf says under which names, below the path of its module, its numbers are published, and how they become the
array used here. Linear maps compute in the dtype of their parameters, norms and softmax in float32.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float

Activation = Callable[[Array], Array]

ACTIVATIONS: dict[str, Activation] = {
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_new": lambda x: jax.nn.gelu(x, approximate=True),
    "gelu_pytorch_tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "swish": jax.nn.silu,
}
"""Names in published configs -> functions."""

MASKED = -1e9
"""Added to the scores of frames that are padding: finite, so that a row without any frame stays finite."""


class Source(NamedTuple):
    """Where one parameter comes from.

    Attributes:
      shapes: Published name, below the path of the module -> its published shape.
      convert: Published arrays, in that order -> the parameter.
    """

    shapes: dict[str, tuple[int, ...]]
    convert: Callable[[Sequence[np.ndarray]], np.ndarray]


def precision_of(dtype: Any) -> jax.lax.Precision | None:
    """The precision that float32 products need on accelerators, which otherwise round their inputs to fewer digits."""
    return jax.lax.Precision.HIGHEST if dtype == jnp.float32 else None


def _first(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return arrays[0]


def empty(*shape: int, dtype: Any = jnp.float32) -> nnx.Param:
    """A parameter to be filled: a shape that takes no memory, whatever a config asks for."""
    return nnx.Param(jax.ShapeDtypeStruct(shape, dtype))


class Linear(nnx.Module):
    """Affine map with weight w [in, out]; several published maps of one input can be fused into one.

    Args:
      num_in: Input width.
      num_out: Output width of each published map.
      names: Published name of each map, "" for the module's own path.
      has_bias: Whether each map has a bias; those without get zeros where others have one.
    """

    def __init__(
        self, num_in: int, num_out: int, names: tuple[str, ...] = ("",), has_bias: tuple[bool, ...] | None = None
    ):
        self.num_in, self.num_out, self.names = num_in, num_out, names
        self.has_bias = has_bias or (True,) * len(names)
        self.w, self.b = empty(num_in, num_out * len(names)), empty(num_out * len(names))

    def sources(self) -> Iterator[tuple[str, Source]]:
        """Where `w` and `b` come from."""
        dotted = [f"{name}." if name else "" for name in self.names]
        shapes = {f"{name}weight": (self.num_out, self.num_in) for name in dotted}
        yield "w", Source(shapes, lambda arrays: np.concatenate(arrays).T)
        biases = {
            f"{name}bias": (self.num_out,) for name, is_there in zip(dotted, self.has_bias, strict=True) if is_there
        }

        def with_zeros(arrays: Sequence[np.ndarray]) -> np.ndarray:
            given = iter(arrays)
            return np.concatenate([next(given) if is_there else np.zeros(self.num_out) for is_there in self.has_bias])

        yield "b", Source(biases, with_zeros)

    def __call__(self, x: Float[Array, "*S I"]) -> Float[Array, "*S O"]:
        """The affine map of the last axis, in the dtype of the weight."""
        w = self.w[...]
        return jax.lax.dot_general(x.astype(w.dtype), w, (((x.ndim - 1,), (0,)), ((), ()))) + _along_last(
            self.b[...], x
        )


class LayerNorm(nnx.Module):
    """Layer norm over the last axis; computes in float32."""

    STAYS_FLOAT32 = True

    def __init__(self, width: int, eps: float = 1e-5):
        self.width, self.eps = width, eps
        self.scale, self.bias = empty(width), empty(width)

    def sources(self) -> Iterator[tuple[str, Source]]:
        """Where `scale` and `bias` come from."""
        yield "scale", Source({"weight": (self.width,)}, _first)
        yield "bias", Source({"bias": (self.width,)}, _first)

    def __call__(self, x: Float[Array, "*S D"]) -> Float[Array, "*S D"]:
        """The normalised features, in the dtype of `x`."""
        normed = standardise(x.astype(jnp.float32), self.eps)
        return (normed * _along_last(self.scale[...], x) + _along_last(self.bias[...], x)).astype(x.dtype)


def standardise(x: Float[Array, "*S D"], eps: float) -> Float[Array, "*S D"]:
    """Zero mean and unit variance over the last axis."""
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.square(centred).mean(axis=-1, keepdims=True) + eps)


def _along_last(vector: Float[Array, " D"], x: Array) -> Array:
    return jnp.expand_dims(vector, tuple(range(x.ndim - 1)))


class Table(nnx.Module):
    """Rows that are added or looked up: one a frame, or one a distance."""

    def __init__(self, num_rows: int, width: int):
        self.shape = (num_rows, width)
        self.table = empty(*self.shape)

    def sources(self) -> Iterator[tuple[str, Source]]:
        """Where `table` comes from."""
        yield "table", Source({"weight": self.shape}, _first)


class BatchNorm(nnx.Module):
    """Batch norm with the statistics of training: an affine map of each feature."""

    STAYS_FLOAT32 = True

    def __init__(self, width: int, eps: float = 1e-5):
        self.width, self.eps = width, eps
        self.factor, self.offset = empty(width), empty(width)

    def sources(self) -> Iterator[tuple[str, Source]]:
        """Where `factor` and `offset` come from."""
        shape = (self.width,)
        names = {"weight": shape, "running_var": shape}
        yield "factor", Source(names, lambda a: a[0] / np.sqrt(a[1] + self.eps))
        names = {"weight": shape, "running_var": shape, "bias": shape, "running_mean": shape}
        yield "offset", Source(names, lambda a: a[2] - a[3] * a[0] / np.sqrt(a[1] + self.eps))

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """The affine map, in the dtype of `x`."""
        return x * self.factor[...].astype(x.dtype)[None, None, :] + self.offset[...].astype(x.dtype)[None, None, :]


class Conv(nnx.Module):
    """Convolution over time with weight w [kernel, in, out]."""

    def __init__(
        self, num_in: int, num_out: int, kernel: int, *, stride: int = 1, padding: int = 0, has_bias: bool = True
    ):
        self.num_in, self.num_out, self.kernel, self.stride, self.padding = num_in, num_out, kernel, stride, padding
        self.w = empty(kernel, num_in, num_out)
        self.b = empty(num_out) if has_bias else None

    def sources(self) -> Iterator[tuple[str, Source]]:
        """Where `w` and `b` come from."""
        yield "w", Source({"weight": (self.num_out, self.num_in, self.kernel)}, lambda a: a[0].transpose(2, 1, 0))
        if self.b is not None:
            yield "b", Source({"bias": (self.num_out,)}, _first)

    def __call__(self, x: Float[Array, "B T I"]) -> Float[Array, "B U O"]:
        """The convolution, in the dtype of the weight."""
        w = self.w[...]
        y = jax.lax.conv_general_dilated(
            x.astype(w.dtype),
            w,
            (self.stride,),
            [(self.padding, self.padding)],
            dimension_numbers=("NWC", "WIO", "NWC"),
            precision=precision_of(w.dtype),
        )
        return y if self.b is None else y + _along_last(self.b[...], y)


class Attention(nnx.Module):
    """Multi-head self-attention; the three input maps are one product."""

    def __init__(self, width: int, num_heads: int, has_key_bias: bool = True):
        self.num_heads = num_heads
        self.qkv = Linear(width, width, ("q_proj", "k_proj", "v_proj"), (True, has_key_bias, True))
        self.out_proj = Linear(width, width)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        is_valid: Bool[Array, "B T"] | None,
        bias: Float[Array, "H U T"] | None = None,
        gate: Float[Array, "B H U"] | None = None,
        num_queries: int | None = None,
    ) -> Float[Array, "B U D"]:
        """Attention of the first frames, or of every frame, to the valid ones.

        Args:
          x: Input.
          is_valid: Frames that may be attended to; None means all.
          bias: Added to the scores of every utterance, float32; together with `gate`.
          gate: What the bias of each query is multiplied by, float32.
          num_queries: U, frames that attend; None means all.
        """
        b, t, d = x.shape
        heads = self.qkv(x).reshape(b, t, 3, self.num_heads, d // self.num_heads)
        q, k, v = jnp.moveaxis(heads, (2, 3), (0, 2))
        # The scale goes onto the queries and not onto the scores, of which there are many times more.
        q = q[:, :, :num_queries] * jnp.asarray((d // self.num_heads) ** -0.5, q.dtype)
        mask = jnp.zeros((b, t)) if is_valid is None else jnp.where(is_valid, 0.0, MASKED)
        by_head = jax.lax.platform_dependent(q, k, v, mask, bias, gate, cpu=_head_by_head, default=_all_heads)
        return self.out_proj(jnp.moveaxis(by_head, 1, 2).reshape(b, -1, d))


def _all_heads(
    q: Array, k: Array, v: Array, mask: Array, bias: Array | None, gate: Array | None
) -> Float[Array, "B H U d"]:
    precision = precision_of(q.dtype)
    scores = jnp.einsum("bhtd,bhsd->bhts", q, k, precision=precision, preferred_element_type=jnp.float32)
    scores = scores + mask[:, None, None, :]
    if bias is not None:
        scores = scores + gate[..., None] * bias[None]
    # Scores and softmax in float32, whatever the dtype of the maps: a sum over frames would else lose the small ones.
    return jnp.einsum("bhts,bhsd->bhtd", jax.nn.softmax(scores, axis=-1).astype(v.dtype), v, precision=precision)


def _head_by_head(
    q: Array, k: Array, v: Array, mask: Array, bias: Array | None, gate: Array | None
) -> Float[Array, "B H U d"]:
    """The same, one head of one utterance at a time: on CPU 3x faster, as the scores stay in the cache."""
    b, h, u, d = q.shape

    def attend(inputs: tuple) -> Array:
        q, k, v, number, gate = inputs
        scores = jax.lax.dot_general(q, k, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32)
        scores = scores + mask[number // h][None]
        if bias is not None:
            scores = scores + gate[:, None] * bias[number % h]
        return jax.nn.softmax(scores, axis=-1).astype(v.dtype) @ v

    flat = (x.reshape(b * h, -1, d) for x in (q, k, v))
    gates = None if gate is None else gate.reshape(b * h, u)
    return jax.lax.map(attend, (*flat, jnp.arange(b * h), gates)).reshape(b, h, u, d)


def row_by_row(function: Callable[..., Any], *arrays: Array) -> Any:
    """`function` of a batch, on CPU row by row: its large temporaries are then those of one row and stay in the cache.

    Args:
      function: From arrays with a leading batch axis to arrays with one. Rows must not depend on one another.
      *arrays: Its arguments.
    """

    def mapped(*arrays: Array) -> Any:
        def of_row(rows: tuple[Array, ...]) -> Any:
            return jax.tree.map(lambda x: x[0], function(*(row[None] for row in rows)))

        return jax.lax.map(of_row, arrays)

    return jax.lax.platform_dependent(*arrays, cpu=mapped, default=function)


class Stack(nnx.Module):
    """Equal modules one after another, as one module whose parameters have a leading axis.

    Args:
      module: One of them.
      depth: How many.
    """

    def __init__(self, module: nnx.Module, depth: int):
        self.module, self.depth = module, depth
        for leaf, attribute, *_ in walk(module):
            param = getattr(leaf, attribute)
            param.set_value(jax.ShapeDtypeStruct((depth, *param.get_value().shape), param.get_value().dtype))


class Leaf(NamedTuple):
    """A parameter of a module tree: its module and attribute, where it comes from, and how often it is stacked.

    `path` is that of the module, with "*" for the number in a stack; `depth` is None outside stacks.
    """

    module: nnx.Module
    attribute: str
    path: str
    source: Source
    depth: int | None

    @property
    def param(self) -> nnx.Param:
        """The parameter itself."""
        return getattr(self.module, self.attribute)

    def kind(self, dtype: str) -> np.dtype:
        """Dtype of the parameter where this is the compute dtype."""
        stays = getattr(self.module, "STAYS_FLOAT32", False)
        return jnp.dtype(self.param.get_value().dtype if stays else dtype)

    def names(self, published_name: Callable[[str], str]) -> list[list[str]]:
        """Published names, for each module of the stack."""
        paths = [self.path] if self.depth is None else [self.path.replace("*", str(i)) for i in range(self.depth)]
        return [[published_name(path + name) for name in self.source.shapes] for path in paths]


def walk(module: nnx.Module, path: str = "", depth: int | None = None) -> Iterator[Leaf]:
    """Every parameter below `module`, in a fixed order."""
    if hasattr(module, "sources"):
        yield from (Leaf(module, attribute, path, source, depth) for attribute, source in module.sources())
    for name, child in vars(module).items():
        if isinstance(child, Stack):
            yield from walk(child.module, f"{path}{name}.*.", child.depth)
        elif isinstance(child, nnx.Module):
            yield from walk(child, f"{path}{name}.", depth)
        elif isinstance(child, nnx.List):
            for number, item in enumerate(child):
                yield from walk(item, f"{path}{name}.{number}.", depth)
