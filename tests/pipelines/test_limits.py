"""How many images are held at once, and how many fit into one file."""

from __future__ import annotations

import pytest

from smalti.errors import ConfigError
from smalti.pipelines.limits import CHUNK, CHUNK_PIXELS, PIXEL_LIMIT, check_pixels, together


@pytest.mark.parametrize(("side", "count"), [(8, CHUNK), (1024, CHUNK_PIXELS // 2**20), (16384, 1)])
def test_the_larger_the_images_the_fewer_at_once(side: int, count: int) -> None:
    assert together((3, side, side)) == count


def test_one_file_holds_so_many_pixels() -> None:
    check_pixels((3, 1024, 1024), PIXEL_LIMIT // 2**20)
    with pytest.raises(ConfigError, match=r"one file holds at most 268 million, 256 pictures; draw fewer, or") as found:
        check_pixels((3, 1024, 1024), PIXEL_LIMIT // 2**20 + 1)
    assert found.value.arguments == ("out",)
    with pytest.raises(ConfigError, match=r"256 pictures; draw fewer at once$"):
        check_pixels((3, 1024, 1024), 257, "fewer at once")
