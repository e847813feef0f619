"""The transformer over codes: who sees whom, token by token or all at once."""

from __future__ import annotations

import itertools

import pytest
import torch
from networks import strong

from smalti.config.prior import PriorConfig
from smalti.errors import ConfigError
from smalti.models.prior.block import Context
from smalti.models.prior.conditioning import PADDING
from smalti.models.prior.image_prior import bytes_of, context_of
from smalti.models.prior.transformer import PriorTransformer

COUNT = 3
# planes, alphabet, grid
SHAPES = (
    ("auto", (7,), (3, 4)),
    ("sequence", (5, 7), (2, 3)),
    ("depth", (7, 5, 3), (2, 3)),
    ("auto", (5,) * 6, (1, 1)),
)
CONDITIONS = ("none", "class", "text")
CASES = list(itertools.product(SHAPES, CONDITIONS))


def build(
    order: str, planes: str, codebook_sizes: tuple[int, ...], grid: tuple[int, int], condition: str
) -> PriorTransformer:
    config = PriorConfig(
        order=order, planes=planes, width=16, depth=2, heads=2, embedding=4, head_width=16, head_depth=2,
        condition=condition, text_bytes=6, text_depth=1,
    )  # fmt: skip
    torch.manual_seed(0)
    return strong(PriorTransformer(config, codebook_sizes, grid, 2)).eval()


