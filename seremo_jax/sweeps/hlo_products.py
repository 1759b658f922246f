"""Operations of matrix products and convolutions, from their lines in the text of a compiled program.

A TPU's compiler writes matrix products as convolutions, and that of a GPU may write either as a call of a library.
"""

import math
import re

import numpy as np

from seremo_jax.sweeps import hlo

_NUMBERS = re.compile(r"-?\d+")
_CONTRACTED = re.compile(r'lhs_contracting_dim(?:s=\{|ensions":\[)([^\]}]*)')
_PRECISION = re.compile(r"operand_precision=\{([^}]*)\}")
_WINDOW = re.compile(r"window=\{([^}]*)\}")
_LABELS = re.compile(r"dim_labels=(\w+)_(\w+)->(\w+)")
_OF_DATA, _OF_FILTER = "__cudnn$convBackwardInput", "__cudnn$convBackwardFilter"


def is_product(instruction: hlo.Instruction) -> bool:
    """Whether an instruction is a matrix product or a convolution."""
    target = _target(instruction)
    return instruction.opcode in ("dot", "convolution") or target.startswith(("__cublas", "__cudnn$conv"))


def is_call(instruction: hlo.Instruction) -> bool:
    """Whether it is one by a library, of which XLA's own cost analysis counts no operation."""
    return instruction.opcode == "custom-call" and is_product(instruction)


def precision(instruction: hlo.Instruction) -> str:
    """`high` or `highest` where a product asks for it for an operand, else empty."""
    asked = _PRECISION.search(instruction.attributes)
    return next((name for name in ("highest", "high") if asked and name in asked.group(1).split(",")), "")


def flops(instruction: hlo.Instruction, types: list[str]) -> int:
    """Operations of one run. A multiplication and an addition are two.

    Args:
      instruction: A product.
      types: Types of its operands.

    Source: the definitions of Dot and Conv in openxla.org/xla/operation_semantics.
    """
    data, kernel = (hlo.arrays(type_)[0].sizes for type_ in types[:2])
    result = hlo.arrays(instruction.type)[0].sizes
    if (labels := _LABELS.search(instruction.attributes)) is None:
        contracted = _numbers(_CONTRACTED.search(instruction.attributes).group(1))
        return 2 * math.prod(result) * math.prod(data[axis] for axis in contracted)
    # Gradients by a library have the shapes of the convolution forwards, with other roles.
    if _target(instruction) == _OF_DATA:
        data, result = result, data
    elif _target(instruction) == _OF_FILTER:
        kernel, result = result, kernel
    return 2 * _multiplications(instruction, labels.groups(), data, kernel, result)


def _multiplications(
    instruction: hlo.Instruction,
    labels: tuple[str, ...],
    data: tuple[int, ...],
    kernel: tuple[int, ...],
    result: tuple[int, ...],
) -> int:
    """Multiplications of a convolution, those with padding left out."""
    of_data, of_kernel, of_result = labels
    window = dict(entry.split("=") for entry in _window(instruction).split())
    num = sum(label.isdigit() for label in of_data)
    stride, lhs_dilate, rhs_dilate = (
        _numbers(window.get(name, "x".join("1" * num))) for name in ("stride", "lhs_dilate", "rhs_dilate")
    )
    pads = window.get("pad", "x".join(["0_0"] * num)).split("x")
    total = result[of_result.index("b")] * result[of_result.index("f")] * kernel[of_kernel.index("i")]
    for axis in range(num):
        place = str(axis)
        size, width, length = (
            shape[label.index(place)] for shape, label in zip((data, kernel, result), labels, strict=True)
        )
        read = (
            np.arange(length, dtype=np.int64)[:, None] * stride[axis]
            - int(pads[axis].split("_")[0])
            + np.arange(width, dtype=np.int64) * rhs_dilate[axis]
        )
        is_inside = (read >= 0) & (read <= (size - 1) * lhs_dilate[axis]) & (read % lhs_dilate[axis] == 0)
        total *= int(is_inside.sum())
    return total // max(1, int(hlo.attribute(instruction, "batch_group_count") or 1))


def _window(instruction: hlo.Instruction) -> str:
    found = _WINDOW.search(instruction.attributes)
    return found.group(1) if found else ""


def _target(instruction: hlo.Instruction) -> str:
    return hlo.attribute(instruction, "custom_call_target") if instruction.opcode == "custom-call" else ""


def _numbers(text: str) -> list[int]:
    return [int(number) for number in _NUMBERS.findall(text)]
