"""Whether codes decode to the same everywhere, what damage does, and how fast the codec is.

    python bench/codec_robustness.py exactness CODEC IMAGES [--images 10000]
    python bench/codec_robustness.py damage    CODEC IMAGES [--files 100000]
    python bench/codec_robustness.py entropy   CODEC IMAGES
    python bench/codec_robustness.py speed     CODEC IMAGES
    python bench/codec_robustness.py memory    CODEC

CODEC is a run folder or file of the recipe `codec`, IMAGES a data source of its native size.

exactness   the codes of an archive, decoded by processes with different instruction sets, all that the processor has
            (OPENBLAS_CORETYPE for the matrix products of the context net, ATEN_CPU_CAPABILITY for torch),
            1 and 2 threads, and 1 and 64 blocks at a time: the SHA-256 over all of them must be one
damage      bit flips, truncations, splices, absurd sizes and lengths in files of all forms: each is refused with
            CodecError or decodes to the right codes; the slowest and the largest allocation are reported
entropy     bytes of payloads against their information content, integer net against float net, at three qualities
speed       archive encode (effort 0 and 4) and decode, images a second: the best and the median of five rounds
memory      peak memory of a picture of 24 megapixels, compressed and decompressed

Writes results/codec_NAME.json.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import machine
import numpy as np
import torch

from smalti import data
from smalti.codec.image_file import Model, encode_picture, read_codes, write_picture
from smalti.codec.scalar import decode_codes, encode_codes, scalar_bits, streams_of
from smalti.data.order import evenly_spread
from smalti.data.pictures import Picture
from smalti.errors import CodecError
from smalti.pipelines.codec import Codec

# OpenBLAS's word, torch's word, and what Linux calls an instruction that it needs.
CORES = (
    ("Prescott", "default", "pni"), ("Sandybridge", "default", "avx"), ("Haswell", "avx2", "avx2"),
    ("SkylakeX", "avx512", "avx512bw"),
)  # fmt: skip
QUALITIES = (20, 28, 40)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["exactness", "damage", "entropy", "speed", "memory", "digest"])
    parser.add_argument("codec")
    parser.add_argument("source", nargs="?", default="emoji")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    codec = Codec.from_pretrained(options.codec)
    result: dict[str, Any] = {
        "exactness": exactness, "damage": damage, "entropy": entropy, "speed": speed, "memory": memory,
        "digest": digest,
    }[options.what](codec, options)  # fmt: skip
    if options.what != "digest":
        machine.write(f"codec_{options.what}", {"digest": codec.card.digest[:16], "results": result})


def pictures(codec: Codec, options: argparse.Namespace) -> np.ndarray:
    """Test images of the native size, (N, H, W, C) uint8."""
    height, width, channels = codec.model.native
    images = data.load(options.source, split="test", size=(height, width), channels=channels)
    return images.take(evenly_spread(len(images), options.images)).images


def archive(codec: Codec, images: np.ndarray, path: Path, *, effort: int = 0, per_block: int = 16) -> None:
    with codec.write_archive(path, quality=24, effort=effort, per_block=per_block, named=False, overwrite=True) as out:
        for pixels in images:
            out.add(Picture(pixels))


def archive_codes(codec: Codec, path: str, batch: int) -> str:
    """SHA-256 over the codes of all blocks, decoded `batch` blocks at a time."""
    from smalti.codec.rans import LaneDecoder

    found = hashlib.sha256()
    with codec.open_archive(path) as images:
        height, width, _ = codec.model.native
        grid = codec.model.engine.grid(height, width)
        blocks = [images.reader.read_block(number) for number in range(images.reader.block_count)]
        for start in range(0, len(blocks), batch):
            part = blocks[start : start + batch]
            for count in sorted({block.count for block in part}, reverse=True):
                payloads = [block.payload for block in part if block.count == count]
                shape = (len(payloads) * count, *grid)
                codes = decode_codes(
                    codec.model.engine.context, LaneDecoder(payloads), shape, images.reader.header.step,
                    per_stream=count,
                )  # fmt: skip
                found.update(np.ascontiguousarray(codes, dtype="<i4"))
    return found.hexdigest()


def digest(codec: Codec, options: argparse.Namespace) -> dict[str, Any]:
    """What a child process of `exactness` prints."""
    print(archive_codes(codec, options.source, options.batch))
    return {}


def exactness(codec: Codec, options: argparse.Namespace) -> dict[str, Any]:
    images = pictures(codec, options)
    rows, found = [("instruction set", "threads", "blocks at a time", "SHA-256 of the codes")], {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.smt"
        archive(codec, images, path)
        for core, capability in (words[:2] for words in CORES if words[2] in flags()):
            for threads in (1, 2):
                for batch in (1, 64):
                    environment = os.environ | {
                        "OPENBLAS_CORETYPE": core, "ATEN_CPU_CAPABILITY": capability,
                        "OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads),
                    }  # fmt: skip
                    words = [sys.executable, __file__, "digest", str(codec.path), str(path)]
                    words += ["--batch", str(batch), "--threads", str(threads)]
                    output = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
                    found[f"{core}/{capability}, {threads}, {batch}"] = output.stdout.strip()
                    rows.append((f"{core}/{capability}", str(threads), str(batch), output.stdout.strip()[:16]))
    machine.table(rows)
    print("all the same" if len(set(found.values())) == 1 else "DIFFERENT")
    return {"images": len(images), "digests": found, "same": len(set(found.values())) == 1}


def flags() -> set[str]:
    """Instructions of this processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return set(next(line for line in lines if line.startswith("flags")).split())


