"""Errors: arguments as data, worded by whoever shows them."""

from __future__ import annotations

import pytest

from smalti.cli import console
from smalti.errors import ConfigError, SmaltiError, arg, command, did_you_mean, reworded


def test_python_and_the_command_line_word_the_same_error() -> None:
    error = ConfigError(
        f"{arg('on_nan')} is 'x'; give {arg('size', '48x64')}, train with {arg('model.loss', 'hinge')}, or "
        f"{command('encode', 'RUN', out='CODES')}"
    )
    assert str(error) == (
        "`on_nan` is 'x'; give `size=48x64`, train with `model.loss=hinge`, or "
        "`smalti.pipelines.encode_dataset` RUN `out=CODES`"
    )
    assert console.with_flags(error) == (
        "--on-nan is 'x'; give --size 48x64, train with --set model.loss=hinge, or smalti encode RUN --out CODES"
    )


def test_arguments_and_remedy_are_data() -> None:
    error = SmaltiError(f"{arg('out')} is a file; give {arg('out')} a folder; or see {command('train')}")
    assert error.arguments == ("out",)
    assert error.problem == "`out` is a file"
    assert error.remedy == "give `out` a folder; or see `smalti.train`"
    assert SmaltiError("nothing to do").remedy == ""


@pytest.mark.parametrize("text", ["", "plain", "--flag", "`code`", "{braces}", "a; b"])
def test_other_text_stays_as_it_is(text: str) -> None:
    assert str(SmaltiError(text)) == console.with_flags(SmaltiError(text)) == reworded(text, lambda *_: "x") == text


def test_the_nearest_word_is_named_or_all() -> None:
    assert did_you_mean("gna", ["gan", "prior"]) == "did you mean 'gan'?"
    assert did_you_mean("zzz", ["gan", "prior"]) == "known: gan, prior"
    assert did_you_mean("zzz", []) == "none is known here"
