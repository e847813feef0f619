"""Train in two sittings, in one process or in several.

    python examples/resume_and_distribute.py photos/ --out runs/one
    torchrun --nproc-per-node 2 examples/resume_and_distribute.py photos/ --out runs/two

torchrun starts this script once for each GPU (or as often as you like on a CPU), with RANK and WORLD_SIZE in the
environment. Each process computes its share of every batch, so the batch size must be divisible by their number; rank 0
writes the run's folder. A run begun by one process can be continued by several, and the other way round.
"""

from __future__ import annotations

import argparse
import os
import sys

import torch
from torch import distributed

import smalti


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", help="a folder or an archive of images, or emoji")
    parser.add_argument("--out", default="runs/two", help="folder of the run")
    parser.add_argument("--count", type=int, default=20_000, help="training images of each sitting")
    parser.add_argument("--set", action="append", default=[], help="a setting, such as train.batch=64")
    options = parser.parse_args()

    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if several:
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    first = int(os.environ.get("RANK", "0")) == 0

    if several and not first:
        distributed.barrier()  # rank 0 packs the images into the cache, then the others open them
    data = smalti.datasets.load(options.images, size=32, channels=3)
    if several and first:
        distributed.barrier()

    for sitting in (1, 2):  # the second call finds the run's folder and continues there, as it would after a crash
        config = smalti.override(smalti.preset("vqvae"), [*options.set, f"train.images={sitting * options.count}"])
        result = smalti.train(config, data, options.out)
        if first:
            print(f"sitting {sitting}: {result.reason} at {result.images_seen:,} images, {result.score}")
    if several:
        distributed.destroy_process_group()
        # Threads of torch's communication can abort Python's own teardown, and torchrun would report a failure.
        sys.stdout.flush()
        os._exit(0)


if __name__ == "__main__":
    main()
