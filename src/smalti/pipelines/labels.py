"""Conversion of class names to class numbers."""

from __future__ import annotations

from smalti.checkpoint.file import Card
from smalti.errors import ConfigError, arg, did_you_mean


def class_number(label: str | None, card: Card, *, classes: int, owner: object, setting: tuple[str, str]) -> int | None:
    """The number of a class name; None if no label is given.

    Args:
        classes: number of classes of the network, 0 if it is unconditional.
        owner: the model's file, for messages.
        setting: name and value of the setting that makes a model conditional.

    Raises:
        ConfigError: the model is unconditional, or has no such class.
    """
    if label is None:
        return None
    if not classes:
        raise ConfigError(
            f"{owner} was trained without labels, so {arg('label', label)} means nothing to it; "
            f"leave it out, or train with {arg(*setting)}"
        )
    if label not in card.classes:
        raise ConfigError(f"{owner} knows no label {label!r}; {did_you_mean(label, card.classes)}")
    return card.classes.index(label)
