"""The affine row against its reference: every dtype, tail, layout, alias and refusal."""

from __future__ import annotations

import pytest
import torch

from headstart import _core, ops
from headstart.ops import reference

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
SHAPES = [(1, 1), (3, 5), (2, 3, 7, 9), (5, 2047), (3, 4099), (16, 784)]


def draw(shape: tuple[int, ...], seed: int, dtype: torch.dtype) -> torch.Tensor:
    return reference.normal(shape, seed, 0).to(dtype)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("inputs", range(5))
@pytest.mark.parametrize("state", [torch.float32, torch.float64])
def test_formula(shape: tuple[int, ...], inputs: int, state: torch.dtype) -> None:
    x = draw(shape, 1, state)
    terms = [(0.3 * (j - 1.5), draw(shape, 2 + j, DTYPES[j])) for j in range(inputs)]
    noise = ops.Noise(0.8, seed=5, step=1, offset=3) if inputs % 2 else None
    got = ops.affine(x, 0.9, terms, noise)
    exact = reference.affine(x, 0.9, terms, noise)
    assert got.dtype == state
    assert ((got - exact).abs() / (1 + exact.abs())).max() < (2e-6 if noise or state == torch.float32 else 1e-14)


@pytest.mark.parametrize("scaled", DTYPES)
@pytest.mark.parametrize("state", [torch.float32, torch.float64])
def test_second_output(scaled: torch.dtype, state: torch.dtype) -> None:
    x, y = draw((7, 333), 1, state), draw((7, 333), 2, torch.bfloat16)
    out, second = ops.affine(x, 0.5, [(2.0, y)], out_scaled=(0.25, scaled))
    assert torch.equal(out, ops.affine(x, 0.5, [(2.0, y)]))
    assert torch.equal(second, (0.25 * out.float() if scaled.itemsize == 2 else 0.25 * out).to(scaled))


def test_16_bit_rounding_equals_torch_on_every_kind_of_number() -> None:
    edges = torch.tensor([0.0, -0.0, 1e-45, 6e-8, 5.9e-8, 2.98e-8, 2.99e-8, 6.1e-5, 65504.0, 65519.9, 65520.0, 1e9])
    bits = torch.randint(-(2**31), 2**31 - 1, (200_000,), generator=torch.Generator().manual_seed(0))
    x = torch.cat([edges, -edges, bits.int().view(torch.float32), torch.tensor([torch.inf, -torch.inf, torch.nan])])
    for dtype in (torch.float16, torch.bfloat16):
        _, got = ops.affine(x[None], 1.0, out_scaled=(1.0, dtype))
        assert torch.equal(got.isnan()[0], x.isnan())
        assert torch.equal(got[0][~x.isnan()], x[~x.isnan()].to(dtype))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_widening_equals_torch_on_every_bit_pattern(dtype: torch.dtype) -> None:
    y = torch.arange(2**16, dtype=torch.int32).to(torch.uint16).view(dtype)[None]
    got = ops.affine(torch.zeros(1, 2**16), 0.0, [(1.0, y)])
    finite = ~y.isnan()
    assert torch.equal(got[finite], y[finite].float())
    assert got[~finite].isnan().all()


@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512"])
def test_every_vector_width_gives_the_same_bits(isa: str) -> None:
    x = draw((9, 1001), 1, torch.float32)
    terms = [(0.3, draw((9, 1001), 2 + j, dtype)) for j, dtype in enumerate(DTYPES)]
    noise, scaled = ops.Noise(0.1, 1, 2), (0.7, torch.float16)
    before = _core.isa()
    try:
        _core.set_isa("baseline")
        narrow = ops.affine(x, 1.1, terms, noise, out_scaled=scaled)
        if not _core.set_isa(isa):
            pytest.skip(f"this machine has no {isa}")
        wide = ops.affine(x, 1.1, terms, noise, out_scaled=scaled)
    finally:
        _core.set_isa(before)
    assert torch.equal(narrow[0], wide[0])
    assert torch.equal(narrow[1], wide[1])


def test_aliases() -> None:
    x, y = draw((6, 50), 1, torch.float32), draw((6, 50), 2, torch.float32)
    want = ops.affine(x, 0.5, [(0.25, y)])
    on_y = y.clone()
    assert torch.equal(ops.affine(x, 0.5, [(0.25, on_y)], out=on_y), want)
    on_x = x.clone()
    assert torch.equal(ops.affine(on_x, 0.5, [(0.25, y)], out=on_x), want)
    memory = torch.zeros(700)
    with pytest.raises(ValueError, match="affine: out overlaps an input"):
        ops.affine(memory[:600].view(6, 100), 1.0, out=memory[50:650].view(6, 100))


