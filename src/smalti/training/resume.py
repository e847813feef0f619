"""Checks before a training starts, and restoring an interrupted run from its resume state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from smalti._version import __version__
from smalti.checkpoint import file as checkpoint
from smalti.checkpoint.run_dir import RunFolder
from smalti.config.run import RunConfig
from smalti.data.dataset import Dataset
from smalti.errors import CheckpointError, ConfigError, DataError, arg
from smalti.recipes import Recipe
from smalti.runtime.device import Machine
from smalti.runtime.distributed import rank, world
from smalti.training.writer import STATE_FORMAT, Progress

_OTHER_FOLDER = f"give {arg('out')} another folder"


def check(config: RunConfig, data: Dataset, held_out: Dataset | None, on_nan: str, on_collapse: str) -> None:
    """Check that the settings fit the training set, the held-out set and the number of ranks.

    Raises:
        ConfigError, DataError: they do not.
    """
    if on_nan not in ("stop", "rollback"):
        raise ConfigError(f"{arg('on_nan')} is {on_nan!r}, but must be stop or rollback")
    if on_collapse not in ("stop", "rollback", "continue"):
        raise ConfigError(f"{arg('on_collapse')} is {on_collapse!r}, but must be stop, rollback or continue")
    if config.train.batch % world():
        raise ConfigError(f"train.batch is {config.train.batch}, which {world()} ranks cannot share evenly")
    if len(data) < 2:
        raise DataError(f"{data.source} holds {len(data)} image; a training needs at least 2")
    config.kind.load_recipe().check_data(config, data, held_out)


def restore_progress(
    folder: RunFolder,
    resuming: bool,
    data: Dataset,
    machine: Machine,
    precision: str,
    device: torch.device,
    say: Callable[[str], None],
) -> tuple[Progress, dict[str, Any] | None]:
    """The progress to start from, and the recipe's state to load: (fresh progress, None) for a new run.

    Args:
        resuming: whether the folder holds a resume state.
        precision: of a new run, as resolved from `machine`.
        say: receives messages for the user.

    Raises:
        CheckpointError, DataError: the run cannot be resumed, or not with this data.
    """
    if not resuming:
        if folder.last.exists() and checkpoint.read_card(folder.last).images_seen > 0:
            raise CheckpointError(
                f"{folder.path} holds weights, but {folder.state.name} is gone, so the run cannot be resumed; "
                f"give {arg('out')} another folder, which leaves these weights as they are"
            )
        return Progress(precision=precision, fingerprint=data.fingerprint), None
    state = checkpoint.load_state(folder.state, device)
    try:
        if state["format"] != STATE_FORMAT:
            raise CheckpointError(
                f"{folder.state} has the format {state['format']!r}, but smalti {__version__} resumes format "
                f"{STATE_FORMAT}; go on with the version that wrote it, or give {arg('out')} another folder"
            )
        progress = Progress(**state["progress"])
        modules = state["recipe"]
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            f"{folder.state} is not a resume state of this version ({error}); {_OTHER_FOLDER}"
        ) from None
    if progress.fingerprint != data.fingerprint:
        raise DataError(
            f"the images of {data.source} are not those {folder.path} was trained on "
            f"(fingerprint {data.fingerprint[:12]}, expected {progress.fingerprint[:12]}); {_OTHER_FOLDER}"
        )
    if machine.precision != "auto" and machine.precision != progress.precision:
        say(f"continuing in {precision} after {progress.precision}: no longer the same to the last bit")
        progress.precision = precision
    if rank() == 0:
        folder.rewind_log(progress.images_seen)
    say(f"resuming {folder.path} at {progress.images_seen:,} images")
    return progress, modules


def load_state(recipe: Recipe[Any], state: dict[str, Any], folder: RunFolder) -> None:
    """Load a saved state into a recipe.

    Raises:
        CheckpointError: the state is of other networks.
    """
    try:
        recipe.load_state_dict(state)
    except (KeyError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"{folder.state} does not fit this version's networks ({reason}); {_OTHER_FOLDER}"
        ) from None
