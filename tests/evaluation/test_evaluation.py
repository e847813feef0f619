"""Complete evaluations of models and images: metric values, protocols and plausible results."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from small_runs import pixels, small_data, write_source

import smalti
from smalti.data import PackedImages, load
from smalti.errors import CheckpointError, ConfigError, DataError
from smalti.evaluation import (
    Generated,
    Options,
    Reconstructed,
    measure_autoencoder,
    measure_encoder,
    measure_folder,
    measure_generator,
)
from smalti.features.extractor import Extractor, extractor
from smalti.report.compare import compare
from smalti.report.evaluation_page import evaluation_page

FRECHET = {"frechet_distance", "frechet_distance_infinity"}
SAMPLES = FRECHET | {"kernel_distance", "precision", "recall", "density", "coverage"}
COPIES = {"copied_share", "authenticity"}


@pytest.fixture(scope="module")
def eye(trained: SimpleNamespace) -> Extractor:
    return extractor("smalti-vit", weights=trained.eye)


@pytest.fixture
def options(tmp_path: Path) -> Options:
    return Options(cache=tmp_path / "features")


def discs(folder: Path, name: str, *, count: int = 60, seed: int = 0, side: int = 16) -> PackedImages:
    source = folder / f"{name}.npz"
    np.savez(source, images=pixels(count, side=side, seed=seed), labels=np.arange(count) % 2)
    return load(source, cache=folder / "cache")


def test_a_generator_gets_every_figure_with_its_interval_and_protocol(
    trained: SimpleNamespace, eye: Extractor, options: Options, tmp_path: Path
) -> None:
    model = smalti.load(trained.gan)
    reference, training = discs(tmp_path, "new", seed=1), small_data(tmp_path)
    evaluation, content = measure_generator(
        model, reference, extractor=eye, training=training, count=50, options=options
    )
    names = {figure.name for figure in evaluation.figures}
    assert names >= SAMPLES | COPIES
    for figure in evaluation.figures:
        assert math.isfinite(figure.value), figure
        assert figure.low is not None, figure
        assert figure.high is not None, figure
        assert figure.low <= figure.high, figure
        assert figure.count in (50, 60), figure
    protocol = evaluation.protocol
    assert protocol["extractor"]["digest"] == eye.digest
    assert protocol["reference_fingerprint"] == reference.fingerprint
    assert protocol["training_fingerprint"] == training.fingerprint
    assert (protocol["reference_count"], protocol["judged_count"]) == (60, 50)
    assert evaluation.subject["digest"] == model.card.digest
    page = evaluation_page(
        evaluation, pictures=content.pictures, neighbours=content.neighbours, histograms=content.histograms
    )
    assert page.html().count("<img") >= 3


def test_what_is_drawn_does_not_depend_on_how_it_is_asked_for(trained: SimpleNamespace) -> None:
    drawn = Generated(smalti.load(trained.gan), 20, 3)
    whole = drawn.pixels(np.arange(20))
    assert np.array_equal(drawn.pixels(np.array([4, 5, 17, 2])), whole[[4, 5, 17, 2]])
    assert drawn.pixels(np.array([], dtype=np.int64)).shape == (0, 16, 16, 3)
    other = Generated(smalti.load(trained.gan), 20, 4)
    assert other.fingerprint != drawn.fingerprint


def test_the_same_measurement_again_gives_the_same_figures_from_the_cache(
    trained: SimpleNamespace, eye: Extractor, options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, reference = smalti.load(trained.gan), discs(tmp_path, "new", seed=1)
    first, _ = measure_generator(model, reference, extractor=eye, count=30, options=options)

    def again(*_: object) -> None:
        raise AssertionError("features are taken once")

    monkeypatch.setattr(eye, "_run", again)
    second, _ = measure_generator(model, reference, extractor=eye, count=30, options=options)
    assert first.figures == second.figures
    assert compare(first, second).differences[0].value == 0


def test_real_images_are_nearer_to_real_ones_than_noise_is(eye: Extractor, options: Options, tmp_path: Path) -> None:
    reference, other = discs(tmp_path, "a", seed=1), discs(tmp_path, "b", seed=2)
    np.savez(tmp_path / "noise.npz", images=np.random.default_rng(0).integers(0, 256, (60, 16, 16, 3), np.uint8))
    noise = load(tmp_path / "noise.npz", cache=tmp_path / "cache")
    near, far = (
        measure_folder(judged, reference, extractor=eye, options=options)[0].figure("kernel_distance")
        for judged in (other, noise)
    )
    assert near is not None
    assert far is not None
    assert near.value < far.value


def test_copies_are_looked_for_where_training_images_are_given(
    eye: Extractor, options: Options, tmp_path: Path
) -> None:
    reference, training = discs(tmp_path, "a", seed=1), discs(tmp_path, "b", seed=2)
    without, _ = measure_folder(training, reference, extractor=eye, options=options)
    assert without.figure("copied_share") is None
    copied, content = measure_folder(training, reference, extractor=eye, training=training, options=options)
    share, authentic = copied.figure("copied_share"), copied.figure("authenticity")
    assert share is not None
    assert authentic is not None
    assert share.value > 0.5
    assert authentic.value < 0.1
    assert content.neighbours is not None
    assert np.array_equal(content.neighbours.images, content.neighbours.nearest[:, 0]), "each beside its original"


def test_copies_are_not_looked_for_in_the_reference_itself(
    trained: SimpleNamespace, eye: Extractor, options: Options, tmp_path: Path
) -> None:
    """If the reference set is the training set, its distances are 0, so no memorisation measure is given."""
    reference = discs(tmp_path, "a", seed=1)
    evaluation, content = measure_generator(
        smalti.load(trained.gan), reference, extractor=eye, training=reference, count=30, options=options
    )
    assert not {figure.name for figure in evaluation.figures} & (COPIES | {"c_t"})
    assert any("both reference and training set" in warning for warning in evaluation.warnings)
    assert "training_fingerprint" not in evaluation.protocol
    assert content.neighbours is None


def test_an_autoencoder_gets_distortion_distribution_and_rate(
    trained: SimpleNamespace, eye: Extractor, options: Options, tmp_path: Path
) -> None:
    model, images = smalti.load(trained.vqvae), discs(tmp_path, "new", seed=1)
    evaluation, content = measure_autoencoder(model, images, extractor=eye, options=options)
    names = {figure.name for figure in evaluation.figures}
    assert names >= SAMPLES | {
        "psnr_db", "ssim", "ms_ssim", "perceptual_distance", "codes_used", "perplexity", "norm_ratio",
        "rate_bpp", "entropy_bpp",
    }  # fmt: skip
    rate, psnr = evaluation.figure("rate_bpp"), evaluation.figure("psnr_db")
    assert rate is not None
    assert psnr is not None
    assert rate.value == pytest.approx(math.log2(16) / 16), "16 codes, one for 4x4 pixels"
    originals = images.pixels(np.arange(60))
    error = np.square(originals.astype(float) - model.reconstruct(originals)).mean()
    assert psnr.value == pytest.approx(-10 * math.log10(error / 255**2), abs=1e-3)
    assert len(content.pairs) == 2
    assert Reconstructed(model, images).fingerprint == evaluation.subject["fingerprint"]


def test_what_is_wrong_with_a_codebook_is_a_warning(
    trained: SimpleNamespace, eye: Extractor, options: Options, tmp_path: Path
) -> None:
    model, images = smalti.load(trained.vqvae), discs(tmp_path, "new", seed=1)
    healthy, _ = measure_autoencoder(model, images, extractor=eye, options=options)
    ratio = healthy.figure("norm_ratio")
    assert ratio is not None
    assert 0.3 < ratio.value < 3
    book = model.module.quantizer.codebook
    book[1:] = 1e6  # too far away to be selected
    collapsed, _ = measure_autoencoder(model, images, extractor=eye, options=options)
    assert "the codebook has collapsed: 1.0 of 16 codes" in "\n".join(collapsed.warnings)
    book.normal_(std=100.0)
    far, _ = measure_autoencoder(model, images, extractor=eye, options=options)
    ratio = far.figure("norm_ratio")
    assert ratio is not None
    assert ratio.value < 1 / 3
    few, _ = measure_autoencoder(model, discs(tmp_path, "few", seed=1, count=4), extractor=eye, options=options)
    assert not [warning for warning in few.warnings if "codebook" in warning or "codes" in warning]


def test_images_too_small_for_a_similarity_leave_it_out_and_say_so(
    trained: SimpleNamespace, eye: Extractor, options: Options, tmp_path: Path
) -> None:
    images = discs(tmp_path, "tiny", side=8)
    evaluation, _ = measure_autoencoder(smalti.load(trained.vqvae), images, extractor=eye, options=options)
    assert evaluation.figure("ssim") is None
    assert evaluation.figure("psnr_db") is not None
    assert any("8" in warning for warning in evaluation.warnings)


def test_a_linear_probe_reads_classes_off_features(eye: Extractor, options: Options, tmp_path: Path) -> None:
    train, test = discs(tmp_path, "a", seed=1), discs(tmp_path, "b", seed=2)
    evaluation, _ = measure_encoder(train, test, extractor=eye, options=options)
    figure = evaluation.figure("linear_probe_accuracy")
    assert figure is not None
    assert 0 <= figure.value <= 1
    assert evaluation.subject["digest"] == eye.digest
    assert "bilinear" in evaluation.subject["resize"]
    assert evaluation.machine.endswith(", cpu")
    assert [row["name"] for row in evaluation.classes] == list(train.classes)
    write_source(tmp_path / "plain.npz", labels=False)
    with pytest.raises(DataError, match="has no labels, and a linear probe needs them"):
        measure_encoder(load(tmp_path / "plain.npz", cache=tmp_path), test, extractor=eye, options=options)


def test_the_classification_accuracy_score_and_its_ceiling(
    trained: SimpleNamespace, eye: Extractor, options: Options, tmp_path: Path
) -> None:
    model, reference = smalti.load(trained.labelled), discs(tmp_path, "new", seed=1)
    evaluation, _ = measure_generator(
        model, reference, extractor=eye, training=small_data(tmp_path), count=40, classifier_images=400, options=options
    )
    names = [figure.name for figure in evaluation.figures]
    assert "classification_accuracy_score" in names
    assert {"classification_accuracy_score_ceiling", "macro_f1", "macro_f1_ceiling"} <= set(names)
    assert len(evaluation.classes) == 2
    assert evaluation.protocol["classifier_images"] == 400
    assert isinstance(evaluation.protocol["classifier_flip"], bool)
    write_source(tmp_path / "plain.npz", labels=False)
    unlabelled = load(tmp_path / "plain.npz", cache=tmp_path)
    with pytest.raises(DataError, match=r"the classes of .*plain.npz are not those of"):
        measure_generator(
            model, unlabelled, extractor=eye, training=reference, count=40, classifier_images=400, options=options
        )
    np.savez(tmp_path / "three.npz", images=pixels(30), labels=np.arange(30) % 3)
    with pytest.raises(DataError, match=r"the classes of .*three.npz are not those of"):
        measure_generator(
            model, reference, extractor=eye, training=load(tmp_path / "three.npz", cache=tmp_path), count=40,
            classifier_images=400, options=options,
        )  # fmt: skip
    with pytest.raises(ConfigError, match="was trained without labels, so no classifier can be trained"):
        measure_generator(
            smalti.load(trained.gan), reference, extractor=eye, count=40, classifier_images=400, options=options
        )


def test_what_cannot_be_measured_is_refused_in_one_line(
    trained: SimpleNamespace, eye: Extractor, options: Options, tmp_path: Path
) -> None:
    small, large = discs(tmp_path, "a"), discs(tmp_path, "b", side=24)
    with pytest.raises(DataError, match=r"24x24x3 .* bring both to one shape with `size`"):
        measure_folder(small, large, extractor=eye, options=options)
    with pytest.raises(DataError, match=r"holds 1 image; a distribution needs 2"):
        measure_folder(discs(tmp_path, "one", count=1), small, extractor=eye, options=options)
    with pytest.raises(DataError, match=r"one.npz holds 1 image; a distribution needs 2"):
        measure_autoencoder(smalti.load(trained.vqvae), discs(tmp_path, "one", count=1), extractor=eye, options=options)
    with pytest.raises(DataError, match=r"makes images of 16x16x3, but .* holds 24x24x3; give `size=16x16`"):
        measure_generator(smalti.load(trained.gan), large, extractor=eye, count=10, options=options)
    with pytest.raises(ConfigError, match="`count` is 1"):
        measure_generator(smalti.load(trained.gan), small, extractor=eye, count=1, options=options)
    with pytest.raises(CheckpointError, match="draws no new images"):
        measure_generator(smalti.load(trained.vqvae), small, extractor=eye, count=10, options=options)
    with pytest.raises(CheckpointError, match="cannot reconstruct"):
        measure_autoencoder(smalti.load(trained.gan), small, extractor=eye, options=options)


def test_few_images_are_warned_of(trained: SimpleNamespace, eye: Extractor, options: Options, tmp_path: Path) -> None:
    few = discs(tmp_path, "few", count=12)
    evaluation, _ = measure_folder(few, discs(tmp_path, "a", seed=1), extractor=eye, options=options)
    assert any("covariances are singular" in warning for warning in evaluation.warnings)
    figure = evaluation.figure("frechet_distance")
    assert figure is not None
    assert "too large by about" in figure.note
    assert dataclasses.replace(options, seed=1) != options
