"""How fast photographs are encoded and decoded, beside AVIF at about as many bytes.

    python bench/codec_photo_speed.py CODEC FOLDER [--images 4] [--efforts 0 3 8] [--qualities 12 25] [--rounds 3]

MB/s: megabytes of pixels (3 bytes each) a second, of processor time on one thread, so that what else the machine does
counts little; for each picture the best of the rounds, in which ours and AVIF take turns. AVIF: speed 4, 4:4:4,
`tune=psnr`, at the quality whose files are together nearest in size to ours at the first effort.

Writes results/codec_photo_speed.json.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from time import process_time
from typing import Any

import machine
import numpy as np
import torch
from codec import number, pooled
from codec_pleasing import avif, avif_of_size
from PIL import Image

from smalti.data.order import evenly_spread
from smalti.pipelines.codec import Codec


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("codec")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--efforts", type=int, nargs="+", default=[0, 3, 8])
    parser.add_argument("--qualities", type=int, nargs="+", default=[12, 25])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    codec = Codec.from_pretrained(options.codec)
    paths = sorted(path for path in options.folder.rglob("*") if path.suffix.lower() in (".jpg", ".png"))
    images = [np.asarray(Image.open(paths[i]).convert("RGB")) for i in evenly_spread(len(paths), options.images)]
    rows, found = [("quality", "codec", "bpp", "PSNR", "encode, MB/s", "decode, MB/s")], []
    for quality in options.qualities:
        for record in at_quality(codec, images, quality, options.efforts, options.rounds):
            found.append(record)
            rows.append((
                str(quality), record["codec"], number(record["bpp"], 3), number(record["psnr"], 2),
                number(record["encode_mb_s"], 3), number(record["decode_mb_s"], 3),
            ))  # fmt: skip
            print(rows[-1], flush=True)
    machine.table(rows)
    machine.write("codec_photo_speed", {"digest": codec.card.digest[:16], "images": len(images), "results": found})


def at_quality(
    codec: Codec, images: list[np.ndarray], quality: int, efforts: Sequence[int], rounds: int
) -> list[dict[str, Any]]:
    """Records of our codec at each effort, and of AVIF."""
    size = sum(len(codec.compress(image, quality=quality, effort=efforts[0])) for image in images)
    setting = avif_of_size(images, size, "psnr")[2]
    encoders: dict[str, Callable[[np.ndarray], bytes]] = {
        f"smalti, effort {effort}": lambda image, effort=effort: codec.compress(image, quality=quality, effort=effort)
        for effort in efforts
    }
    encoders[f"AVIF, speed 4, quality {setting}"] = lambda image: avif(image, setting, "psnr")
    records = {name: {"encode": 0.0, "decode": 0.0, "size": 0.0} for name in encoders}
    decoded: dict[str, list[np.ndarray]] = {name: [] for name in encoders}
    for image in images:
        best = {name: [np.inf, np.inf] for name in encoders}
        files, pictures = {}, {}
        for _ in range(rounds):
            for name, encode in encoders.items():
                decode = codec.decompress if name.startswith("smalti") else opened
                begin = process_time()
                files[name] = encode(image)
                between = process_time()
                pictures[name] = decode(files[name])
                end = process_time()
                best[name] = [min(best[name][0], between - begin), min(best[name][1], end - between)]
        for name, record in records.items():
            record["encode"] += best[name][0]
            record["decode"] += best[name][1]
            record["size"] += len(files[name])
            decoded[name].append(pictures[name])
    megabytes = sum(image.nbytes for image in images) / 1e6
    pixels = sum(image.shape[0] * image.shape[1] for image in images)
    return [
        {
            "quality": quality, "codec": name, "bpp": record["size"] * 8 / pixels,
            "psnr": pooled(decoded[name], images),
            "encode_mb_s": megabytes / record["encode"], "decode_mb_s": megabytes / record["decode"],
        }
        for name, record in records.items()
    ]  # fmt: skip


def opened(file: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(file)) as image:
        return np.asarray(image.convert("RGB"))


if __name__ == "__main__":
    main()
