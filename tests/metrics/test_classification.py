"""Class reports against scikit-learn, the classifier score against its formula, and training on small data sets."""

from __future__ import annotations

import json

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

from smalti.errors import ConfigError, DataError
from smalti.metrics.classification import Confusion, InceptionScore, classification_accuracy_score
from smalti.metrics.classifier import ClassifierNetwork, augmented, train_classifier
from smalti.runtime.rng import Draws

TEN = tuple("0123456789")


def guesses(seed: int, count: int, classes: int, right: float = 0.6) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, classes, count)
    return truth, np.where(generator.random(count) < right, truth, generator.integers(0, classes, count))


# --- reports ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "classes"), [(500, 10), (30, 12), (1, 2), (40, 1)])
def test_a_report_equals_that_of_scikit_learn(count: int, classes: int) -> None:
    truth, predicted = guesses(classes, count, classes)
    metric = Confusion([f"class {c}" for c in range(classes)])
    metric.update(torch.from_numpy(truth), predicted)
    report = metric.report()
    labels = range(classes)  # with 30 images of 12 classes, some class never occurs or is never predicted
    theirs = precision_recall_fscore_support(truth, predicted, labels=labels, zero_division=0)
    for ours, expected in zip((report.precision, report.recall, report.f1, report.support), theirs, strict=True):
        assert ours == pytest.approx(expected, abs=1e-12)
    macro = precision_recall_fscore_support(truth, predicted, labels=labels, zero_division=0, average="macro")
    assert tuple(report.macro().values()) == pytest.approx(macro[:3])
    assert report.accuracy == pytest.approx(accuracy_score(truth, predicted))
    values = [figure.value for figure in metric.compute()]
    assert values == pytest.approx([report.accuracy, *report.macro().values()])


def test_a_report_goes_into_a_json_file() -> None:
    metric = Confusion(["cat", "dog"])
    metric.update([0, 0, 1, 1], [0, 1, 1, 1])
    record = json.loads(json.dumps(metric.report().record()))
    assert record["accuracy"] == 0.75
    assert record["confusion"] == [[1, 1], [0, 2]]
    assert record["classes"][0] == pytest.approx(
        {"name": "cat", "precision": 1.0, "recall": 0.5, "f1": 2 / 3, "count": 2}
    )


@hypothesis.given(sizes=st.lists(st.integers(0, 30), min_size=1, max_size=5).filter(any), seed=st.integers(0, 99))
@hypothesis.settings(max_examples=15)
def test_confusions_that_are_merged_give_exactly_what_one_pass_gives(sizes: list[int], seed: int) -> None:
    truth, predicted = guesses(seed, sum(sizes), 4)
    whole, merged, start = Confusion("abcd"), Confusion("abcd"), 0
    whole.update(truth, predicted)
    for size in sizes:
        part = Confusion("abcd")
        part.update(truth[start : start + size], predicted[start : start + size])
        merged.merge(part)
        start += size
    assert merged.compute() == whole.compute()


def test_the_interval_of_an_accuracy_is_that_of_a_share() -> None:
    truth, predicted = guesses(0, 1000, 5)
    metric = Confusion("abcde")
    metric.update(truth, predicted)
    accuracy, *macro = metric.compute()
    share = accuracy.value
    assert accuracy.high - accuracy.low == pytest.approx(2 * 1.96 * (share * (1 - share) / 1000) ** 0.5, rel=0.1)  # type: ignore[operator]
    assert all(f.low < f.value < f.high for f in (accuracy, *macro))  # type: ignore[operator]


def test_labels_that_are_none_are_refused() -> None:
    metric = Confusion("abc")
    for truth, predicted, what in (
        ([0, 1], [0], "2 true labels and 1 predictions"),
        ([0, 3], [0, 1], "label 3 belongs to none of the 3 classes"),
        ([0, -1], [0, 1], "label -1"),
        ([0.0, 1.0], [0, 1], "float64"),
        ([[0, 1]], [0, 1], r"expected \(N,\) integers"),
        (None, [0], "no labels"),
    ):
        with pytest.raises(DataError, match=what):
            metric.update(truth, predicted)
    with pytest.raises(DataError, match="before any image"):
        metric.compute()
    with pytest.raises(ConfigError, match="classes"):
        metric.merge(Confusion("ab"))
    with pytest.raises(ConfigError, match="no classes"):
        Confusion([])


# --- the classifier score ---------------------------------------------------------------------------------------------


