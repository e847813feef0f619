"""The options that every form of `smalti evaluate` shares. Imports no torch: the command line reads it for its help."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

Resize = Literal["cover", "contain", "stretch"]
Features = Literal["efficientnet-lite0", "inception", "dinov2", "smalti-vit"]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Measuring:
    """How features are taken.

    Parameters
    ----------
    features:
        Network whose features are compared. efficientnet-lite0 comes with smalti[bench], dinov2 with smalti[dinov2];
        inception gives FID; smalti-vit is our own, and needs nothing but smalti.
    weights:
        File or folder of the network's weights; for smalti-vit any run of that preset. Default: its own place.
    download:
        Fetch weights that are missing.
    feature_size:
        Pixels along both sides of what the network sees. Default: its own size.
    precision:
        bfloat16 is faster; figures of the two are not comparable.
    seed:
        Decides every random number.
    device:
        auto, cpu, cuda, cuda:1, mps.
    cache:
        Folder for packed images and features. Default: the user's cache folder.
    """

    features: Features = "efficientnet-lite0"
    weights: Path | None = None
    download: Annotated[bool, Parameter(negative=())] = False
    feature_size: int | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    seed: int = 0
    device: str = "cpu"
    cache: Path | None = None


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Reading:
    """How images are read.

    Parameters
    ----------
    split:
        Split that figures are taken on. Default: test or val where the source has one, else everything.
    size:
        Size to bring every image to: 64, or 48x64 (height x width).
    resize:
        cover fills and crops the middle, contain fits and pads, stretch distorts.
    channels:
        1 grey, 3 RGB, 4 RGBA. Default: what the images have.
    """

    split: str | None = None
    size: str | None = None
    resize: Resize = "cover"
    channels: Literal[1, 3, 4] | None = None


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Writing:
    """Where the record goes.

    Parameters
    ----------
    out:
        Name of the record, ending in .json: every figure with its interval and its whole protocol.
    report:
        Name of an HTML page with the figures and pictures, in one file.
    overwrite:
        Replace files that are there.
    """

    out: Path = Path("evaluation.json")
    report: Path | None = None
    overwrite: Annotated[bool, Parameter(negative=())] = False
