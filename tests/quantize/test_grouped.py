"""Many codebooks in each operation give what one quantizer for each group gives."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from smalti.config.quantizer import BinaryConfig, ProductConfig, VectorConfig
from smalti.quantize import ProductQuantizer, VectorQuantizer, build_quantizer
from smalti.quantize.grouped import GroupedVectorQuantizer
from smalti.quantize.search import nearest, nearest_in_groups

CODES, GROUPS, SIZE = 6, 5, 3


def latents(seed: int, batch: int = 4) -> Tensor:
    return torch.randn(batch, GROUPS * SIZE, 2, 3, generator=torch.Generator().manual_seed(seed))


def both(**options: float) -> tuple[ProductQuantizer, GroupedVectorQuantizer]:
    layers = [VectorQuantizer(CODES, SIZE, **options) for _ in range(GROUPS)]  # type: ignore[arg-type]
    return ProductQuantizer(layers), GroupedVectorQuantizer(CODES, GROUPS * SIZE, GROUPS, **options)


@pytest.mark.parametrize("fitted", [False, True])
def test_training_is_that_of_one_quantizer_for_each_group(fitted: bool) -> None:
    separate, together = both(decay=0.9, commitment=0.7, dead_code_threshold=0.2)
    if fitted:
        for quantizer in (separate, together):
            quantizer.fit(latents(50, batch=20), latents_per_step=24)
    for step in range(6):
        a, b = latents(step).requires_grad_(), latents(step).requires_grad_()
        one, other = separate(a), together(b)
        assert torch.equal(one.codes, other.codes)
        torch.testing.assert_close(one.values, other.values)
        torch.testing.assert_close(one.loss, other.loss)
        for z, found in ((a, one), (b, other)):
            (found.values.square().sum() + found.loss).backward()
            assert z.grad is not None
        torch.testing.assert_close(a.grad, b.grad)
        for group, layer in enumerate(separate.layers):
            torch.testing.assert_close(layer.codebook, together.codebooks[group])
            torch.testing.assert_close(layer.used, together.used[group])
            torch.testing.assert_close(layer.sums, together.sums[group])
    separate.eval()
    together.eval()
    z = latents(99)
    assert torch.equal(separate.encode(z), together.encode(z))
    assert torch.equal(separate.decode(separate.encode(z)), together.decode(together.encode(z)))


def test_a_configuration_of_plain_ema_layers_is_grouped() -> None:
    plain = ProductConfig(layer=VectorConfig(codes=CODES, dimension=SIZE, decay=0.9), groups=GROUPS)
    quantizer = build_quantizer(plain)
    assert isinstance(quantizer, GroupedVectorQuantizer)
    assert quantizer.decay == 0.9
    assert quantizer.codebook_sizes == plain.codebook_sizes
    assert quantizer.dimension == plain.dimension
    for layer in (
        VectorConfig(codes=CODES, dimension=SIZE, update="gradient"),
        VectorConfig(codes=CODES, dimension=SIZE, projection=2),
        VectorConfig(codes=CODES, dimension=SIZE, normalize=True),
        VectorConfig(codes=CODES, dimension=SIZE, gradient="rotation"),
        VectorConfig(codes=CODES, dimension=SIZE, start="kmeans"),
        BinaryConfig(bits=3),
    ):
        assert isinstance(build_quantizer(ProductConfig(layer=layer, groups=2)), ProductQuantizer)


@pytest.mark.parametrize(
    ("groups", "rows", "codes", "size"), [(1, 1, 1, 1), (3, 700, 300, 4), (64, 9, 33, 8), (2, 0, 5, 3)]
)
def test_the_search_is_that_of_each_group(groups: int, rows: int, codes: int, size: int) -> None:
    torch.manual_seed(0)
    table, books = torch.randn(groups, rows, size), torch.randn(groups, codes, size)
    found = nearest_in_groups(table, books)
    assert found.dtype == torch.int64
    assert torch.equal(found, torch.stack([nearest(part, book) for part, book in zip(table, books, strict=True)]))
    half = table.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(nearest_in_groups(half, books), nearest_in_groups(half.float(), books))