def opinions(seed: int, count: int, classes: int, sharpness: float = 3.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (sharpness * torch.randn(count, classes, generator=generator)).softmax(1)


def test_the_score_is_the_formula_of_the_paper() -> None:
    rows = opinions(0, 300, 10)
    metric = InceptionScore()
    metric.update(rows)
    p = rows.double().numpy()
    divergence = (p * (np.log(p) - np.log(p.mean(0)))).sum(1)
    figure = metric.compute()[0]
    assert figure.value == pytest.approx(np.exp(divergence.mean()), rel=1e-6)
    assert figure.name == "classifier_score"
    assert figure.low < figure.value < figure.high  # type: ignore[operator]


def test_the_score_runs_from_one_to_the_number_of_classes() -> None:
    for rows, expected in ((np.tile(np.eye(7), (20, 1)), 7), (np.full((50, 7), 1 / 7), 1), (np.eye(7)[[2] * 9], 1)):
        metric = InceptionScore("inception_score")
        metric.update(rows)
        figure = metric.compute()[0]
        assert figure.value == pytest.approx(expected)
        assert figure.name == "inception_score"


def test_the_interval_of_the_score_is_as_wide_as_other_samples_spread() -> None:
    found = []
    for seed in range(40):
        metric = InceptionScore()
        metric.update(opinions(seed, 500, 5))
        found.append(metric.compute()[0])
    spread = np.std([figure.value for figure in found])
    widths = [figure.high - figure.low for figure in found]  # type: ignore[operator]
    assert np.mean(widths) == pytest.approx(2 * 1.96 * spread, rel=0.4)


@hypothesis.given(sizes=st.lists(st.integers(0, 9), min_size=1, max_size=5).filter(any), seed=st.integers(0, 99))
@hypothesis.settings(max_examples=10)
def test_scores_that_are_merged_in_any_order_give_what_one_pass_gives(sizes: list[int], seed: int) -> None:
    rows = opinions(seed, sum(sizes), 6)
    whole, merged, start = InceptionScore(), InceptionScore(), 0
    whole.update(rows)
    for size in sizes:
        part = InceptionScore()
        part.update(rows.flip(0)[start : start + size])
        merged.merge(part)
        start += size
    ours, theirs = merged.compute()[0], whole.compute()[0]
    assert ours.value == pytest.approx(theirs.value, rel=1e-12)
    if theirs.low is None:
        assert (ours.low, ours.high) == (None, None)
    else:
        assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), rel=1e-9)
    assert ours.count == theirs.count


def test_opinions_that_are_no_probabilities_are_refused() -> None:
    metric = InceptionScore()
    for rows, what in (
        (torch.randn(4, 3), "no probabilities"),
        (torch.full((4, 3), float("nan")), "4 of 4 rows"),
        (torch.ones(4, 3, dtype=torch.int64), "expected floats"),
        (torch.ones(4), "expected floats"),
    ):
        with pytest.raises(DataError, match=what):
            metric.update(rows)
    with pytest.raises(DataError, match="before any image"):
        metric.compute()
    metric.update(opinions(0, 5, 3))
    with pytest.raises(DataError, match="4 classes after 3"):
        metric.update(opinions(0, 5, 4))
    with pytest.raises(ConfigError, match="cannot be merged"):
        metric.merge(InceptionScore("inception_score"))
    other = InceptionScore()
    other.update(opinions(0, 5, 4))
    with pytest.raises(ConfigError, match="3 and 4 classes"):
        metric.merge(other)
    with pytest.raises(ConfigError, match="inception_score"):
        InceptionScore("fid")


# --- classifiers ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    found = load_digits()
    return (found.images * 15.9).astype(np.uint8)[..., None], found.target


def test_a_classifier_learns_handwritten_digits(digits: tuple[np.ndarray, np.ndarray]) -> None:
    images, labels = digits
    report, figures = classification_accuracy_score(
        images[:1300], labels[:1300], images[1300:], labels[1300:], TEN, images_seen=10_000, flip=False
    )
    assert report.accuracy > 0.9
    assert [figure.name for figure in figures] == [
        "classification_accuracy_score", "macro_precision", "macro_recall", "macro_f1"]  # fmt: skip
    assert figures[0].value == report.accuracy
    assert figures[0].count == report.count == 497
    assert figures[0].low < figures[0].value < figures[0].high  # type: ignore[operator]
    # Half of the classes are missing in training: their recall is 0, and the precision of the others suffers.
    some = labels[:1300] < 5
    worse, (accuracy, *_) = classification_accuracy_score(
        images[:1300][some], labels[:1300][some], images[1300:], labels[1300:], TEN,
        name="dropped", images_seen=6_500, flip=False)  # fmt: skip
    assert accuracy.name == "dropped"
    assert (worse.recall[5:] == 0).all()
    assert 0.4 < worse.accuracy < 0.6