def damage(codec: Codec, options: argparse.Namespace) -> dict[str, Any]:
    draw = random.Random(0)
    forms = samples(codec, options)
    counts = {name: {"refused": 0, "right": 0, "wrong": 0, "other": 0} for name in forms}
    slowest, largest, examples = 0.0, 0, []
    tracemalloc.start()
    for number in range(options.files):
        name = draw.choice(list(forms))
        whole, codes = forms[name]
        broken = mutated(whole, draw, [data for data, _ in forms.values()])
        begin = time.perf_counter()
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        try:
            same = decoded(codec.model, broken, name)
            right = all(number in codes and np.array_equal(codes[number], part) for number, part in same.items())
            outcome = "right" if right else "wrong"
        except CodecError:
            outcome = "refused"
        except Exception as error:  # what the bench looks for
            outcome = "other"
            examples.append(f"{name}: {error!r}")
        counts[name][outcome] += 1
        slowest = max(slowest, time.perf_counter() - begin)
        largest = max(largest, tracemalloc.get_traced_memory()[1] - before)
        if (number + 1) % 10_000 == 0:
            print(number + 1, counts, f"slowest {slowest:.2f} s, largest {largest / 2**20:.1f} MiB", flush=True)
    machine.table([("form", *counts["tiny"])] + [(name, *map(str, found.values())) for name, found in counts.items()])
    print("\n".join(examples[:10]))
    return {"files": options.files, "outcomes": counts, "slowest_s": slowest, "largest_mib": largest / 2**20}


def samples(codec: Codec, options: argparse.Namespace) -> dict[str, tuple[bytes, dict[int, np.ndarray]]]:
    """A file of each form, and the codes in it."""
    options.images = 32
    images, model = pictures(codec, options), codec.model
    found = {}
    for name, picture, exact in (
        ("tiny", Picture(images[0]), False),
        ("full", Picture(images[1][:20, :25], exif=b"Exif\0\0" + bytes(60)), False),
        ("exact", Picture(images[2]), True),
    ):
        coded = encode_picture(model, picture, 24, effort=1)
        whole = write_picture(model, coded, exact=exact)
        found[name] = (whole, decoded(model, whole, name))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.smt"
        archive(codec, images, path, per_block=4)
        whole = path.read_bytes()
    found["archive"] = (whole, decoded(model, whole, "archive"))
    return found


def decoded(model: Model, whole: bytes, name: str) -> dict[int, np.ndarray]:
    """The codes in a file; of an archive, the pixels of the images that can be read, by number."""
    from smalti.codec.image_archive import ImageArchive

    if name != "archive":
        return {0: read_codes(model, whole)[1]}
    with ImageArchive(model, whole) as images:
        lost = bool(images.reader.problems)  # without an index the numbers may be others, which the reader says
        blocks = [(images.reader.images_of(number), block) for number, block in images.blocks()]
        if lost:
            return {}
        return {
            number: picture.pixels for numbers, block in blocks for number, picture in zip(numbers, block, strict=True)
        }


