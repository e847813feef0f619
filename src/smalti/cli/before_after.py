"""What `smalti restore --compare` shows: pictures before and after, and references."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from smalti.cli.outputs import free_to_write
from smalti.errors import ConfigError, DataError

if TYPE_CHECKING:
    import numpy as np

    from smalti.data.pictures import Picture
    from smalti.pipelines.restorer import Restorer
    from smalti.report.restoration_page import Shown


class BeforeAfter:
    """Collects pictures for the page, of which it keeps no more than is shown.

    Args:
        page: the HTML file.
        reference: a picture, or a folder of them with the names that the pictures have; None: no figures.
        pixel_limit: of references.

    Raises:
        ConfigError: the page has another name.
        DataError: there is no such reference.
        OutputError: the page is there already.
    """

    def __init__(self, page: Path, reference: Path | None, *, pixel_limit: int, overwrite: bool) -> None:
        if page.suffix.lower() not in (".html", ".htm"):
            raise ConfigError(f"--compare is {page}, but the page is HTML; give a name that ends in .html")
        free_to_write(page, overwrite)
        if reference is not None and not reference.exists():
            raise DataError(f"there is no {reference}; give --reference a picture, or a folder of NAME.png")
        self.page, self.reference, self.pixel_limit = page, reference, pixel_limit
        self._shown: list[Shown] = []
        self._without: dict[str, str] = {}

    def add(self, name: str, before: Picture, after: Picture) -> None:
        """Add a picture, in 8 bits."""
        from smalti.report.restoration_page import shown

        given, found = _levels(before), _levels(after)
        try:
            reference = None if self.reference is None else self._reference(name, found.shape[:2])
        except DataError as error:
            reference, self._without[name] = None, error.message
        self._shown.append(shown(name, given, found, reference))

    def write(self, models: Sequence[Restorer], strength: float) -> None:
        """Write the page.

        Raises:
            OutputError: it cannot be written.
        """
        from smalti.report.restoration_page import restoration_page

        named = [(str(model.path), model.degradation) for model in models]
        page = restoration_page(self._shown, models=named, strength=strength, without=self._without)
        page.write(self.page)

    def _reference(self, name: str, size: tuple[int, ...]) -> np.ndarray:
        from smalti.data.pictures import read_picture
        from smalti.data.sources import IMAGE_EXTENSIONS

        assert self.reference is not None
        path = self.reference
        if path.is_dir():
            stem = path / PurePosixPath(name).with_suffix("")
            names = [path / name, *(stem.with_name(f"{stem.name}.{ending}") for ending in sorted(IMAGE_EXTENSIONS))]
            found = next((candidate for candidate in names if candidate.is_file()), None)
            if found is None:
                raise DataError(f"there is no reference {stem}.png for it")
            path = found
        reference = _levels(read_picture(path, metadata=False, pixel_limit=self.pixel_limit))
        if reference.shape[:2] != size:
            raise DataError(
                f"its reference {path} has {reference.shape[0]}x{reference.shape[1]} pixels, the result "
                f"{size[0]}x{size[1]}"
            )
        return reference


def _levels(picture: Picture) -> np.ndarray:
    """(H, W, C) uint8."""
    from smalti.data.pictures import eight_bits

    return eight_bits(picture.pixels)
