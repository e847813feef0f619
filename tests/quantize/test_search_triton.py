"""The Triton kernel in Triton's interpreter on a CPU, which is chosen at Triton's import: hence a process of its own.

Skipped where Triton is not installed; on a GPU the compiled kernel is tested besides.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from smalti.quantize.search import LinearForm, best_scores_in_tiles, linear_form, nearest

if importlib.util.find_spec("triton") is None:
    pytest.skip("Triton is not installed", allow_module_level=True)

# Nothing a multiple of any tile, single ones of each, and the widest.
SHAPES = [(1, 1, 1), (1, 5, 3), (63, 64, 8), (65, 65, 16), (130, 200, 64), (70, 33, 100), (33, 70, 130), (33, 65, 256)]


def cases() -> dict[str, tuple[Tensor, LinearForm]]:
    """Rows and scores that the kernel and the pure PyTorch search have to agree on."""
    torch.manual_seed(0)
    found = {f"{n} {k} {d}": (torch.randn(n, d), linear_form(torch.randn(k, d))) for n, k, d in SHAPES}
    base = torch.randn(20, 8)
    found["equal vectors"] = torch.randn(90, 8), linear_form(base.repeat(8, 1))
    found["ties"] = torch.zeros(10, 4), linear_form(torch.ones(150, 4))
    found["transposed"] = torch.randn(16, 100).T, linear_form(torch.randn(50, 16))
    found["strided"] = torch.randn(200, 32)[::2, ::2], linear_form(torch.randn(50, 16))
    found["bfloat16"] = torch.randn(100, 16).bfloat16(), linear_form(torch.randn(50, 16))
    found["float64"] = torch.randn(100, 16).double(), linear_form(torch.randn(50, 16))
    found["far away"] = torch.randn(100, 16) + 1000, linear_form(torch.randn(50, 16) + 1000)
    found["huge"] = torch.randn(100, 16) * 1e30, linear_form(torch.randn(50, 16) * 1e30)
    found["tiny"] = torch.randn(100, 16) * 1e-36, linear_form(torch.randn(50, 16) * 1e-36)
    odd = torch.tensor([float("nan"), float("inf"), float("-inf"), 1e36])
    found["not numbers"] = odd.repeat_interleave(20)[:, None].repeat(1, 3), linear_form(torch.randn(70, 3))
    return found


def interpret() -> dict[str, list[int]]:
    from smalti.quantize.search_triton import best_scores

    return {name: best_scores(rows, *form).tolist() for name, (rows, form) in cases().items()}


@pytest.fixture(scope="module")
def interpreted() -> dict[str, list[int]]:
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, __file__], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", cases())
def test_the_kernel_agrees_with_pytorch(name: str, interpreted: dict[str, list[int]]) -> None:
    rows, form = cases()[name]
    codes = torch.tensor(interpreted[name])
    assert codes.shape == rows.shape[:1]
    assert ((codes >= 0) & (codes < len(form.weights))).all()
    if name == "ties":
        assert (codes == 0).all()
    elif name == "equal vectors":
        assert torch.equal(codes % 20, best_scores_in_tiles(rows, form) % 20)
    elif name != "not numbers":
        assert torch.equal(codes, best_scores_in_tiles(rows, form))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize(("count", "codes", "dimension"), SHAPES)
def test_a_gpu_finds_codes_as_near(count: int, codes: int, dimension: int) -> None:
    torch.manual_seed(0)
    rows, codebook = torch.randn(count, dimension), torch.randn(codes, dimension)
    found = nearest(rows.cuda(), codebook.cuda()).cpu()
    table = (rows.double()[:, None] - codebook.double()[None]).square().sum(dim=2)
    assert torch.allclose(table.gather(1, found[:, None])[:, 0], table.min(dim=1).values, rtol=1e-5)


if __name__ == "__main__":
    print(json.dumps(interpret()))
