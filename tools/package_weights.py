"""Make the weights that come with smalti from a run: float16, with a card that says what they are.

python tools/package_weights.py runs/eye src/smalti/features/weights/smalti-vit.safetensors
python tools/package_weights.py runs/thumb src/smalti/zoo/thumb.safetensors --license Apache-2.0
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from smalti.checkpoint import file as checkpoint
from smalti.checkpoint.find import find_checkpoint


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder or checkpoint")
    parser.add_argument("out", type=Path)
    parser.add_argument("--license", help="of the weights; by default that of the run")
    arguments = parser.parse_args()
    module, card = checkpoint.read(find_checkpoint(arguments.run))
    if arguments.license is not None:
        card = dataclasses.replace(card, license=arguments.license)
    card = checkpoint.write(arguments.out, module, card, half=True)
    print(f"{arguments.out}: {arguments.out.stat().st_size / 2**20:.2f} MiB, digest {card.digest}")


if __name__ == "__main__":
    main()
