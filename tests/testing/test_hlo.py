"""The audit of collectives reads every form in which XLA writes them, and multiplies by loops."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.sharding import PartitionSpec as P

from jaxmnist.errors import UsageError
from jaxmnist.testing import Collective, audit

GPU_LIKE = """\
HloModule jit_step, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%async_body (p: f32[8,3]) -> f32[2,3] {
  %p = f32[8,3]{1,0} parameter(0)
  ROOT %rs = f32[2,3]{1,0} reduce-scatter(%p), dimensions={0}, to_apply=%add
}

ENTRY %main (x: bf16[5,3], y: f32[8,3]) -> f32[2,3] {
  %x = bf16[5,3]{1,0} parameter(0)
  %y = f32[8,3]{1,0} parameter(1)
  %ar = (bf16[5,3]{1,0}, /*index=1*/pred[7]{0}) all-reduce-start(%x, %x), to_apply=%add
  %ard = (bf16[5,3]{1,0}, /*index=1*/pred[7]{0}) all-reduce-done(%ar)
  %ag = (bf16[5,3]{1,0}, bf16[20,3]{1,0}) all-gather-start(%x), dimensions={0}
  %agd = bf16[20,3]{1,0} all-gather-done(%ag)
  %cp = (f32[8,3]{1,0}, f32[8,3]{1,0}, u32[], u32[]) collective-permute-start(%y)
  %cpd = f32[8,3]{1,0} collective-permute-done(%cp)
  %start = ((f32[8,3]{1,0}), f32[2,3]{1,0}, u32[]) async-start(%y), calls=%async_body
  ROOT %done = f32[2,3]{1,0} async-done(%start), calls=%async_body
}
"""

TPU_LIKE = """\
HloModule jit_step

fused (p.1: f32[16,128]) -> f32[16,128] {
  p.1 = f32[16,128]{1,0:T(8,128)S(1)} parameter(0)
  ROOT all-reduce.3 = f32[16,128]{1,0:T(8,128)S(1)} all-reduce(p.1), to_apply=add
}

body (s: (s32[], f32[16,128])) -> (s32[], f32[16,128]) {
  s = (s32[]{:T(128)}, f32[16,128]{1,0:T(8,128)}) parameter(0)
  x = f32[16,128]{1,0:T(8,128)} get-tuple-element(s), index=1
  f = f32[16,128]{1,0:T(8,128)} fusion(x), kind=kCustom, calls=fused
  ROOT t = (s32[]{:T(128)}, f32[16,128]{1,0:T(8,128)}) tuple(i, f)
}

ENTRY main (x.1: f32[16,128]) -> f32[16,128] {
  t.2 = (s32[]{:T(128)}, f32[16,128]{1,0:T(8,128)}) tuple(c, x.1)
  w = (s32[]{:T(128)}, f32[16,128]{1,0:T(8,128)}) while(t.2), condition=cond, body=body%s
  ROOT r = f32[16,128]{1,0:T(8,128)} get-tuple-element(w), index=1
}
"""
KNOWN = ', backend_config={"known_trip_count":{"n":"6"}}'


def compiled(mesh, body, *shapes):
    mapped = jax.shard_map(
        body, mesh=mesh, in_specs=P(), out_specs=P(), check_vma=False, axis_names={"data"}
    )
    arguments = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in shapes]
    return jax.jit(mapped).lower(*arguments).compile()


def summary(found):
    return sorted((item.kind, item.count, item.bytes, item.in_loop) for item in found)


def test_asynchronous_forms_count_once_with_the_bytes_of_their_result():
    assert summary(audit(GPU_LIKE)) == [
        ("all-gather", 1, 20 * 3 * 2, False),
        ("all-reduce", 1, 5 * 3 * 2 + 7, False),
        ("collective-permute", 1, 8 * 3 * 4, False),
        ("reduce-scatter", 1, 2 * 3 * 4, False),
    ]


def test_names_without_percent_tiled_layouts_and_fusions_in_loops_are_read():
    size = 16 * 128 * 4
    assert audit(TPU_LIKE % KNOWN) == [Collective("all-reduce", size, 6, True, "fused")]


def test_an_unknown_trip_count_is_none_unless_given():
    assert [item.count for item in audit(TPU_LIKE % "")] == [None]
    assert [item.count for item in audit(TPU_LIKE % "", unknown_trips=3)] == [3]
    assert [item.count for item in audit(TPU_LIKE % KNOWN, unknown_trips=3)] == [6]


def test_a_list_of_programs_is_one_step():
    assert len(audit([GPU_LIKE, TPU_LIKE % KNOWN])) == 5


def test_loops_nest(data_mesh):
    def body(x):
        def inner(_, carry):
            return carry * 0.5 + lax.psum(jnp.tanh(carry), "data")

        outer, _ = lax.scan(lambda c, _: (lax.fori_loop(2, 5, inner, c), None), x, length=7)
        return lax.psum(outer, "data")

    found = audit(compiled(data_mesh(2), body, ((11,), jnp.float32)))
    assert summary(found) == [("all-reduce", 1, 44, False), ("all-reduce", 21, 44, True)]


def test_a_count_decided_at_run_time_and_both_branches(data_mesh):
    def body(x, n):
        x = lax.fori_loop(0, n, lambda _, c: c - lax.psum(jnp.sin(c), "data"), x)
        return lax.cond(n > 2, lambda c: lax.psum(c, "data"), lambda c: lax.pmax(-c, "data"), x)

    program = compiled(data_mesh(3), body, ((5,), jnp.float32), ((), jnp.int32))
    counts = [item.count for item in audit(program)]
    assert sorted(counts, key=str) == [1, 1, None]
    assert [item.count for item in audit(program, unknown_trips=4)].count(4) == 1


def test_other_collectives_are_found(data_mesh):
    def body(x):
        gathered = lax.all_gather(x, "data", tiled=True)
        scattered = lax.psum_scatter(gathered * 2, "data", tiled=True)
        turned = lax.ppermute(x, "data", [(0, 1), (1, 0)])
        return scattered + turned + lax.all_to_all(x, "data", 0, 0, tiled=True)

    kinds = {item.kind for item in audit(compiled(data_mesh(2), body, ((6,), jnp.float32)))}
    assert kinds == {"all-gather", "reduce-scatter", "collective-permute", "all-to-all"}


def test_a_lowered_program_is_compiled_first(data_mesh):
    mapped = jax.shard_map(
        lambda x: lax.psum(x, "data"), mesh=data_mesh(2), in_specs=P("data"), out_specs=P()
    )
    lowered = jax.jit(mapped).lower(jnp.ones((2, 3)))
    assert summary(audit(lowered)) == [("all-reduce", 1, 12, False)]
    with pytest.raises(
        UsageError, match=r"starts with 'module @jit.*no compiled HLO: pass jax.jit"
    ):
        audit(lowered.as_text())
