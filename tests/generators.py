"""Generators of 16x16 pictures that nobody trained: their weights are random, and so are their pictures."""

from __future__ import annotations

from pathlib import Path

import torch
from networks import strong
from small_runs import small_config

from smalti.checkpoint import file as checkpoint
from smalti.data.spec import ImageSpec


def write_generator(path: Path, *assignments: str, channels: int = 3, classes: tuple[str, ...] = ()) -> Path:
    """A checkpoint file of `gan-nano`, small; with class names it draws by label."""
    if classes:
        assignments = (*assignments, "model.conditional=true")
    config = small_config("gan-nano", *assignments)
    card = checkpoint.Card("gan", config, ImageSpec(channels, 16, 16), classes, images_seen=0, data={})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        # As they begin, the networks draw all but the same picture from every latent.
        module = strong(checkpoint.build(card))
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.write(path, module.eval(), card)
    return path