def test_the_same_seed_gives_the_same_classifier_and_no_global_state_changes(
    digits: tuple[np.ndarray, np.ndarray],
) -> None:
    images, labels = digits[0][:200], digits[1][:200]
    before = torch.get_rng_state()
    seen: list[tuple[int, int | None]] = []
    one, same, other = (
        train_classifier(
            images, labels, TEN, images_seen=600, seed=seed, progress=lambda done, total: seen.append((done, total))
        )
        for seed in (1, 1, 2)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.probabilities(images), same.probabilities(images, batch=200))
    assert not torch.equal(one.probabilities(images), other.probabilities(images))
    assert seen[-1] == (600, 600)
    rows = one.probabilities(images, batch=64)
    assert rows.shape == (200, 10)
    assert rows.sum(1).numpy() == pytest.approx(1, abs=1e-5)
    assert (one.predict(images) == rows.argmax(1).numpy()).all()
    assert one.probabilities(images[:0]).shape == (0, 10)


@pytest.mark.parametrize(
    "image", [(1, 4, 4), (3, 8, 8), (4, 9, 33), (3, 32, 32), (1, 63, 100), (3, 64, 64), (3, 200, 256)]
)
def test_the_network_takes_any_size(image: tuple[int, int, int]) -> None:
    network = ClassifierNetwork(image, 5, width=4).eval()
    assert network(torch.zeros(2, *image)).shape == (2, 5)
    grid = network.stages(network.stem(torch.zeros(1, *image)))
    assert 4 <= min(grid.shape[2:]) <= 8


def test_images_may_be_read_a_few_at_a_time(digits: tuple[np.ndarray, np.ndarray]) -> None:
    class Reader:
        most = 0

        def __len__(self) -> int:
            return 300

        def pixels(self, indices: np.ndarray) -> np.ndarray:
            Reader.most = max(Reader.most, len(indices))
            return digits[0][indices]

    read = train_classifier(Reader(), digits[1][:300], TEN, images_seen=400)
    held = train_classifier(digits[0][:300], digits[1][:300], TEN, images_seen=400)
    assert (read.predict(Reader(), batch=100) == held.predict(digits[0][:300], batch=100)).all()
    assert Reader.most == 128


def test_augmentation_moves_whole_pixels_and_repeats_with_its_seed() -> None:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (64, 16, 24, 3), dtype=np.uint8)
    moved = augmented(images, Draws(0, 0), flip=True)
    assert (moved == augmented(images, Draws(0, 0), flip=True)).all()
    assert (moved != augmented(images, Draws(0, 64), flip=True)).any()
    assert moved.shape == images.shape
    padded = np.pad(images, ((0, 0), (2, 2), (3, 3), (0, 0)), mode="reflect")
    flipped = 0
    for image, result in zip(padded, moved, strict=True):
        plain = [image[y : y + 16, x : x + 24] for y in range(5) for x in range(7)]
        straight = any((result == each).all() for each in plain)
        assert straight or any((result == each[:, ::-1]).all() for each in plain)
        flipped += not straight
    assert 16 < flipped < 48
    straight_only = augmented(images, Draws(0, 0), flip=False)
    assert (straight_only == moved).all((1, 2, 3)).sum() == 64 - flipped
    tiny = images[:, :5, :5, :1]
    assert (augmented(tiny, Draws(0, 0), flip=False) == tiny).all()  # an eighth of five pixels rounds down to no shift


def test_training_sets_that_are_none_are_refused(digits: tuple[np.ndarray, np.ndarray]) -> None:
    images, labels = digits[0][:20], digits[1][:20]
    for bad_images, bad_labels, what in (
        (images.astype(np.float32), labels, "float32 of shape"),
        (images[..., 0], labels, "expected uint8"),
        (images, labels[:19], "20 training images and 19 labels"),
        (images[:0], labels[:0], "0 training images"),
        (images, labels + 5, "belongs to none"),
        (images, None, "no labels"),
        (images[:, :3], labels, "sides of at least 4"),
    ):
        with pytest.raises(DataError, match=what):
            train_classifier(bad_images, bad_labels, TEN, images_seen=10)
    for classes, seen in ((("one",), 10), (TEN, 0)):
        with pytest.raises(ConfigError, match="needs two classes"):
            train_classifier(images, labels * 0, classes, images_seen=seen)
    with pytest.raises(DataError, match="20 test images and 19 labels"):
        classification_accuracy_score(images, labels, images, labels[:19], TEN, images_seen=10)
    classifier = train_classifier(images, labels, TEN, images_seen=10)
    with pytest.raises(DataError, match=r"\(1, 8, 8\), found uint8 of \(3, 8, 8\)"):
        classifier.predict(np.repeat(images, 3, axis=3))


def test_images_of_one_colour_teach_nothing_and_break_nothing() -> None:
    images, labels = np.full((40, 8, 8, 3), 128, np.uint8), np.arange(40) % 2
    probabilities = train_classifier(images, labels, ("a", "b"), images_seen=200).probabilities(images)
    assert torch.isfinite(probabilities).all()
