"""Bytes that programs move, against what small texts say, and against what a scan that is compiled here has to move."""

import jax
import jax.numpy as jnp
import pytest

from seremo_jax.sweeps import traffic

pytestmark = pytest.mark.stack

LOOP = """HloModule jit_scan, is_scheduled=true

%taken (p0: f32[50,8,16], p1: s32[]) -> f32[8,16] {
  %p0 = f32[50,8,16]{2,1,0} parameter(0)
  %p1 = s32[] parameter(1)
  %zero.1 = s32[] constant(0)
  %slice.1 = f32[1,8,16]{2,1,0} dynamic-slice(%p0, %p1, %zero.1, %zero.1), dynamic_slice_sizes={1,8,16}
  %flat = f32[8,16]{1,0} bitcast(%slice.1)
  ROOT %tanh.1 = f32[8,16]{1,0} tanh(%flat)
}

%kept (p2: f32[50,8,16], p3: s32[], p4: f32[8,16]) -> f32[400,16] {
  %p2 = f32[50,8,16]{2,1,0} parameter(0)
  %p3 = s32[] parameter(1)
  %p4 = f32[8,16]{1,0} parameter(2)
  %zero.2 = s32[] constant(0)
  %array = f32[50,1,8,16]{3,2,1,0} bitcast(%p2)
  %new.1 = f32[1,1,8,16]{3,2,1,0} bitcast(%p4)
  %set = f32[50,1,8,16]{3,2,1,0} dynamic-update-slice(%array, %new.1, %p3, %zero.2, %zero.2, %zero.2)
  ROOT %view = f32[50,8,16]{2,1,0} bitcast(%set)
}

%body (state: (s32[], f32[50,8,16], f32[50,8,16])) -> (s32[], f32[50,8,16], f32[50,8,16]) {
  %state = (s32[], f32[50,8,16]{2,1,0}, f32[50,8,16]{2,1,0}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %frames = f32[50,8,16]{2,1,0} get-tuple-element(%state), index=1
  %states = f32[50,8,16]{2,1,0} get-tuple-element(%state), index=2
  %after = f32[8,16]{1,0} fusion(%frames, %i), kind=kLoop, calls=%taken
  %filled = f32[50,8,16]{2,1,0} fusion(%states, %i, %after), kind=kLoop, calls=%kept
  %one = s32[] constant(1)
  %next = s32[] add(%i, %one)
  ROOT %new = (s32[], f32[50,8,16]{2,1,0}, f32[50,8,16]{2,1,0}) tuple(%next, %frames, %filled)
}

%condition (state.1: (s32[], f32[50,8,16], f32[50,8,16])) -> pred[] {
  %state.1 = (s32[], f32[50,8,16]{2,1,0}, f32[50,8,16]{2,1,0}) parameter(0)
  %i.1 = s32[] get-tuple-element(%state.1), index=0
  %limit = s32[] constant(50)
  ROOT %less = pred[] compare(%i.1, %limit), direction=LT
}

ENTRY %main (x: f32[50,8,16]) -> f32[50,8,16] {
  %x = f32[50,8,16]{2,1,0} parameter(0)
  %empty = f32[50,8,16]{2,1,0} custom-call(), custom_call_target="AllocateBuffer"
  %zero = s32[] constant(0)
  %tuple.1 = (s32[], f32[50,8,16]{2,1,0}, f32[50,8,16]{2,1,0}) tuple(%zero, %x, %empty)
  %while.1 = (s32[], f32[50,8,16]{2,1,0}, f32[50,8,16]{2,1,0}) while(%tuple.1), condition=%condition, body=%body
  ROOT %result = f32[50,8,16]{2,1,0} get-tuple-element(%while.1), index=2
}
"""
FRAME = 4 * 8 * 16


def test_a_loop_takes_and_sets_slices():
    # A trip reads a frame, writes and reads the state, and writes it into its place. Besides, the counter is read three
    # times and one is added to it.
    trip = 4 * FRAME + 4 * 5
    assert traffic.moved_bytes(LOOP) == 50 * trip


def test_a_fusion_that_reads_all_of_an_array_counts_all_of_it():
    whole = LOOP.replace("bitcast(%slice.1)", "reduce(%p0, %zero.1), dimensions={0}, to_apply=%add.1")
    # Without the place of a slice.
    assert traffic.moved_bytes(whole) == traffic.moved_bytes(LOOP) + 50 * ((50 - 1) * FRAME - 4)


def test_slices_of_a_slice_are_what_is_read_and_the_same_one_counts_once():
    parts = """HloModule parts

%fused (p0: f32[50,8,16]) -> f32[2,16] {
  %p0 = f32[50,8,16]{2,1,0} parameter(0)
  %block = f32[10,8,16]{2,1,0} slice(%p0), slice={[0:10], [0:8], [0:16]}
  %first = f32[1,2,16]{2,1,0} slice(%block), slice={[0:1], [0:2], [0:16]}
  %again = f32[1,2,16]{2,1,0} slice(%block), slice={[0:1], [0:2], [0:16]}
  %other = f32[1,2,16]{2,1,0} slice(%block), slice={[1:2], [0:2], [0:16]}
  %a = f32[1,2,16]{2,1,0} add(%first, %other)
  %b = f32[1,2,16]{2,1,0} add(%a, %again)
  ROOT %flat = f32[2,16]{1,0} bitcast(%b)
}

ENTRY %main (x: f32[50,8,16]) -> f32[2,16] {
  %x = f32[50,8,16]{2,1,0} parameter(0)
  ROOT %y = f32[2,16]{1,0} fusion(%x), kind=kLoop, calls=%fused
}
"""
    assert traffic.moved_bytes(parts) == (2 + 1) * 4 * 2 * 16


