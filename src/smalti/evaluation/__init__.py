"""Evaluation of generators, autoencoders, encoders, priors, or two sets of images: metric values and report content.

    evaluation, content = measure_generator(model, reference, extractor=extractor("efficientnet-lite0"))

Every set of images has a fingerprint, under which its features are cached; they are computed in one pass, without
holding all images in memory.  Pixels are uint8, (N, H, W, C).
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
