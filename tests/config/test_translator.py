"""Settings of translators that cannot be."""

from __future__ import annotations

import pytest
from small_runs import small_config

from smalti.config.parse import override
from smalti.config.presets import preset
from smalti.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("restyle-paired", "model.adversary.inputs=features", "have discriminators of pixels alone"),
        ("restyle-unpaired", "model.adversary.weight=0", "the discriminator alone knows what the pictures should look"),
        ("restyle-unpaired", "model.objective.maps=[0, 5]", "has 5, but this network has the maps 0 to 4"),
        ("restyle-unpaired", "model.objective.temperature=0", "must be from 0.001 to 100"),
        ("restyle-paired", "model.objective.method=pears", "did you mean 'pairs'"),
    ],
)
def test_mistakes(name: str, change: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        small_config(name, change)


def test_the_objective_is_chosen_by_its_method() -> None:
    config = override(preset("restyle-paired"), ["model.objective.method=contrastive", "model.objective.patches=9"])
    assert config.model.objective.patches == 9
    assert not config.model.matched
    assert (config.model.scale, config.model.holes) == (1, False)
