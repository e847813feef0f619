"""Metrics of generated images, reconstructions, codes and classifiers, computed from arrays and tensors.

    from smalti.metrics import FrechetDistance, psnr_db, measure_distribution

Nothing here knows models or files. Names are imported on first use, so that `import smalti.metrics` loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from smalti.metrics.classification import ClassReport, Confusion, InceptionScore, classification_accuracy_score
    from smalti.metrics.codes import CodeUsage
    from smalti.metrics.distortion import PeakSignalToNoise, psnr_db
    from smalti.metrics.distribution import measure_distribution
    from smalti.metrics.frechet import FrechetDistance, frechet_distance
    from smalti.metrics.memorisation import Memorisation, measure_memorisation
    from smalti.metrics.metric import FeatureMetric, Metric, MetricValue, PairMetric
    from smalti.metrics.neighbours import nearest
    from smalti.metrics.pairs import KernelDistance, PrecisionRecall
    from smalti.metrics.perceptual import PerceptualDistance
    from smalti.metrics.probe import linear_probe
    from smalti.metrics.ssim import MultiScaleStructuralSimilarity, StructuralSimilarity

_MODULES = {
    "ClassReport": "classification",
    "CodeUsage": "codes",
    "Confusion": "classification",
    "FeatureMetric": "metric",
    "FrechetDistance": "frechet",
    "InceptionScore": "classification",
    "KernelDistance": "pairs",
    "Memorisation": "memorisation",
    "Metric": "metric",
    "MetricValue": "metric",
    "MultiScaleStructuralSimilarity": "ssim",
    "PairMetric": "metric",
    "PeakSignalToNoise": "distortion",
    "PerceptualDistance": "perceptual",
    "PrecisionRecall": "pairs",
    "StructuralSimilarity": "ssim",
    "classification_accuracy_score": "classification",
    "frechet_distance": "frechet",
    "linear_probe": "probe",
    "measure_distribution": "distribution",
    "measure_memorisation": "memorisation",
    "nearest": "neighbours",
    "psnr_db": "distortion",
}

__all__ = [
    "ClassReport",
    "CodeUsage",
    "Confusion",
    "FeatureMetric",
    "FrechetDistance",
    "InceptionScore",
    "KernelDistance",
    "Memorisation",
    "Metric",
    "MetricValue",
    "MultiScaleStructuralSimilarity",
    "PairMetric",
    "PeakSignalToNoise",
    "PerceptualDistance",
    "PrecisionRecall",
    "StructuralSimilarity",
    "classification_accuracy_score",
    "frechet_distance",
    "linear_probe",
    "measure_distribution",
    "measure_memorisation",
    "nearest",
    "psnr_db",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'smalti.metrics' has no attribute {name!r}")
    return getattr(importlib.import_module(f"smalti.metrics.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