def mutated(whole: bytes, draw: random.Random, others: list[bytes]) -> bytes:
    broken, kind = bytearray(whole), draw.randrange(6)
    if kind == 0:  # bit flips
        for _ in range(draw.randint(1, 4)):
            broken[draw.randrange(len(broken))] ^= 1 << draw.randrange(8)
    elif kind == 1:
        del broken[draw.randrange(len(broken)) :]
    elif kind == 2:  # splice with another file
        other = draw.choice(others)
        broken = broken[: draw.randrange(len(broken))] + other[draw.randrange(len(other)) :]
    elif kind == 3:  # absurd numbers: varints and fields of ones at the front
        start = draw.randrange(min(len(broken), 64))
        broken[start : start + draw.randint(1, 9)] = draw.choice([b"\xff", b"\x80", b"\x7f"]) * draw.randint(1, 9)
    elif kind == 4:  # repeated or lost bytes
        start = draw.randrange(len(broken))
        part = broken[start : start + draw.randint(1, 40)]
        broken[start:start] = part * draw.randint(1, 4)
    else:
        start = draw.randrange(len(broken))
        broken[start : start + draw.randint(1, 20)] = draw.randbytes(draw.randint(0, 20))
    return bytes(broken)


def entropy(codec: Codec, options: argparse.Namespace) -> dict[str, Any]:
    from smalti.codec.rans import IntegerEncoder, LaneEncoder

    options.images = min(options.images, 512)
    images, engine = pictures(codec, options), codec.model.engine
    rows, found = [("quality", "float net", "integer net", "content, coded", "archive payload", "single payload")], {}
    for quality in QUALITIES:
        codes = engine.codes_of(images, quality, effort=4)
        levels = torch.full((len(codes),), float(quality))
        floats = torch.from_numpy(codes).float()
        with torch.no_grad():
            float_bits = float(engine.module.distribution(floats, levels).bits(floats).sum())
        streams = encode_codes(engine.context, codes, quality, LaneEncoder(streams_of(len(codes), 16)), per_stream=16)
        singles = [len(encode_codes(engine.context, code[None], quality, IntegerEncoder())[0]) for code in codes[:128]]
        bits = scalar_bits(engine.context, codes, quality)
        part = scalar_bits(engine.context, codes[:128], quality) / 8 / len(singles)
        figures = {
            "float_bytes": float_bits / 8 / len(codes), "integer_bytes": bits / 8 / len(codes),
            "archive_bytes": sum(map(len, streams)) / len(codes), "single_content": part,
            "single_bytes": float(np.mean(singles)), "integer_over_float": bits / float_bits - 1,
        }  # fmt: skip
        found[quality] = figures
        rows.append((
            str(quality), f"{figures['float_bytes']:.2f} B",
            f"{figures['integer_bytes']:.2f} B ({figures['integer_over_float'] * 100:+.2f} %)",
            f"{part:.2f} B (first 128)", f"{figures['archive_bytes']:.2f} B", f"{figures['single_bytes']:.2f} B",
        ))  # fmt: skip
    machine.table(rows)
    return found


def speed(codec: Codec, options: argparse.Namespace) -> dict[str, Any]:
    images = pictures(codec, options)
    seconds: dict[str, list[float]] = {}

    def timed(name: str, count: int, work: Callable[[], object]) -> None:
        begin = time.perf_counter()
        work()
        seconds.setdefault(name, []).append((time.perf_counter() - begin) / count)

    with tempfile.TemporaryDirectory() as folder:
        path, few = Path(folder) / "images.smt", Path(folder) / "few.smt"

        def decode() -> int:
            with codec.open_archive(path) as opened:
                return sum(len(block) for _, block in opened.blocks())

        for _ in range(5):
            timed("encode_effort_0", len(images), lambda: archive(codec, images, path, effort=0))
            timed("encode_effort_4", 256, lambda: archive(codec, images[:256], few, effort=4))
            timed("decode", len(images), decode)
    found = {name: {"best": 1 / min(each), "median": 1 / statistics.median(each)} for name, each in seconds.items()}
    rows = [(name, f"{speeds['best']:.0f}", f"{speeds['median']:.0f}") for name, speeds in found.items()]
    machine.table([("images/s", "best", "median"), *rows])
    return found


def memory(codec: Codec, options: argparse.Namespace) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (100, 150, 3), dtype=np.uint8)
    from PIL import Image

    pixels = np.asarray(Image.fromarray(small).resize((6000, 4000), Image.Resampling.BICUBIC))
    codec.compress(pixels[:64, :64], effort=0)
    grown = machine.memory_growth()
    begin = time.perf_counter()
    whole = codec.compress(pixels, quality=30, effort=0)
    compressing, seconds = grown(), time.perf_counter() - begin
    grown = machine.memory_growth()
    begin = time.perf_counter()
    codec.decompress(whole)
    found = {
        "compress_mib": compressing, "decompress_mib": grown(), "bytes": len(whole),
        "compress_s": seconds, "decompress_s": time.perf_counter() - begin,
    }  # fmt: skip
    print(found)
    return found


if __name__ == "__main__":
    main()
