"""Giving pictures of any size another style with a trained translator."""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

from smalti.data.pictures import Picture
from smalti.pipelines.base import Pipeline
from smalti.pipelines.restorer import Restorer

I = TypeVar("I", bound=Any)


class Translator(Pipeline):
    """Pipeline of a model trained with the recipe `translate`.

    translator = smalti.Translator.from_pretrained("runs/restyle")
    drawn = translator.restyle(photograph)          # in the form of what was given
    """

    missing: ClassVar[str] = "cannot restyle pictures; give a model trained with a preset such as restyle-paired"

    def restyle(
        self, image: I, *, strength: float = 1.0, self_ensemble: bool = False, tile: int | None = None
    ) -> I | Picture:
        """Give an image of any size the style that was learned; the result has the same form and size.

        Args:
            image: as `Restorer.restore` takes it. Alpha is carried over; a grey image gets the colours of the style.
            strength, self_ensemble, tile: as in `Restorer.restore`.

        Raises:
            ConfigError: an argument is out of range, or the image has a form that is not taken.
            DataError: a file cannot be read.
        """
        return self.as_restorer().restore(image, strength=strength, self_ensemble=self_ensemble, tile=tile)

    def as_restorer(self) -> Restorer:
        """The same network behind the methods of a restorer, which brings it to pictures of every form and size."""
        return _AsRestorer(self.module, self.card, self.path, self.device).to(dtype=self.dtype)


class _AsRestorer(Restorer):
    """A translator's network: nothing was degraded, and colours may come from the style."""

    @property
    def degradation(self) -> str:
        return ""

    @property
    def _colours(self) -> bool:
        return True
