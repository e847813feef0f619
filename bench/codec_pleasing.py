"""The second decoder of a codec and AVIF at equal bytes, by how pictures look.

    python bench/codec_pleasing.py CODEC FOLDER [--images 100] [--qualities 12 18 24]

For each quality our files are decoded by both decoders, and AVIF (speed 4, 4:4:4) codes the same photographs with the
quality, the same for all, whose files together are nearest to ours; its two tunings are both measured. Of crops of
128x128 pixels without overlap (all that fit): Frechet distance and perceptual distance (losses/perceptual.py) with each
of --features, beside MS-SSIM and PSNR of whole photographs. A network that the decoder was trained with is no fair
judge; the records say which that is.

Writes results/codec_pleasing.json.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from typing import Any

import machine
import numpy as np
import torch
from codec import number, pooled, structural
from PIL import Image

from smalti.config.codec import CodecConfig
from smalti.data.order import evenly_spread
from smalti.features.extractor import Extractor, extractor
from smalti.metrics.frechet import FrechetDistance
from smalti.pipelines.codec import Codec

SIDE = 128  # of the crops
TUNES = ("psnr", "ssim")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("codec")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--effort", type=int, default=4)
    parser.add_argument("--qualities", type=int, nargs="+", default=[12, 18, 24])
    parser.add_argument("--features", nargs="+", default=["efficientnet-lite0", "smalti-vit"])
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    codec = Codec.from_pretrained(options.codec)
    settings = codec.card.config.model
    assert isinstance(settings, CodecConfig)
    paths = sorted(path for path in options.folder.rglob("*") if path.suffix.lower() in (".jpg", ".png"))
    chosen = [paths[index] for index in evenly_spread(len(paths), options.images)]
    images = [np.asarray(Image.open(path).convert("RGB")) for path in chosen]
    judges = [Judge(extractor(name), images) for name in options.features]
    trained_with = settings.pleasing.perceptual.network
    print("trained with", trained_with)
    header = [part for name in options.features for part in (f"FD, {name}", f"distance, {name}")]
    rows, found = [("bpp", "decoder", "PSNR", "MS-SSIM", *header)], []
    for quality in options.qualities:
        for record in at_quality(codec, images, quality, options.effort, judges):
            figures = [record[judge.name][key] for judge in judges for key in ("frechet", "perceptual")]
            rows.append((
                number(record["bpp"], 3), record["decoder"], number(record["psnr"], 2), number(record["ms_ssim"], 4),
                *(number(value, 2 + index % 2 * 2) for index, value in enumerate(figures)),
            ))  # fmt: skip
            found.append(record)
            print(rows[-1], flush=True)
    machine.table(rows)
    machine.write("codec_pleasing", {
        "digest": codec.card.digest[:16], "images": len(images), "trained_with": trained_with, "results": found,
    })  # fmt: skip


class Judge:
    """Distances of pictures to the originals in the features of a network."""

    def __init__(self, network: Extractor, originals: list[np.ndarray]) -> None:
        self.network, self.name = network, network.name
        self.originals = crops(originals)
        self.real = network.features(self.originals)
        self.loss = network.perceptual_loss()

    @torch.no_grad()
    def __call__(self, pictures: list[np.ndarray]) -> dict[str, float]:
        found = crops(pictures)
        metric = FrechetDistance()
        metric.update(self.real, real=True)
        metric.update(self.network.features(found), real=False)
        distances = [
            float(self.loss(as_tensor(found[start : start + 16]), as_tensor(self.originals[start : start + 16])))
            for start in range(0, len(found) - len(found) % 16, 16)
        ]
        return {"frechet": metric.compute()[0].value, "perceptual": float(np.mean(distances)), "crops": len(found)}


def at_quality(
    codec: Codec, images: list[np.ndarray], quality: int, effort: int, judges: list[Judge]
) -> list[dict[str, Any]]:
    """Records of our decoders at a quality, and of AVIF at about as many bytes."""
    files = [codec.compress(image, quality=quality, effort=effort) for image in images]
    size, pixels = sum(map(len, files)), sum(image.shape[0] * image.shape[1] for image in images)
    decoded = {f"smalti, {name}": [codec.decompress(file, decoder=name) for file in files] for name in codec.decoders}
    sizes = dict.fromkeys(decoded, size)
    for tune in TUNES:
        label = f"AVIF, tune={tune}"
        sizes[label], decoded[label], _ = avif_of_size(images, size, tune)
    return [
        {
            "quality": quality, "decoder": name, "bpp": sizes[name] * 8 / pixels, "psnr": pooled(pictures, images),
            "ms_ssim": float(np.mean([structural(a, b) for a, b in zip(pictures, images, strict=True)])),
            **{judge.name: judge(pictures) for judge in judges},
        }
        for name, pictures in decoded.items()
    ]  # fmt: skip


def avif_of_size(images: list[np.ndarray], size: int, tune: str) -> tuple[int, list[np.ndarray], int]:
    """Bytes, pictures and quality where files are together nearest to a size."""
    coded: dict[int, list[bytes]] = {}

    def total(quality: int) -> int:
        if quality not in coded:
            coded[quality] = [avif(image, quality, tune) for image in images]
        return sum(map(len, coded[quality]))

    low, high = 0, 90  # total(low) <= size
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if total(middle) <= size else (low, middle)
    best = min((low, high), key=lambda quality: abs(total(quality) - size))
    pictures = [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in coded[best]]
    return total(best), pictures, best


def avif(image: np.ndarray, quality: int, tune: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(
        file, "AVIF", quality=quality, speed=4, subsampling="4:4:4", advanced={"tune": tune}, max_threads=1
    )
    return file.getvalue()


def crops(images: list[np.ndarray]) -> np.ndarray:
    """(N, 128, 128, 3): all that fit into the pictures side by side."""
    return np.stack([
        image[top : top + SIDE, left : left + SIDE]
        for image in images
        for top in range(0, image.shape[0] - SIDE + 1, SIDE)
        for left in range(0, image.shape[1] - SIDE + 1, SIDE)
    ])  # fmt: skip


def as_tensor(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


if __name__ == "__main__":
    main()
