"""Two processes that share each batch end where one process does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ruined import ruined, run_away
from small_codes import small_codes
from small_runs import settings, write_source

from smalti import cli
from smalti.checkpoint import file as checkpoint
from smalti.checkpoint.run_dir import RunFolder
from smalti.config.presets import preset as find_preset
from smalti.recipes.gan import GANRecipe

FAR_APART = 1e-5


DESCENT = [f"model.{name}_optimizer.{setting}" for name in ("generator", "discriminator")
           for setting in ("name=sgd", "learning_rate=1e-3")]  # fmt: skip


def command(preset: str, source: Path, out: Path, *extra: str) -> list[str]:
    words = ["train", preset, "--data", str(source), "--out", str(out), "--cache", str(out.parent / "cache")]
    return [*words, "--precision", "float32", "--device", "cpu", *settings(preset, *extra)]


def run(ranks: int, *words: str, program: tuple[str, ...] = ("-m", "smalti")) -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable]
    if ranks > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*launcher, *program, *words], capture_output=True, text=True, check=False, env=environment, timeout=300
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "extra"),
    [
        # Every statistic that ranks must share: EMA codebook and revival, batch norm and codebook gradient, dropout.
        ("vqvae", ("model.quantizer.dead_code_threshold=0.5",)),
        ("vqvae-64", ()),
        ("dcgan", ("model.loss=wasserstein", "model.conditional=true")),
        # Batch norm with a scale for each label or one for all, power iterations. Descent because batch norm leaves
        # biases without a gradient; another seed because with 0, rounding moves a value across the kink of a ReLU.
        ("sngan", (*DESCENT, "model.conditional=true", "train.seed=2")),
        # Latents, changes of images, running means of logits, a watch.
        *(("gan-nano", (*DESCENT, "model.augmentation.probability=0.5", "model.penalty.lecam=0.1", *more))
          for more in (("model.resample_for_generator=true", "model.network.generator=mirror"),
                       ("model.resample_for_generator=true", "model.conditional=true"),
                       ("model.discriminator.inputs=features", "model.discriminator.width=8"))),
        # The transform that every rank fits for itself, a product of codebooks, and the game of two networks. Descent
        # for the reason below: what begins at zero has small gradients.
        ("vqvae-best", ("model.optimizer.name=sgd", "model.optimizer.warm_up=0")),
        ("vqgan", ("model.optimizer.name=sgd", "model.optimizer.warm_up=0", "model.adversary.optimizer.name=sgd")),
        (
            "vqgan",
            ("model.optimizer.name=sgd", "model.optimizer.warm_up=0", "model.adversary.optimizer.name=sgd",
             "model.adversary.inputs=pixels", "model.adversary.adaptive=true"),
        ),
        # Embeddings are compared with those of every rank. Plain descent in small steps, for gradients are large: batch
        # norm leaves one bias without a gradient, and Adam makes whole steps of the rounding error left of it.
        ("smalti-vit", ("model.optimizer.name=sgd", "model.optimizer.learning_rate=1e-5", "model.warm_up=0")),
        # Orders, hidden codes, labels and captions that are left out, dropout.
        ("prior-small", ("model.optimizer.name=sgd", "model.condition=class")),
        ("maskgit-small", ("model.optimizer.name=sgd",)),
        ("text-emoji", ("model.optimizer.name=sgd", "model.planes=depth")),
    ],
)  # fmt: skip
def test_two_ranks_end_where_one_does(preset: str, extra: tuple[str, ...], tmp_path: Path) -> None:
    if find_preset(preset).recipe == "prior":
        source = small_codes(tmp_path, planes=2).folder
    else:
        source = write_source(tmp_path / "discs.npz")
    for ranks in (1, 2):
        done = run(ranks, *command(preset, source, tmp_path / f"ranks{ranks}", *extra))
        assert done.returncode == 0, done.stderr
    same_weights(tmp_path / "ranks1", tmp_path / "ranks2")
    logs = [[r for r in RunFolder(tmp_path / f"ranks{ranks}").records() if "seconds" in r] for ranks in (1, 2)]
    assert [r["images_seen"] for r in logs[0]] == [r["images_seen"] for r in logs[1]], "one rank writes the log"
    for first, second in zip(*logs, strict=True):
        for term in first.keys() - {"seconds", "images_per_second"}:
            assert first[term] == pytest.approx(second[term], abs=1e-3), term


def same_weights(first: Path, second: Path) -> None:
    one, two = (checkpoint.read(folder / "last.safetensors")[0].state_dict() for folder in (first, second))
    for name, tensor in one.items():
        assert torch.allclose(tensor, two[name], rtol=0, atol=FAR_APART), name


@pytest.mark.slow
def test_ranks_go_back_together_where_one_of_them_has_collapsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once where both have, once where rank 1 alone has: two GPUs may see a figure on two sides of a limit."""
    source, one, two = write_source(tmp_path / "discs.npz"), tmp_path / "ranks1", tmp_path / "ranks2"
    monkeypatch.setattr(GANRecipe, "step", ruined(GANRecipe.step, run_away, at=40, times=2))
    settings = (*DESCENT, "model.network.generator=mirror")  # the other one, which ends in a tanh, cannot run away
    assert cli.run(command("gan-nano", source, one, *settings)) == 0
    program = (str(Path(__file__).parents[1] / "ruined.py"), "01,1")
    done = run(2, *command("gan-nano", source, two, *settings), program=program)
    assert done.returncode == 0, done.stderr
    for folder, second in ((one, "the generator ran away"), (two, "another rank found that the training collapsed")):
        back = [r for r in RunFolder(folder).records() if r.get("event") == "rollback"]
        assert [(r["images_seen"], r["rollbacks"]) for r in back] == [(32, 1), (32, 2)]
        assert [r["problem"].partition(":")[0] for r in back] == ["the generator ran away", second], "by rank 0"
    same_weights(one, two)


@pytest.mark.slow
def test_a_mistake_is_said_once_and_no_rank_waits_for_ever(tmp_path: Path) -> None:
    source = write_source(tmp_path / "discs.npz")
    done = run(2, *command("vqvae", source, tmp_path / "run", "train.batch=7"))
    assert done.returncode != 0
    assert "which 2 ranks cannot share evenly" in done.stderr
    # Rank 0 alone looks at the folder.
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").write_text("mine")
    done = run(2, *command("vqvae", source, tmp_path / "taken"))
    assert done.returncode != 0
    assert done.stderr.count("smalti: error:") == 1
    assert "holds other files" in done.stderr


@pytest.mark.slow
def test_two_ranks_end_together_when_the_time_is_up_and_go_on(tmp_path: Path) -> None:
    source = write_source(tmp_path / "discs.npz")
    out = tmp_path / "run"
    ended = run(2, *command("vqvae", source, out, "train.images=10G", "train.log_every=1G"), "--budget", "1s")
    assert ended.returncode == 0, ended.stderr
    at = checkpoint.read_card(out / "last.safetensors").images_seen
    assert at > 0
    longer = run(2, *command("vqvae", source, out, f"train.images={at + 64}"))
    assert longer.returncode == 0, longer.stderr
    assert checkpoint.read_card(out / "last.safetensors").images_seen == at + 64
