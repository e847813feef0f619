"""The doctor: every metric reacts to the known cases as theory says, and failures are reported."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from smalti.errors import DataError
from smalti.evaluation import doctor_checks
from smalti.evaluation.doctor import DoctorReport, run_doctor
from smalti.evaluation.doctor_classes import CLUSTERS, classes_or_clusters, classes_to_drop
from smalti.features.backbones import Backbone
from smalti.features.extractor import Extractor
from smalti.features.resizing import Preprocessing
from smalti.metrics.distribution import measure_distribution
from smalti.metrics.pairs import compare_pairs

SIDE, CLASSES, COUNT = 16, 5, 480


class RandomNetwork(nn.Module):
    """Two layers of random edge filters and the mean colour: it sees sharpness, noise, texture and colour."""

    def __init__(self, *, blind: bool = False) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.blind = blind
        self.layers = nn.ModuleList([nn.Conv2d(3, 12, 3, 1, 1, bias=False), nn.Conv2d(12, 12, 3, 2, 1, bias=False)])
        for weight in self.parameters():
            drawn = torch.randn(weight.shape, generator=generator)
            drawn -= drawn.mean((2, 3), keepdim=True)
            weight.requires_grad_(False).copy_(drawn / drawn.flatten(1).norm(dim=1)[:, None, None, None])

    def maps(self, images: Tensor) -> list[Tensor]:
        fine = self.layers[0](images).abs()
        return [fine, self.layers[1](fine).abs()]

    def forward(self, images: Tensor) -> Tensor:
        colour = images.mean((2, 3))
        return colour if self.blind else torch.cat([colour, *(m.mean((2, 3)) for m in self.maps(images))], dim=1)


def stand_in(*, blind: bool = False) -> Extractor:
    preprocessing = Preprocessing((SIDE, SIDE), 3, (127.5,), (127.5,))
    return Extractor("random", Backbone(RandomNetwork(blind=blind).eval(), preprocessing, "0" * 64, 3 if blind else 27))


@functools.cache
def tiles(count: int = COUNT) -> tuple[np.ndarray, np.ndarray]:
    """Striped tiles: a class has a hue and a direction; phase, pitch, brightness and a spot vary."""
    generator = np.random.default_rng(0)
    labels = np.arange(count) % CLASSES
    y, x = np.mgrid[:SIDE, :SIDE]
    images = []
    for label in labels:
        angle = math.pi * (label / CLASSES + generator.normal(0, 0.05))
        wave = np.sin(
            (x * math.cos(angle) + y * math.sin(angle)) * generator.uniform(0.7, 0.9) + generator.uniform(0, 6)
        )
        hue = 0.5 + 0.5 * np.cos(2 * math.pi * (label / CLASSES + np.arange(3) / 3))
        picture = (0.25 + 0.5 * hue * generator.uniform(0.7, 1.2)) * (0.9 + 0.1 * np.sign(wave)[..., None])
        spot = np.hypot(x - generator.uniform(3, 13), y - generator.uniform(3, 13)) < generator.uniform(1, 4)
        picture[spot] = generator.uniform(0, 1, 3)
        images.append(np.clip(np.rint(255 * picture), 0, 255))
    return np.stack(images).astype(np.uint8), labels


@functools.cache
def report(labelled: bool = True, seed: int = 0) -> DoctorReport:
    images, labels = tiles()
    return run_doctor(images, labels if labelled else None, stand_in(), seed=seed)


def failed(found: DoctorReport) -> list[tuple[Any, ...]]:
    return [(check.case, check.figure.name, check.figure.value, check.theory) for check in found.checks if not check.ok]


# The battery


CASES = (
    "two real halves",
    "blurred, sigma 1",
    "5 % noise",
    "classes dropped",
    "all copied from training",
    "generated anew",
    "20 % copied",
    "20 % copied, changed",
    "images of noise",
    "reconstruction, sigma 0.5",
    "reconstruction, sigma 1",
    "reconstruction, sigma 2",
)


@pytest.mark.parametrize("case", CASES)
def test_every_metric_reacts_as_its_theory_says(case: str) -> None:
    rows = [check for check in report().checks if check.case == case]
    assert rows
    assert [row for row in failed(report()) if row[0] == case] == []


def test_every_case_and_metric_is_in_the_battery() -> None:
    assert {check.case for check in report().checks} == set(CASES)
    assert {check.figure.name for check in report().checks} == {
        "frechet_distance", "kernel_distance", "precision", "recall", "density", "coverage", "p_value_of_copies",
        "copied_share", "authenticity", "c_t", "psnr_db", "ssim", "perceptual_distance",
    }  # fmt: skip
    assert report().ok
    assert (report().images, report().extractor) == (COUNT, "random")


def test_without_labels_clusters_are_dropped() -> None:
    assert failed(report(labelled=False)) == []
    assert any(check.case == "classes dropped" for check in report(labelled=False).checks)


def test_the_cache_and_a_second_time_change_nothing(tmp_path: Path) -> None:
    images, labels = tiles()
    for _ in range(2):
        seen: list[tuple[int, int | None]] = []
        again = run_doctor(images, labels, stand_in(), cache=tmp_path, progress=lambda *step: seen.append(step))  # noqa: B023
        assert repr(again) == repr(report())
        assert seen == sorted(seen)
        assert seen[-1][0] == seen[0][1]
        assert len({total for _, total in seen}) == 1
    assert list(tmp_path.rglob("*.safetensors"))


def test_the_table() -> None:
    header, rows = report().table()
    assert header == ("case", "figure", "value", "theory", "verdict")
    assert len(rows) == len(report().checks)
    assert rows[0][:2] == ("two real halves", "FD")
    assert {row[-1] for row in rows} == {"ok"}


# Flaws that must be detected


def test_an_extractor_that_sees_no_sharpness_is_found_out() -> None:
    images, labels = tiles()
    found = run_doctor(images, labels, stand_in(blind=True))
    assert not found.ok
    assert {"blurred, sigma 1"} <= {row[0] for row in failed(found)}
    assert "NOT as theory says" in {row[-1] for row in found.table()[1]}


def test_a_metric_that_never_reacts_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = tiles()

    def deaf(real: Tensor, fake: Tensor, **options: Any) -> Any:
        order = torch.randperm(len(real), generator=torch.Generator().manual_seed(len(fake)))
        return measure_distribution(real[order[::2]], real[order[1::2]], **options)

    monkeypatch.setattr(doctor_checks, "measure_distribution", deaf)
    found = {row[0] for row in failed(run_doctor(images, labels, stand_in()))}
    assert {"blurred, sigma 1", "5 % noise", "classes dropped", "all copied from training", "images of noise"} <= found


@pytest.mark.parametrize("swapped", ["density", "kernel_distance"])
def test_a_metric_that_is_wrong_is_found_out(monkeypatch: pytest.MonkeyPatch, swapped: str) -> None:
    images, labels = tiles()

    def wrong(real: Tensor, fake: Tensor, **options: Any) -> Any:
        for figure in measure_distribution(real, fake, **options):
            # A constant instead of the estimate, with an interval as narrow as that of a real one.
            yield (
                figure
                if figure.name != swapped
                else type(figure)(swapped, 0.5, 0.49, 0.51, figure.count, figure.better)
            )

    monkeypatch.setattr(doctor_checks, "measure_distribution", wrong)
    assert swapped in {row[1] for row in failed(run_doctor(images, labels, stand_in()))}


# Expected values


@pytest.mark.parametrize(("real", "fake", "k"), [(60, 60, 5), (40, 80, 3)])
def test_density_and_coverage_of_one_distribution_have_the_values_they_are_held_against(
    real: int, fake: int, k: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    densities, coverages = [], []
    for _ in range(80):
        _, balls = compare_pairs(
            torch.randn(real, 6, generator=generator),
            torch.randn(fake, 6, generator=generator),
            neighbours=k,
            kernel=False,
        )
        assert balls is not None
        densities.append(balls.inside.mean() / k)
        coverages.append(balls.covered.mean())
    error = np.std(densities) / math.sqrt(80)
    assert np.mean(densities) == pytest.approx(1, abs=4 * error)
    law = 1 - math.prod((real - i) / (real + fake - i) for i in range(1, k + 1))
    assert np.mean(coverages) == pytest.approx(law, abs=4 * np.std(coverages) / math.sqrt(80))


@given(st.lists(st.integers(0, 8), min_size=2, max_size=60))
def test_never_more_than_half_of_the_images_are_dropped(groups: list[int]) -> None:
    features = torch.randn(len(groups), 3, generator=torch.Generator().manual_seed(0))
    dropped = classes_to_drop(np.array(groups), features)
    assert np.isin(groups, dropped).mean() <= 0.5
    assert len(set(dropped)) == len(dropped)


def test_classes_that_lie_together_are_dropped_until_a_third_is_gone() -> None:
    groups = np.arange(100) % 10
    places = torch.tensor([0.0, 9, 1, 8, 2, 7.5, 3, 6, 4, 5])  # position of each class on a line; the mean is 4.55
    assert classes_to_drop(groups, places[groups][:, None]) == [0, 2, 4, 6]
    large = np.array([0] * 60 + [1] * 25 + [2] * 15)
    assert classes_to_drop(large, torch.tensor([0.0, 1, 2])[large][:, None]) == [2, 1]
    assert classes_to_drop(np.zeros(9, int), torch.zeros(9, 1)) == []


# Bad input


def test_what_cannot_be_examined_is_refused() -> None:
    images, labels = tiles()
    with pytest.raises(DataError, match=r"399 images are too few .* give at least 400"):
        run_doctor(images[:399], None, stand_in())
    with pytest.raises(DataError, match=r"480 images need as many labels, but these have shape \(3,\)"):
        run_doctor(images, labels[:3], stand_in())
    with pytest.raises(DataError, match="all images have the same features"):
        run_doctor(np.full_like(images, 9), labels, stand_in())
    with pytest.raises(DataError):
        run_doctor(images.astype(np.float32), labels, stand_in())


def test_labels_that_leave_nothing_to_drop_fall_back_to_clusters() -> None:
    labels, features = np.zeros(90, int), torch.randn(90, 4, generator=torch.Generator().manual_seed(0))
    assert len(np.unique(classes_or_clusters(labels, features, 0))) == CLUSTERS
    assert classes_or_clusters(np.arange(90) % 3, features, 0).tolist() == [0, 1, 2] * 30
