"""What one does with a trained model, from Python. Pictures are uint8 arrays, (N, H, W, C).

model = smalti.load("runs/emoji")
smalti.save_grid(model.generate(16, seed=0), "grid.png")
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from smalti.checkpoint import file as checkpoint
from smalti.checkpoint.file import Card
from smalti.checkpoint.run_dir import RunFolder
from smalti.errors import CheckpointError, ConfigError, did_you_mean
from smalti.files import input_errors
from smalti.models.autoencoder.autoencoder import Autoencoder
from smalti.models.autoencoder.refinement import refine
from smalti.models.gan.base import Generator
from smalti.models.prior.image_prior import ImagePrior
from smalti.models.prior.sampling import Sampling
from smalti.pipelines import inversion, latents
from smalti.pipelines.prior import BLOCK, PriorModel
from smalti.report.pictures import grid, write_png
from smalti.runtime.device import Machine
from smalti.runtime.pixels import to_pixels, to_tensor

LARGEST_EFFORT = 10_000
MOST_STEPS = 100_000  # of an inversion
PIXEL_LIMIT = 4096 * 4096  # of one batch through an autoencoder: some 4 GB of activations


def check_effort(effort: int) -> None:
    """See that a number of rounds to improve codes in makes sense.

    Raises:
        ConfigError: it does not.
    """
    if not 0 <= effort <= LARGEST_EFFORT:
        raise ConfigError(f"effort is {effort}, but must be from 0 to {LARGEST_EFFORT} rounds")


class Model(PriorModel):
    """A trained network and its card.

    Attributes:
        card: everything the checkpoint says about itself.
        module: the network, float32, in eval mode.
        path: the file it was read from.
    """

    def __init__(self, module: nn.Module, card: Card, path: Path, device: torch.device | str = "cpu") -> None:
        self.module = module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.card, self.path, self.device = card, path, torch.device(device)

    @torch.no_grad()
    def generate(
        self,
        count: int,
        *,
        seed: int = 0,
        label: str | None = None,
        truncation: float = 1.0,
        first: int = 0,
        prompt: str | None = None,
        sampling: Sampling | None = None,
    ) -> np.ndarray:
        """Draw new images; image i depends on (seed, i) alone, so more images begin with the same ones.

        Args:
            count: how many.
            first: number of the first image, to go on where an earlier call ended.
            seed: any integer from 0.
            label: a class name, for a model trained with labels; None takes the classes in turn, of a prior each as
                often as in its training images.
            truncation: latents of a GAN are multiplied by it, from 0 to 1: less varied images, more like the mean
                (Karras et al. 2019, arXiv:1812.04948, section B, with the mean latent 0).
            prompt: what to draw, for a prior that was trained with captions; None: anything.
            sampling: how a prior draws codes.

        Returns:
            (count, H, W, C) uint8.

        Raises:
            CheckpointError: the model is no generator.
            ConfigError: the count, seed, label, truncation, prompt or sampling does not fit.
        """
        self.check_drawing(label=label, truncation=truncation, prompt=prompt, sampling=sampling, seed=seed)
        if count < 1 or first < 0:
            raise ConfigError(f"count is {count} and first {first}; the count must be 1 or more, the first 0 or more")
        # Images are drawn in blocks that begin at the same numbers always: even the last bit of an image depends on
        # the shape of the batch that it is in.
        begin, end = first // BLOCK * BLOCK, -(-(first + count) // BLOCK) * BLOCK
        pictures = []
        for start in range(begin, end, BLOCK):
            numbers = range(start, start + BLOCK)
            if isinstance(self.module, ImagePrior):
                pictures.append(self._draw_codes(self.module, numbers, seed, label, prompt, sampling or Sampling()))
                continue
            z = self.latents(numbers, seed=seed)
            pictures.append(self.draw(z, labels=self.labels(numbers, label), truncation=truncation))
        return np.concatenate(pictures)[first - begin : first - begin + count]

    def check_drawing(
        self,
        *,
        label: str | None = None,
        truncation: float = 1.0,
        prompt: str | None = None,
        sampling: Sampling | None = None,
        seed: int = 0,
    ) -> None:
        """See that `generate` can draw this. Raises as it does."""
        if not isinstance(self.module, ImagePrior):
            self._generator()
            if prompt is not None or sampling is not None:
                raise ConfigError(
                    f"{self.path} is a GAN; prompt, temperature, top k, top p, guidance and steps are for a prior"
                )
            return
        if seed < 0:
            raise ConfigError(f"seed is {seed}, but must be 0 or more")
        if truncation != 1:
            raise ConfigError(f"{self.path} is a prior, which has no latents to truncate; lower the temperature")
        if prompt is not None and self.module.condition != "text":
            raise ConfigError(
                f"{self.path} was trained without captions, so a prompt means nothing to it; leave it out, "
                "or train with --set model.condition=text on codes that have captions"
            )
        self._label(label)
        if self.module.condition == "text" and prompt is None:
            self._check_left_out("so give a prompt")
        if sampling is not None and sampling.steps is not None and self.module.prior.causal:
            raise ConfigError(f"{self.path} draws code after code, so there are no steps; leave --steps out")
        if sampling is not None and sampling.guidance != 1:
            if self.module.condition == "none":
                raise ConfigError(f"{self.path} was trained without labels or captions: guidance has nothing to go by")
            self._check_left_out("which guidance needs")
            if self.module.condition == "text" and prompt is None:
                raise ConfigError("guidance leads from any image to what a prompt says; give a prompt, or no guidance")

    def latents(self, numbers: Sequence[int], *, seed: int = 0) -> np.ndarray:
        """What `generate` makes images of these numbers from: (N, D) float32. Raises as `generate`."""
        dimension = self._generator().latent
        if seed < 0 or min(numbers, default=0) < 0:
            raise ConfigError(f"seed is {seed}, image {min(numbers, default=0)} is asked for; both must be 0 or more")
        return latents.drawn(numbers, dimension, seed)

    def labels(self, numbers: Sequence[int], label: str | None = None) -> list[int] | None:
        """The class numbers of `generate` for images of these numbers; None without labels. Raises as `generate`."""
        drawer, chosen = self._drawer(), self._label(label)
        if chosen is None and isinstance(drawer, ImagePrior):
            return drawer.labels_by_frequency(numbers)
        classes = drawer.classes
        return [n % classes if chosen is None else chosen for n in numbers] if classes else None

    @torch.no_grad()
    def draw(self, z: np.ndarray, *, labels: Sequence[int] | None = None, truncation: float = 1.0) -> np.ndarray:
        """Images of latents.

        Args:
            z: (N, D) float32.
            labels: class numbers, for a model with labels.
            truncation: as in `generate`.

        Returns:
            (N, H, W, C) uint8.

        Raises:
            CheckpointError, ConfigError: no generator, or latents or labels that are not this model's.
        """
        generator = self._generator()
        if z.ndim != 2 or z.shape[1] != generator.latent:
            raise ConfigError(f"found latents of shape {z.shape}; {self.path} takes (N, {generator.latent})")
        if not 0 <= truncation <= 1:
            raise ConfigError(f"truncation is {truncation:g}, but must be from 0, the mean image, to 1, no truncation")
        if (labels is not None) != bool(generator.classes) or (labels is not None and len(labels) != len(z)):
            raise ConfigError(f"{self.path} takes {'a label' if generator.classes else 'no labels'} for each image")
        if labels is not None and not all(0 <= label < generator.classes for label in labels):
            raise ConfigError(f"labels are {list(labels)[:8]}, but must be from 0 to {generator.classes - 1}")
        pictures = [np.empty((0, self.card.image[1], self.card.image[2], self.card.image[0]), np.uint8)]
        # Always as many at once: even the last bit of an image depends on the shape of the batch that it is in.
        spare = -len(z) % BLOCK
        points = np.concatenate([truncation * z, np.zeros((spare, generator.latent))])
        numbers = None if labels is None else [*labels, *[0] * spare]
        for start in range(0, len(z), BLOCK):
            part = torch.from_numpy(points[start : start + BLOCK]).float().to(self.device)
            chosen = None if numbers is None else torch.tensor(numbers[start : start + BLOCK], device=self.device)
            pictures.append(to_pixels(generator(part, chosen)))
        return np.concatenate(pictures)[: len(z)]

    def invert(self, image: np.ndarray, *, label: str | None = None, steps: int = 200, seed: int = 0) -> np.ndarray:
        """The latent from which `draw` makes an image most like a given one: pipelines/inversion.py.

        Args:
            image: (H, W, C) uint8, of the shape that the model makes.
            label: its class name, for a model with labels.
            steps: of the search; more come nearer.

        Returns:
            (D,) float32.

        Raises:
            CheckpointError: the model is no generator.
            ConfigError: an image of another shape, no label or one too many, or steps out of range.
        """
        self.check_inversion(label=label, steps=steps)
        self.check_image(image)
        target = to_tensor(image[None].copy(), self.device)[0]
        z = inversion.invert(self._generator(), target, self._label(label), steps=steps, seed=seed)
        return z.cpu().numpy()

    def check_inversion(self, *, label: str | None, steps: int) -> None:
        """See, before any image is read, that this model can invert with these settings. Raises as `invert`."""
        classes = self._generator().classes
        if not 0 <= steps <= MOST_STEPS:
            raise ConfigError(f"steps is {steps}, but must be from 0 to {MOST_STEPS}")
        if self._label(label) is None and classes:
            known = did_you_mean("", self.card.classes)
            raise ConfigError(f"{self.path} draws by label; say which with --label; {known}")

    def _drawer(self) -> Generator | ImagePrior:
        return self.module if isinstance(self.module, ImagePrior) else self._generator()

    def _generator(self) -> Generator:
        if isinstance(self.module, ImagePrior):
            raise CheckpointError(
                f"{self.path} is a prior, which has no latents to walk between or to find; "
                "give a model trained with a gan preset, for example gan-nano"
            )
        if not isinstance(self.module, Generator):
            raise CheckpointError(
                f"{self.path} is a {self.card.kind}, which draws no new images; "
                "give a model trained with a gan preset, for example gan-nano"
            )
        return self.module

    def _label(self, label: str | None) -> int | None:
        if label is None:
            return None
        if not self._drawer().classes:
            prior = isinstance(self.module, ImagePrior)
            raise ConfigError(
                f"{self.path} was trained without labels, so --label {label} means nothing to it; "
                f"leave it out, or train with --set model.{'condition=class' if prior else 'conditional=true'}"
            )
        if label not in self.card.classes:
            raise ConfigError(f"{self.path} knows no label {label!r}; {did_you_mean(label, self.card.classes)}")
        return self.card.classes.index(label)

    def check_image(self, image: np.ndarray) -> None:
        """See that an image has the shape that this model makes.

        Raises:
            ConfigError: it has not.
        """
        channels, height, width = self.card.image
        if image.shape != (height, width, channels) or image.dtype != np.uint8:
            found = "x".join(map(str, image.shape))
            raise ConfigError(
                f"found an image of {found} ({image.dtype}); {self.path} makes {height}x{width}x{channels}"
            )

    @torch.no_grad()
    def reconstruct(self, images: np.ndarray, *, effort: int = 0, batch: int = 64) -> np.ndarray:
        """Images through the codes and back, at any size.

        Args:
            images: (N, H, W, C) uint8, C as the model was trained with.
            effort: rounds in which the codes are improved, see models/autoencoder/refinement.py; 0 takes the encoder's.

        Returns:
            The same shape, uint8.

        Raises:
            CheckpointError: the model is no autoencoder.
            ConfigError: another number of channels, images too large for memory, or an effort out of range.
        """
        height, width = images.shape[1:3] if images.ndim == 4 else (0, 0)
        return self.decode(self.encode(images, effort=effort, batch=batch), batch=batch)[:, :height, :width]

    @torch.no_grad()
    def encode(self, images: np.ndarray, *, effort: int = 0, batch: int = 64) -> np.ndarray:
        """The codes of (N, H, W, C) uint8 images: (N, P, ceil(H/stride), ceil(W/stride)) int64; raises as above."""
        autoencoder = self._autoencoder()
        check_effort(effort)
        parts = self._parts(images, batch)
        return np.concatenate([refine(autoencoder, part, rounds=effort).cpu().numpy() for part in parts])

    @torch.no_grad()
    def decode(self, codes: np.ndarray, *, batch: int = 64) -> np.ndarray:
        """Images of (N, P, h, w) codes: (N, h * stride, w * stride, C) uint8.

        Raises:
            CodeRangeError: codes that this model cannot have written.
        """
        autoencoder = self._autoencoder()
        parts = torch.from_numpy(np.ascontiguousarray(codes, dtype=np.int64)).split(batch)
        return np.concatenate([to_pixels(autoencoder.decode(part.to(self.device))) for part in parts])

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """Number of codes in each plane of what `encode` gives; CheckpointError for a model that is no autoencoder."""
        return self._autoencoder().quantizer.codebook_sizes

    @property
    def stride(self) -> int:
        """Pixels along each side that one place of the grid of codes is for; raises as `codebook_sizes`."""
        return self._autoencoder().stride

    def _autoencoder(self) -> Autoencoder:
        if not isinstance(self.module, Autoencoder):
            raise CheckpointError(
                f"{self.path} is a {self.card.kind}, which cannot reconstruct images; "
                "give a model trained with a vqvae preset"
            )
        return self.module

    def _parts(self, images: np.ndarray, batch: int) -> Iterator[Tensor]:
        """Images on the device, batch after batch; what does not fit is refused at once."""
        channels = self.card.image[0]
        if images.ndim != 4 or images.shape[3] != channels or images.dtype != np.uint8 or 0 in images.shape:
            raise ConfigError(
                f"found images of shape {images.shape} and type {images.dtype}; "
                f"{self.path} takes (N, H, W, {channels}) uint8"
            )
        pixels = images.shape[1] * images.shape[2]
        if pixels > PIXEL_LIMIT:
            raise ConfigError(
                f"an image of {images.shape[1]}x{images.shape[2]} is too large to go through the network at once; "
                "give --size, for example --size 1024"
            )
        batch = max(1, min(batch, PIXEL_LIMIT // 16 // pixels))
        # Copied, because a memory-mapped array is read-only and torch has no such thing.
        return (to_tensor(images[start : start + batch].copy(), self.device) for start in range(0, len(images), batch))

    def provenance(self, **settings: object) -> dict[str, str]:
        """What a picture of this model says about its origin, for its PNG text."""
        card = self.card
        text = {"model": card.digest, "version": card.version, "license": card.license, **settings}
        return {f"smalti.{name}": _storable(str(value)) for name, value in text.items() if value is not None}


def _storable(text: str) -> str:
    """The text with what PNG cannot store written out: NUL, and bytes of a file name that are not UTF-8."""
    return text.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode()


def find_checkpoint(path: str | os.PathLike[str]) -> Path:
    """The file to load for a run folder (its last save) or for a file (itself).

    Raises:
        CheckpointError: nothing is there, a folder without a checkpoint, or no permission to look.
    """
    place = Path(path)
    with input_errors(place, CheckpointError):
        if place.is_dir():
            last = RunFolder(place).last
            if not last.exists():
                raise CheckpointError(f"the folder {place} holds no checkpoint; expected {last.name} from smalti train")
            return last
        if not place.exists():
            raise CheckpointError(f"there is no {place}; give a run folder or a .safetensors file from smalti train")
        return place


def load(path: str | os.PathLike[str], *, device: torch.device | str = "cpu") -> Model:
    """A trained model, from a run folder or a checkpoint file.

    Args:
        path: a run folder (its last save) or a file.
        device: auto (a GPU where there is one), cpu, cuda, cuda:1 or mps.

    Raises:
        CheckpointError: nothing is there, or it cannot be read; the message says what is wrong.
        ConfigError: there is no such device.
    """
    place, _ = Machine(device=str(device)).resolve()
    file = find_checkpoint(path)
    module, card = checkpoint.read(file)
    return Model(module, card, file, place)


def save_grid(
    images: np.ndarray,
    path: str | os.PathLike[str],
    *,
    columns: int | None = None,
    text: Mapping[str, str] | None = None,
) -> None:
    """Write (N, H, W, C) uint8 images as one PNG, in rows.

    Raises:
        OutputError: it cannot be written.
    """
    write_png(Path(path), grid(images, columns=columns), text)
