"""Quantizers in `torch.export`: any batch, with and without a mask, results known by name."""

from __future__ import annotations

import io

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim, export
from torch.utils import _pytree as pytree
from variants import VARIANTS, latents

from smalti.quantize import Quantized, Quantizer, VectorQuantizer, build_quantizer
from smalti.quantize.search import EXPORTED_CODES

NAMES = (
    "vector-ema", "vector-gradient-projection-normalize", "vector-ema-rotation", "vector-diveq", "simvq",
    "scalar-mixed", "binary-many", "residual-dropout", "residual-scalar", "product-vector", "product-binary",
)  # fmt: skip


class EncodeMasked(nn.Module):
    def __init__(self, quantizer: Quantizer) -> None:
        super().__init__()
        self.quantizer = quantizer

    def forward(self, z: Tensor, mask: Tensor) -> Tensor:
        return self.quantizer.codes_of(z, mask=mask)


def started(name: str) -> Quantizer:
    torch.manual_seed(0)
    quantizer = build_quantizer(VARIANTS[name])
    for seed in range(2):
        quantizer(latents(VARIANTS[name], seed))
    return quantizer.eval()


@pytest.mark.parametrize("name", NAMES)
def test_a_quantizer_is_exported_for_any_batch(name: str) -> None:
    quantizer, config = started(name), VARIANTS[name]
    program = export(quantizer, (latents(config),), dynamic_shapes={"z": {0: Dim("batch", min=1)}}, strict=False)
    for batch in (1, 5):
        z = latents(config, 3, batch=batch)
        found, expected = program.module()(z), quantizer(z)
        assert isinstance(found, Quantized)
        assert torch.equal(found.codes, expected.codes)
        torch.testing.assert_close(found.values, expected.values)
        torch.testing.assert_close(found.loss, expected.loss)


@pytest.mark.parametrize("name", ["vector-ema", "product-vector"])
def test_encoding_with_a_mask_is_exported(name: str) -> None:
    module, config = EncodeMasked(started(name)), VARIANTS[name]
    mask = torch.rand(7, 5, 3) < 0.5
    shapes = ({0: Dim("batch", min=1)},) * 2
    program = export(module, (latents(config), mask[:2]), dynamic_shapes=shapes, strict=False)
    z = latents(config, 3, batch=7)
    assert torch.equal(program.module()(z, mask), module.quantizer.encode(z, mask=mask))


def test_many_codes_are_compared_in_several_parts() -> None:
    quantizer = VectorQuantizer(2 * EXPORTED_CODES + 7, 4)
    z = torch.randn(3, 4, 40, generator=torch.Generator().manual_seed(0))
    quantizer.codebook.normal_(generator=torch.Generator().manual_seed(1))
    quantizer.codebook[-7:] = quantizer.codebook[:7]  # of equal vectors the first one is chosen
    quantizer.eval()
    z[0, :, :7] = quantizer.codebook[:7].T
    program = export(quantizer, (z[:2],), dynamic_shapes={"z": {0: Dim("batch", min=1)}}, strict=False)
    found = program.module()(z).codes
    assert torch.equal(found, quantizer.encode(z))
    assert torch.equal(found[0, 0, :7], torch.arange(7))


def test_a_result_is_a_tuple_that_a_saved_program_knows() -> None:
    quantizer = started("vector-ema")
    z = latents(VARIANTS["vector-ema"])
    values, codes, loss = quantizer(z)
    leaves, _ = pytree.tree_flatten(Quantized(values, codes, loss))
    assert leaves[0] is values
    assert leaves[1] is codes
    assert leaves[2] is loss
    file = io.BytesIO()
    torch.export.save(export(quantizer, (z,), strict=False), file)
    file.seek(0)
    found = torch.export.load(file).module()(z)
    assert isinstance(found, Quantized)
    assert torch.equal(found.codes, codes)
