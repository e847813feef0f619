"""What a setting may be: values that its field allows."""

from __future__ import annotations

import dataclasses
from typing import Any

from hypothesis import strategies as st

from smalti.config.parse import paths
from smalti.config.run import RunConfig


def field_of(config: Any, path: str) -> dataclasses.Field[Any]:
    *parents, leaf = path.split(".")
    for parent in parents:
        config = getattr(config, parent)
    return next(entry for entry in dataclasses.fields(config) if entry.name == leaf)


def values_of(config: RunConfig, path: str) -> st.SearchStrategy[Any]:
    """Values that fit a setting."""
    entry, current = field_of(config, path), paths(config)[path]
    if path.endswith(".stride"):
        return st.sampled_from([2, 4, 8, 16, 32])
    if path.endswith("encoder.heads"):
        return st.sampled_from([1, 2, 4])
    if path.endswith("encoder.width"):
        return st.integers(2, 2048).map(lambda width: 4 * width)  # which the heads must be able to share
    if path.endswith(".channels"):
        return st.sampled_from([None, 1, 3, 4])
    if path == "data.crop":
        return st.none() | st.integers(1, 16384)
    if path == "model.freeze_encoder_at":
        return st.none() | st.integers(0, 10**12)
    if path.endswith("quantizer.projection"):
        return st.none() | st.integers(1, 4096)
    if path.endswith("adversary.inputs"):
        return st.just("pixels")  # features ask for a perceptual distance
    if path.endswith("quantizer.gradient"):
        return st.sampled_from(["straight-through", "rotation"])  # the third one needs update=gradient
    if path.endswith(".patch"):
        return st.sampled_from([1, 2])  # which no stride is smaller than
    if path.endswith(".levels"):
        return st.lists(st.integers(2, 16), min_size=1, max_size=5).map(tuple)
    if path.endswith(("quantizer.name", "layer.name")):
        return st.just(current)  # another one changes which paths there are
    if path.endswith(".size"):
        return st.none() | st.tuples(st.integers(1, 16384), st.integers(1, 16384))
    if "choices" in entry.metadata:
        return st.sampled_from(entry.metadata["choices"])
    if isinstance(current, bool):
        return st.booleans()
    if "low" in entry.metadata:
        low, high = entry.metadata["low"], entry.metadata["high"]
        if isinstance(current, int):
            return st.integers(int(low), int(high))
        return st.floats(low, high) | (st.none() if current is None else st.nothing())
    words = st.text(st.characters(min_codepoint=48, max_codepoint=122), min_size=1, max_size=8)
    return words.filter(lambda text: text not in ("null", "None")) | (st.none() if current is None else st.nothing())
