"""Metrics of generated images, reconstructions, codes and classifiers, computed from arrays and tensors.

    from smalti.metrics import FrechetDistance, psnr_db, measure_distribution

Nothing here knows models or files. Names are imported on first use, so that `import smalti.metrics` loads no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from smalti.runtime.lazy import lazy_names

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

_HOMES = {
    "ClassReport": "smalti.metrics.classification:ClassReport",
    "CodeUsage": "smalti.metrics.codes:CodeUsage",
    "Confusion": "smalti.metrics.classification:Confusion",
    "FeatureMetric": "smalti.metrics.metric:FeatureMetric",
    "FrechetDistance": "smalti.metrics.frechet:FrechetDistance",
    "InceptionScore": "smalti.metrics.classification:InceptionScore",
    "KernelDistance": "smalti.metrics.pairs:KernelDistance",
    "Memorisation": "smalti.metrics.memorisation:Memorisation",
    "Metric": "smalti.metrics.metric:Metric",
    "MetricValue": "smalti.metrics.metric:MetricValue",
    "MultiScaleStructuralSimilarity": "smalti.metrics.ssim:MultiScaleStructuralSimilarity",
    "PairMetric": "smalti.metrics.metric:PairMetric",
    "PeakSignalToNoise": "smalti.metrics.distortion:PeakSignalToNoise",
    "PerceptualDistance": "smalti.metrics.perceptual:PerceptualDistance",
    "PrecisionRecall": "smalti.metrics.pairs:PrecisionRecall",
    "StructuralSimilarity": "smalti.metrics.ssim:StructuralSimilarity",
    "classification_accuracy_score": "smalti.metrics.classification:classification_accuracy_score",
    "frechet_distance": "smalti.metrics.frechet:frechet_distance",
    "linear_probe": "smalti.metrics.probe:linear_probe",
    "measure_distribution": "smalti.metrics.distribution:measure_distribution",
    "measure_memorisation": "smalti.metrics.memorisation:measure_memorisation",
    "nearest": "smalti.metrics.neighbours:nearest",
    "psnr_db": "smalti.metrics.distortion:psnr_db",
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

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
