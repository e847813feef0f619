"""Restorers beside classical methods, on photographs that they have not seen.

    python bench/restore.py denoise  RESTORER SOURCE [--images 100] [--peer-images 100] [--peers FOLDER]
    python bench/restore.py jpeg     RESTORER SOURCE
    python bench/restore.py super-x2 RESTORER SOURCE            (super-x3, super-x4)
    python bench/restore.py blind    RESTORER SOURCE
    python bench/restore.py fill     RESTORER SOURCE

RESTORER is a run folder, a file, zoo:NAME, or `none` for the peers alone; SOURCE is a data source, of which the
pictures of --split are used. They are degraded as by `smalti degrade`, seed 0, numbered by the picture, and rounded to
8 bits. Peers (bench/restore_peers.py):

    denoise    BM3D for colours (package bm3d), told the deviation; non-local means (scikit-image), told it too, with
               the best of five filter strengths
    super-xN   bicubic and Lanczos enlargement (Pillow), and bicubic with the kernel of torch and OpenCV
    fill       Telea (OpenCV) with the best of three radii, and biharmonic (scikit-image), in windows of 128x128

PSNR and SSIM are means over pictures. In the features of each of --features: the perceptual distance
(losses/perceptual.py) of windows of 128x128 pixels; for `fill` KID of windows of 64x64 about the middle of the holes.
BM3D takes a minute for a picture, so --peer-images may name fewer, evenly spaced; then our figures are given for the
same pictures too. --peers keeps the peers' pictures, so they are made once and an interrupted run goes on.

Writes results/restore_TASK.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import machine
import numpy as np
import torch
from codec_pleasing import as_tensor, crops
from restore_peers import peers_of, result_of

from smalti.config.degradation import parse_degradation
from smalti.data.degrade import degrade
from smalti.data.order import evenly_spread
from smalti.data.picture_list import list_pictures
from smalti.data.pictures import read_picture
from smalti.features.extractor import Extractor, extractor
from smalti.metrics.pairs import KernelDistance
from smalti.metrics.ssim import StructuralSimilarity
from smalti.pipelines.restorer import Restorer

TASKS = {
    "denoise": ("noise(15)", "noise(25)", "noise(50)"),
    "jpeg": ("jpeg(10)", "jpeg(20)", "jpeg(40)"),
    "super-x2": ("down(2)",),
    "super-x3": ("down(3)",),
    "super-x4": ("down(4)",),
    "blind": ("second-order",),
    "fill": ("mask(boxes,0.05..0.35)", "mask(strokes,0.05..0.35)"),
}
WINDOW, PART = 128, 64  # sides of pictures with holes, and of their windows for KID


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("restorer")
    parser.add_argument("source")
    parser.add_argument("--split", default="val")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--peer-images", type=int, default=100)
    parser.add_argument("--peers", type=Path, help="folder for the peers' pictures")
    parser.add_argument("--degradations", nargs="+", help="others than those of the task")
    parser.add_argument("--features", nargs="*", default=["efficientnet-lite0", "smalti-vit"])
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    restorer = None if options.restorer == "none" else Restorer.from_pretrained(options.restorer)
    scale = parse_degradation(TASKS[options.task][0]).scale
    pictures = photographs(options.source, options.split, options.images, scale)
    if options.task == "fill":
        pictures = [middle(picture) for picture in pictures]
    judges = [extractor(name) for name in options.features]
    names = [f"{'KID' if options.task == 'fill' else 'distance'}, {judge.name}" for judge in judges]
    rows, found = [("degradation", "method", "pictures", "PSNR", "SSIM", *names)], []
    for text in options.degradations or TASKS[options.task]:
        sample = Sample(pictures, text)
        for method, results, chosen in methods(options, sample, restorer, scale):
            record = sample.judge(results, chosen, judges, kernel=options.task == "fill")
            found.append({"degradation": text, "method": method, **record})
            rows.append((
                text, method, str(len(chosen)), f"{record['psnr']:.2f}", f"{record['ssim']:.4f}",
                *(f"{record[judge.name]:.4f}" for judge in judges),
            ))  # fmt: skip
            print(*rows[-1], flush=True)
    machine.table(rows)
    model = {} if restorer is None else {"digest": restorer.card.digest[:16], "degradation": restorer.degradation}
    machine.write(f"restore_{options.task.replace('-', '_')}", {**model, "images": len(pictures), "results": found})


def photographs(source: str, split: str, count: int, scale: int) -> list[np.ndarray]:
    """(H, W, 3) uint8 pictures, evenly spaced, cut to multiples of `scale`."""
    listed = list_pictures([source], split=split)
    wanted = set(evenly_spread(len(listed), min(count, len(listed))).tolist())
    found = {}
    for index, contents in listed:
        if index in wanted:
            assert not isinstance(contents, Exception), contents
            data = contents.read_bytes() if isinstance(contents, Path) else contents
            pixels = read_picture(data, metadata=False).pixels[..., :3]
            height, width = (side - side % scale for side in pixels.shape[:2])
            found[index] = np.ascontiguousarray(pixels[:height, :width])
    return [found[index] for index in sorted(found)]


def middle(picture: np.ndarray) -> np.ndarray:
    top, left = ((side - WINDOW) // 2 for side in picture.shape[:2])
    return np.ascontiguousarray(picture[top : top + WINDOW, left : left + WINDOW])


class Sample:
    """Photographs, and what a degradation made of them."""

    def __init__(self, pictures: list[np.ndarray], degradation: str) -> None:
        self.pictures, self.text = pictures, degradation
        parsed = parse_degradation(degradation)
        degraded = [degrade(picture, parsed, seed=0, number=index) for index, picture in enumerate(pictures)]
        self.inputs, self.holes = [one.image for one in degraded], [one.hole for one in degraded]

    def judge(
        self, results: list[np.ndarray], chosen: list[int], judges: list[Extractor], *, kernel: bool
    ) -> dict[str, Any]:
        """Figures of results for the pictures with the numbers `chosen`."""
        originals = [self.pictures[index] for index in chosen]
        record = {
            "pictures": len(chosen),
            "psnr": float(np.mean([psnr(a, b) for a, b in zip(results, originals, strict=True)])),
            "ssim": float(np.mean([
                StructuralSimilarity().measure(b[None], a[None])[0] for a, b in zip(results, originals, strict=True)
            ])),
        }  # fmt: skip
        if kernel:
            holes = [self.holes[index] for index in chosen]
            found, wanted = (
                np.stack([about_hole(picture, hole) for picture, hole in zip(pictures, holes, strict=True)])
                for pictures in (results, originals)
            )
            return record | {judge.name: kernel_distance(judge, found, wanted) for judge in judges}
        found, wanted = crops(results), crops(originals)
        return record | {judge.name: perceptual_distance(judge, found, wanted) for judge in judges}


def methods(
    options: argparse.Namespace, sample: Sample, restorer: Restorer | None, scale: int
) -> list[tuple[str, list[np.ndarray], list[int]]]:
    """Names, results, and which pictures they are of: the degraded pictures, ours, and the peers."""
    every = list(range(len(sample.pictures)))
    few = evenly_spread(len(every), min(options.peer_images, len(every))).tolist()
    found = [] if scale > 1 else [("input", sample.inputs, every)]
    peers = peers_of(options.task, sample.text, scale) if few else {}
    if restorer is not None:
        ours = [restorer.restore(image, hole=hole) for image, hole in zip(sample.inputs, sample.holes, strict=True)]
        found.append(("smalti", ours, every))
        if len(few) < len(every) and peers:
            found.append(("smalti, the peers' pictures", [ours[index] for index in few], few))
    for name, method in peers.items():
        results: list[np.ndarray] = []
        for index in few:
            path = options.peers and options.peers / sample.text / name / f"{index}.png"
            results.append(result_of(method, sample.inputs[index], sample.holes[index], path))
        found.append((name, results, few))
    return found


def psnr(found: np.ndarray, wanted: np.ndarray) -> float:
    error = np.mean((found.astype(np.float64) - wanted) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def about_hole(picture: np.ndarray, hole: np.ndarray | None) -> np.ndarray:
    """The window about the mean position of the missing pixels."""
    assert hole is not None
    corner = np.argwhere(hole).mean(axis=0).round().astype(int) - PART // 2
    top, left = np.clip(corner, 0, WINDOW - PART)
    return picture[top : top + PART, left : left + PART]


def kernel_distance(judge: Extractor, found: np.ndarray, wanted: np.ndarray) -> float:
    metric = KernelDistance()
    metric.update(judge.features(wanted), real=True)
    metric.update(judge.features(found), real=False)
    return float(metric.compute()[0].value)


@torch.no_grad()
def perceptual_distance(judge: Extractor, found: np.ndarray, wanted: np.ndarray) -> float:
    loss, total = judge.perceptual_loss(), 0.0
    for start in range(0, len(found), 16):
        part = slice(start, start + 16)
        total += float(loss(as_tensor(found[part]), as_tensor(wanted[part]))) * len(found[part])
    return total / len(found)


if __name__ == "__main__":
    main()
