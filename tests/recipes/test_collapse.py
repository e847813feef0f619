"""What is called a collapse, and what is not."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor

from smalti.config.parse import override
from smalti.config.presets import preset
from smalti.data.spec import ImageSpec
from smalti.recipes import Images, TrainingContext
from smalti.recipes.collapse import FIRST_LOOKS, LATEST_BEGIN, CollapseMonitor, mean_squared_distance
from smalti.recipes.gan import GANRecipe
from smalti.runtime.pixels import to_pixels

CPU = torch.device("cpu")


def varied(count: int = 16, seed: int = 0, contrast: float = 1.0) -> Tensor:
    """Pictures of 8x8 tiles of random colours, so that they differ in what features see."""
    colours = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    colours = colours[:1] + contrast * (colours - colours[:1])
    return colours.repeat_interleave(8, 2).repeat_interleave(8, 3)


def watching(looks: int = FIRST_LOOKS, gap: float = 1.0) -> CollapseMonitor:
    """A watch that has seen that many healthy looks."""
    watch = CollapseMonitor(CPU)
    watch.observe_data(to_pixels(varied(seed=1)))
    watch.gap.fill_(gap)
    for number in range(looks):
        figures, trouble = look(watch, varied(seed=2 + number))
        assert trouble is None
        assert figures["diversity"] == pytest.approx(1, abs=0.5)
    return watch


def look(watch: CollapseMonitor, images: Tensor) -> tuple[dict[str, float], str | None]:
    return watch.diagnostics(images, to_pixels(images))


def test_the_spread_is_the_mean_squared_distance_over_pairs() -> None:
    rows = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    pairs = [(a - b).square().sum() for i, a in enumerate(rows) for b in rows[i + 1 :]]
    assert mean_squared_distance(rows) == pytest.approx(float(torch.stack(pairs).mean()), rel=1e-6)
    assert mean_squared_distance(rows[:1]) == 0


def test_pictures_that_are_all_alike_are_a_collapse() -> None:
    figures, trouble = look(watching(), varied(contrast=0.02))
    assert trouble is not None
    assert trouble.startswith("the generator collapsed: its pictures differ by 0.0")
    assert figures["diversity"] < 0.1


def test_a_generator_that_has_not_begun_to_differ_is_none() -> None:
    """At first all pictures are alike; that is no collapse, because they never were otherwise."""
    watch = watching(0)
    for _ in range(2 * FIRST_LOOKS):
        assert look(watch, varied(contrast=0.02))[1] is None
    assert look(watch, varied())[1] is None


def test_a_generator_that_never_begins_is_one() -> None:
    watch = watching(0)
    logits = torch.zeros(4)
    for images in (LATEST_BEGIN - 1, 1):
        assert look(watch, varied(contrast=0.0))[1] is None
        watch.observe_logits(logits, logits, images)
    said = str(look(watch, varied(contrast=0.0))[1])
    assert said.startswith(
        "the generator collapsed: after 50,000 images its pictures still differ by 0.000 of what the"
    )
    assert look(watch, varied())[1] is None, "better late than never"


def test_large_batches_have_as_many_steps_to_begin() -> None:
    watch, logits = watching(0), torch.zeros(4)
    for step in range(1, 501):
        watch.observe_logits(logits, logits, 4096)
        if step in (1, 13, 499, 500):
            assert (look(watch, varied(contrast=0.0))[1] is not None) is (step == 500)


def test_looks_from_before_it_differed_are_not_what_is_usual() -> None:
    """As with batch normalisation whose statistics are young: its pictures are grey in eval mode."""
    watch = watching(0)
    for _ in range(30):
        assert look(watch, varied(contrast=0.0))[1] is None
    for seed in range(FIRST_LOOKS):
        assert look(watch, varied(seed=seed))[1] is None
    said = str(look(watch, varied(contrast=0.02))[1])
    assert said.startswith("the generator collapsed")
    assert 0.5 < float(said.split()[-2]) < 2


def test_pixels_far_out_of_range_are_running_away_at_once() -> None:
    assert "its pixels are" in str(look(watching(0), 40 * varied())[1])
    assert "its pixels are nan" in str(look(watching(0), torch.nan * varied())[1])


@pytest.mark.parametrize(("gap", "named"), [(14.0, False), (200.0, True)])
def test_logits_far_apart_are_running_away_if_they_were_not_before(gap: float, named: bool) -> None:
    watch = watching()
    watch.gap.fill_(gap)
    trouble = look(watch, varied())[1]
    assert (trouble is not None) is named
    assert not named or str(trouble).startswith("the discriminator ran away: its logits of real and fake are 200 apart")
    used_to_it = watching(gap=150.0)
    used_to_it.gap.fill_(gap)
    assert look(used_to_it, varied())[1] is None


def test_the_gap_follows_the_logits() -> None:
    watch = CollapseMonitor(CPU)
    for _ in range(100):
        found = watch.observe_logits(torch.full((4,), 3.0), torch.full((4,), -2.0), batch=100)
    assert float(found) == pytest.approx(5)
    assert float(watch.observe_logits(torch.zeros(4), torch.zeros(4), batch=500)) == pytest.approx(2.5)


def test_a_distance_twice_the_best_is_named_from_the_third_on() -> None:
    watch = CollapseMonitor(CPU)
    assert watch.check_score(100) is None
    assert watch.check_score(700) is None  # nothing is usual yet
    assert watch.check_score(80) is None
    assert watch.check_score(150) is None
    assert watch.check_score(161) == "the quality fell: Frechet distance 161 after 80"


def test_distances_to_other_images_do_not_compare() -> None:
    watch = CollapseMonitor(CPU)
    for distance in (100, 80, 90):
        assert watch.check_score(distance) is None
    watch.discard_scores()
    assert [watch.check_score(distance) for distance in (900, 2000, 901)] == [None, None, None]


def test_what_is_wrong_does_not_become_usual() -> None:
    watch = watching()
    before = copy.deepcopy(watch.state_dict())
    for _ in range(50):
        assert look(watch, varied(contrast=0.02))[1] is not None
    assert all(torch.equal(value, before[name]) for name, value in watch.state_dict().items())


def test_a_watch_goes_on_from_its_state() -> None:
    first, second = watching(), CollapseMonitor(CPU)
    second.load_state_dict(first.state_dict())
    assert look(second, varied(contrast=0.02)) == look(first, varied(contrast=0.02))


def test_grey_and_transparent_pictures_are_seen() -> None:
    watch = CollapseMonitor(CPU)
    for channels in (1, 4):
        pixels = np.random.default_rng(0).integers(0, 256, (8, 16, 16, channels), np.uint8)
        watch.observe_data(pixels)
        assert float(watch.data_spread) > 0


@pytest.mark.parametrize("portion", [1, 3, 20])
def test_what_is_taken_from_the_data_does_not_depend_on_its_portions(portion: int) -> None:
    """Large images come a few at a time, a single one even."""
    images = varied(20)
    config = override(preset("gan-nano"), ["model.network.width=16", "train.batch=2"])
    whole, parts = (GANRecipe(config, TrainingContext(ImageSpec(3, 32, 32))) for _ in range(2))
    whole.start(lambda: [Images(images)])
    parts.start(lambda: [Images(part) for part in images.split(portion)])
    assert float(whole.monitor.data_spread) > 1
    torch.testing.assert_close(parts.monitor.data_spread, whole.monitor.data_spread)
    torch.testing.assert_close(parts.regularization.gamma, whole.regularization.gamma)
