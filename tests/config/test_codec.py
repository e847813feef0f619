"""Settings of the codec: ranges, what contradicts, the presets."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from smalti.config.codec import CodecConfig, ContextConfig, PleasingConfig
from smalti.config.parse import from_plain, override, to_plain
from smalti.config.presets import preset
from smalti.config.run import RunConfig
from smalti.errors import ConfigError


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"tile": 1}, "tile is 1, but must be"),
        ({"tile": 129}, "tile is 129"),
        ({"tile": 32, "patch": 3}, "tile is 32, which is not a multiple of patch, 3"),
        ({"tile": 2, "patch": 4}, "not a multiple of patch"),
        ({"coefficients": 0}, "coefficients is 0"),
        ({"coefficients": 16385}, "coefficients is 16385"),
        ({"quality_low": 71}, "quality_low is 71, but must not be larger than quality_high, 70"),
        ({"quality_low": 0}, "quality_low is 0"),
        ({"quality_high": 101}, "quality_high is 101"),
        ({"rate_weight": 0.0}, "rate_weight is 0.0"),
        ({"rate_weight": float("nan")}, "rate_weight is nan"),
        ({"rounds": -1}, "rounds is -1"),
        ({"width": 3}, "width is 3"),
        ({"blocks": -1}, "blocks is -1"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        CodecConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"groups": 0}, "groups is 0"),
        ({"groups": 65}, "groups is 65"),
        ({"width": 7}, "width is 7"),
        ({"shared": 0}, "shared is 0"),
        ({"neighbours": 1}, "neighbours is 1"),
    ],
)
def test_settings_of_the_context_net_out_of_range_are_refused(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        ContextConfig(**settings)


def test_equal_qualities_are_a_range() -> None:
    assert CodecConfig(quality_low=40, quality_high=40).quality_low == 40


@pytest.mark.parametrize("name", ["codec-tiny", "codec-photo"])
def test_presets_come_back_from_json(name: str) -> None:
    run = preset(name)
    assert run.recipe == "codec"
    assert from_plain(RunConfig, json.loads(json.dumps(to_plain(run)))) == run
    changed = override(run, ["model.context.neighbours=true", "model.tile=8", "model.pleasing.start=1000"])
    assert isinstance(changed.model, CodecConfig)
    assert (changed.model.tile, changed.model.context.neighbours, changed.model.pleasing.start) == (8, True, 1000)


def test_there_is_no_second_decoder_unless_it_is_asked_for() -> None:
    assert CodecConfig().pleasing == PleasingConfig()
    assert PleasingConfig().start is None
    for name in ("codec-tiny", "codec-photo"):
        model = preset(name).model
        assert isinstance(model, CodecConfig)
        assert model.pleasing.start is None


def test_torch_stays_out() -> None:
    code = "import sys, smalti.config.codec; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
