"""Summary of a checkpoint file, as plain values."""

from __future__ import annotations

import os
from typing import Any

from smalti.checkpoint import file as checkpoint
from smalti.checkpoint.find import find_checkpoint
from smalti.config.parse import to_plain


def summarize(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Summarise a checkpoint: its card, the size of its network, its settings.

    Args:
        path: a run folder (its last save), a checkpoint file, or `zoo:NAME`.

    Returns:
        JSON-compatible values, except for infinities and NaN among the scores: `kind`, `preset`, `image`,
        `images_seen`, `parameters`, `digest`, ...; `config` holds the settings as nested tables.

    Raises:
        CheckpointError: there is no such model; or the file cannot be read, is damaged, or is not a checkpoint.
    """
    file = find_checkpoint(path)
    module, card = checkpoint.read(file)
    about: dict[str, Any] = {
        "file": str(file),
        "kind": card.kind,
        "preset": card.config.preset,
        card.spec.kind: "x".join(map(str, card.spec.shape)) + LAYOUTS.get(card.spec.kind, ""),
        "images_seen": card.images_seen,
        "parameters": sum(parameter.numel() for parameter in module.parameters()),
        "size_bytes": file.stat().st_size,
        "data": dict(card.data),
        "classes": list(card.classes),
        "score": dict(card.score),
        "license": card.license,
        "smalti": card.version,
        "digest": card.digest,
    }
    if card.tokenizer is not None:
        about["tokenizer"] = card.tokenizer.digest
    return about | {"config": to_plain(card.config)}


# Layout of the shape, by kind of spec.
LAYOUTS = {
    "image": " (channels x height x width)",
    "codes": " (planes x grid height x grid width)",
    "audio": " (channels x samples)",
}
