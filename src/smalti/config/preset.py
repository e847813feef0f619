"""What a preset is. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from smalti.config.run import RunConfig


@dataclass(frozen=True)
class Preset:
    """A named configuration.

    Attributes:
        config: the settings.
        about: one-line description.
        measured: measured scores with data, split and images seen; "" if not measured.
    """

    config: RunConfig
    about: str
    measured: str = ""
