"""Use one of smalti's quantizers in a network and a training loop of your own.

    python examples/quantizer_as_a_layer.py photos/ --codes 256 --steps 1000

The layer needs nothing else of smalti: latents go in, quantized values, codes and a loss come out. While the layer is
in training mode it updates its codebook by itself, and replaces codes that are no longer used.
"""

from __future__ import annotations

import argparse

import torch
from torch import nn
from torch.nn import functional as F

import smalti
from smalti.quantize import VectorQuantizer, perplexity


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", help="a folder or an archive of images, or emoji")
    parser.add_argument("--codes", type=int, default=256, help="size of the codebook")
    parser.add_argument("--steps", type=int, default=1000)
    options = parser.parse_args()

    data = smalti.datasets.load(options.images, size=32, channels=3)
    images = torch.from_numpy(data.pixels(range(len(data)))).permute(0, 3, 1, 2).float() / 127.5 - 1  # (N, 3, 32, 32)

    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Conv2d(3, 32, 4, 2, 1), nn.ReLU(), nn.Conv2d(32, 16, 4, 2, 1))
    quantizer = VectorQuantizer(options.codes, 16)  # codes of 16 numbers
    decoder = nn.Sequential(nn.ConvTranspose2d(16, 32, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(32, 3, 4, 2, 1))
    model = nn.ModuleList([encoder, quantizer, decoder])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    for step in range(1, options.steps + 1):
        batch = images[torch.randint(len(images), (32,))]
        quantized = quantizer(encoder(batch))
        error = F.mse_loss(decoder(quantized.values), batch)
        loss = error + quantized.loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 100 == 0 or step == options.steps:
            print(f"step {step}: mean squared error {error.item():.4f}")

    model.eval()
    codes = quantizer.encode(encoder(images[:256]))  # (256, 1, 8, 8) int64
    counts = torch.bincount(codes.flatten(), minlength=options.codes)
    print(f"perplexity {float(perplexity(counts)):.1f} of {options.codes} codes")


if __name__ == "__main__":
    main()
