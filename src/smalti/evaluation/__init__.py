"""Measure a generator, an autoencoder, an encoder or any two sets of images: figures, and the exhibits a page shows.

    evaluation, exhibits = measure_generator(model, reference, extractor=extractor("efficientnet-lite0"))

Every stream of images has a fingerprint, and its features are taken in one pass and kept under it; nothing holds all
images at once.  Pixels are uint8, (N, H, W, C).
"""

from smalti.evaluation.common import Generated, Options, Reconstructed, ReportContent
from smalti.evaluation.encoders import measure_encoder
from smalti.evaluation.likelihood import measure_prior
from smalti.evaluation.reconstructions import measure_autoencoder
from smalti.evaluation.samples import measure_folder, measure_generator

__all__ = [
    "Generated",
    "Options",
    "Reconstructed",
    "ReportContent",
    "measure_autoencoder",
    "measure_encoder",
    "measure_folder",
    "measure_generator",
    "measure_prior",
]
