"""Build the emoji pictures inside smalti: src/smalti/data/emoji.webp and emoji.tsv.

    python tools/build_emoji.py                      # fetches the pinned package with `npm pack`
    python tools/build_emoji.py emoji-datasource-google-16.0.0.tgz
    python tools/build_emoji.py unpacked/package

Every emoji and every skin-tone variant that has a Google (Noto) picture becomes one 32x32 RGBA tile: the 64x64
PNG, averaged 2x2 with premultiplied alpha. The tiles fill one lossless WebP mosaic, row by row, in Unicode's order
(so that variants lie side by side, where the coder finds them). One TSV line a tile says what it is, which group it
belongs to, and on which side of the train/test split that group lies.

A group holds everything that would make the test side easy when seen in training: skin tones, genders, ages, hair,
directions, and pictures that look the same (flags shared by two territories, one arrow turned four ways).

The same input gives the same bytes (with the same libwebp); the script writes their SHA-256 into emoji.py.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import json
import re
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

PACKAGE = "emoji-datasource-google"
VERSION = "16.0.0"
INTEGRITY = "sha512-ZRexfzs7MVoLnmzZmNsO4TKhnAJp5D++Vm6PpUpH/jEQQlemp3l88CjZ+DoZ2faM9R4QxZkOPJCoT8DlPhfQ3A=="

SIDE = 32
COLUMNS = 12  # two skin-tone families a row: 2 % smaller than 62 columns
TEST_SHARE = 0.10
SPLIT_SALT = "smalti emoji split 1"
LOOKS_THE_SAME = 10.0  # root mean square error, premultiplied RGBA, 0..255: flags of Romania and Chad have 8

TONES = {
    0x1F3FB: "light skin tone",
    0x1F3FC: "medium-light skin tone",
    0x1F3FD: "medium skin tone",
    0x1F3FE: "medium-dark skin tone",
    0x1F3FF: "dark skin tone",
}
JOINER, PICTURE_SELECTOR = 0x200D, 0xFE0F
# Boy, girl, man, woman, blond, older man, older woman, baby, adult, child, older adult, bearded: one symbol.
PEOPLE = {
    *(0x1F466, 0x1F467, 0x1F468, 0x1F469, 0x1F471, 0x1F474),
    *(0x1F475, 0x1F476, 0x1F9D1, 0x1F9D2, 0x1F9D3, 0x1F9D4),
}
# Female, male, facing right, red hair, curly hair, bald, white hair.
TRAITS = {0x2640, 0x2642, 0x27A1, 0x1F9B0, 0x1F9B1, 0x1F9B2, 0x1F9B3}

# What the code points do not say: separate characters for one thing in another gender, direction or detail.
SAME = {
    "family": ["1f46a"],
    "couple with heart": ["1f491", "person-2764-person"],
    "kiss": ["1f48f", "person-2764-1f48b-person"],
    "holding hands": ["1f46b", "1f46c", "1f46d", "person-1f91d-person"],
    "royalty": ["1f934", "1f478", "1fac5"],
    "christmas": ["1f385", "1f936", "person-1f384"],
    "pregnant": ["1f930", "1fac3", "1fac4"],
    "feeding baby": ["1f931", "person-1f37c"],
    "dancing": ["1f483", "1f57a"],
    "restroom sign": ["1f6b9", "1f6ba", "1f6bb"],
    "ear": ["1f442", "1f9bb"],
    "fist from the side": ["1f91b", "1f91c"],
    "pointing backhand": ["1f446", "1f447", "1f448", "1f449"],
    "hand from the side": ["1faf1", "1faf2"],
    "hand flat": ["1faf3", "1faf4"],
    "hand pushing": ["1faf7", "1faf8"],
    "skin tone": ["1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff"],
    "arrow": ["2b05", "2b06", "2b07", "27a1", "2196", "2197", "2198", "2199"],
    "star of david": ["2721", "1f52f"],
    "imp": ["1f608", "1f47f"],
}
NAME_OF_KEY = {key: name for name, keys in SAME.items() for key in keys}


class Tile(NamedTuple):
    """One emoji before it is drawn into the mosaic."""

    code: str
    name: str
    category: str
    subcategory: str
    group: str
    image: str


def group_key(unified: str) -> str:
    """The identity of a base emoji, without gender, age, skin tone, hair and direction.

    Args:
        unified: the code points in hexadecimal, joined by "-"; for a skin variant those of its base emoji.

    Returns:
        A readable name for a known family, else the code points that are left, e.g. "1f3c3" for every runner.
    """
    points = [int(point, 16) for point in unified.split("-")]
    joined = JOINER in points
    dropped = {JOINER, PICTURE_SELECTOR} | (set(TONES) | TRAITS if joined else set())
    left = [point for point in points if point not in dropped]
    if not joined and len(left) > 1:
        left = [point for point in left if point not in TONES]
    words = ["person" if point in PEOPLE else f"{point:x}" for point in left]
    if 0x20E3 in points:
        return "keycap"
    if 0x1F550 <= points[0] <= 0x1F567:
        return "clock face"
    if len(words) > 1 and set(words) == {"person"}:
        return "family"
    if joined and words[0] != "person":
        words = words[:1]  # black cat = cat, lime = lemon, head shaking = smiling face
    key = "-".join(words)
    return NAME_OF_KEY.get(key, key)


def side_of(group: str) -> str:
    """ "test" for about one group in ten, decided by the group's name alone."""
    digest = hashlib.sha256(f"{SPLIT_SALT}:{group}".encode()).digest()
    return "test" if int.from_bytes(digest[:8], "big") < TEST_SHARE * 2**64 else "train"


