"""Finds the codec of a compressed file by the digest that the file states.

Looked at, in this order: the models that were given, checkpoints in the folder of the file, the zoo. Of most of them
only the card is read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import torch

from smalti.checkpoint.file import Card, read_card
from smalti.checkpoint.find import find_checkpoint
from smalti.checkpoint.zoo import PREFIX, zoo_file, zoo_names
from smalti.errors import CheckpointError, CodecError, arg
from smalti.pipelines.base import load, pipeline_class
from smalti.pipelines.picture_codec import PictureCodec, picture_codec


class UnknownModelError(CodecError):
    """A compressed file whose model is not at hand.

    Attributes:
        digest: its first bytes, hexadecimal.
    """

    def __init__(self, source: str, digest: bytes) -> None:
        self.digest = digest.hex()
        super().__init__(
            f"{source} was compressed with the model {self.digest}, which is neither in its folder nor in the zoo; "
            f"give {arg('model', 'FILE')}, the file of the model that compressed it, or copy that beside it"
        )


class CodecFinder:
    """Opens codecs by digest, each once.

    Args:
        models: codecs, or paths of models, that are looked at first.
        device: of the codecs that are opened here.
    """

    def __init__(
        self, models: Sequence[str | os.PathLike[str] | PictureCodec] = (), *, device: torch.device | str = "cpu"
    ) -> None:
        self.models, self.device = list(models), str(device)
        self._opened: dict[Path, PictureCodec] = {}

    def find(self, digest: bytes, *, source: str, folders: Sequence[str | os.PathLike[str]] = ()) -> PictureCodec:
        """The codec of a file.

        Args:
            digest: the first bytes of the model's digest, as the file states them.
            source: name of the file, for the message.
            folders: folders in which a copy of the model may be: that of the file.

        Raises:
            CodecError: there is none; the message names the digest.
            CheckpointError: a given model is no codec, or the one that fits is damaged.
        """
        found, _ = self._candidate(digest, source, folders)
        return found if isinstance(found, PictureCodec) else self.open(found)

    def card(self, digest: bytes, *, source: str, folders: Sequence[str | os.PathLike[str]] = ()) -> Card:
        """The card of a file's codec, whose weights are not read. Raises as `find`."""
        return self._candidate(digest, source, folders)[1]

    def open(self, model: str | os.PathLike[str] | PictureCodec) -> PictureCodec:
        """A codec by its path."""
        if isinstance(model, PictureCodec):
            return model
        path = find_checkpoint(model)
        if path not in self._opened:
            self._opened[path] = picture_codec(load(path, device=self.device))
        return self._opened[path]

    def _candidate(
        self, digest: bytes, source: str, folders: Sequence[str | os.PathLike[str]]
    ) -> tuple[PictureCodec | Path, Card]:
        for model, card in self._candidates(folders):
            if bytes.fromhex(card.digest)[: len(digest)] == digest:
                return model, card
        raise UnknownModelError(source, digest)

    def _candidates(self, folders: Sequence[str | os.PathLike[str]]) -> Iterator[tuple[PictureCodec | Path, Card]]:
        for model in self.models:
            path = model if isinstance(model, PictureCodec) else find_checkpoint(model)
            yield path, path.card if isinstance(path, PictureCodec) else read_card(path)
        beside = [path for folder in folders for path in sorted(Path(folder).glob("*.safetensors"))]
        for path in (*beside, *(zoo_file(name) for name in zoo_names())):
            card = _card_of(path, path.stat().st_mtime_ns)
            if card is not None and issubclass(pipeline_class(card), PictureCodec):
                yield path, card


def zoo_name(digest: bytes) -> str | None:
    """`zoo:NAME` of the model whose digest begins so; None if it is not in the zoo."""
    for name in zoo_names():
        file = zoo_file(name)
        card = _card_of(file, file.stat().st_mtime_ns)
        if card is not None and bytes.fromhex(card.digest)[: len(digest)] == digest:
            return f"{PREFIX}{name}"
    return None


@lru_cache(maxsize=256)
def _card_of(path: Path, changed: int) -> Card | None:
    """The card of a checkpoint as it was at a time; None of what is none."""
    try:
        card = read_card(path)
        bytes.fromhex(card.digest)
    except (CheckpointError, ValueError):
        return None
    return card
