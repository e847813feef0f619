"""Remove hidden units of a codec's context nets that never respond, so that the file gets smaller.

python tools/prune_context.py runs/thumb SOURCE OUT.safetensors --width 184 --license Apache-2.0

Units are ranked by the spread of their activation over training images times the norm of their outgoing weights; the
mean of what is removed goes into the biases. Prints how many bits that costs, on codes of these images. Writes float16.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from smalti import data
from smalti.checkpoint import file as checkpoint
from smalti.checkpoint.find import find_checkpoint
from smalti.config.codec import CodecConfig
from smalti.data.order import evenly_spread
from smalti.models.codec.codec import ImageCodec
from smalti.models.codec.context import LARGEST, GroupNet
from smalti.models.codec.search import search
from smalti.runtime.pixels import premultiplied, to_tensor


@torch.no_grad()
def pruned(net: GroupNet, inputs: Tensor, t: Tensor, width: int) -> dict[str, Tensor]:
    """The weights of a net with `width` hidden units in each layer."""
    first = F.relu(net.first_bias(t) + (net.first(inputs) if net.inputs else 0)).clamp(max=LARGEST)
    second = F.relu(net.second(first)).clamp(max=LARGEST)
    ranks = [
        (layer.std(dim=0) * weight.norm(dim=0)).argsort(descending=True)
        for layer, weight in ((first, net.second.weight), (second, net.last.weight))
    ]
    (kept, gone), (kept2, gone2) = ((order[:width].sort().values, order[width:]) for order in ranks)
    second_bias = net.second.bias + net.second.weight[:, gone] @ first.mean(dim=0)[gone]
    last_bias = net.last_bias.weight.clone()
    last_bias[0] += net.last.weight[:, gone2] @ second.mean(dim=0)[gone2]
    return {
        "first.weight": net.first.weight[kept],
        "first_bias.weight": net.first_bias.weight[:, kept],
        "second.weight": net.second.weight[kept2][:, kept],
        "second.bias": second_bias[kept2],
        "last.weight": net.last.weight[:, kept2],
        "last_bias.weight": last_bias,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("source")
    parser.add_argument("out", type=Path)
    parser.add_argument("--width", type=int, required=True)
    parser.add_argument("--license", required=True)
    parser.add_argument("--images", type=int, default=200)
    options = parser.parse_args()
    module, card = checkpoint.read(find_checkpoint(options.run))
    codec, config = cast(ImageCodec, module), cast(CodecConfig, card.config.model)
    channels, height, width = card.image.shape
    resize = card.config.data.resize
    images = data.load(options.source, split="train", size=(height, width), channels=channels, resize=resize)
    pixels = premultiplied(to_tensor(images.take(evenly_spread(len(images), options.images)).images))
    quality = torch.linspace(config.quality_low, config.quality_high, len(pixels)).round()
    codes = search(codec, codec.padded(pixels), quality, rounds=config.rounds, rate_weight=config.rate_weight)
    seen: list[tuple[Tensor, ...]] = []  # inputs of the nets
    for net in codec.context.nets:
        net.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    before = float(codec.distribution(codes, quality).bits(codes).sum())

    tensors = dict(module.state_dict())
    for number, (net, (inputs, _, t)) in enumerate(zip(codec.context.nets, seen, strict=True)):
        found = pruned(cast(GroupNet, net), inputs, t, options.width)
        tensors |= {f"context.nets.{number}.{name}": value for name, value in found.items()}
    smaller = dataclasses.replace(config, context=dataclasses.replace(config.context, width=options.width))
    card = dataclasses.replace(card, config=dataclasses.replace(card.config, model=smaller), license=options.license)
    result = cast(ImageCodec, checkpoint.build(card))
    result.load_state_dict(tensors)
    with torch.no_grad():
        after = float(result.eval().distribution(codes, quality).bits(codes).sum())
    card = checkpoint.write(options.out, result, card, half=True)
    size = options.out.stat().st_size / 1e6
    print(f"{options.out}: {size:.2f} MB, digest {card.digest}, {after / before - 1:+.4%} bits")


if __name__ == "__main__":
    main()
