"""Images from anywhere, packed once, read at random.

packed = smalti.data.load("photos.zip", size=64)
batch = packed.batch(seed, images_seen, 64)       # uint8 (64, 64, 64, 3)
"""

from __future__ import annotations

from smalti.data.inspection import Summary, inspect
from smalti.data.loading import default_cache_folder, load
from smalti.data.packed import Batch, PackedImages

__all__ = ["Batch", "PackedImages", "Summary", "default_cache_folder", "inspect", "load"]
