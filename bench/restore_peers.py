"""Classical methods that restore pictures, for bench/restore.py. They need `pip install 'smalti[peers]'`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from smalti.config.degradation import parse_degradation

Method = Callable[[np.ndarray, np.ndarray | None], np.ndarray]
NLM_STRENGTHS = (0.5, 0.6, 0.7, 0.8, 0.9)  # of the deviation
TELEA_RADII = (3, 6, 12)


def peers_of(task: str, degradation: str, scale: int) -> dict[str, Method]:
    """Methods by name: (H, W, 3) uint8 and the hole -> the restored picture, uint8."""
    if task == "denoise":
        deviation = float(parse_degradation(degradation).steps[0].numbers[0].low)
        methods: dict[str, Method] = {
            f"non-local means {strength}": lambda y, _, strength=strength: non_local_means(y, deviation, strength)
            for strength in NLM_STRENGTHS
        }
        return methods | {"BM3D": lambda y, _: bm3d(y, deviation)}
    if task.startswith("super"):
        return {
            "bicubic": lambda y, _: enlarged(y, scale, Image.Resampling.BICUBIC),
            "bicubic, a = -0.75": lambda y, _: bicubic_of_torch(y, scale),
            "Lanczos": lambda y, _: enlarged(y, scale, Image.Resampling.LANCZOS),
        }
    if task == "fill":
        methods = {f"Telea {radius}": lambda y, hole, radius=radius: telea(y, hole, radius) for radius in TELEA_RADII}
        return methods | {"biharmonic": biharmonic}
    return {}


def result_of(method: Method, image: np.ndarray, hole: np.ndarray | None, path: Path | None) -> np.ndarray:
    """What the method gives, from a PNG file or made and written there."""
    if path is not None and path.exists():
        return np.asarray(Image.open(path))
    found = method(image, hole)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        Image.fromarray(found).save(part, "PNG")
        part.replace(path)
    return found


def bm3d(image: np.ndarray, deviation: float) -> np.ndarray:
    import bm3d

    return levels(bm3d.bm3d_rgb(image / 255.0, deviation / 255))


def non_local_means(image: np.ndarray, deviation: float, strength: float) -> np.ndarray:
    from skimage.restoration import denoise_nl_means

    sigma = deviation / 255
    return levels(denoise_nl_means(
        image / 255.0, patch_size=5, patch_distance=6, h=strength * sigma, sigma=sigma, fast_mode=True, channel_axis=-1
    ))  # fmt: skip


def enlarged(image: np.ndarray, scale: int, resample: Image.Resampling) -> np.ndarray:
    height, width = image.shape[:2]
    return np.asarray(Image.fromarray(image).resize((width * scale, height * scale), resample))


def bicubic_of_torch(image: np.ndarray, scale: int) -> np.ndarray:
    """The kernel of torch and OpenCV, which sharpens; that of Pillow and MATLAB has a = -0.5."""
    values = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    found = F.interpolate(values, scale_factor=float(scale), mode="bicubic", align_corners=False)
    return levels(found[0].permute(1, 2, 0).numpy() / 255)


def telea(image: np.ndarray, hole: np.ndarray | None, radius: int) -> np.ndarray:
    import cv2

    assert hole is not None
    return np.asarray(cv2.inpaint(image, hole.astype(np.uint8), radius, cv2.INPAINT_TELEA))


def biharmonic(image: np.ndarray, hole: np.ndarray | None) -> np.ndarray:
    from skimage.restoration import inpaint_biharmonic

    return levels(inpaint_biharmonic(image / 255.0, hole, channel_axis=-1))


def levels(values: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
