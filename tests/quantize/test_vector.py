"""The vector quantizer against float64 and numpy: loss, gradients, EMA statistics, revival."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from smalti.errors import ConfigError
from smalti.quantize import VectorQuantizer, perplexity
from smalti.quantize import kmeans as kmeans_module


def latents(seed: int, *, batch: int = 4, dimension: int = 3) -> Tensor:
    return torch.randn(batch, dimension, 4, 5, generator=torch.Generator().manual_seed(seed))


def rows_of(z: Tensor) -> np.ndarray:
    return np.moveaxis(z.detach().double().numpy(), 1, -1).reshape(-1, z.shape[1])


def started(codes: int = 7, **options: object) -> VectorQuantizer:
    quantizer = VectorQuantizer(codes, 3, **options)
    quantizer(latents(100))
    return quantizer


@pytest.mark.parametrize("update", ["ema", "gradient"])
@pytest.mark.parametrize("beta", [0.0, 0.25, 2.0])
def test_the_loss_is_its_formula(update: str, beta: float) -> None:
    quantizer = started(update=update, commitment=beta, dead_code_threshold=0.0).eval()
    z = latents(1).requires_grad_()
    result = quantizer(z)
    rows, book = rows_of(z), quantizer.codebook.detach().double().numpy()
    chosen = ((rows[:, None] - book[None]) ** 2).sum(axis=2).argmin(axis=1)
    assert np.array_equal(result.codes.view(-1).numpy(), chosen)
    gap = rows - book[chosen]
    weight = beta + (update == "gradient")
    assert float(result.loss.detach()) == pytest.approx(weight * (gap**2).mean(), rel=1e-5, abs=1e-12)

    if beta or update == "gradient":
        result.loss.backward()
    # beta weighs what the encoder feels ...
    felt = np.zeros_like(gap) if z.grad is None else rows_of(z.grad)
    np.testing.assert_allclose(felt, beta * 2 * gap / gap.size, rtol=1e-4, atol=1e-9)
    # ... and not what the codebook feels.
    if update == "gradient":
        expected = np.zeros_like(book)
        np.add.at(expected, chosen, -2 * gap / gap.size)
        np.testing.assert_allclose(quantizer.codebook.grad.numpy(), expected, rtol=1e-4, atol=1e-8)
    else:
        assert not list(quantizer.parameters())


def test_ema_statistics_are_their_formula() -> None:
    decay, codes = 0.8, 6
    quantizer = VectorQuantizer(codes, 3, decay=decay, dead_code_threshold=0.0)
    used, sums, book = np.zeros(codes), np.zeros((codes, 3)), None
    for step in range(6):
        z = latents(step)
        rows = rows_of(z)
        if book is None:
            book = _first_codebook(quantizer, z)
        quantizer(z)
        chosen = ((rows[:, None] - book[None]) ** 2).sum(axis=2).argmin(axis=1)
        g = decay if step else 0.0
        one_hot = np.eye(codes)[chosen]
        used = g * used + (1 - g) * one_hot.sum(axis=0)
        sums = g * sums + (1 - g) * one_hot.T @ rows
        seen = used > 1e-3 * len(rows) / codes
        book = np.where(seen[:, None], sums / np.maximum(used, 1e-20)[:, None], book)
        np.testing.assert_allclose(quantizer.used.numpy(), used, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(quantizer.sums.numpy(), sums, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(quantizer.codebook.numpy(), book, rtol=1e-4, atol=1e-4)
        assert int(quantizer.steps) == step + 1


def _first_codebook(quantizer: VectorQuantizer, z: Tensor) -> np.ndarray:
    """The codebook the first batch is quantized with: its own latents."""
    twin = VectorQuantizer(*quantizer.codebook.shape, update="gradient", dead_code_threshold=0.0)
    twin(z)
    return twin.codebook.detach().double().numpy()


@pytest.mark.parametrize("update", ["ema", "gradient"])
def test_the_first_batch_gives_the_codebook(update: str) -> None:
    quantizer = VectorQuantizer(7, 3, update=update, dead_code_threshold=0.0)
    fresh = quantizer.codebook.detach().clone()
    assert float(fresh.abs().max()) <= 1 / 7
    z = latents(0) + 50
    quantizer(z)
    assert float(quantizer.codebook.detach().min()) > 40
    if update == "gradient":
        there = {tuple(row) for row in rows_of(z)}
        assert all(tuple(row) in there for row in quantizer.codebook.detach().double().tolist())


def test_the_first_codebook_does_not_depend_on_the_global_seed() -> None:
    torch.manual_seed(1)
    first = VectorQuantizer(5, 3).codebook
    torch.manual_seed(2)
    assert torch.equal(first, VectorQuantizer(5, 3).codebook)


def test_a_dead_code_moves_with_both_its_statistics() -> None:
    quantizer = started(8, dead_code_threshold=0.05)
    quantizer.codebook[3] = 1e3
    quantizer.used[3] = 1e-4
    quantizer.sums[3] = 1e-1
    z = latents(7)
    quantizer(z)
    moved = quantizer.codebook[3]
    assert float(torch.cdist(moved[None], torch.from_numpy(rows_of(z)).float()).min()) < 1e-5
    mean_use = len(rows_of(z)) / 8
    assert float(quantizer.used[3]) == pytest.approx(mean_use)
    torch.testing.assert_close(quantizer.sums[3], moved * mean_use)
    quantizer.eval()(z)
    quantizer.train()(z)
    assert float(quantizer.codebook[3].abs().max()) < 10, "the old sum must not pull it back"


def test_nothing_is_revived_at_zero() -> None:
    quantizer = started(8, dead_code_threshold=0.0)
    quantizer.codebook[3] = 1e3
    quantizer.used[3], quantizer.sums[3] = 0.0, 0.0
    quantizer(latents(7))
    assert torch.equal(quantizer.codebook[3], torch.full((3,), 1e3))


@pytest.mark.parametrize("update", ["ema", "gradient"])
def test_the_codebook_is_used_whole(update: str) -> None:
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(64, 4, generator=generator) * 10
    quantizer = VectorQuantizer(64, 4, update=update, decay=0.9)
    optimizer = torch.optim.Adam(quantizer.parameters(), lr=0.05) if update == "gradient" else None

    def batch() -> Tensor:
        which = torch.arange(512) % 64
        rows = centres[which] + 0.1 * torch.randn(512, 4, generator=generator)
        return rows.view(8, 8, 8, 4).permute(0, 3, 1, 2)

    for _ in range(150):
        loss = quantizer(batch()).loss
        if optimizer is not None:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    codes = quantizer.eval()(batch()).codes
    assert float(perplexity(torch.bincount(codes.view(-1), minlength=64))) > 50


@pytest.mark.parametrize("codes", [-1, 0, 1, 2**20 + 1])
def test_a_codebook_has_two_codes_or_more(codes: int) -> None:
    with pytest.raises(ConfigError, match=f"codes is {codes}, but must be from 2 to"):
        VectorQuantizer(codes, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dimension": 0}, "dimension is 0"),
        ({"update": "adam"}, "one of ema, gradient"),
        ({"gradient": "diveq"}, "set update to gradient"),
        ({"gradient": "rotate"}, "did you mean 'rotation'?"),
        ({"start": "k-means"}, "did you mean 'kmeans'?"),
        ({"projection": 0}, "projection is 0"),
        ({"decay": 1.0}, "decay is 1.0"),
    ],
)
def test_arguments_that_do_not_fit_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        VectorQuantizer(**options)


def test_two_codes_and_one_latent() -> None:
    quantizer = VectorQuantizer(2, 2)
    result = quantizer(torch.tensor([[[[3.0]], [[4.0]]]]))
    assert int(result.codes) == 0
    torch.testing.assert_close(quantizer.codebook, torch.tensor([[3.0, 4.0], [3.0, 4.0]]))


def test_a_projection_searches_and_learns_in_few_numbers() -> None:
    quantizer = VectorQuantizer(7, 3, projection=2, dead_code_threshold=0.0)
    assert quantizer.codebook.shape == quantizer.sums.shape == (7, 2)
    quantizer(latents(100))
    z = latents(1)
    result = quantizer.eval()(z)
    into, out = quantizer.inward, quantizer.outward
    low = rows_of(z) @ into.weight.detach().double().numpy().T + into.bias.detach().double().numpy()
    book = quantizer.codebook.double().numpy()
    chosen = ((low[:, None] - book[None]) ** 2).sum(axis=2).argmin(axis=1)
    assert np.array_equal(result.codes.view(-1).numpy(), chosen)
    expected = book[chosen] @ out.weight.detach().double().numpy().T + out.bias.detach().double().numpy()
    np.testing.assert_allclose(rows_of(result.values), expected, rtol=1e-4, atol=1e-5)
    assert float(result.loss.detach()) == pytest.approx(0.25 * ((low - book[chosen]) ** 2).mean(), rel=1e-4)


@pytest.mark.parametrize("update", ["ema", "gradient"])
def test_on_the_sphere_the_nearest_code_has_the_largest_cosine(update: str) -> None:
    quantizer = started(update=update, normalize=True)
    for step in range(3):
        quantizer(latents(step) * 7)
    z = latents(9) * 100
    result = quantizer.eval()(z)
    rows, book = rows_of(z), quantizer.codebook.detach().double().numpy()
    cosines = (rows / np.linalg.norm(rows, axis=1)[:, None]) @ (book / np.linalg.norm(book, axis=1)[:, None]).T
    assert np.array_equal(result.codes.view(-1).numpy(), cosines.argmax(axis=1))
    np.testing.assert_allclose(np.linalg.norm(rows_of(result.values), axis=1), 1, rtol=1e-5)
    # |z - e|^2 = 2 - 2 cos on the sphere; the loss is the mean over channels too.
    weight = 0.25 + (update == "gradient")
    assert float(result.loss.detach()) == pytest.approx(weight * (2 - 2 * cosines.max(axis=1)).mean() / 3, rel=1e-4)


def test_kmeans_is_its_formula() -> None:
    z = latents(0)
    quantizer = VectorQuantizer(7, 3, update="gradient", start="kmeans", dead_code_threshold=0.0)
    quantizer(z)
    rows = rows_of(z)
    centres = rows[np.arange(7) * len(rows) // 7]
    for _ in range(10):
        chosen = ((rows[:, None] - centres[None]) ** 2).sum(axis=2).argmin(axis=1)
        centres = np.stack([rows[chosen == k].mean(axis=0) if (chosen == k).any() else centres[k] for k in range(7)])
    np.testing.assert_allclose(quantizer.codebook.detach().numpy(), centres, rtol=1e-4, atol=1e-5)


def test_kmeans_begins_with_a_smaller_error_than_latents_do() -> None:
    errors = {}
    for start in ("latents", "kmeans"):
        quantizer = VectorQuantizer(16, 3, update="gradient", start=start, dead_code_threshold=0.0)
        z = latents(3, batch=20)
        quantizer(z)
        errors[start] = float((quantizer.eval()(z).values - z).detach().square().mean())
    assert errors["kmeans"] < 0.8 * errors["latents"]


def test_kmeans_needs_as_many_latents_as_codes() -> None:
    quantizer = VectorQuantizer(81, 3, start="kmeans")
    message = "the first batch has 80, the codebook 81; use a larger batch or start=latents"
    with pytest.raises(ConfigError, match=message):
        quantizer(latents(0))
    quantizer(latents(0, batch=5))
    quantizer(latents(0, batch=1))  # later ones may be smaller


def test_kmeans_looks_at_a_bounded_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    original = kmeans_module.nearest
    monkeypatch.setattr(kmeans_module, "nearest", lambda rows, book: seen.append(len(rows)) or original(rows, book))
    VectorQuantizer(4, 3, start="kmeans")(latents(0, batch=100))
    assert set(seen) == {64 * 4}


def test_diveq_trains_the_codebook_through_the_main_loss_alone() -> None:
    centres = torch.tensor([[3.0, 0.0], [-3.0, 1.0], [0.0, -4.0]])
    quantizer = VectorQuantizer(3, 2, update="gradient", gradient="diveq", dead_code_threshold=0.0)
    with torch.no_grad():
        quantizer.codebook.copy_(centres + 0.7)
        quantizer.steps += 1
    z = centres.repeat(20, 1).view(1, 60, 2).permute(0, 2, 1)[..., None]
    optimizer = torch.optim.Adam(quantizer.parameters(), lr=0.02)
    for _ in range(200):
        result = quantizer(z)
        assert float(result.loss) == 0
        optimizer.zero_grad()
        (result.values - z).square().mean().backward()
        optimizer.step()
    torch.testing.assert_close(quantizer.codebook.detach(), centres, rtol=0, atol=0.05)
    assert torch.equal(
        quantizer.eval()(z).values.flatten(2), quantizer.codebook[quantizer.encode(z)[0, 0, :, 0]].T[None]
    )


def test_diveq_draws_other_noise_in_each_step_and_the_same_again() -> None:
    def values(steps: int) -> Tensor:
        quantizer = started(update="gradient", gradient="diveq", dead_code_threshold=0.0)
        return [quantizer(latents(0)).values for _ in range(steps)][-1]

    assert torch.equal(values(1), values(1))
    assert not torch.equal(values(1), values(2))
