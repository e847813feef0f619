"""A restorer of codes at several fidelities, on photographs that it has not seen: perception against distortion.

    python bench/restore_codes.py RESTORER SOURCE [--fidelities 0 0.5 1] [--images 100] [--degradation TEXT]

RESTORER is a run folder or a file of the recipe restore-codes; SOURCE is a data source, of which the pictures of
--split are used. They are degraded as in bench/restore.py, by default with what the restorer was trained to undo.
Judged are the degraded pictures (enlarged by bicubic interpolation if smaller), the results, and what the restorer's
VQ-VAE makes of the clean pictures themselves, each as a whole (`codes of the clean`): what fidelity 0 aims at. PSNR,
SSIM and the perceptual distances are those of bench/restore.py.

Writes results/restore_codes.json.
"""

from __future__ import annotations

import argparse

import machine
import numpy as np
import torch
from PIL import Image
from restore import Sample, photographs

from smalti.features.extractor import extractor
from smalti.pipelines.code_restorer import CodeRestorer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("restorer")
    parser.add_argument("source")
    parser.add_argument("--split", default="val")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--fidelities", type=float, nargs="+", default=[0.0, 0.5, 1.0])
    parser.add_argument("--degradation", help="another than the restorer's own")
    parser.add_argument("--tile", type=int, help="as of smalti restore")
    parser.add_argument("--features", nargs="*", default=["efficientnet-lite0", "smalti-vit"])
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    restorer = CodeRestorer.from_pretrained(options.restorer)
    text = options.degradation or restorer.degradation
    sample = Sample(photographs(options.source, options.split, options.images, restorer.scale), text)
    judges = [extractor(name) for name in options.features]
    rows, found = [("picture", "PSNR", "SSIM", *(f"distance, {judge.name}" for judge in judges))], []

    def judge_all(name: str, results: list[np.ndarray]) -> None:
        record = sample.judge(results, list(range(len(results))), judges, kernel=False)
        found.append({"picture": name, **record})
        figures = (f"{record[judge.name]:.4f}" for judge in judges)
        rows.append((name, f"{record['psnr']:.2f}", f"{record['ssim']:.4f}", *figures))
        print(*rows[-1], flush=True)

    judge_all("degraded", [enlarged(image, restorer.scale) for image in sample.inputs])
    for fidelity in options.fidelities:
        name = f"fidelity {fidelity:g}"
        judge_all(name, [restorer.restore(image, fidelity=fidelity, tile=options.tile) for image in sample.inputs])
    judge_all("codes of the clean", [restorer.tokenizer.reconstruct(image[None])[0] for image in sample.pictures])
    machine.table(rows)
    about = {"digest": restorer.card.digest[:16], "degradation": text, "images": len(sample.pictures)}
    machine.write("restore_codes", {**about, "blended": restorer.blends, "tile": options.tile, "results": found})


def enlarged(image: np.ndarray, scale: int) -> np.ndarray:
    height, width = image.shape[:2]
    size = (scale * width, scale * height)
    return image if scale == 1 else np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


if __name__ == "__main__":
    main()
