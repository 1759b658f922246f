"""Counts read from the text of programs compiled here, and from text as the compiler for a GPU writes it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from seremo_jax.sweeps import hlo, hlo_text
from seremo_jax.sweeps.hlo_text import Collective, CommandBuffer, Loop, Padded, Product

pytestmark = pytest.mark.stack

GPU = """HloModule jit_step, is_scheduled=true, entry_computation_layout={(f32[4,8]{1,0})->f32[4,8]{1,0}}

%fused_gates (p0: f32[4,8], p1: f32[4,8]) -> f32[4,8] {
  %p0 = f32[4,8]{1,0} parameter(0)
  %p1 = f32[4,8]{1,0} parameter(1)
  ROOT %add.1 = f32[4,8]{1,0} add(%p0, %p1), metadata={op_name="jit(step)/while/body/add(x, y) = z"}
}

%triton_gemm (p2: bf16[4,8], p3: bf16[8,8]) -> f32[4,8] {
  %p2 = bf16[4,8]{1,0} parameter(0)
  %p3 = bf16[8,8]{1,0} parameter(1)
  ROOT %dot.1 = f32[4,8]{1,0} dot(%p2, %p3), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

%fused_add (p4: s32[]) -> s32[] {
  %p4 = s32[] parameter(0)
  %one = s32[] constant(1)
  ROOT %add.2 = s32[] add(%p4, %one)
}

%command_buffer (p5: f32[4,8]) -> f32[4,8] {
  %p5 = f32[4,8]{1,0} parameter(0)
  %loop_fusion.1 = f32[4,8]{1,0} fusion(%p5, %p5), kind=kLoop, calls=%fused_gates
  ROOT %loop_fusion.2 = f32[4,8]{1,0} fusion(%loop_fusion.1, %p5), kind=kLoop, calls=%fused_gates
}

%inner_body (state: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {
  %state = (s32[], f32[4,8]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %h = f32[4,8]{1,0} get-tuple-element(%state), index=1
  %gemm = (f32[4,8]{1,0}, s8[1024]{0}) custom-call(%h, %h), custom_call_target="__cublas$gemm", operand_precision={highest,default}, backend_config={"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"],"rhs_contracting_dimensions":["1"]}}}
  %product = f32[4,8]{1,0} get-tuple-element(%gemm), index=0
  %gates = f32[4,8]{1,0} fusion(f32[4,8]{1,0} %product, f32[4,8]{1,0} %h), kind=kLoop, calls=%fused_gates
  %next = s32[] fusion(%i), kind=kLoop, calls=%fused_add
  ROOT %new = (s32[], f32[4,8]{1,0}) tuple(%next, %gates)
}

%inner_condition (state.1: (s32[], f32[4,8])) -> pred[] {
  %state.1 = (s32[], f32[4,8]{1,0}) parameter(0)
  %i.1 = s32[] get-tuple-element(%state.1), index=0
  %limit = s32[] constant(7)
  ROOT %less = pred[] compare(%i.1, %limit), direction=LT
}

