"""A training that collapses: what is said, and what is done about it. The collapses are real: weights are ruined."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ruined import diverge, ruined, run_away, turn_grey
from small_runs import settings, small_config, small_data, write_source

from smalti.checkpoint import file as checkpoint
from smalti.checkpoint.run_dir import RunFolder
from smalti.errors import ConfigError, TrainingError
from smalti.recipes.gan import GANRecipe
from smalti.runtime.device import Machine
from smalti.training.loop import train
from smalti.training.reporter import SilentReporter

FLOAT32 = Machine(device="cpu", precision="float32")
# The other generator, which ends in a tanh, cannot run away.
SETTINGS = ("train.images=96", "train.ema_half_life=0", "model.network.generator=mirror")


class Listener(SilentReporter):
    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)


def ruin(patch: pytest.MonkeyPatch, how: Callable[[GANRecipe], None] = run_away, **when: int) -> None:
    patch.setattr(GANRecipe, "step", ruined(GANRecipe.step, how, **when))


def events(folder: Path) -> list[str]:
    return [record["event"] for record in RunFolder(folder).records() if "event" in record]


def test_a_collapse_is_rolled_back_named_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ruin(monkeypatch, at=40, times=2)
    config, listener = small_config("gan-nano", *SETTINGS), Listener()
    result = train(config, small_data(tmp_path), tmp_path / "run", machine=FLOAT32, reporter=listener)
    assert (result.reason, result.images_seen, result.rollbacks) == ("finished", 96, 2)
    assert events(tmp_path / "run").count("rollback") == 2
    (first, second) = [text for text in listener.messages if "back to" in text]
    assert first.startswith("at 48 images: the generator ran away: its pixels are ")
    assert first.endswith("; back to 32 images, more carefully: half the learning rate, twice the gamma")
    assert second.startswith("at 48 images")
    state = checkpoint.load_state(tmp_path / "run" / "resume.pt", torch.device("cpu"))["recipe"]
    for name in ("generator", "discriminator"):
        assert state["optimizers"][name]["param_groups"][0]["lr"] == pytest.approx(
            config.model.generator_optimizer.learning_rate / 4  # type: ignore[union-attr]
        )


def test_a_score_that_falls_is_a_collapse_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ruin(monkeypatch, turn_grey, at=88)
    config, listener = small_config("gan-nano", *SETTINGS, "train.images=128"), Listener()
    result = train(config, small_data(tmp_path), tmp_path / "run", machine=FLOAT32, reporter=listener)
    assert (result.reason, result.images_seen, result.rollbacks) == ("finished", 128, 1)
    (told,) = [text for text in listener.messages if "back to" in text]
    found = re.match(
        r"at 96 images: the quality fell: Frechet distance (\d+) after (\d+); back to 64 images, more carefully", told
    )
    assert found is not None, told
    fallen, best = (int(number) for number in found.groups())
    scores = {r["images_seen"]: r["value"] for r in RunFolder(tmp_path / "run").records() if r.get("event") == "score"}
    assert list(scores) == [32, 64, 96, 128], "the bad one is not among them"
    assert best == round(min(scores[32], scores[64]))
    assert max(scores.values()) < 1.1 * best < 2 * best < fallen


def test_asked_to_stop_it_stops_at_the_last_good_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ruin(monkeypatch, at=40)
    with pytest.raises(TrainingError) as caught:
        train(small_config("gan-nano", *SETTINGS), small_data(tmp_path), tmp_path / "run", machine=FLOAT32,
              on_collapse="stop")  # fmt: skip
    message = str(caught.value)
    assert message.startswith("the generator ran away")
    assert "last.safetensors, at 32 images; go on from there with `on_collapse=rollback`" in message
    assert events(tmp_path / "run")[-1] == "collapse"


def test_asked_to_continue_it_says_so_once_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ruin(monkeypatch, at=40)
    listener = Listener()
    result = train(small_config("gan-nano", *SETTINGS), small_data(tmp_path), tmp_path / "run", machine=FLOAT32,
                   on_collapse="continue", reporter=listener)  # fmt: skip
    assert (result.reason, result.rollbacks) == ("finished", 0)
    assert sum("ran away" in text for text in listener.messages) == 1
    assert checkpoint.read_card(tmp_path / "run" / "last.safetensors").images_seen == 96
    scored = [r["images_seen"] for r in RunFolder(tmp_path / "run").records() if r.get("event") == "score"]
    assert scored == [32, 64, 96], "whoever wants to go on wants to know how it goes on"


@pytest.mark.parametrize("policy", ["rollback", "continue"])
def test_who_is_stopped_in_a_collapse_keeps_the_last_good_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    """SIGTERM comes between two looks, after the collapse."""
    config, data = small_config("gan-nano", *SETTINGS, "train.log_every=32"), small_data(tmp_path)
    ruin(monkeypatch, at=40)
    step = GANRecipe.step

    def stopped(self: GANRecipe, batch: Any, images_seen: int) -> Any:
        if images_seen == 48:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, batch, images_seen)

    monkeypatch.setattr(GANRecipe, "step", stopped)
    listener = Listener()
    result = train(config, data, tmp_path / "run", machine=FLOAT32, reporter=listener, on_collapse=policy)
    assert (result.reason, result.signal) == ("stopped", signal.SIGTERM)
    saved = checkpoint.read_card(tmp_path / "run" / "last.safetensors").images_seen
    assert saved == (32 if policy == "rollback" else 56)
    assert any("the generator ran away" in text for text in listener.messages)
    monkeypatch.undo()
    if policy == "rollback":
        again = train(config, data, tmp_path / "run", machine=FLOAT32)
        assert (again.reason, again.rollbacks) == ("finished", 1), "it goes on as carefully as it would have"
        assert events(tmp_path / "run").count("rollback") == 1


def test_a_rollback_keeps_to_the_images_that_it_is_watched_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run goes on with other held-out images, and goes back to a state that was scored by the first ones."""
    data, first, second = (small_data(tmp_path / str(count), count=count) for count in (40, 24, 32))
    config = small_config("gan-nano", *SETTINGS, "train.images=64")
    train(config, data, tmp_path / "run", held_out=first, machine=FLOAT32)
    ruin(monkeypatch, at=72)
    config = small_config("gan-nano", *SETTINGS, "train.images=128")
    result = train(config, data, tmp_path / "run", held_out=second, machine=FLOAT32)
    assert (result.reason, result.rollbacks) == ("finished", 1)
    state = checkpoint.load_state(tmp_path / "run" / "resume.pt", torch.device("cpu"))
    assert state["progress"]["watched"] == second.fingerprint
    scored = [r for r in RunFolder(tmp_path / "run").records() if r.get("event") == "score"]
    assert state["progress"]["best"] == min(r["value"] for r in scored if r["images_seen"] > 64)


