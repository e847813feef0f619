"""`smalti generate` with a prior: labels, prompts, sampling, and what is refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from smalti.pipelines import base as api


@pytest.mark.parametrize("name", ["plain", "masked", "labelled", "text"])
def test_an_image_is_the_same_in_any_company(priors, name: str) -> None:
    model = api.load(getattr(priors, name))
    whole = model.generate(64, seed=3)
    assert whole.shape == (64, 16, 16, 3)
    assert np.array_equal(model.generate(1, seed=3), whole[:1])
    assert np.array_equal(model.generate(7, seed=3), whole[:7])
    assert np.array_equal(model.generate(5, seed=3, first=20), whole[20:25])
    assert not np.array_equal(model.generate(64, seed=4), whole)


def test_a_label_a_prompt_and_how_codes_are_drawn(smalti, priors) -> None:
    for words in (
        ("LABELLED", "--label", "left", "--guidance", 2.0),
        ("TEXT", "--prompt", "red disc", "--guidance", 3.0, "--temperature", 0.7, "--top-k", 4, "--top-p", 0.9),
        ("MASKED", "--steps", 4),
    ):
        run, *rest = words
        out = f"{run}.png"
        done = smalti("generate", getattr(priors, run.lower()), *rest, "--count", 4, "--out", out)
        assert done.code == 0, done.err
        text = Image.open(out).text  # type: ignore[attr-defined]
        for option, value in zip(rest[::2], rest[1::2], strict=True):
            assert text[f"smalti.{str(option)[2:].replace('-', '_')}"] == str(value)


@pytest.mark.parametrize(
    ("run", "words", "said"),
    [
        ("plain", ("--prompt", "apple"), "was trained without captions, so a prompt means nothing to it"),
        ("plain", ("--label", "left"), "was trained without labels, so --label left means nothing to it"),
        ("labelled", ("--label", "up"), "knows no label 'up'"),
        ("plain", ("--guidance", "2"), "guidance has nothing to go by"),
        ("sure", ("--guidance", "2"), "was trained with model.condition_dropout=0"),
        ("text", ("--guidance", "2"), "guidance leads from any image to what a prompt says; give a prompt, or no"),
        ("plain", ("--truncation", "0.5"), "has no latents to truncate; lower the temperature"),
        ("plain", ("--temperature", "-1"), "temperature is -1, but must be from 0 to 100"),
        ("plain", ("--top-p", "2"), "top_p is 2, but must be from"),
        ("plain", ("--interpolate", "1,2"), "which has no latents to walk between"),
        ("plain", ("--count", "0"), "--count is 0, but must be from 1"),
        ("gan", ("--prompt", "apple"), "is a GAN; prompt, temperature"),
        ("gan", ("--temperature", "1"), "is a GAN; prompt, temperature"),
    ],
)
def test_what_a_model_does_not_know(smalti, trained, priors, run: str, words: tuple[str, ...], said: str) -> None:
    place = trained.gan if run == "gan" else getattr(priors, run)
    done = smalti("generate", place, *words, "--out", "new.png")
    assert done.code == 1
    assert said in done.err
    assert done.err.count("\n") == 1
    assert not Path("new.png").exists()


def test_options_of_other_pictures_are_refused(smalti, priors, trained: SimpleNamespace, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(tmp_path / "a.png")
    for words, said in (
        (("generate", priors.plain, "--steps", "5", "--out", "g.png"), "draws code after code, so there are no steps"),
        (("generate", priors.sure, "--out", "g.png"), "never saw an image without its caption, so give a prompt"),
        (("generate", trained.gan, "--interpolate", "1,2", "--prompt", "a", "--out", "g.png"), "do not go with"),
    ):
        done = smalti(*words)
        assert done.code == 1
        assert said in done.err
        assert done.err.count("\n") == 1


def test_a_prompt_may_hold_any_bytes(priors) -> None:
    assert api.load(priors.text).generate(1, prompt="\udcff apple").shape == (1, 16, 16, 3)