%outer_body (state.2: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {
  %state.2 = (s32[], f32[4,8]{1,0}) parameter(0)
  %i.2 = s32[] get-tuple-element(%state.2), index=0
  %copy.1 = s32[] copy(%i.2)
  %while.2 = (s32[], f32[4,8]{1,0}) while(%state.2), condition=%inner_condition, body=%inner_body, metadata={op_name="a"}, backend_config={"known_trip_count":{"n":"5"},"known_init_step":{"init":"0","step":"1"}}
  %h.2 = f32[4,8]{1,0} get-tuple-element(%while.2), index=1
  %one.2 = s32[] constant(1)
  %next.2 = s32[] add(%copy.1, %one.2)
  ROOT %new.2 = (s32[], f32[4,8]{1,0}) tuple(%next.2, %h.2)
}

ENTRY %main (x: f32[4,8], w: bf16[8,8], n: s32[]) -> f32[4,8] {
  %x = f32[4,8]{1,0} parameter(0)
  %w = bf16[8,8]{1,0} parameter(1)
  %n = s32[] parameter(2)
  %buffer = f32[4,8]{1,0} custom-call(), custom_call_target="AllocateBuffer"
  %fusion-start = ((f32[4,8]{1,0}, f32[4,8]{1,0}), f32[4,8]{1,0}, u32[]) fusion-start(%x, %x), kind=kLoop, calls=%fused_gates
  %fusion-done = f32[4,8]{1,0} fusion-done(%fusion-start)
  %all-reduce-start = f32[4,8]{1,0} all-reduce-start(%fusion-done), replica_groups={{0,1}}, to_apply=%fused_gates
  %all-reduce-done = f32[4,8]{1,0} all-reduce-done(%all-reduce-start)
  %half = bf16[4,8]{1,0} copy(%all-reduce-done)
  %gemm_fusion = f32[4,8]{1,0} fusion(%half, %w), kind=kCustom, calls=%triton_gemm
  %call = f32[4,8]{1,0} call(%gemm_fusion), to_apply=%command_buffer
  %zero = s32[] constant(0)
  %start = s32[] copy(%zero)
  %tuple.1 = (s32[], f32[4,8]{1,0}) tuple(%start, %call)
  %while.1 = (s32[], f32[4,8]{1,0}) while(%tuple.1), condition=%inner_condition, body=%outer_body
  ROOT %result = f32[4,8]{1,0} get-tuple-element(%while.1), index=1
}
"""  # noqa: E501


def test_text_of_a_gpu_program_of_which_everything_is_known():
    program = hlo_text.read(GPU)
    # A trip of the inner loop has a product, gates and counter, one of the outer loop a copy, 5 of those, the counter.
    outer = 1 + 5 * 3 + 1
    # Fusion, all-reduce, copy, product, command buffer, copy. A buffer that is only taken up is no kernel.
    assert program.kernels == 6 + 7 * outer
    assert program.loops == (Loop("while.1", 7, outer, 1), Loop("while.2", 5, 3, 7))
    assert program.loops_of_unknown_trips == ()
    assert program.command_buffers == (CommandBuffer("command_buffer", 2, 1),)
    assert program.collectives == (Collective("all-reduce", 1, 4 * 8 * 4),)
    flops = 2 * 4 * 8 * 8
    assert program.products == (
        Product(("bf16", "bf16"), "f32", 1, flops), Product(("f32", "f32"), "f32", 35, 35 * flops, "highest")
    )  # fmt: skip
    assert [(product.name, product.is_bfloat16) for product in program.products] == [
        ("bf16 x bf16 -> f32", True), ("f32 x f32 -> f32 (highest)", False)
    ]  # fmt: skip
    assert program.called_flops == 35 * flops


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("direction=LT", "direction=NE"),
        ("%one.2 = s32[] constant(1)", "%one.2 = s32[] constant(2)"),
        ("%zero = s32[] constant(0)", "%zero = s32[] constant(3)"),
        ("%start = s32[] copy(%zero)", "%start = s32[] copy(%n)"),
    ],
)
def test_a_loop_whose_trips_nobody_tells_counts_once_and_is_named(before, after):
    assert before in GPU
    program = hlo_text.read(GPU.replace(before, after))
    assert program.loops_of_unknown_trips == ("while.1",)
    assert program.kernels == 6 + 17


def test_the_largest_branch_counts():
    text = """
%add (a: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  ROOT %b = f32[] add(%a, %a)
}

%same (c: f32[]) -> f32[] {
  ROOT %c = f32[] parameter(0)
}

ENTRY %main (x: f32[], i: s32[]) -> f32[] {
  %x = f32[] parameter(0)
  %i = s32[] parameter(1)
  ROOT %y = f32[] conditional(%i, %x, %x), branch_computations={%same, %add}
}
"""
    assert hlo_text.read(text).kernels == 1


def test_no_entry_is_an_error():
    with pytest.raises(ValueError, match="no ENTRY computation"):
        hlo_text.read("HloModule nothing\n")


def test_loops_and_products_of_a_compiled_program():
    def outer(state, x):
        inner, _ = jax.lax.scan(lambda h, y: (jnp.tanh(h @ state) + y, None), state, jnp.arange(3.0))
        return inner @ state, x

    text = jax.jit(lambda a: jax.lax.scan(outer, a, jnp.arange(5.0))).lower(jnp.ones((40, 40))).compile().as_text()
    program = hlo_text.read(text)
    assert [(loop.num_trips, loop.num_runs) for loop in program.loops] == [(5, 1), (3, 5)]
    assert program.products == (Product(("f32", "f32"), "f32", 5 * 3 + 5, (5 * 3 + 5) * 2 * 40**3),)
    inner = program.loops[1].kernels
    assert program.loops[0].kernels >= 3 * inner >= 3 * 2
    assert program.kernels >= 5 * program.loops[0].kernels


def test_collectives_of_a_compiled_program():
    mesh = Mesh(np.array(jax.devices()[:4]), ("data",))
    rows, same = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("data",), ()))
    x = jax.ShapeDtypeStruct((8, 6), jnp.float32, sharding=rows)
    summed = jax.jit(lambda x: x.sum(0), out_shardings=same).lower(x).compile().as_text()
    assert hlo_text.read(summed).collectives == (Collective("all-reduce", 1, 6 * 4),)
    gathered = jax.jit(lambda x: x + 1, out_shardings=same).lower(x).compile().as_text()
    assert hlo_text.read(gathered).collectives == (Collective("all-gather", 1, 2 * 6 * 4),)


@pytest.mark.parametrize(
    ("type_", "expected"),
    [
        ("f32[16,256]{1,0:T(8,128)}", 4 * 16 * 256),
        ("(bf16[5]{0}, /*index=1*/pred[3]{0}, s32[], token[])", 10 + 3 + 4),
        ("f8e4m3fn[7]", 7),
        ("s4[3]", 2),
    ],
)
def test_bytes_of_a_type(type_, expected):
    assert hlo.num_bytes(type_) == expected


@pytest.mark.parametrize(
    ("type_", "num_bytes", "held_bytes"),
    [
        ("f32[16,256]{1,0:T(8,128)}", 4 * 16 * 256, 4 * 16 * 256),
        ("f32[10,3]{0,1:T(4,128)}", 4 * 10 * 3, 4 * 4 * 128),  # the first axis is the fastest
        ("bf16[3,20,100]{2,1,0:T(8,128)(2,1)}", 2 * 3 * 20 * 100, 2 * 3 * 24 * 128),
        ("s32[600]{0:T(512)}", 4 * 600, 4 * 1024),
    ],
)
def test_bytes_that_an_array_takes_in_tiles(type_, num_bytes, held_bytes):
    assert hlo_text.tiled(f"({type_}, f32[7,5]{{1,0:T(8,128)S(1)}}, f32[9]{{0}})") == [
        Padded(type_, num_bytes, held_bytes)
    ]


def test_padded_arrays_are_those_between_kernels():
    narrow, flat = "f32[64,5]{1,0:T(8,128)}", "f32[64]{0:T(128)}"
    text = f"""
%fused (a: f32[64,5]) -> f32[64] {{
  %a = {narrow} parameter(0)
  %b = f32[5,5]{{1,0:T(8,128)}} constant({{...}})
  ROOT %c = {flat} reduce(%a)
}}

ENTRY %main (x: f32[64,5]) -> f32[64] {{
  %x = {narrow} parameter(0)
  ROOT %y = {flat} fusion(%x), kind=kLoop, calls=%fused
}}
"""
    assert hlo_text.read(text).padded == (Padded(narrow, 1_280, 32_768), Padded(flat, 256, 512))
    assert hlo_text.read(GPU).padded == ()
