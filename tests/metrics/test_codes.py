"""Codebook usage: against counts by hand, exact merging, and coverage of the intervals."""

from __future__ import annotations

import math

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from scipy.stats import entropy

from smalti.errors import CodeRangeError, ConfigError, DataError
from smalti.metrics.codes import CodeUsage
from smalti.metrics.groups import content_groups
from smalti.metrics.metric import MetricValue


def skewed(
    seed: int, images: int, codebook_sizes: tuple[int, ...], grid: tuple[int, int] = (4, 4), spread: float = 1.0
) -> np.ndarray:
    """Codes with a skewed distribution that varies by image: (B, P, H, W) int64."""
    generator = np.random.default_rng(seed)
    power = 1 + spread * generator.random((images, 1, 1, 1))
    uniform = generator.random((images, len(codebook_sizes), *grid))
    sizes = np.array(codebook_sizes)[None, :, None, None]
    return (uniform**power * sizes).astype(np.int64)


def figures(metric: CodeUsage) -> dict[str, MetricValue]:
    return {figure.name: figure for figure in metric.compute()}


def measured(codes: np.ndarray, codebook_sizes: tuple[int, ...], stride: int = 4) -> dict[str, MetricValue]:
    metric = CodeUsage(codebook_sizes)
    metric.update(codes, codes.shape[0] * codes.shape[2] * codes.shape[3] * stride**2)
    return figures(metric)


@pytest.mark.parametrize("codebook_sizes", [(16,), (8, 5, 300), (1,)])
def test_the_figures_are_those_counted_by_hand(codebook_sizes: tuple[int, ...]) -> None:
    codes = skewed(0, 50, codebook_sizes)
    found = measured(codes, codebook_sizes)
    planes = [np.bincount(codes[:, p].ravel(), minlength=size) for p, size in enumerate(codebook_sizes)]
    entropies = [entropy(plane) for plane in planes]
    assert found["codes_used"].value == sum((plane > 0).sum() for plane in planes) / sum(codebook_sizes)
    assert found["perplexity"].value == pytest.approx(math.exp(np.mean(entropies)))
    assert found["rate_bpp"].value == pytest.approx(sum(math.log2(size) for size in codebook_sizes) / 16)
    assert found["entropy_bpp"].value == pytest.approx(sum(entropies) / math.log(2) / 16)
    assert {figure.count for figure in found.values()} == {50}
    assert found["entropy_bpp"].unit == found["rate_bpp"].unit == "bits per pixel"


def test_uniform_codes_use_everything_and_gain_nothing_from_an_entropy_coder() -> None:
    codes = np.tile(np.arange(64).reshape(1, 1, 8, 8), (5, 1, 1, 1))
    found = measured(codes, (64,))
    assert found["codes_used"].value == 1
    assert found["perplexity"].value == pytest.approx(64)
    assert found["entropy_bpp"].value == pytest.approx(found["rate_bpp"].value)


def test_a_collapsed_tokenizer_has_perplexity_one_and_costs_no_entropy() -> None:
    found = measured(np.full((9, 1, 4, 4), 3), (64,))
    assert found["codes_used"].value == 1 / 64
    assert found["perplexity"].value == 1
    assert found["entropy_bpp"].value == 0
    assert found["rate_bpp"].value == 6 / 16


@hypothesis.given(counts=st.lists(st.integers(0, 5), min_size=1, max_size=5).filter(any), seed=st.integers(0, 99))
@hypothesis.settings(max_examples=10)
def test_parts_that_are_merged_in_any_order_give_exactly_what_one_pass_gives(counts: list[int], seed: int) -> None:
    codebook_sizes = (7, 12)
    codes = skewed(seed, sum(counts), codebook_sizes)
    whole, merged, start = CodeUsage(codebook_sizes), CodeUsage(codebook_sizes), 0
    whole.update(torch.from_numpy(codes), len(codes) * 256)
    for count in counts:
        part = CodeUsage(codebook_sizes)
        part.update(codes[::-1][start : start + count].astype(np.int16), count * 256)
        merged.merge(part)
        start += count
    assert merged.compute() == whole.compute()


