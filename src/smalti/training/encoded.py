"""Codes to train on, of images that a trained VQ-VAE encodes first."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path

from smalti.checkpoint.run_dir import RunFolder
from smalti.config.data import DataConfig
from smalti.data.codes import WHOLE, is_code_set
from smalti.data.loading import cache_folder
from smalti.data.opening import WORDS, expanded
from smalti.errors import CheckpointError, ConfigError, DataError, arg
from smalti.pipelines.autoencoder import Autoencoder
from smalti.pipelines.encoding import Progress, encode_split, open_splits
from smalti.runtime.distributed import raise_together, rank


def images_of(model: Autoencoder) -> DataConfig:
    """The images that a model was trained on, as the settings in its run folder say.

    A checkpoint itself names its source without the folder. It is looked for in the working folder if the checkpoint
    is not in its run folder.

    Raises:
        DataError: they are not there.
    """
    found = model.card.config
    folder = RunFolder(model.path.parent)
    if folder.config.exists():
        try:
            run = folder.read_config()
        except CheckpointError:  # another program's config.json
            run = found
        named = dataclasses.replace(run.data, source=Path(run.data.source).name)
        found = run if (run.model, named) == (found.model, found.data) else found
    source = found.data.source
    if source not in WORDS and not expanded(source).exists():
        raise DataError(
            f"{model.path} was trained on {source}, which is not there; give {arg('data', 'SOURCE')}, images whose "
            "codes are to be learned"
        )
    return found.data


def encode_for_training(
    model: Autoencoder,
    images: DataConfig,
    *,
    cache: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Encode all splits of a source to a folder in the cache, or find them there. All ranks must call it together.

    Args:
        images: source, size, rule of resizing, and whether to encode mirrored training images, too.
        cache: folder for packed images and codes; None: the user's cache folder.
        progress: called on rank 0 with (images done, images in total or None), for each stage of the work in turn.

    Returns:
        The folder of the code set, which depends on the model and the images alone.

    Raises:
        ConfigError, DataError: the images cannot be read, or not by this model, or they are codes.
        OutputError: the cache cannot be written.
    """
    if is_code_set(Path(images.source)):
        raise ConfigError(f"{images.source} holds codes already; leave {arg('of')} out, or give images")
    with raise_together():
        if rank() == 0:
            folder = _encode(model, images, cache_folder(cache), progress)
    with raise_together():
        if rank() != 0:  # rank 0 has encoded everything by now
            folder = _encode(model, images, cache_folder(cache), None)
    return folder


def _encode(model: Autoencoder, images: DataConfig, cache: Path, progress: Progress | None) -> Path:
    sets = open_splits(model, images.source, size=images.size, resize=images.resize, cache=cache, progress=progress)
    key = [model.card.digest, images.flip, *((part.split or WHOLE, part.fingerprint) for part in sets)]
    name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]
    folder = cache / "codes" / name
    for part in sets:
        encode_split(model, part, folder, source=images.source, flip=images.flip, progress=progress)
    return folder
