"""Two processes that share each batch end where one process does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_runs import settings, write_source

from smalti import checkpoint
from smalti.runfolder import RunFolder

FAR_APART = 1e-5


DESCENT = [f"model.{name}_optimizer.{setting}" for name in ("generator", "discriminator")
           for setting in ("name=sgd", "learning_rate=1e-3")]  # fmt: skip


def run(
    ranks: int, preset: str, source: Path, out: Path, *extra: str, options: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    words = ["train", preset, "--data", str(source), "--out", str(out), "--cache", str(out.parent / "cache")]
    words += ["--precision", "float32", "--device", "cpu", *settings(preset, *extra), *options]
    launcher = [sys.executable]
    if ranks > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*launcher, "-m", "smalti", *words], capture_output=True, text=True, check=False, env=environment, timeout=300
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "extra"),
    [
        # Every statistic that ranks must share: EMA codebook and revival, batch norm and codebook gradient, dropout.
        ("vqvae", ("model.quantizer.revive_below=0.5",)),
        ("vqvae-64", ()),
        ("dcgan", ("model.loss=wasserstein", "model.conditional=true")),
        # Latents, changes of images, running means of logits, a watch.
        *(("gan-nano", (*DESCENT, "model.augmentation.probability=0.5", "model.penalty.lecam=0.1", *more))
          for more in (("model.fresh=true",), ("model.discriminator.sees=features", "model.discriminator.width=8"))),
        # The transform that every rank fits for itself, a product of codebooks, and the game of two networks. Descent
        # for the reason below: what begins at zero has small gradients.
        ("vqvae-best", ("model.optimizer.name=sgd", "model.optimizer.warm_up=0")),
        ("vqgan", ("model.optimizer.name=sgd", "model.optimizer.warm_up=0", "model.adversary.optimizer.name=sgd")),
        (
            "vqgan",
            ("model.optimizer.name=sgd", "model.optimizer.warm_up=0", "model.adversary.optimizer.name=sgd",
             "model.adversary.sees=pixels", "model.adversary.adaptive=true"),
        ),
        # Embeddings are compared with those of every rank. Plain descent in small steps, for gradients are large: batch
        # norm leaves one bias without a gradient, and Adam makes whole steps of the rounding error left of it.
        ("smalti-vit", ("model.optimizer.name=sgd", "model.optimizer.learning_rate=1e-5", "model.warm_up=0")),
    ],
)  # fmt: skip
def test_two_ranks_end_where_one_does(preset: str, extra: tuple[str, ...], tmp_path: Path) -> None:
    source = write_source(tmp_path / "discs.npz")
    for ranks in (1, 2):
        done = run(ranks, preset, source, tmp_path / f"ranks{ranks}", *extra)
        assert done.returncode == 0, done.stderr
    one, two = (checkpoint.read(tmp_path / f"ranks{ranks}" / "last.safetensors")[0].state_dict() for ranks in (1, 2))
    for name, tensor in one.items():
        assert torch.allclose(tensor, two[name], rtol=0, atol=FAR_APART), name
    logs = [[r for r in RunFolder(tmp_path / f"ranks{ranks}").records() if "seconds" in r] for ranks in (1, 2)]
    assert [r["images_seen"] for r in logs[0]] == [r["images_seen"] for r in logs[1]], "one rank writes the log"
    for first, second in zip(*logs, strict=True):
        for term in first.keys() - {"seconds", "images_per_second"}:
            assert first[term] == pytest.approx(second[term], abs=1e-3), term


@pytest.mark.slow
def test_a_mistake_is_said_once_and_no_rank_waits_for_ever(tmp_path: Path) -> None:
    source = write_source(tmp_path / "discs.npz")
    done = run(2, "vqvae", source, tmp_path / "run", "train.batch=7")
    assert done.returncode != 0
    assert "which 2 ranks cannot share evenly" in done.stderr
    # Rank 0 alone looks at the folder.
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").write_text("mine")
    done = run(2, "vqvae", source, tmp_path / "taken")
    assert done.returncode != 0
    assert done.stderr.count("smalti: error:") == 1
    assert "holds other files" in done.stderr


@pytest.mark.slow
def test_two_ranks_end_together_when_the_time_is_up_and_go_on(tmp_path: Path) -> None:
    source = write_source(tmp_path / "discs.npz")
    out = tmp_path / "run"
    ended = run(2, "vqvae", source, out, "train.images=10G", "train.log_every=1G", options=("--budget", "1s"))
    assert ended.returncode == 0, ended.stderr
    at = checkpoint.read_card(out / "last.safetensors").images_seen
    assert at > 0
    longer = run(2, "vqvae", source, out, f"train.images={at + 64}")
    assert longer.returncode == 0, longer.stderr
    assert checkpoint.read_card(out / "last.safetensors").images_seen == at + 64