def test_intervals_hold_their_values_and_are_as_wide_as_other_samples_spread() -> None:
    samples = [measured(skewed(seed, 400, (256,)), (256,)) for seed in range(40)]
    for name in ("perplexity", "entropy_bpp"):
        values = np.array([sample[name].value for sample in samples])
        widths = np.array([sample[name].high - sample[name].low for sample in samples])  # type: ignore[operator]
        assert widths.mean() == pytest.approx(2 * 1.96 * values.std(), rel=0.4)
        assert all(s[name].low < s[name].value < s[name].high for s in samples)  # type: ignore[operator]
    few = measured(skewed(0, 30, (4096,)), (4096,))
    for figure in few.values():  # far too few images: the interval still contains the value
        assert figure.low is not None
        assert figure.high is not None
        assert figure.low <= figure.value * (1 + 1e-12)
        assert figure.high >= figure.value * (1 - 1e-12)


def test_an_entropy_from_few_codes_says_how_low_it_is() -> None:
    assert "low by about" in measured(skewed(0, 10, (1024,)), (1024,))["entropy_bpp"].note
    assert "low by about" not in measured(skewed(0, 200, (16,)), (16,))["entropy_bpp"].note


def test_one_image_has_figures_and_no_interval() -> None:
    assert all((f.low, f.high) == (None, None) for f in measured(skewed(0, 1, (16,)), (16,)).values())


def test_images_of_several_sizes_share_one_rate() -> None:
    metric = CodeUsage((16,))
    metric.update(np.zeros((2, 1, 2, 2), np.uint8), 2 * 64)
    metric.update(np.zeros((1, 1, 2, 3), np.uint8), 80)  # a width that was padded to the stride
    assert figures(metric)["rate_bpp"].value == (8 + 6) * 4 / (128 + 80)


def test_large_alphabets_take_fewer_groups_and_bounded_memory() -> None:
    assert CodeUsage((8192,)).groups == 64
    large = CodeUsage((2**18,))
    assert large.groups * 2**18 * 8 <= 64 * 2**20
    large.update(skewed(0, 40, (2**18,)), 40 * 256)
    assert figures(large)["perplexity"].low is not None


def test_groups_depend_on_content_alone_and_are_about_equal() -> None:
    rows = np.random.default_rng(0).integers(0, 4, (6400, 16))
    group = content_groups(rows, 64)
    assert (content_groups(rows[::-1], 64)[::-1] == group).all()
    assert np.bincount(group, minlength=64).std() < 20  # 10 for a perfect hash
    assert (content_groups(rows[:, ::-1], 64) != group).mean() > 0.9  # the hash depends on positions


def test_codes_outside_the_alphabet_are_named() -> None:
    metric = CodeUsage((8, 4))
    codes = skewed(0, 3, (8, 4))
    codes[1, 1, 2, 2] = 4
    with pytest.raises(CodeRangeError, match=r"plane 1 holds code 4, but its alphabet is 0\.\.3"):
        metric.update(codes, 3 * 256)
    codes[1, 1, 2, 2], codes[0, 0, 0, 0] = 0, -1
    with pytest.raises(CodeRangeError, match="plane 0 holds code -1"):
        metric.update(codes, 3 * 256)
    with pytest.raises(DataError, match="before any image"):
        metric.compute()


@pytest.mark.parametrize(
    ("codes", "pixels", "what"),
    [
        (np.zeros((2, 1, 4, 4), np.float32), 512, "must be integers"),
        (np.zeros((2, 1, 4, 4), bool), 512, "must be integers"),
        (np.zeros((2, 4, 4), np.int64), 512, "one plane for each size"),
        (np.zeros((2, 2, 4, 4), np.int64), 512, "one plane for each size"),
        (np.zeros((2, 1, 0, 4), np.int64), 512, "one plane for each size"),
        (np.zeros((2, 1, 4, 4), np.int64), 511, "511 pixels cannot be those of 2 images"),
        (np.zeros((2, 1, 4, 4), np.int64), 0, "0 pixels cannot be"),
    ],
)
def test_codes_that_are_none_are_refused(codes: np.ndarray, pixels: int, what: str) -> None:
    with pytest.raises(DataError, match=what):
        CodeUsage((8,)).update(codes, pixels)


def test_alphabets_must_be_positive_and_agree() -> None:
    for codebook_sizes in ((), (8, 0), (-1,)):
        with pytest.raises(ConfigError, match="positive number of codes"):
            CodeUsage(codebook_sizes)
    with pytest.raises(ConfigError, match=r"\(8,\) and \(4, 2\)"):
        CodeUsage((8,)).merge(CodeUsage((4, 2)))


def test_an_empty_batch_changes_nothing() -> None:
    metric = CodeUsage((8,))
    metric.update(np.zeros((0, 1, 4, 4), np.int64), 0)
    with pytest.raises(DataError, match="before any image"):
        metric.compute()