def some_codes(codebook_sizes: tuple[int, ...], grid: tuple[int, int]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.stack([torch.randint(0, size, (COUNT, *grid), generator=generator) for size in codebook_sizes], 1)


def some_context(prior: PriorTransformer, *, nothing: bool = False) -> Context | None:
    given = None if nothing else torch.tensor([0, 1, 1])
    return context_of(prior, given, None if nothing else ["a", "red", ""], COUNT)


def finite(logits: torch.Tensor) -> torch.Tensor:
    return logits.masked_fill(logits.isinf(), 0.0)


@pytest.mark.parametrize(("shape", "condition"), CASES)
def test_codes_come_back_from_tokens(shape, condition) -> None:
    prior = build("raster", *shape, condition)
    codes = some_codes(*shape[1:])
    tokens = prior.tokens(codes)
    assert tokens.shape == (COUNT, prior.length, prior.inner)
    assert torch.equal(prior.codes(tokens), codes)


@pytest.mark.parametrize(("shape", "condition"), CASES)
@pytest.mark.parametrize("shuffled", [False, True])
def test_no_code_changes_what_is_predicted_before_it_or_for_itself(shape, condition, shuffled: bool) -> None:
    prior = build("annealed" if shuffled else "raster", *shape, condition)
    tokens, context = prior.tokens(some_codes(*shape[1:])), some_context(prior)
    rows = torch.arange(prior.length).expand(COUNT, -1)
    order = torch.rand(COUNT, prior.length).argsort(dim=1) if shuffled else rows
    logits = finite(prior.causal_logits(tokens, context, order=order if shuffled else None))
    changed_later = 0
    for step, inner in itertools.product(range(prior.length), range(prior.inner)):
        at = order[:, step]
        other = tokens.clone()
        size = prior.codebook_sizes[int(prior._planes()[int(at[0]), inner])]
        for image in range(COUNT):
            other[image, at[image], inner] = (other[image, at[image], inner] + 1) % (size if not shuffled else 2)
        moved = (finite(prior.causal_logits(other, context, order=order if shuffled else None)) - logits).abs()
        for image in range(COUNT):
            if torch.equal(other[image], tokens[image]):
                continue
            seen = moved[image][order[image]]  # in the order of the tokens
            assert seen[:step].max() == 0 if step else True
            assert seen[step, : inner + 1].max() == 0
            changed_later += int(seen.max() > 0)
    assert changed_later > 0


@pytest.mark.parametrize(("shape", "condition"), CASES)
def test_token_after_token_is_all_at_once(shape, condition) -> None:
    prior = build("raster", *shape, condition)
    tokens, context = prior.tokens(some_codes(*shape[1:])), some_context(prior)
    whole = finite(prior.causal_logits(tokens, context))
    caches, before = prior.caches(COUNT, context), None
    for at in range(prior.length):
        features = prior.step(before, at, context, caches)
        for number in range(prior.inner):
            found = prior.next_logits(features, tokens[:, at : at + 1, :number], at)[:, 0]
            torch.testing.assert_close(finite(found), whole[:, at, number], rtol=1e-4, atol=1e-4)
        before = tokens[:, at : at + 1]


@pytest.mark.parametrize(("shape", "condition"), CASES)
def test_the_order_of_rows_is_no_order(shape, condition) -> None:
    prior = build("annealed", *shape, condition)
    tokens, context = prior.tokens(some_codes(*shape[1:])), some_context(prior)
    rows = torch.arange(prior.length).expand(COUNT, -1)
    assert torch.equal(prior.causal_logits(tokens, context, order=rows), prior.causal_logits(tokens, context))


@pytest.mark.parametrize(("shape", "condition"), CASES)
def test_a_masked_prior_sees_all_but_what_is_hidden(shape, condition) -> None:
    prior = build("masked", *shape, condition)
    tokens, context = prior.tokens(some_codes(*shape[1:])), some_context(prior)
    hidden = torch.zeros(COUNT, prior.length, dtype=torch.bool)
    hidden[:, 0] = True
    other = tokens.clone()
    other[:, 0] = (other[:, 0] + 1) % 3
    before = finite(prior.masked_logits(tokens, hidden, context))
    after = finite(prior.masked_logits(other, hidden, context))
    assert torch.equal(before[:, 1:], after[:, 1:])
    if prior.length > 1:
        open_other = tokens.clone()
        open_other[:, -1] = (open_other[:, -1] + 1) % 3
        assert not torch.equal(before[:, 0], finite(prior.masked_logits(open_other, hidden, context))[:, 0])
    torch.testing.assert_close(
        finite(prior.next_logits(prior.masked_features(tokens, hidden, context), tokens[:, :, :0])), before[:, :, 0]
    )


def test_codes_that_a_plane_lacks_are_impossible() -> None:
    prior = build("raster", "sequence", (5, 7), (2, 3), "none")
    shares = torch.softmax(prior.causal_logits(prior.tokens(some_codes((5, 7), (2, 3))), None), dim=3)
    assert shares[:, 0::2, 0, 5:].max() == 0
    assert shares[:, 1::2, 0, 5:].min() > 0


@pytest.mark.parametrize("condition", ["class", "text"])
def test_what_is_left_out_does_not_matter_and_what_is_not_does(condition: str) -> None:
    prior = build("raster", "auto", (7,), (3, 4), condition)
    tokens = prior.tokens(some_codes((7,), (3, 4)))
    dropped = torch.tensor([True, False, True])
    logits = prior.causal_logits(tokens, context_of(prior, torch.tensor([0, 1, 1]), ["a", "red", "b"], 3, dropped))
    nothing = prior.causal_logits(tokens, some_context(prior, nothing=True))
    torch.testing.assert_close(logits[dropped], nothing[dropped])
    assert not torch.allclose(logits[1], nothing[1])


def test_a_text_is_its_bytes_and_what_comes_after_its_end_does_not_matter() -> None:
    assert bytes_of(["Aé", ""], 4).tolist() == [[97, 0xC3, 0xA9, PADDING], [PADDING] * 4]
    assert bytes_of(["long text"], 4).tolist() == [list(b"long")]
    long, short = build("raster", "auto", (7,), (2, 2), "text"), build("raster", "auto", (7,), (2, 2), "text")
    tokens = long.tokens(some_codes((7,), (2, 2)))
    found = [p.causal_logits(tokens, context_of(p, None, ["ab", "cd", ""], COUNT)) for p in (long, short)]
    assert torch.equal(*found)


def test_a_class_changes_the_first_code() -> None:
    prior = build("raster", "auto", (7,), (2, 2), "class")
    tokens = prior.tokens(some_codes((7,), (2, 2)))
    zero, one = (prior.causal_logits(tokens, context_of(prior, torch.full((3,), k), None, 3)) for k in (0, 1))
    assert not torch.allclose(zero[:, 0], one[:, 0])


def test_dropout_is_a_function_of_its_draws() -> None:
    from smalti.runtime.rng import Draws

    prior = build("raster", "auto", (7,), (3, 4), "none").train()
    tokens = prior.tokens(some_codes((7,), (3, 4)))
    first, again, other = (prior.causal_logits(tokens, None, draws=Draws(0, n)) for n in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_heads_that_cannot_share_the_width() -> None:
    with pytest.raises(ConfigError, match="width is 10, which 4 heads cannot share evenly"):
        PriorConfig(width=10, heads=4)


def test_sizes_that_do_not_fit() -> None:
    config = PriorConfig(width=16, heads=2, planes="depth", head_width=200)
    tokens = torch.zeros(1, 4, 2, dtype=torch.int64)
    assert PriorTransformer(config, (3, 3), (2, 2)).causal_logits(tokens, None).shape == (1, 4, 2, 3)
    with torch.device("meta"), pytest.raises(ConfigError, match="67,108,864 tokens, but a prior takes at most 4,096"):
        PriorTransformer(PriorConfig(), (512,), (8192, 8192))


def test_codes_of_like_values_are_known_by_like_numbers() -> None:
    prior = PriorTransformer(PriorConfig(width=16, heads=2, embedding=64), (40, 12), (2, 2))
    values = [torch.randn(40, 8), torch.randn(12, 3)]
    values[0][1] = values[0][0]
    prior.init_from_codebook(values, torch.Generator().manual_seed(0))
    for table, vectors in zip(prior.table.detach(), values, strict=True):
        pairs = torch.nn.functional.pdist(table[: len(vectors)]), torch.nn.functional.pdist(vectors)
        assert float(torch.corrcoef(torch.stack(pairs))[0, 1]) > 0.8
    assert float(prior.table.detach().std()) == pytest.approx(0.1, rel=0.1)
    assert not torch.equal(prior.table[0, 0], prior.table[0, 1])  # else they could never come apart


def test_of_codes_that_all_have_one_value_nothing_is_known() -> None:
    prior = PriorTransformer(PriorConfig(width=16, heads=2), (5,), (2, 2))
    prior.init_from_codebook([torch.ones(5, 3)], torch.Generator().manual_seed(0))
    assert bool(prior.table.isfinite().all())