def test_what_lies_on_the_chip_moves_by_copies_only():
    text = """HloModule on_chip

%fused (p0: f32[64,128]) -> f32[64,128] {
  %p0 = f32[64,128]{1,0:T(8,128)S(1)} parameter(0)
  ROOT %t = f32[64,128]{1,0:T(8,128)S(1)} tanh(%p0)
}

ENTRY %main (x: f32[64,128]) -> f32[16,128] {
  %x = f32[64,128]{1,0:T(8,128)} parameter(0)
  %copy-start = (f32[64,128]{1,0:T(8,128)S(1)}, f32[64,128]{1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%x)
  %copy-done = f32[64,128]{1,0:T(8,128)S(1)} copy-done(%copy-start)
  %y = f32[64,128]{1,0:T(8,128)S(1)} fusion(%copy-done), kind=kLoop, calls=%fused
  %slice-start = ((f32[64,128]{1,0:T(8,128)S(1)}), f32[16,128]{1,0:T(8,128)}, s32[]{:S(2)}) slice-start(%y), slice={[0:16], [0:128]}
  ROOT %slice-done = f32[16,128]{1,0:T(8,128)} slice-done(%slice-start)
}
"""  # noqa: E501
    assert traffic.moved_bytes(text) == 4 * 128 * (64 + 16)


def test_a_fusion_gives_the_largest_number_and_its_place_beside_something_else():
    text = """HloModule largest

%both (a: f32[], b: s32[], c: f32[], d: s32[]) -> (f32[], s32[]) {
  %a = f32[] parameter(0)
  %b = s32[] parameter(1)
  %c = f32[] parameter(2)
  %d = s32[] parameter(3)
  ROOT %e = (f32[], s32[]) tuple(%a, %b)
}

%fused (p: f32[100,8]) -> (f32[100,8], (f32[100], s32[100])) {
  %p = f32[100,8]{1,0} parameter(0)
  %places = s32[100,8]{1,0} iota(), iota_dimension=1
  %least = f32[] constant(-inf)
  %first = s32[] constant(0)
  %n = f32[100,8]{1,0} negate(%p)
  %l = (f32[100]{0}, s32[100]{0}) reduce(%p, %places, %least, %first), dimensions={1}, to_apply=%both
  ROOT %t = (f32[100,8]{1,0}, (f32[100]{0}, s32[100]{0})) tuple(%n, %l)
}

ENTRY %main (x: f32[100,8]) -> (f32[100,8], (f32[100], s32[100])) {
  %x = f32[100,8]{1,0} parameter(0)
  ROOT %y = (f32[100,8]{1,0}, (f32[100]{0}, s32[100]{0})) fusion(%x), kind=kInput, calls=%fused
}
"""
    assert traffic.moved_bytes(text) == 4 * (800 + 800 + 100 + 100)


def test_a_branch_a_library_and_a_scatter():
    text = """HloModule others

%small (a: f32[100,8]) -> f32[100,8] {
  ROOT %a = f32[100,8]{1,0} parameter(0)
}

%large (b: f32[100,8]) -> f32[100,8] {
  %b = f32[100,8]{1,0} parameter(0)
  ROOT %c = f32[100,8]{1,0} negate(%b)
}

%plus (d: f32[], e: f32[]) -> f32[] {
  %d = f32[] parameter(0)
  %e = f32[] parameter(1)
  ROOT %f = f32[] add(%d, %e)
}

ENTRY %main (x: f32[100,8], w: f32[8,8], i: s32[3,1], u: f32[3,8]) -> f32[100,8] {
  %x = f32[100,8]{1,0} parameter(0)
  %w = f32[8,8]{1,0} parameter(1)
  %i = s32[3,1]{1,0} parameter(2)
  %u = f32[3,8]{1,0} parameter(3)
  %which = s32[] constant(1)
  %y = f32[100,8]{1,0} conditional(%which, %x, %x), branch_computations={%small, %large}
  %gemm = (f32[100,8]{1,0}, s8[4096]{0}) custom-call(%y, %w), custom_call_target="__cublas$gemm"
  %z = f32[100,8]{1,0} get-tuple-element(%gemm), index=0
  ROOT %set = f32[100,8]{1,0} scatter(%z, %i, %u), update_window_dims={1}, inserted_window_dims={0}, scatter_dims_to_operand_dims={0}, index_vector_dim=1, to_apply=%plus
}
"""  # noqa: E501
    branch, library = 2 * 4 * 800, 2 * 4 * 800 + 4 * 64
    scatter = 3 * 4 * 24 + 4 * 3  # what is there, what is added, the sum; and the places
    assert traffic.moved_bytes(text) == branch + library + scatter


@pytest.mark.parametrize("num_frames", [20, 200])
def test_a_compiled_scan_moves_each_frame_and_not_the_whole_for_each(num_frames):
    rows, width = 32, 64

    def scan(weights, frames):
        def step(state, frame):
            state = jnp.tanh(state @ weights + frame)
            return state, state

        return jax.lax.scan(step, jnp.zeros((rows, width)), frames)[1]

    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((width, width), (num_frames, rows, width))]
    moved = traffic.moved_bytes(jax.jit(scan).lower(*shapes).compile().as_text())
    # A trip reads weights, state and frame, and writes the state into its place.
    least = 4 * num_frames * (width * width + 3 * rows * width)
    assert least <= moved <= 3 * least


def test_no_entry_is_an_error():
    with pytest.raises(ValueError, match="no ENTRY computation"):
        traffic.moved_bytes("HloModule nothing\n")
