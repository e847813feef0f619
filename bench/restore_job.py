"""A folder job that is killed again and again, beside one that is left alone.

    python bench/restore_job.py RESTORER [--pictures 1000] [--kills 20] [--seed 0]

`smalti restore` works on a folder tree of emoji on clouds in PNG, JPEG and WebP; it is killed with SIGKILL at random
moments, counted in pictures, and started again with the same command. The result must be that of an undisturbed run
byte by byte: the same files, and no others, not even hidden temporary files of the killed processes.
Writes results/restore_job.json.
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import machine
import numpy as np
from PIL import Image

from smalti import data

ENDINGS = ("png", "jpg", "webp")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("restorer")
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_pictures(folder / "in", options.pictures)
        command = [sys.executable, "-m", "smalti", "restore", options.restorer, str(folder / "in"), "--out"]
        subprocess.run([*command, str(folder / "whole")], check=True, capture_output=True)
        moments = sorted(random.Random(options.seed).sample(range(1, options.pictures), options.kills))
        for moment in moments:
            kill_after([*command, str(folder / "parts")], folder / "parts", moment)
        before = hidden(folder / "parts")
        subprocess.run([*command, str(folder / "parts")], check=True, capture_output=True)
        left = hidden(folder / "parts")
        wanted, found = contents(folder / "whole"), contents(folder / "parts")
        same = sum(found.get(name) == data for name, data in wanted.items())
        shutil.rmtree(folder / "in")
    result = {
        "pictures": len(wanted), "kills": len(moments), "identical": same, "other_files": len(found.keys() - wanted),
        "temporary_files_before_the_last_run": before, "temporary_files_left": left,
    }  # fmt: skip
    machine.table([(name.replace("_", " "), f"{value:,}") for name, value in result.items()])
    machine.write("restore_job", {"results": result})
    if same != options.pictures or result["other_files"] or left:
        sys.exit("the results differ")


def write_pictures(folder: Path, count: int) -> None:
    """Emoji of 32 to 96 pixels over clouds, in ten folders."""
    emoji = data.load("emoji", size=(96, 96), channels=4)
    for number in range(count):
        pixels = emoji.take(np.array([number % len(emoji)])).images[0]
        generator = np.random.default_rng(number)
        side = int(generator.integers(32, 97))
        clouds = Image.fromarray(generator.integers(0, 256, (4, 4, 3)).astype(np.uint8)).resize((side, side))
        figure = Image.fromarray(pixels).resize((side, side))
        clouds.paste(figure, mask=figure.getchannel("A"))
        path = folder / f"{number % 10}" / f"{number}.{ENDINGS[number % 3]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        clouds.save(path)


def kill_after(command: list[str], folder: Path, pictures: int) -> None:
    """Start the job, and kill it when so many pictures are there."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and len(list(folder.rglob("[!.]*.*"))) < pictures:
        time.sleep(0.002)
    process.kill()
    process.wait()


def hidden(folder: Path) -> int:
    return sum(path.is_file() for path in folder.rglob(".*"))


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


if __name__ == "__main__":
    main()