def test_losses_that_are_no_numbers_are_noticed_between_two_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ruin(monkeypatch, diverge, at=40)
    monkeypatch.setattr("smalti.training.loop.CHECK_EVERY", 4)
    listener = Listener()
    config = small_config("gan-nano", *SETTINGS, "train.log_every=96", "train.save_every=96")
    result = train(config, small_data(tmp_path), tmp_path / "run", machine=FLOAT32, reporter=listener)
    assert (result.reason, result.rollbacks) == ("finished", 1)
    (back,) = [r for r in RunFolder(tmp_path / "run").records() if r.get("event") == "rollback"]
    assert back["noticed"] == 64
    assert "in step 6, at 48 images" in back["problem"]


def test_a_gan_that_diverges_is_rolled_back_like_one_that_collapses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ruin(monkeypatch, diverge, at=40)
    listener = Listener()
    result = train(small_config("gan-nano", *SETTINGS), small_data(tmp_path), tmp_path / "run", machine=FLOAT32,
                   reporter=listener)  # fmt: skip
    assert (result.reason, result.images_seen, result.rollbacks) == ("finished", 96, 1)
    (told,) = [text for text in listener.messages if "back to" in text]
    assert "became nan in step" in told
    assert told.endswith("back to 32 images, more carefully: half the learning rate, twice the gamma")


@pytest.mark.parametrize("asked", [{"on_collapse": "stop"}, {"on_collapse": "continue"}, {"on_nan": "stop"}])
def test_a_gan_that_diverges_stops_where_it_is_asked_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: dict[str, str]
) -> None:
    ruin(monkeypatch, diverge, at=40)
    with pytest.raises(TrainingError, match=r"became nan in step .* at 32 images; go on from there with `on_nan"):
        train(small_config("gan-nano", *SETTINGS), small_data(tmp_path), tmp_path / "run", machine=FLOAT32, **asked)


def test_it_gives_up_after_five(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ruin(monkeypatch, at=40, times=99)
    with pytest.raises(TrainingError, match="5 rollbacks did not help"):
        train(small_config("gan-nano", *SETTINGS), small_data(tmp_path), tmp_path / "run", machine=FLOAT32)


def test_another_word_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="`on_collapse` is 'pray', but must be stop, rollback or continue"):
        train(small_config("gan-nano"), small_data(tmp_path), tmp_path / "run", machine=FLOAT32, on_collapse="pray")


def test_the_command_line_reports_it(smalti: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_source(tmp_path / "discs.npz")
    command = ("train", "gan-nano", "--data", source, "--out", tmp_path / "run", *settings("gan-nano", *SETTINGS))
    ruin(monkeypatch, at=40)
    done = smalti(*command)
    assert done.code == 0
    assert ", after 1 rollback; frechet_distance" in done.err
    ruin(monkeypatch, at=40)
    stopped = smalti(*command[:5], tmp_path / "other", *command[6:], "--on-collapse", "stop")
    assert stopped.code == 1
    assert stopped.err.splitlines()[-1].startswith("smalti: error: the generator ran away")
    assert "Traceback" not in stopped.err
