"""Adversarial losses against independent formulas, and the gradient penalty against an analytic critic."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smalti.losses.adversarial import ADVERSARIAL_LOSSES, LeCam, gradient_penalty, squared_gradients
from smalti.runtime.rng import Draws

R = torch.linspace(-4, 5, 30)
FAKE = torch.linspace(-6, 3, 30)


def entropy(logits: Tensor, target: float) -> float:
    return float(F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target)))


r, f = R.double().numpy(), FAKE.double().numpy()
EXPECTED = {
    "relativistic": (entropy(R - FAKE, 1.0), entropy(FAKE - R, 1.0)),
    "bce": (entropy(R, 1.0) + entropy(FAKE, 0.0), entropy(FAKE, 1.0)),
    "hinge": (np.maximum(0, 1 - r).mean() + np.maximum(0, 1 + f).mean(), -f.mean()),
    "least-squares": (0.5 * ((r - 1) ** 2).mean() + 0.5 * (f**2).mean(), 0.5 * ((f - 1) ** 2).mean()),
    "wasserstein": (f.mean() - r.mean(), -f.mean()),
}


@pytest.mark.parametrize("name", ADVERSARIAL_LOSSES)
def test_a_row_is_its_formula(name: str) -> None:
    loss = ADVERSARIAL_LOSSES[name]
    assert float(loss.discriminator(R, FAKE)) == pytest.approx(EXPECTED[name][0], rel=1e-5)
    assert float(loss.generator(R, FAKE)) == pytest.approx(EXPECTED[name][1], rel=1e-5)


@pytest.mark.parametrize("name", ADVERSARIAL_LOSSES)
def test_descending_parts_real_from_fake_and_lifts_the_fakes(name: str) -> None:
    loss = ADVERSARIAL_LOSSES[name]
    real, fake = torch.zeros(5, requires_grad=True), torch.full((5,), 0.5, requires_grad=True)
    loss.discriminator(real, fake).backward()
    assert (real.grad < 0).all(), "a step lifts D(real)"
    assert (fake.grad > 0).all(), "a step lowers D(fake)"
    fake.grad = None
    loss.generator(real, fake).backward()
    assert (fake.grad < 0).all(), "a step of the generator lifts D(fake)"


@pytest.mark.parametrize("name", ["relativistic", "bce", "hinge", "least-squares"])
def test_the_two_players_want_opposite_things(name: str) -> None:
    loss = ADVERSARIAL_LOSSES[name]
    won, lost = torch.full((4,), 3.0), torch.full((4,), -3.0)
    assert loss.discriminator(won, lost) < loss.discriminator(lost, won)
    assert loss.generator(lost, won) < loss.generator(won, lost)


def test_a_discriminator_that_knows_nothing_pays_two_bits() -> None:
    assert float(ADVERSARIAL_LOSSES["bce"].discriminator(torch.zeros(3), torch.zeros(3))) == pytest.approx(
        2 * np.log(2)
    )


@pytest.mark.parametrize("name", ADVERSARIAL_LOSSES)
@pytest.mark.parametrize("size", [1e4, -1e4])
def test_huge_logits_stay_finite_with_their_gradients(name: str, size: float) -> None:
    loss = ADVERSARIAL_LOSSES[name]
    real, fake = (torch.full((3,), size, requires_grad=True) for _ in range(2))
    (loss.discriminator(real, -fake) + loss.discriminator(-real, fake) + loss.generator(real, -fake)).backward()
    assert torch.isfinite(real.grad).all()
    assert torch.isfinite(fake.grad).all()


def images(count: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, 2, 3, 3, generator=generator), torch.randn(count, 2, 3, 3, generator=generator)


def test_the_penalty_of_a_linear_critic_is_the_square_of_its_slope_less_one() -> None:
    weight = torch.randn(18, generator=torch.Generator().manual_seed(1))
    penalty = gradient_penalty(lambda x: x.flatten(1) @ weight, *images(), Draws(0, 0))
    assert float(penalty) == pytest.approx((float(weight.norm()) - 1) ** 2, rel=1e-5)
    assert penalty.shape == ()


def test_the_penalty_is_taken_between_the_images_one_share_each() -> None:
    real, fake = images()
    seen: list[Tensor] = []

    def critic(x: Tensor) -> Tensor:
        seen.append(x.detach())
        return x.flatten(1).square().sum(dim=1) / 2  # its gradient is x itself

    penalty = gradient_penalty(critic, real, fake, Draws(0, 0))
    way = real - fake
    share = ((seen[0] - fake) * way).sum(dim=(1, 2, 3)) / way.square().sum(dim=(1, 2, 3))
    torch.testing.assert_close(seen[0], fake + share[:, None, None, None] * way)
    assert 0 <= float(share.min()) <= float(share.max()) <= 1
    assert len({round(float(value), 3) for value in share}) == len(real)
    assert float(penalty.detach()) == pytest.approx(
        float((seen[0].flatten(1).norm(dim=1) - 1).square().mean()), rel=1e-5
    )


def test_the_penalty_reaches_the_critics_weights_and_no_image() -> None:
    critic = nn.Sequential(nn.Flatten(), nn.Linear(18, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    real, fake = (x.requires_grad_() for x in images())

    def value(weight: Tensor) -> Tensor:
        def run(x: Tensor) -> Tensor:
            hidden = torch.tanh(F.linear(x.double().flatten(1), weight, critic[1].bias))
            return F.linear(hidden, critic[3].weight)[:, 0]

        return gradient_penalty(run, real, fake, Draws(0, 0))

    weight = critic[1].weight
    value(weight).backward()
    assert real.grad is None
    assert fake.grad is None
    step = torch.zeros_like(weight)
    step[1, 2] = 1e-3  # the points are float32, so a smaller step would vanish in rounding error
    slope = (value(weight + step) - value(weight - step)).detach() / 2e-3
    assert float(weight.grad[1, 2]) == pytest.approx(float(slope), rel=1e-2, abs=1e-4)


def test_a_flat_critic_has_a_finite_penalty() -> None:
    weight = torch.zeros(18, requires_grad=True)
    penalty = gradient_penalty(lambda x: x.flatten(1) @ weight, *images(), Draws(0, 0))
    penalty.backward()
    assert float(penalty.detach()) == 1
    assert torch.isfinite(weight.grad).all()


@pytest.mark.parametrize("name", [name for name, loss in ADVERSARIAL_LOSSES.items() if loss.middle is not None])
def test_a_discriminator_that_cannot_tell_says_the_middle(name: str) -> None:
    """If real and fake images have the same logit, the loss is minimal at the decision boundary."""
    loss = ADVERSARIAL_LOSSES[name]
    logits = torch.linspace(-2, 2, 401)
    losses = torch.stack([loss.discriminator(logit[None], logit[None]) for logit in logits])
    least = logits[losses <= losses.min() + 1e-6]
    assert float((least.min() + least.max()) / 2) == pytest.approx(loss.middle, abs=1e-3)


@pytest.mark.parametrize("name", [name for name, loss in ADVERSARIAL_LOSSES.items() if loss.middle is None])
def test_where_there_is_no_middle_all_logits_are_as_good(name: str) -> None:
    loss = ADVERSARIAL_LOSSES[name]
    assert float(loss.discriminator(R, FAKE)) == pytest.approx(float(loss.discriminator(R + 3, FAKE + 3)), abs=1e-6)


@pytest.mark.parametrize("name", ADVERSARIAL_LOSSES)
def test_only_a_paired_generator_looks_at_real_logits(name: str) -> None:
    loss = ADVERSARIAL_LOSSES[name]
    assert (loss.generator(R, FAKE) != loss.generator(R + 1, FAKE)) == loss.paired


def test_pairs_are_compared_so_that_a_shift_of_all_logits_means_nothing() -> None:
    loss = ADVERSARIAL_LOSSES["relativistic"]
    torch.testing.assert_close(loss.discriminator(R, FAKE), loss.discriminator(R + 7, FAKE + 7))
    assert float(loss.discriminator(FAKE, FAKE)) == pytest.approx(np.log(2))


def test_the_squared_gradients_of_a_linear_critic_are_its_weights() -> None:
    weight = torch.randn(18, generator=torch.Generator().manual_seed(1), requires_grad=True)
    x = images()[0].requires_grad_()
    squares = squared_gradients(x.flatten(1) @ weight, [x])
    torch.testing.assert_close(squares, weight.square().sum().expand(6, 1))
    (slope,) = torch.autograd.grad(squares.mean(), weight)
    torch.testing.assert_close(slope, 2 * weight)


def test_the_squared_gradient_is_that_of_each_image_alone() -> None:
    x = images()[0].double().requires_grad_()
    y = images()[1].double().requires_grad_()
    logits = torch.stack([(x.flatten(1) ** 3).sum(dim=1), y.flatten(1).sum(dim=1)], dim=1)
    squares = squared_gradients(logits, [x, y])
    torch.testing.assert_close(squares[:, 0], (9 * x.detach().flatten(1) ** 4).sum(dim=1).float())
    torch.testing.assert_close(squares[:, 1], torch.full((6,), 18.0))


def test_lecam_measures_to_running_means_of_the_other_kind() -> None:
    lecam = LeCam()
    first = lecam(torch.tensor([2.0, 4.0]), torch.tensor([-1.0, 1.0]))
    # The averages start at those of the first batch: real 3, fake 0.
    assert float(first) == pytest.approx((4 + 16) / 2 + (16 + 4) / 2)
    second = lecam(torch.tensor([1.0]), torch.tensor([1.0]))
    assert float(second) == pytest.approx(1 + 4)
    real, fake = lecam.anchors.tolist()
    assert (real, fake) == pytest.approx((0.99 * 3 + 0.01, 0.01), abs=1e-6)


def test_lecam_has_means_of_its_own_for_each_judge() -> None:
    together, apart = LeCam(2), [LeCam(), LeCam()]
    for seed in range(3):
        real, fake = torch.randn(2, 5, 2, generator=torch.Generator().manual_seed(seed)) * torch.tensor([1.0, 9.0])
        both = float(together(real, fake))
        assert both == pytest.approx(sum(float(one(real[:, j], fake[:, j])) for j, one in enumerate(apart)) / 2)


def test_lecam_goes_on_from_its_state() -> None:
    first, second = LeCam(), LeCam()
    first(R, FAKE)
    second.load_state_dict(first.state_dict())
    assert float(first(FAKE, R)) == float(second(FAKE, R))
