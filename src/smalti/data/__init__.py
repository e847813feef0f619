"""Data sets: load images from almost anywhere, look at what a source holds, open the codes of images.

    images = smalti.datasets.load("photos.zip", size=64)    # packed on disk once, then memory-mapped
    batch = images.batch(seed=0, images_seen=0, count=64)   # batch.images: (64, 64, 64, 3) uint8
    summary = smalti.datasets.inspect("photos.zip")         # sizes, classes, splits, broken files
    pixels = smalti.datasets.to_array("cat.jpg", channels=3)  # (H, W, 3) uint8
    pairs = smalti.datasets.load_pairs("bad/", "good/")     # matched by name, to learn the way from one to the other
    codes = smalti.datasets.open_codes("codes")             # codes that a VQ-VAE has written

Images are uint8, channels last. Nothing here imports torch.
"""

from __future__ import annotations

from smalti.data.codes import CodeBatch, CodesAbout, CodeSet, open_codes
from smalti.data.dataset import Dataset
from smalti.data.images import ImageLike, to_array
from smalti.data.inspection import Summary, inspect
from smalti.data.loading import default_cache_folder, load
from smalti.data.packed import AugmentedImages, Batch, PackedImages
from smalti.data.pairs import PairBatch, PairedImages, load_pairs
from smalti.data.pictures import Picture, read_picture
from smalti.data.spec import AudioSpec, CodeSpec, ImageSpec, Spec

__all__ = [
    "AudioSpec",
    "AugmentedImages",
    "Batch",
    "CodeBatch",
    "CodeSet",
    "CodeSpec",
    "CodesAbout",
    "Dataset",
    "ImageLike",
    "ImageSpec",
    "PackedImages",
    "PairBatch",
    "PairedImages",
    "Picture",
    "Spec",
    "Summary",
    "default_cache_folder",
    "inspect",
    "load",
    "load_pairs",
    "open_codes",
    "read_picture",
    "to_array",
]