def readable(name: str) -> str:
    """Unicode shouts its names; flags are written normally and keep their capitals."""
    return name.lower() if name == name.upper() else name


def tiles(entries: list[dict]) -> Iterator[Tile]:
    """Every emoji with a Google picture, each followed by its skin-tone variants, in Unicode's order."""
    for entry in sorted(entries, key=lambda entry: entry["sort_order"]):
        group = group_key(entry["unified"])
        for tone, variant in [("", entry), *entry.get("skin_variations", {}).items()]:
            if not variant["has_img_google"]:
                continue
            name = readable(entry["name"])
            if tone:
                name += ": " + ", ".join(TONES[int(part, 16)] for part in tone.split("-"))
            yield Tile(
                variant["unified"].lower(), name, entry["category"], entry["subcategory"], group, variant["image"]
            )


def halve(image: np.ndarray) -> np.ndarray:
    """Average 2x2 pixels with premultiplied alpha.

    Args:
        image: (64, 64, 4) uint8, straight alpha.

    Returns:
        (32, 32, 4) uint8, straight alpha; colour is 0 where alpha is 0.
    """
    if image.shape != (2 * SIDE, 2 * SIDE, 4):
        raise SystemExit(f"a picture has shape {image.shape}, expected (64, 64, 4): is this the 64-pixel folder?")
    colour, alpha = image[..., :3].astype(np.int64), image[..., 3:].astype(np.int64)
    weighted = (colour * alpha).reshape(SIDE, 2, SIDE, 2, 3).sum(axis=(1, 3))
    weight = alpha.reshape(SIDE, 2, SIDE, 2, 1).sum(axis=(1, 3))
    # Integers with rounding to nearest, so that every machine builds the same bytes.
    straight = (2 * weighted + weight) // np.maximum(2 * weight, 1)
    result = np.concatenate([straight, (weight + 2) // 4], axis=-1).astype(np.uint8)
    result[result[..., 3] == 0] = 0
    return result


def turns(images: np.ndarray) -> Iterator[np.ndarray]:
    """The pictures in all eight ways a square can be turned and mirrored. images: (N, H, W, C)."""
    for mirrored in (images, images[:, :, ::-1]):
        for quarter in range(4):
            yield np.rot90(mirrored, quarter, axes=(1, 2))


def merge_lookalikes(images: np.ndarray, groups: list[str]) -> list[str]:
    """Join groups that hold pictures which look the same, also when turned or mirrored.

    Args:
        images: (N, 32, 32, 4) uint8.
        groups: N group names.

    Returns:
        N group names; a joined group has the first of its names in the alphabet.
    """
    parent = {group: group for group in groups}

    def root(group: str) -> str:
        while parent[group] != group:
            group = parent[group]
        return group

    seen = images.astype(np.float32)
    seen[..., :3] *= seen[..., 3:] / 255
    flat = seen.reshape(len(seen), -1)
    energy = (flat * flat).sum(axis=1)
    limit = LOOKS_THE_SAME**2 * flat.shape[1]
    for turned in turns(seen):
        distance = energy[:, None] + energy[None] - 2 * flat @ turned.reshape(len(seen), -1).T
        for i, j in np.argwhere(distance < limit):
            first, second = sorted((root(groups[i]), root(groups[j])))
            parent[second] = first
    return [root(group) for group in groups]


def mosaic(images: np.ndarray) -> np.ndarray:
    """(N, 32, 32, 4) tiles as one (rows * 32, COLUMNS * 32, 4) picture; unused tiles are transparent."""
    rows = -(-len(images) // COLUMNS)
    filled = np.zeros((rows * COLUMNS, SIDE, SIDE, 4), np.uint8)
    filled[: len(images)] = images
    return filled.reshape(rows, COLUMNS, SIDE, SIDE, 4).swapaxes(1, 2).reshape(rows * SIDE, COLUMNS * SIDE, 4)


def npm_pack(folder: Path) -> Path:
    """Fetch the pinned package and compare it with the registry's published digest."""
    subprocess.run(["npm", "pack", f"{PACKAGE}@{VERSION}"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    archive = folder / f"{PACKAGE}-{VERSION}.tgz"
    found = "sha512-" + base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if found != INTEGRITY:
        raise SystemExit(f"{archive.name} has digest {found}, expected {INTEGRITY}")
    return archive


def opener(source: Path, stack: list[tarfile.TarFile]) -> Callable[[str], bytes]:
    """A function that reads one file of the package, from a folder or from a tarball."""
    if source.is_dir():
        return lambda name: (source / name).read_bytes()
    archive = tarfile.open(source)  # noqa: SIM115  closed by the caller, through `stack`
    stack.append(archive)
    # A gzip stream is cheap to read forwards only, so the pictures are read once, in the archive's order.
    wanted = re.compile(r"package/(emoji\.json|package\.json|img/google/64/[^/]+\.png)")
    content = {
        member.name.removeprefix("package/"): archive.extractfile(member).read()  # type: ignore[union-attr]
        for member in archive
        if wanted.fullmatch(member.name)
    }
    return content.__getitem__


def build(source: Path, target: Path) -> None:
    """Write emoji.webp and emoji.tsv into `target`, and their digests into emoji.py there."""
    stack: list[tarfile.TarFile] = []
    try:
        read = opener(source, stack)
        version = json.loads(read("package.json"))["version"]
        if version != VERSION:
            raise SystemExit(f"{source} is version {version}, expected {VERSION}")
        rows = list(tiles(json.loads(read("emoji.json"))))
        images = np.stack(
            [
                halve(np.asarray(Image.open(io.BytesIO(read(f"img/google/64/{row.image}"))).convert("RGBA")))
                for row in rows
            ]
        )
    finally:
        for archive in stack:
            archive.close()

    groups = merge_lookalikes(images, [row.group for row in rows])
    lines = ["code\tname\tcategory\tsubcategory\tgroup\tsplit"]
    lines += [
        "\t".join((row.code, row.name, row.category, row.subcategory, group, side_of(group)))
        for row, group in zip(rows, groups, strict=True)
    ]
    table = ("\n".join(lines) + "\n").encode()
    encoded = io.BytesIO()
    # exact=False lets the coder choose the invisible colours; emoji.py sets them to 0 again.
    Image.fromarray(mosaic(images)).save(encoded, "WEBP", lossless=True, quality=100, method=6, exact=False)
    picture = encoded.getvalue()

    (target / "emoji.tsv").write_bytes(table)
    (target / "emoji.webp").write_bytes(picture)
    module = target / "emoji.py"
    text = module.read_text(encoding="utf-8")
    for name, content in (("PICTURE", picture), ("TABLE", table)):
        line = f'{name}_SHA256 = "{hashlib.sha256(content).hexdigest()}"'
        text, count = re.subn(rf'^{name}_SHA256 = "[0-9a-f]*"$', line, text, flags=re.MULTILINE)
        if count != 1:
            raise SystemExit(f"{module} has no line {name}_SHA256 to put the digest in")
    module.write_text(text, encoding="utf-8")

    sides = [side_of(group) for group in groups]
    print(f"{len(rows)} emoji in {len(set(groups))} groups, {sides.count('test')} in the test part")
    print(f"emoji.webp {len(picture):,} bytes, emoji.tsv {len(table):,} bytes")


def main() -> None:
    """Read the one optional argument and build."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, nargs="?", help="the package as .tgz or unpacked; default: npm pack")
    parser.add_argument("--target", type=Path, default=Path(__file__).parents[1] / "src/smalti/data")
    arguments = parser.parse_args()
    if arguments.source is not None:
        build(arguments.source, arguments.target)
        return
    with tempfile.TemporaryDirectory() as folder:
        build(npm_pack(Path(folder)), arguments.target)


if __name__ == "__main__":
    main()
