"""The loop: what it writes, how it stops, how it goes on, what it does when a loss explodes."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import data_for, small_config, small_data, tokenizer_for
from watchers import Watcher

from smalti.checkpoint import file as checkpoint
from smalti.checkpoint.run_dir import RunFolder
from smalti.config.parse import override
from smalti.config.presets import PRESETS
from smalti.errors import CheckpointError, ConfigError, DataError, OutputError
from smalti.optim.build import rate_factor
from smalti.pipelines import base as api
from smalti.recipes import Images, TrainingContext, base
from smalti.recipes.gamma import automatic_gamma
from smalti.recipes.gan import GANRecipe
from smalti.runtime.device import Machine
from smalti.training.batches import first_batches
from smalti.training.loop import train

FLOAT32 = Machine(device="cpu", precision="float32")


def digest(folder: Path) -> str:
    return checkpoint.read_card(folder / "last.safetensors").digest


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "smalti-vit"])
def test_every_preset_trains_and_leaves_what_it_says(name: str, tmp_path: Path) -> None:
    data = data_for(name, tmp_path)
    watcher = Watcher()
    of = tokenizer_for(name, tmp_path)
    result = train(small_config(name), data, tmp_path / "run", of=of, machine=FLOAT32, reporter=watcher)
    assert (result.reason, result.images_seen) == ("finished", 64)
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"config.json", "log.jsonl", "last.safetensors", "best.safetensors", "resume.pt", "previews"} <= names
    assert not [name for name in names if name.endswith(".tmp")]
    assert [path.name for path in (tmp_path / "run" / "previews").iterdir()] == ["0000000064.png"]
    records = RunFolder(tmp_path / "run").records()
    assert records[0]["event"] == "start"
    assert [r["images_seen"] for r in records if "seconds" in r] == [16, 32, 48, 64]
    assert [r["images_seen"] for r in records if r.get("event") == "score"] == [32, 64]
    assert all("on" not in r or r["on"] == "training" for r in records)
    assert watcher.records[-1]["images_seen"] == 64
    model = api.load(tmp_path / "run")
    assert model.card.images_seen == 64
    assert model.card.data["fingerprint"] == data.fingerprint


def test_the_vqvae_learns(tmp_path: Path) -> None:
    config = small_config("vqvae", "train.images=4800", "train.log_every=480", "model.optimizer.learning_rate=0.003")
    watcher = Watcher()
    train(config, small_data(tmp_path), tmp_path / "run", machine=FLOAT32, reporter=watcher)
    assert watcher.records[-1]["psnr"] > watcher.records[0]["psnr"] + 3
    assert watcher.records[-1]["perplexity"] > 4


@pytest.mark.parametrize(
    "name", ["vqvae", "vqvae-best", "vqgan", "dcgan", "prior-small", "context", "restyle-unpaired", "restore-codes"]
)
def test_a_stopped_run_ends_where_an_unbroken_one_does(name: str, tmp_path: Path) -> None:
    data, of = data_for(name, tmp_path), tokenizer_for(name, tmp_path)
    config = small_config(name, "train.images=160")
    train(config, data, tmp_path / "whole", of=of, machine=FLOAT32)

    def stop_at(images: int) -> Watcher:
        return Watcher(lambda seen: os.kill(os.getpid(), signal.SIGTERM) if seen == images else None)

    first = train(config, data, tmp_path / "broken", of=of, machine=FLOAT32, reporter=stop_at(48))
    assert (first.reason, first.signal) == ("stopped", signal.SIGTERM)
    assert first.images_seen < 160
    second = train(config, data, tmp_path / "broken", of=of, machine=FLOAT32)
    assert second.reason == "finished"
    assert digest(tmp_path / "whole") == digest(tmp_path / "broken")
    seen = [r["images_seen"] for r in RunFolder(tmp_path / "broken").records() if "seconds" in r]
    assert seen == sorted(set(seen)), "a record was logged twice"


def test_a_step_may_have_more_images_of_another_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step, data = GANRecipe.step, small_data(tmp_path)
    given: dict[str, list[torch.Tensor]] = {"one": [], "other": []}

    def watched(name: str) -> Callable[..., Any]:
        def and_look(self: GANRecipe, batch: Images, images_seen: int) -> Any:
            assert self.extra_batch is not None
            given[name] += [batch.pixels, self.extra_batch().pixels]
            return step(self, batch, images_seen)

        return and_look

    for name in given:
        monkeypatch.setattr(GANRecipe, "step", watched(name))
        train(small_config("gan-nano", "model.resample_for_generator=true"), data, tmp_path / name, machine=FLOAT32)
    assert all(torch.equal(first, second) for first, second in zip(given["one"], given["other"], strict=True))
    first, second = given["one"][:2]
    assert first.shape == second.shape
    assert not torch.equal(first, second)


def test_the_signal_handlers_are_given_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    train(small_config("dcgan"), small_data(tmp_path), tmp_path / "run", machine=FLOAT32)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_it_trains_outside_the_main_thread(tmp_path: Path) -> None:
    data, results = small_data(tmp_path), []
    work = threading.Thread(
        target=lambda: results.append(train(small_config("dcgan"), data, tmp_path / "run", machine=FLOAT32))
    )
    work.start()
    work.join()
    assert results[0].reason == "finished"


def test_a_finished_run_does_nothing_and_a_longer_one_goes_on(tmp_path: Path) -> None:
    data, config = small_data(tmp_path), small_config("vqvae")
    train(config, data, tmp_path / "run", machine=FLOAT32)
    first = digest(tmp_path / "run")
    again = train(config, data, tmp_path / "run", machine=FLOAT32)
    assert again.images_seen == 64
    assert digest(tmp_path / "run") == first
    longer = train(override(config, ["train.images=96"]), data, tmp_path / "run", machine=FLOAT32)
    assert longer.images_seen == 96
    assert digest(tmp_path / "run") != first


def test_a_budget_ends_the_run_and_counts_all_sessions(tmp_path: Path) -> None:
    data, config = small_data(tmp_path), small_config("vqvae", "train.images=10G")
    result = train(config, data, tmp_path / "run", machine=FLOAT32, budget_seconds=0.3)
    assert result.reason == "budget"
    assert result.seconds >= 0.3
    before = digest(tmp_path / "run")
    again = train(config, data, tmp_path / "run", machine=FLOAT32, budget_seconds=0.3)
    assert (again.reason, again.images_seen) == ("budget", result.images_seen), "the time was used up"
    assert digest(tmp_path / "run") == before
    assert list((tmp_path / "run" / "previews").iterdir())


def test_a_falling_learning_rate_runs_out_with_the_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    factors: list[float] = []

    def remember(*given: Any) -> float:
        factors.append(rate_factor(*given))
        return factors[-1]

    monkeypatch.setattr(base, "rate_factor", remember)
    schedule = ("train.images=10G", "model.optimizer.schedule=cosine")
    train(small_config("vqvae", *schedule), small_data(tmp_path), tmp_path / "run", machine=FLOAT32, budget_seconds=1)
    assert factors[0] == pytest.approx(1.0, abs=0.01)
    assert factors[len(factors) // 2] == pytest.approx(0.5, abs=0.35), "speeds of small steps scatter"
    assert factors[-1] < 0.1


def test_a_recipe_is_told_how_many_images_there_are(tmp_path: Path) -> None:
    """The gamma of a GAN depends on it."""
    data, config, cpu = small_data(tmp_path), small_config("gan-nano", "train.images=8"), torch.device("cpu")
    train(config, data, tmp_path / "run", machine=FLOAT32)
    state = checkpoint.load_state(tmp_path / "run" / "resume.pt", cpu)["recipe"]
    recipe = GANRecipe(config, TrainingContext(data.spec))
    looks = [[batch.pixels] for batch in first_batches(recipe, data, config.data, config.train.seed)]
    assert torch.equal(state["states"]["regularization"]["gamma"], automatic_gamma(looks, len(data)))


def test_an_image_cannot_be_shifted_by_its_side(tmp_path: Path) -> None:
    config = small_config("vqvae", "data.shift=16")
    with pytest.raises(ConfigError, match=r"data.shift is 16, but must be less than the sides .*, 16x16"):
        train(config, small_data(tmp_path), tmp_path / "run", machine=FLOAT32)


def test_other_settings_and_other_images_are_refused(tmp_path: Path) -> None:
    data, config = small_data(tmp_path), small_config("vqvae")
    train(config, data, tmp_path / "run", machine=FLOAT32)
    with pytest.raises(OutputError, match=r"its train\.seed is 0, yours is 1"):
        train(override(config, ["train.seed=1"]), data, tmp_path / "run", machine=FLOAT32)
    other = small_data(tmp_path / "other", count=41)
    with pytest.raises(DataError, match="are not those"):
        train(config, other, tmp_path / "run", machine=FLOAT32)


def test_two_trainings_cannot_share_a_folder(tmp_path: Path) -> None:
    data, config = small_data(tmp_path), small_config("vqvae")
    problems: list[Exception] = []

    def second(_: int) -> None:
        try:
            train(config, data, tmp_path / "run", machine=FLOAT32)
        except OutputError as error:
            problems.append(error)

    train(config, data, tmp_path / "run", machine=FLOAT32, reporter=Watcher(second))
    assert "another training is at work" in str(problems[0])


def test_held_out_images_are_scored_and_named(tmp_path: Path) -> None:
    data, held_out = small_data(tmp_path), small_data(tmp_path / "other", count=17)
    result = train(small_config("vqvae"), data, tmp_path / "run", held_out=held_out, machine=FLOAT32)
    assert result.score["on"] == "held-out"
    assert result.score["images"] == 17
    assert api.load(tmp_path / "run").card.score["name"] == "psnr_db"


def test_scores_on_other_images_do_not_compare(tmp_path: Path) -> None:
    data, held_out, folder = small_data(tmp_path), small_data(tmp_path / "other", count=17), tmp_path / "run"
    train(small_config("vqvae"), data, folder, machine=FLOAT32)
    state = checkpoint.load_state(folder / "resume.pt", torch.device("cpu"))
    state["progress"]["best"] = 1e9  # better than anything; held-out images make it mean nothing
    checkpoint.save_state(folder / "resume.pt", state)
    longer = small_config("vqvae", "train.images=96")
    train(longer, data, folder, held_out=held_out, machine=FLOAT32)
    assert checkpoint.read_card(folder / "best.safetensors").images_seen == 96


@pytest.mark.parametrize("name", ["gan-nano", "sngan", "dcgan"])
def test_how_often_is_looked_changes_no_weight(tmp_path: Path, name: str) -> None:
    data, weights = small_data(tmp_path), []
    for every in (8, 64):
        config = small_config(name, f"train.log_every={every}", "train.save_every=64")
        train(config, data, tmp_path / str(every), machine=FLOAT32, on_collapse="continue")
        weights.append(checkpoint.load_state(tmp_path / str(every) / "resume.pt", torch.device("cpu"))["recipe"])
    for part in ("modules", "averages"):
        for module in set(weights[0][part]) - {"monitor"}:  # which does remember every look
            for key, value in weights[0][part][module].items():
                assert torch.equal(value, weights[1][part][module][key]), (module, key)


def test_one_image_is_too_few_to_compare_a_gan_with(tmp_path: Path) -> None:
    data, one = small_data(tmp_path), small_data(tmp_path / "other", count=1)
    with pytest.raises(DataError, match=r"holds 1 image to compare with; the score of a GAN.* needs at least 2"):
        train(small_config("gan-nano"), data, tmp_path / "run", held_out=one, machine=FLOAT32)
    assert train(small_config("vqvae"), data, tmp_path / "vqvae", held_out=one, machine=FLOAT32).score["images"] == 1


def test_held_out_images_must_fit(tmp_path: Path) -> None:
    data, config = small_data(tmp_path), small_config("dcgan", "model.conditional=true")
    unlabelled = small_data(tmp_path / "other", labels=False)
    with pytest.raises(DataError, match="have the classes none"):
        train(config, data, tmp_path / "run", held_out=unlabelled, machine=FLOAT32)
    larger = small_data(tmp_path / "larger", side=20)
    with pytest.raises(DataError, match="have the shape"):
        train(config, data, tmp_path / "run", held_out=larger, machine=FLOAT32)


def test_a_run_without_its_resume_state_is_not_begun_anew(tmp_path: Path) -> None:
    data, config, folder = small_data(tmp_path), small_config("vqvae"), tmp_path / "run"
    train(config, data, folder, machine=FLOAT32)
    before = digest(folder)
    (folder / "resume.pt").unlink()
    with pytest.raises(CheckpointError, match=r"resume\.pt is gone"):
        train(config, data, folder, machine=FLOAT32)
    assert digest(folder) == before


@pytest.mark.parametrize("change", [{"format": 99}, {"progress": {"images_done": 3}}, {"recipe": {"modules": {}}}])
def test_a_resume_state_of_another_version(change: dict[str, Any], tmp_path: Path) -> None:
    data, config, folder = small_data(tmp_path), small_config("vqvae"), tmp_path / "run"
    train(config, data, folder, machine=FLOAT32)
    checkpoint.save_state(
        folder / "resume.pt", checkpoint.load_state(folder / "resume.pt", torch.device("cpu")) | change
    )
    with pytest.raises(CheckpointError, match=r"resume\.pt"):
        train(config, data, folder, machine=FLOAT32)


def test_it_is_saved_now_and_then_whatever_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smalti.training.control.SAVE_SECONDS", 0.0)
    data, config = small_data(tmp_path), small_config("vqvae", "train.save_every=10k", "train.images=160")
    saved: list[int] = []
    watcher = Watcher(lambda _: saved.append(checkpoint.read_card(tmp_path / "run" / "last.safetensors").images_seen))
    train(config, data, tmp_path / "run", machine=FLOAT32, reporter=watcher)
    assert saved[:3] == [0, 16, 32]
    monkeypatch.undo()
    train(config, data, tmp_path / "other", machine=FLOAT32)
    assert digest(tmp_path / "run") == digest(tmp_path / "other")


def test_the_card_names_the_source_without_its_place(tmp_path: Path) -> None:
    config = small_config("vqvae", f"data.source={tmp_path}/discs.npz")
    train(config, small_data(tmp_path), tmp_path / "run", machine=FLOAT32)
    assert str(tmp_path) not in (tmp_path / "run" / "last.safetensors").read_bytes().decode("latin1")
    moved = small_config("vqvae", "data.source=elsewhere/discs.npz", "train.images=72")
    assert train(moved, small_data(tmp_path), tmp_path / "run", machine=FLOAT32).images_seen == 72


def test_best_is_the_best_score_so_far(tmp_path: Path) -> None:
    train(small_config("vqvae", "train.images=320"), small_data(tmp_path), tmp_path / "run", machine=FLOAT32)
    scores = [r for r in RunFolder(tmp_path / "run").records() if r.get("event") == "score"]
    top = max(scores, key=lambda record: record["value"])
    best = checkpoint.read_card(tmp_path / "run" / "best.safetensors")
    assert (best.images_seen, best.score["value"]) == (top["images_seen"], top["value"])


def test_bfloat16_trains_and_is_remembered(tmp_path: Path) -> None:
    data, config, folder = small_data(tmp_path), small_config("vqvae"), tmp_path / "run"
    train(config, data, folder, machine=Machine("cpu", "bfloat16"))
    longer = override(config, ["train.images=96"])
    train(longer, data, folder, machine=Machine("cpu", "auto"))
    assert [r["precision"] for r in RunFolder(folder).records() if "precision" in r] == ["bfloat16", "bfloat16"]
    watcher = Watcher()
    longest = override(config, ["train.images=128"])
    train(longest, data, folder, machine=FLOAT32, reporter=watcher)
    assert any("no longer the same" in text for text in watcher.messages)


def test_the_log_is_json_and_tensorboard_is_written(tmp_path: Path) -> None:
    train(small_config("vqvae"), small_data(tmp_path), tmp_path / "run", machine=FLOAT32)
    for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines():
        assert "images_seen" in json.loads(line)
    assert list((tmp_path / "run" / "tensorboard").iterdir())


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        (Machine(device="warp"), "cannot be used"),
        (Machine(precision="float8"), "must be one of"),
        (Machine(device="cuda:99"), "try `device` cpu"),
    ],
)
def test_a_machine_that_is_not_there(machine: Machine, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        machine.resolve()


def test_a_rank_knows_its_own_gpu_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a rank resolved once can be resolved again; here there is no such GPU, but it may be named."""
    monkeypatch.setenv("WORLD_SIZE", "200")
    monkeypatch.setenv("LOCAL_RANK", "99")
    with pytest.raises(ConfigError, match="the device 'cuda:99' cannot be used"):
        Machine("cuda:99").resolve()
    with pytest.raises(ConfigError, match="`device` is 'cuda:0', but 200 ranks need cpu, or cuda to get one GPU each"):
        Machine("cuda:0").resolve()


def test_one_image_is_too_few(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="needs at least 2"):
        train(small_config("vqvae"), small_data(tmp_path, count=1), tmp_path / "run", machine=FLOAT32)
    assert not (tmp_path / "run").exists()
