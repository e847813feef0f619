"""Bytes of our codec against WebP, AVIF, JPEG XL and JPEG at equal PSNR.

    python bench/codec.py tiny  CODEC SOURCE [--images 10000] [--effort 16]     pictures of the codec's native size
    python bench/codec.py photo CODEC FOLDER [--images 100] [--effort 8]        photographs
    python bench/codec.py kinds CODEC=SOURCE CODEC=SOURCE ...                   each codec on each kind of pictures

Bytes of whole files, headers counted; PSNR pooled over all pixels, of RGBA with premultiplied colours. Ours: one file
an image, and one archive of all in blocks of 16 without names. Peers at their best settings for PSNR: WebP method
6, AVIF 4:4:4 tune=psnr (the better of the given speeds), JPEG XL effort 9, JPEG progressive and optimised; of tiny
pictures AVIF and JPEG XL code mosaics of 100. Between measured points, log bytes are linear in dB.

Writes results/codec_WHAT_NAME.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import machine
import numpy as np
import torch
from PIL import Image

from smalti import data
from smalti.codec.image_codec import squared_error
from smalti.codec.image_file import Coded, write_picture
from smalti.data.order import evenly_spread
from smalti.data.pictures import Picture
from smalti.evaluation.codecs import PEERS, Curve, bytes_at, peer_curve, psnr_at
from smalti.metrics.distortion import psnr_db
from smalti.metrics.ssim import MultiScaleStructuralSimilarity
from smalti.pipelines.codec import Codec

# What the ratios should be at most: dB, of WebP (single files), of the AVIF mosaic, of the JPEG XL mosaic (archive).
TINY_TARGETS = {24: (0.42, 0.80, 0.60), 25: (0.45, 0.80, 0.62), 26: (0.48, 0.85, 0.64), 28: (0.55, 0.92, 0.67),
                30: (0.62, 1.00, 0.75)}  # fmt: skip
PHOTO_PEERS = {"jpeg": None, "webp": None, "avif": (0, 2, 4, 8, 16, 24, 33, 43, 54, 65)}  # qualities down to .1 bpp
RATES_BPP = (0.1, 0.2, 0.3, 0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["tiny", "photo", "kinds"])
    parser.add_argument("codecs", nargs="+", metavar="CODEC SOURCE")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--effort", type=int, default=16)
    parser.add_argument("--qualities", type=int, nargs="+")
    parser.add_argument("--speeds", type=int, nargs="+", default=[4, 0], help="of AVIF")
    parser.add_argument("--peer-images", type=int, help="images that the slow peers code, evenly spaced")
    parser.add_argument("--peers", type=Path, help="JSON with the slow peers' curves; made if it does not exist")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.what == "kinds":
        result = kinds(options)
        machine.write("codec_kinds", result)
        return
    name, source = options.codecs
    codec = Codec.from_pretrained(name)
    result = tiny(codec, source, options) if options.what == "tiny" else photo(codec, source, options)
    stem = Path(name.removeprefix("zoo:")).stem
    label = Path(name).parent.name if stem in ("last", "best") else stem
    machine.write(f"codec_{options.what}_{label}", {"digest": codec.card.digest[:16], **result})


def test_images(codec: Codec, source: str, count: int) -> np.ndarray:
    height, width, channels = codec.model.native
    images = data.load(source, split="test", size=(height, width), channels=channels)
    return images.take(evenly_spread(len(images), count)).images


def tiny(codec: Codec, source: str, options: argparse.Namespace) -> dict[str, Any]:
    images = test_images(codec, source, options.images)
    some = list(images[:: max(1, len(images) // (options.peer_images or len(images)))])
    single, archive = our_curves(codec, images, options.qualities or [14, 18, 22, 26, 30, 36, 42], options.effort)
    others = {"WebP": peer_curve("webp", list(images), (0, 1, 2, 5, 10, 18, 28, 40, 55, 70))}
    others |= kept(options.peers, lambda: mosaic_peers(some, options.speeds))
    for name, curve in others.items():
        show(name, curve)
    webp, jxl = others["WebP"], others["JPEG XL mosaic"]
    avif = {name: curve for name, curve in others.items() if name.startswith("AVIF")}
    show("single files", single)
    show("archive", archive)
    rows = [("dB", "single", "WebP", "ratio", "must", "archive", "AVIF", "ratio", "must", "JPEG XL", "ratio", "must")]
    figures = {}
    for decibels, targets in TINY_TARGETS.items():
        own, many = bytes_at(single, decibels), bytes_at(archive, decibels)
        peers = (
            bytes_at(webp, decibels),
            best(bytes_at(curve, decibels) for curve in avif.values()),
            bytes_at(jxl, decibels),
        )
        ratios = [ratio(a, b) for a, b in zip((own, many, many), peers, strict=True)]
        figures[decibels] = {"single": own, "archive": many, "webp": peers[0], "avif": peers[1], "jxl": peers[2]}
        rows.append((
            str(decibels), number(own), number(peers[0]), number(ratios[0], 3), str(targets[0]), number(many),
            number(peers[1]), number(ratios[1], 3), str(targets[1]), number(peers[2]), number(ratios[2], 3),
            str(targets[2]),
        ))  # fmt: skip
    machine.table(rows)
    curves = {"single": single, "archive": archive, "webp": webp, **avif, "jxl": jxl}
    return {"images": len(images), "peer_images": len(some), "bytes_at_db": figures, "curves": curves}


def mosaic_peers(some: list[np.ndarray], speeds: Sequence[int]) -> dict[str, Curve]:
    """AVIF and JPEG XL of mosaics."""
    found = {}
    for speed in speeds:
        name = f"AVIF mosaic, speed {speed}"
        found[name] = peer_curve(
            "avif", some, (4, 10, 15, 20, 28, 36, 44, 52, 60), mosaic=100, options={"speed": speed}
        )
    found["JPEG XL mosaic"] = peer_curve("jxl", some, (14, 10, 7.5, 5.5, 4, 3, 2.2), mosaic=100)
    return found


def kept(path: Path | None, make: Callable[[], dict[str, Curve]]) -> dict[str, Curve]:
    """Curves from a file, or made and written there."""
    if path is not None and path.exists():
        return {name: [tuple(point) for point in curve] for name, curve in json.loads(path.read_text()).items()}
    found = make()
    if path is not None:
        path.write_text(json.dumps(found))
    return found


def our_curves(codec: Codec, images: np.ndarray, qualities: Sequence[int], effort: int) -> tuple[Curve, Curve]:
    """Curves of single files and of an archive, from the same codes."""
    model, singles, archives = codec.model, [], []
    height, width, _ = model.native
    for quality in qualities:
        size, error = 0, 0.0
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "images.smt"
            with codec.write_archive(path, quality=quality, effort=effort, named=False) as archive:
                for start in range(0, len(images), 1024):
                    part = images[start : start + 1024]
                    codes = model.engine.codes_of(part, quality, effort=effort)
                    archive.add_codes(codes)
                    for own, image in zip(codes, part, strict=True):
                        size += len(write_picture(model, Coded(own, quality, Picture(image))))
                    error += squared_error(model.engine.pixels_of(codes, quality, height, width), part) * part.size
            psnr = psnr_db(error, images.size)
            singles.append((size / len(images), psnr))
            archives.append((path.stat().st_size / len(images), psnr))
        print(quality, singles[-1], archives[-1], flush=True)
    return singles, archives


def photo(codec: Codec, folder: str, options: argparse.Namespace) -> dict[str, Any]:
    paths = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in (".jpg", ".png"))
    chosen = [paths[index] for index in evenly_spread(len(paths), options.images)]
    images = [np.asarray(Image.open(path).convert("RGB")) for path in chosen]
    pixels = sum(image.shape[0] * image.shape[1] for image in images)
    curves: dict[str, Curve] = {"smalti": [], "smalti, second decoder": []}
    similarity: dict[str, list[tuple[float, float]]] = {"smalti": []}
    for quality in options.qualities or [14, 18, 22, 26, 30, 36, 42, 48]:
        files = [codec.compress(image, quality=quality, effort=options.effort) for image in images]
        size = sum(map(len, files))
        for name, decoder in (("smalti", "faithful"), ("smalti, second decoder", "pleasing")):
            if decoder not in codec.decoders:
                continue
            decoded = [codec.decompress(file, decoder=decoder) for file in files]
            curves[name].append((size / len(images), pooled(decoded, images)))
            if decoder == "faithful":
                values = [structural(a, b) for a, b in zip(decoded, images, strict=True)]
                similarity["smalti"].append((size * 8 / pixels, float(np.mean(values))))
        print(quality, size * 8 / pixels, curves["smalti"][-1], similarity["smalti"][-1], flush=True)
    curves = {name: curve for name, curve in curves.items() if curve}
    peers = PHOTO_PEERS.items()
    curves |= kept(options.peers, lambda: {PEERS[name].title: peer_curve(name, images, own) for name, own in peers})
    rows = [("bpp", *curves)]
    figures: dict[float, dict[str, float | None]] = {}
    for rate in RATES_BPP:
        size = rate * pixels / 8 / len(images)
        figures[rate] = {name: psnr_at(curve, size) for name, curve in curves.items()}
        rows.append((str(rate), *(number(value, 2) for value in figures[rate].values())))
    machine.table(rows)
    return {"images": len(images), "psnr_at_bpp": figures, "curves": curves, "ms_ssim": similarity}


def kinds(options: argparse.Namespace) -> dict[str, Any]:
    """Each codec on each kind of pictures: bytes at the PSNR that the kind's own codec has at quality 26."""
    pairs = [pair.split("=", 1) for pair in options.codecs]
    codecs = {name: Codec.from_pretrained(name) for name, _ in pairs}
    rows, found = [("pictures", "dB", *codecs)], {}
    for own, source in pairs:
        height, width, channels = codecs[own].model.native
        images = data.load(source, split="test", size=(height, width), channels=channels)
        whole = [np.array(image) for image in images.take(evenly_spread(len(images), options.images)).images]
        wanted = curve_of(codecs[own], whole, [26], options.effort)[0][1]
        sizes = {}
        for name, codec in codecs.items():
            sizes[name] = bytes_at(curve_of(codec, whole, range(8, 72, 8), options.effort), wanted)
        found[Path(source).name] = {"psnr_db": wanted, "bytes": sizes}
        rows.append((Path(source).name, f"{wanted:.2f}", *(number(size) for size in sizes.values())))
    machine.table(rows)
    return {"images": options.images, "results": found}


def curve_of(codec: Codec, images: Sequence[np.ndarray], qualities: Sequence[int], effort: int) -> Curve:
    curve = []
    for quality in qualities:
        files = [codec.compress(image, quality=quality, effort=effort) for image in images]
        curve.append((sum(map(len, files)) / len(files), pooled([codec.decompress(file) for file in files], images)))
    return curve


def pooled(found: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> float:
    error = sum(squared_error(a, b) * b.size for a, b in zip(found, wanted, strict=True))
    return psnr_db(error, sum(image.size for image in wanted))


def structural(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(MultiScaleStructuralSimilarity().measure(wanted[None], found[None])[0])


def ratio(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a / b


def best(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return min(known) if known else None


def number(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def show(name: str, curve: Curve) -> None:
    print(name + ":", "  ".join(f"{size:.1f} B {psnr:.2f} dB" for size, psnr in curve), flush=True)


if __name__ == "__main__":
    main()