def test_strided_inputs_are_taken_by_value() -> None:
    x, y = draw((6, 8), 1, torch.float32).mT, draw((8, 12), 2, torch.float32)[:, ::2]
    assert torch.equal(ops.affine(x, 0.5, [(2.0, y)]), ops.affine(x.contiguous(), 0.5, [(2.0, y.contiguous())]))
    image = draw((2, 3, 4, 4), 1, torch.float32)
    last = image.to(memory_format=torch.channels_last)
    assert torch.equal(ops.noise(last, 1.0, 1, 0), ops.noise(image, 1.0, 1, 0))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"x": [1.0]}, "affine: x must be float32 or float64, got list"),
        ({"x": torch.ones(2, 3).to_sparse()}, "affine: x must be a dense tensor"),
        ({"terms": [(1.0, torch.ones(3, 2))]}, r"affine: y0 must be .* \[2, 3\] on cpu, got float32 \[3, 2\] on cpu"),
        ({"terms": [(1.0, torch.ones(2, 3)), (1.0, torch.ones(2, 3).int())]}, "affine: y1 must be .*, got int32"),
        ({"terms": [(1.0, torch.ones(2, 3))] * 5}, r"affine: terms must be at most 4 pairs \(b, y\), got 5"),
        ({"out": torch.ones(2, 3, dtype=torch.float64)}, "affine: out must be float32 .*, got float64"),
        ({"out_scaled": (1.0, torch.int8)}, "affine: out_scaled must be"),
        ({"out_scaled": (1.0, torch.ones(3, 3))}, "affine: out_scaled must be .*, got float32"),
        ({"noise": ops.Noise(1.0, -3, 0)}, "affine: seed must be"),
        ({"x": torch.ones(2, 3, requires_grad=True)}, "affine: x requires a gradient"),
    ],
)
def test_bad_input(change: dict, error: str) -> None:
    with pytest.raises((TypeError, ValueError), match=error):
        ops.affine(**{"x": torch.ones(2, 3), "a": 1.0, **change})


def test_compiles_whole() -> None:
    def row(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        out, scaled = ops.affine(x * 2, 0.5, [(0.3, y)], ops.Noise(0.1, 2**63 + 1, 2), out_scaled=(0.5, torch.bfloat16))
        return ops.noise(out, 0.1, 1, 2) + 1, scaled, ops.normal((3, 4), 5), ops.uniform(3, 1)

    x, y = draw((5, 33), 1, torch.float32), draw((5, 33), 2, torch.float16)
    compiled = torch.compile(row, fullgraph=True, backend="aot_eager")
    assert all(torch.equal(a, b) for a, b in zip(compiled(x, y), row(x, y), strict=True))


def test_compiled_calls_refuse_what_eager_calls_do() -> None:
    into = torch.compile(lambda x, out: ops.affine(x, 1.0, out=out), fullgraph=True, backend="aot_eager")
    x, out = torch.arange(6.0).view(2, 3), torch.empty(2, 3)
    assert torch.equal(into(x, out), x)
    assert torch.equal(out, x)
    with pytest.raises(ValueError, match="affine: out must be contiguous"):
        into(x, torch.empty(2, 6)[:, ::2])


def test_outputs_may_not_overlap() -> None:
    out = torch.empty(2, 3)
    with pytest.raises(ValueError, match="affine: out_scaled overlaps out"):
        ops.affine(torch.ones(2, 3), 1.0, out=out, out_scaled=(5.0, out))


def test_tensors_without_memory() -> None:
    x = torch.empty(4, 5, device="meta")
    assert ops.affine(x, 1.0, [(2.0, x)]).shape == (4, 5)
    assert ops.noise(x, 1.0, 0, 0).device.type == "meta"
    assert ops.uniform(3, 1, device="meta").shape == (3,)


@pytest.mark.parametrize("inputs", [0, 2, 4])
@pytest.mark.parametrize("shape", [(3, 5, 4, 6), (2, 3, 2, 3, 4)])
def test_channels_last_states(shape: tuple[int, ...], inputs: int) -> None:
    """The values do not depend on the layout, noise included, and the result keeps the state's."""
    order = torch.channels_last if len(shape) == 4 else torch.channels_last_3d
    x, *ys = (torch.randn(shape, generator=torch.Generator().manual_seed(j)) for j in range(inputs + 1))
    for noise in (None, ops.Noise(0.7, 3, 1, 2)):
        terms = [(0.3 + j, y) for j, y in enumerate(ys)]
        expected, expected_scaled = ops.affine(x, 0.5, terms, noise, out_scaled=(2.0, torch.bfloat16))
        mixed = [(b, y.to(memory_format=order) if j % 2 == 0 else y) for j, (b, y) in enumerate(terms)]
        strided = x.to(memory_format=order)
        out, scaled = ops.affine(strided, 0.5, mixed, noise, out_scaled=(2.0, torch.bfloat16))
        for got, wanted in ((out, expected), (scaled, expected_scaled)):
            assert got.is_contiguous(memory_format=order)
            assert torch.equal(got, wanted)
        assert torch.equal(ops.affine(strided, 0.5, mixed, noise, out=torch.empty(shape)), expected)


def test_origin_stands_for_seed_and_offset() -> None:
    x = torch.randn(4, 33)
    expected = ops.affine(x, 0.5, [], ops.Noise(0.7, 2**64 - 5, 3, 11))
    origin = torch.tensor([-5, 11])
    assert torch.equal(ops.affine(x, 0.5, [], ops.Noise(0.7, 0, 3, origin=origin)), expected)
    with pytest.raises(ValueError, match=r"affine: noise.origin must be int64 \[2\] on cpu, got int64 \[3\] on cpu"):
        ops.affine(x, 0.5, [], ops.Noise(0.7, 0, 3, origin=torch.zeros(3, dtype=torch.int64)))
