"""Drawing codes: what may be drawn, how often, and that it belongs to the image."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from networks import strong

from smalti.config.prior import PriorConfig
from smalti.errors import ConfigError
from smalti.models.prior.image_prior import context_of
from smalti.models.prior.sampling import Sampling, choose, ready, sample, uniform_numbers
from smalti.models.prior.transformer import PriorTransformer

CPU = torch.device("cpu")


def build(order: str, planes: str = "auto", condition: str = "none") -> PriorTransformer:
    config = PriorConfig(
        order=order, planes=planes, width=16, depth=1, heads=2, embedding=4, head_width=16, head_depth=1,
        condition=condition, text_bytes=6, text_depth=1,
    )  # fmt: skip
    torch.manual_seed(0)
    prior = PriorTransformer(config, (5, 7), (3, 3), 2).eval()
    torch.nn.init.normal_(prior.bias)
    return prior


@given(
    st.integers(2, 12), st.floats(0.2, 4), st.integers(0, 12), st.floats(0.05, 1), st.integers(0, 2**31),
)  # fmt: skip
def test_what_is_chosen_is_among_the_likeliest(size: int, temperature: float, k: int, p: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(64, size, generator=generator) * 3
    uniform = torch.rand(64, generator=generator, dtype=torch.float64)
    how = Sampling(temperature=temperature, top_k=k, top_p=p)
    codes, sure = choose(logits, uniform, how)
    rank = (logits > logits.gather(1, codes[:, None])).sum(dim=1)
    if k:
        assert int(rank.max()) < k
    shares = torch.softmax(logits.double() / temperature, dim=1)
    likelier = torch.where(logits > logits.gather(1, codes[:, None]), shares, 0.0).sum(dim=1)
    assert bool((likelier < p + 1e-9).all() if not k else True)
    assert bool((sure <= 1e-12).all())
    assert bool((sure >= shares.gather(1, codes[:, None])[:, 0].log() - 1e-9).all())


def test_codes_are_as_frequent_as_they_are_likely() -> None:
    logits = torch.tensor([0.5, 0.3, 0.2, 0.0]).log()
    uniform = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    codes, sure = choose(logits.expand(1000, -1), uniform, Sampling())
    assert torch.bincount(codes, minlength=4).tolist() == [500, 300, 200, 0]
    torch.testing.assert_close(sure, logits.double()[codes])


def test_no_temperature_is_the_likeliest_and_the_last_number_is_a_code() -> None:
    logits = torch.tensor([[0.0, 2.0, -math.inf]])
    for temperature in (0, 1e-310):
        assert choose(logits, torch.zeros(1), Sampling(temperature=temperature))[0].tolist() == [1]
    assert choose(logits, torch.full((1,), 1 - 1e-16, dtype=torch.float64), Sampling())[0].tolist() == [1]


@pytest.mark.parametrize("order", ["raster", "masked"])
@pytest.mark.parametrize("planes", ["sequence", "depth"])
@pytest.mark.parametrize("condition", ["none", "class", "text"])
@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_codes_are_of_their_alphabet_and_what_is_known_stays(order, planes, condition, guidance: float) -> None:
    prior = build(order, planes, condition)
    how = Sampling(guidance=guidance, steps=3)
    uniform = uniform_numbers(prior, range(4), 0, how.steps, CPU)
    context = context_of(prior, torch.tensor([0, 1, 0, 1]), ["a", "b", "", "d"], 4)
    nothing = context_of(prior, None, None, 4)
    codes = sample(prior, uniform, how, context=context, nothing=nothing)
    assert codes.shape == (4, 2, 3, 3)
    assert int(codes.min()) >= 0
    assert [int(codes[:, plane].max()) < size for plane, size in enumerate((5, 7))] == [True, True]
    hidden = torch.zeros(4, 3, 3, dtype=torch.bool)
    hidden[:, 1:, 1] = True
    known = 2 * torch.ones_like(codes)
    filled = sample(prior, uniform, how, context=context, nothing=nothing, codes=known, hidden=hidden)
    assert torch.equal(filled[~hidden[:, None].expand_as(filled)], known[~hidden[:, None].expand_as(known)])
    assert not torch.equal(filled, known)


@pytest.mark.parametrize("order", ["raster", "masked"])
def test_an_image_belongs_to_its_number_and_seed(order: str) -> None:
    prior = build(order)

    def draw(numbers: list[int], seed: int = 0) -> torch.Tensor:
        return sample(prior, uniform_numbers(prior, numbers, seed, 3, CPU), Sampling(steps=3))

    whole = draw([0, 1, 2, 3])
    assert torch.equal(draw([2, 0]), whole[[2, 0]])
    assert not torch.equal(draw([0, 1, 2, 3], seed=1), whole)
    assert not torch.equal(whole[0], whole[1])


def test_causal_samples_have_the_frequencies_that_the_prior_says() -> None:
    prior = build("raster")
    shares = torch.softmax(prior.causal_logits(torch.zeros(1, prior.length, 1, dtype=torch.int64), None), dim=3)
    codes = sample(prior, uniform_numbers(prior, range(3000), 0, 1, CPU), Sampling())
    found = torch.bincount(codes[:, 0, 0, 0], minlength=7) / 3000
    torch.testing.assert_close(found, shares[0, 0, 0], rtol=0, atol=0.03)


def test_guidance_of_one_is_the_context_and_of_zero_is_nothing() -> None:
    prior = strong(build("raster", condition="class"))
    with torch.no_grad():
        prior.out_proj.weight *= 20  # as sure as after a training
    labels, uniform = torch.tensor([1, 1, 1]), uniform_numbers(prior, range(3), 0, 1, CPU)
    context, nothing = context_of(prior, labels, None, 3), context_of(prior, None, None, 3)
    plain = sample(prior, uniform, Sampling(), context=context)
    none = sample(prior, uniform, Sampling(guidance=0), context=context, nothing=nothing)
    assert torch.equal(none, sample(prior, uniform, Sampling(), context=nothing))
    assert not torch.equal(plain, none)


@pytest.mark.parametrize(
    ("name", "value"),
    [("temperature", -1), ("temperature", math.nan), ("top_k", -1), ("top_p", 0), ("top_p", 1.5), ("guidance", -0.1),
     ("steps", 0)],
)  # fmt: skip
def test_sampling_out_of_range(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{name} is .*, but must be from"):
        Sampling(**{name: value})


@pytest.mark.parametrize("order", ["raster", "masked"])
def test_weights_made_ready_draw_the_same(order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    prior = build(order)
    uniform = uniform_numbers(prior, range(4), 0, 10, CPU)
    assert ready(prior) is prior  # where nothing has to be brought to another precision
    with torch.autocast("cpu", dtype=torch.bfloat16):
        made = ready(prior)
        fast = sample(prior, uniform, Sampling())
        monkeypatch.setattr("smalti.models.prior.sampling.ready", lambda given: given)
        assert torch.equal(sample(prior, uniform, Sampling()), fast)
    assert made.table is prior.table
    assert {layer.weight.dtype for layer in made.modules() if isinstance(layer, torch.nn.Linear)} == {torch.bfloat16}
    assert {parameter.dtype for parameter in prior.parameters()} == {torch.float32}
