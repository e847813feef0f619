"""Make the weights that come with smalti from a run: float16, with a card that says what they are.

python tools/package_weights.py runs/eye src/smalti/features/weights/smalti-vit.safetensors
"""

from __future__ import annotations

import argparse
from pathlib import Path

from smalti.checkpoint import file as checkpoint
from smalti.pipelines import base as api


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder or checkpoint")
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    module, card = checkpoint.read(api.find_checkpoint(arguments.run))
    card = checkpoint.write(arguments.out, module, card, half=True)
    print(f"{arguments.out}: {arguments.out.stat().st_size / 2**20:.2f} MiB, digest {card.digest}")


if __name__ == "__main__":
    main()
