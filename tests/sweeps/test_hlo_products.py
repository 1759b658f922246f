"""Operations of products read from text, against XLA's own count of the same programs."""

import jax
import jax.numpy as jnp
import pytest

from seremo_jax.sweeps import hlo, hlo_products

pytestmark = pytest.mark.stack

CONVOLUTIONS = {
    "plain": ((2, 50, 6), (5, 6, 8), {}),
    "strided and padded": ((2, 50, 6), (10, 6, 8), {"window_strides": (5,), "padding": [(3, 4)]}),
    "cut": ((2, 50, 6), (3, 6, 8), {"padding": [(-2, 5)]}),
    "in groups": ((2, 50, 6), (4, 3, 8), {"feature_group_count": 2}),
    "dilated": ((2, 50, 6), (4, 6, 8), {"rhs_dilation": (3,), "lhs_dilation": (2,), "padding": [(6, 6)]}),
}


def _products(lowered):
    """Instructions with the types of their operands, as the program was written."""
    computations, _ = hlo.computations_of(lowered.compiler_ir("hlo").as_hlo_text())
    return [
        (instruction, [inside[name].type for name in instruction.operands])
        for inside in computations.values()
        for instruction in inside.values()
        if hlo_products.is_product(instruction)
    ]


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_convolution_has_the_operations_that_xla_counts(name):
    x, w, options = CONVOLUTIONS[name]
    options = {"window_strides": (1,), "padding": "VALID"} | options

    def convolve(x, w):
        return jax.lax.conv_general_dilated(x, w, dimension_numbers=("NWC", "WIO", "NWC"), **options)

    lowered = jax.jit(convolve).lower(*(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in (x, w)))
    ((instruction, types),) = _products(lowered)
    assert hlo_products.flops(instruction, types) == lowered.cost_analysis()["flops"]


def test_a_product_has_the_operations_that_xla_counts():
    lowered = jax.jit(lambda a, b: jnp.einsum("bij,bkj->bik", a, b, precision="highest")).lower(
        *(jax.ShapeDtypeStruct(shape, jnp.bfloat16) for shape in ((3, 40, 20), (3, 7, 20)))
    )
    ((instruction, types),) = _products(lowered)
    assert hlo_products.flops(instruction, types) == lowered.cost_analysis()["flops"] == 2 * 3 * 40 * 7 * 20
    assert hlo_products.precision(instruction) == "highest"


@pytest.mark.parametrize(("target", "types"), [
    ("__cudnn$convForward", ("f32[2,50,6]", "f32[5,6,8]", "f32[2,46,8]")),
    ("__cudnn$convBackwardInput", ("f32[2,46,8]", "f32[5,6,8]", "f32[2,50,6]")),
    ("__cudnn$convBackwardFilter", ("f32[2,50,6]", "f32[2,46,8]", "f32[5,6,8]")),
])  # fmt: skip
def test_a_library_computes_what_the_convolution_forwards_does(target, types):
    text = f"""ENTRY %main () -> {types[2]} {{
  %a = {types[0]}{{2,1,0}} parameter(0)
  %b = {types[1]}{{2,1,0}} parameter(1)
  ROOT %c = ({types[2]}{{2,1,0}}, u8[0]{{0}}) custom-call(%a, %b), window={{size=5}}, dim_labels=b0f_0io->b0f, custom_call_target="{target}"
}}
"""  # noqa: E501
    computations, entry = hlo.computations_of(text)
    call = hlo.root(computations[entry])
    assert hlo_products.is_call(call)
    assert hlo_products.flops(call, list(types[:2])) == 2 * 2 * 46 * 8 * 6 * 5
