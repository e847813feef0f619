"""Learning codes: bits fall, the first ones are those of the frequencies, and a training ends when it gets worse."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from small_codes import CODES, GRID, small_codes, some_codes
from small_runs import small_config
from variants import VARIANTS

from smalti.config.parse import override
from smalti.config.quantizer import QuantizerConfig
from smalti.data.spec import ImageSpec
from smalti.errors import ConfigError
from smalti.models.prior.likelihood import bits_of
from smalti.quantize import build_quantizer
from smalti.recipes import Score, TrainingContext, build_recipe
from smalti.recipes.prior import Codes, PriorRecipe, values_of_codes

CPU = torch.device("cpu")


def build(folder: Path, name: str, *assignments: str, planes: int = 1) -> PriorRecipe:
    data = small_codes(folder, planes=planes)
    recipe = build_recipe(small_config(name, *assignments), PriorRecipe.context_for(data, CPU, "float32"))
    assert isinstance(recipe, PriorRecipe)
    return recipe


def batch_of(count: int, *, planes: int = 1, seed: int = 0) -> Codes:
    codes = torch.from_numpy(some_codes(count, planes=planes, seed=seed))
    return Codes(codes, torch.arange(count) % 2, ["red disc"] * count)


@pytest.mark.parametrize("name", ["prior-nano", "prior-small", "maskgit-small", "text-emoji"])
@pytest.mark.parametrize("planes", [1, 3])
def test_it_learns_what_there_is_to_learn(name: str, planes: int, tmp_path: Path) -> None:
    extra = () if planes == 1 else ("model.planes=depth",)
    limit = {1: 1.5, 3: 2.3}[planes] if name != "maskgit-small" else 2.9
    recipe = build(
        tmp_path, name, "model.dropout=0", "model.optimizer.learning_rate=0.01", "train.ema_half_life=200",
        "train.images=6400", *extra, planes=planes,
    )  # fmt: skip
    recipe.start(lambda: [batch_of(500, planes=planes)])
    held_out = [batch_of(64, planes=planes, seed=1)]
    before = recipe.score(held_out)
    assert before.name == "bits_per_code"
    assert not before.larger_is_better
    assert before.value == pytest.approx(math.log2(CODES), abs=0.1)
    for step in range(200):
        recipe.step(batch_of(32, planes=planes, seed=step + 2), 32 * step)
    after = recipe.score(held_out).value
    assert after < limit


def test_it_begins_with_the_frequencies(tmp_path: Path) -> None:
    recipe = build(tmp_path, "prior-nano")
    shares = torch.tensor([0.5, 0.25, 0.125, 0.125])
    codes = torch.multinomial(shares, 4000 * 16, replacement=True, generator=torch.Generator().manual_seed(0))
    batch = Codes(codes.view(4000, 1, *GRID))
    recipe.start(lambda: [batch])
    assert recipe.score([batch]).value == pytest.approx(1.75, abs=0.05)


def test_bits_are_those_of_the_probabilities() -> None:
    shares = torch.tensor([0.5, 0.25, 0.25])
    found = bits_of(shares.log().expand(1, 3, 1, 3), torch.tensor([[[0], [1], [2]]]))
    torch.testing.assert_close(found[0, :, 0], torch.tensor([1.0, 2.0, 2.0]))


def test_random_orders_become_rows(tmp_path: Path) -> None:
    from smalti.runtime.rng import Draws

    recipe = build(tmp_path, "prior-small", "model.anneal=0.5", "train.images=1000")
    rows = torch.arange(16)

    def in_rows(seen: int) -> float:
        order = recipe._order(200, Draws(0, seen), seen)
        assert order is not None
        assert torch.equal(order.sort(dim=1).values, rows.expand(200, -1))
        return float((order == rows).all(dim=1).float().mean())

    assert in_rows(0) == 0
    assert in_rows(250) == pytest.approx(0.5, abs=0.15)
    assert in_rows(500) == 1


def test_the_share_that_is_hidden_follows_the_cosine(tmp_path: Path) -> None:
    from smalti.runtime.rng import Draws

    recipe = build(tmp_path, "maskgit-small")
    hidden = recipe._hide(4000, Draws(0, 0)).sum(dim=1)
    assert int(hidden.min()) >= 1
    assert float(hidden.float().mean()) / 16 == pytest.approx(2 / math.pi, abs=0.05)


def test_of_a_caption_at_times_one_part_is_seen(tmp_path: Path) -> None:
    from smalti.runtime.rng import Draws

    caption = "red apple, food-fruit, Food & Drink"
    found = build(tmp_path, "text-emoji")._parts([caption] * 400, Draws(0, 0))
    assert set(found) == {caption, "red apple", "food-fruit", "Food & Drink"}
    assert found.count(caption) == pytest.approx(200, abs=40)
    assert set(build(tmp_path / "whole", "text-emoji", "model.text_parts=0")._parts([caption] * 9, Draws(0, 0))) == {
        caption
    }


def test_it_ends_when_it_only_gets_worse(tmp_path: Path) -> None:
    recipe = build(tmp_path, "prior-nano", "model.patience=2")
    for value, enough in ((3.0, False), (2.5, False), (2.6, False), (2.5, True), (2.4, False)):
        recipe.check_score(Score("bits_per_code", value, larger_is_better=False))
        assert (recipe.should_stop() is not None) is enough
    recipe.check_score(Score("bits_per_code", 9.0, larger_is_better=False))
    other = build(tmp_path / "other", "prior-nano", "model.patience=2")
    other.load_state_dict(recipe.state_dict())
    other.check_score(Score("bits_per_code", 9.0, larger_is_better=False))
    assert other.should_stop()
    other.discard_scores()
    assert not other.should_stop()
    assert not build(tmp_path / "never", "prior-nano", "model.patience=0").should_stop()


def test_while_orders_are_random_no_score_ends_it(tmp_path: Path) -> None:
    recipe = build(tmp_path, "prior-small", "model.patience=1", "model.anneal=0.5", "train.images=1000")
    scores = [Score("bits_per_code", value, larger_is_better=False) for value in (3.0, 4.0)]
    for seen, enough in ((0, False), (490, False), (500, True)):
        recipe.step(batch_of(4), seen)
        for score in scores:
            recipe.check_score(score)
        assert (recipe.should_stop() is not None) is enough


def test_dropout_reaches_the_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from smalti.models.prior.conditioning import TextEncoder

    recipe, noise, forward = build(tmp_path, "text-emoji"), [], TextEncoder.forward

    def watched(self, text, dropped, draws=None):
        noise.append(draws is not None)
        return forward(self, text, dropped, draws)

    monkeypatch.setattr(TextEncoder, "forward", watched)
    recipe.step(batch_of(4), 0)
    recipe.score([batch_of(4)])
    assert noise == [True, False]


def test_data_that_it_cannot_learn(tmp_path: Path) -> None:
    config = small_config("prior-nano")
    with pytest.raises(ConfigError, match="the recipe prior learns codes, and the data are images; write codes"):
        build_recipe(config, TrainingContext(ImageSpec(3, 16, 16)))
    setting = PriorRecipe.context_for(small_codes(tmp_path, captions=False), CPU, "float32")
    with pytest.raises(ConfigError, match=r"model\.condition is text, but the codes have no captions"):
        build_recipe(override(config, ["model.condition=text"]), setting)
    bare = TrainingContext(setting.spec, 1, tokenizer=setting.tokenizer)
    with pytest.raises(ConfigError, match=r"model\.condition is class, but the codes have one class"):
        build_recipe(override(config, ["model.condition=class"]), bare)


def test_previews_are_pictures(tmp_path: Path) -> None:
    for name in ("prior-nano", "text-emoji"):
        recipe = build(tmp_path / name, name)
        samples = recipe.preview(batch_of(5))["samples"]
        assert samples.shape == (5, 3, 16, 16)
        assert float(samples.abs().max()) <= 1


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_what_a_code_is_worth_is_known_of_every_quantizer(config: QuantizerConfig) -> None:
    quantizer = build_quantizer(config).eval()
    found = values_of_codes(quantizer)
    assert [tuple(values.shape) for values in found] == [
        (size, quantizer.dimension) for size in quantizer.codebook_sizes
    ]
    for plane, values in enumerate(found):
        last = torch.zeros(1, len(quantizer.codebook_sizes), 1, 1, dtype=torch.int64)
        last[0, plane] = quantizer.codebook_sizes[plane] - 1
        torch.testing.assert_close(values[-1], quantizer.decode(last)[0, :, 0, 0])
