"""Where a training begins: what must fit before its first step, and the place where a stopped run goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from smalti._version import __version__
from smalti.checkpoint import file as checkpoint
from smalti.checkpoint.run_dir import RunFolder
from smalti.checkpoint.tokenizer import check_tokenizer
from smalti.config.prior import PriorConfig
from smalti.config.run import RunConfig
from smalti.data.codes import TOKENIZER, CodesAbout, CodeSet
from smalti.errors import CheckpointError, ConfigError, DataError
from smalti.recipes import Recipe, Tokenizer, TrainingContext
from smalti.runtime.device import Machine
from smalti.runtime.distributed import rank, world
from smalti.training.batches import Data
from smalti.training.writer import STATE_FORMAT, Progress

_OTHER_FOLDER = "give --out another folder"


def check(config: RunConfig, data: Data, held_out: Data | None, on_nan: str, on_collapse: str) -> None:
    """Refuse settings that do not fit the images, the held-out images or the ranks.

    Raises:
        ConfigError, DataError: which ones.
    """
    if on_nan not in ("stop", "rollback"):
        raise ConfigError(f"--on-nan is {on_nan!r}, but must be stop or rollback")
    if on_collapse not in ("stop", "rollback", "continue"):
        raise ConfigError(f"--on-collapse is {on_collapse!r}, but must be stop, rollback or continue")
    if config.train.batch % world():
        raise ConfigError(f"train.batch is {config.train.batch}, which {world()} ranks cannot share evenly")
    if isinstance(data, CodeSet) and config.recipe != "prior":
        raise ConfigError(
            f"{data.source} holds codes, which the recipe prior learns; {config.recipe} learns images, so give some"
        )
    if len(data) < 2:
        raise DataError(f"{data.source} holds {len(data)} image; a training needs at least 2")
    if config.data.shift >= min(data.shape[1:]):
        raise ConfigError(
            f"data.shift is {config.data.shift}, but must be less than the sides of the images, "
            f"{data.shape[1]}x{data.shape[2]}"
        )
    if held_out is None:
        return
    if config.recipe == "gan" and len(held_out) < 2:
        raise DataError(
            f"{held_out.source} holds {len(held_out)} image to compare with; the score of a GAN, a Frechet distance, "
            "needs at least 2"
        )
    if isinstance(held_out, CodeSet) != isinstance(data, CodeSet):
        raise DataError(f"{held_out.source} and {data.source} are not both images, or both codes")
    if held_out.shape != data.shape:
        raise DataError(f"the held-out images have the shape {held_out.shape}, those to train on {data.shape}")
    if isinstance(held_out, CodeSet) and isinstance(data, CodeSet):
        _check_codes(config, data.about, held_out)
    of_classes = getattr(config.model, "conditional", False) or getattr(config.model, "condition", "") == "class"
    if of_classes and held_out.classes != data.classes:
        raise DataError(
            f"the held-out images have the classes {', '.join(held_out.classes) or 'none'}, those to train on "
            f"{', '.join(data.classes) or 'none'}; a model with labels needs the same ones"
        )


def _check_codes(config: RunConfig, about: CodesAbout, held_out: CodeSet) -> None:
    """Refuse held-out codes that a prior of the others could not read."""
    other, place = held_out.about, held_out.source
    for what, there, wanted in (
        ("tokenizer", other.tokenizer[:16], about.tokenizer[:16]),
        ("number of planes", len(other.codebook_sizes), len(about.codebook_sizes)),
        ("alphabet", other.codebook_sizes, about.codebook_sizes),
        ("grid", other.grid, about.grid),
    ):
        if there != wanted:
            raise DataError(
                f"the {what} of the held-out codes of {place} is {there}, of those to train on {wanted}; encode both "
                "with one tokenizer"
            )
    condition = config.model.condition if isinstance(config.model, PriorConfig) else "none"
    for name, missing in (("text", other.captions is None), ("class", held_out.labels is None)):
        if condition == name and missing:
            needed = "captions" if name == "text" else "labels"
            raise DataError(f"the held-out codes of {place} have no {needed}, which model.condition={name} needs")


def context_of_data(data: Data, device: torch.device, precision: str) -> TrainingContext:
    """Where and for what a recipe runs; for codes with the tokenizer that lies beside them.

    Raises:
        CheckpointError, DataError: the tokenizer cannot be read, or did not write these codes.
    """
    if not isinstance(data, CodeSet):
        return TrainingContext(data.shape, len(data.classes), device, precision, len(data))
    module, card = checkpoint.read(data.folder / TOKENIZER)
    tokenizer = check_tokenizer(data, module, card)
    tokenizer = tokenizer.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    captions = data.about.captions is not None
    classes = 0 if data.labels is None else len(data.classes)
    return TrainingContext(data.shape, classes, device, precision, len(data), Tokenizer(tokenizer, card), captions)


def restore_progress(
    folder: RunFolder,
    resuming: bool,
    data: Data,
    machine: Machine,
    precision: str,
    device: torch.device,
    say: Callable[[str], None],
) -> tuple[Progress, dict[str, Any] | None]:
    """The beginning, or where the folder's run stopped, with the recipe's state there.

    Raises:
        CheckpointError, DataError: the folder's run cannot go on, or not with these images.
    """
    if not resuming:
        if folder.last.exists() and checkpoint.read_card(folder.last).images_seen > 0:
            raise CheckpointError(
                f"{folder.path} holds weights, but {folder.state.name} is gone, so the run cannot go on; "
                "give --out another folder, which leaves these weights as they are"
            )
        return Progress(precision=precision, fingerprint=data.fingerprint), None
    state = checkpoint.load_state(folder.state, device)
    try:
        if state["format"] != STATE_FORMAT:
            raise CheckpointError(
                f"{folder.state} has the format {state['format']!r}, but smalti {__version__} resumes format "
                f"{STATE_FORMAT}; go on with the version that wrote it, or give --out another folder"
            )
        progress = Progress(**state["progress"])
        modules = state["recipe"]
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{folder.state} is no resume state of this version ({error}); {_OTHER_FOLDER}") from None
    if progress.fingerprint != data.fingerprint:
        raise DataError(
            f"the images of {data.source} are not those {folder.path} was trained on "
            f"(fingerprint {data.fingerprint[:12]}, expected {progress.fingerprint[:12]}); {_OTHER_FOLDER}"
        )
    if machine.precision != "auto" and machine.precision != progress.precision:
        say(f"going on in {precision} after {progress.precision}: no longer the same to the last bit")
        progress.precision = precision
    if rank() == 0:
        folder.rewind_log(progress.images_seen)
    say(f"resuming {folder.path} at {progress.images_seen:,} images")
    return progress, modules


def load_state(recipe: Recipe[Any], state: dict[str, Any], folder: RunFolder) -> None:
    """Bring a recipe to where a state was saved.

    Raises:
        CheckpointError: it is a state of other networks.
    """
    try:
        recipe.load_state_dict(state)
    except (KeyError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"{folder.state} does not fit this version's networks ({reason}); {_OTHER_FOLDER}"
        ) from None
