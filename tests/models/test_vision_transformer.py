"""The vision transformer: shapes at any size, attention against torch's own, maps that belong to the features."""

from __future__ import annotations

import pytest
import torch

from smalti.config.contrastive import VisionTransformerConfig
from smalti.errors import ConfigError
from smalti.models import vision_transformer
from smalti.models.vision_transformer import VisionTransformer

TINY = VisionTransformerConfig(stem_width=4, stride=4, width=8, depth=2, heads=2)


@pytest.mark.parametrize("image", [(3, 16, 16), (1, 8, 12), (4, 17, 9)])
def test_features_and_maps_at_any_size(image: tuple[int, int, int]) -> None:
    model = VisionTransformer(TINY, image).eval()
    x = torch.randn(3, *image)
    features = model(x)
    assert features.shape == (3, model.dimension)
    assert model.dimension == 8 + 16
    maps = model.maps(x)
    assert maps[0].shape[2:] == image[1:]
    assert all(m.shape[0] == 3 for m in maps)
    # The last stem map and the last tokens are what the features are means of.
    stem = maps[len(model.stem) // 3 - 1]
    parts = [maps[-1].mean(dim=(2, 3)), vision_transformer.STEM_SIZE * stem.mean(dim=(2, 3))]
    assert torch.allclose(torch.cat(parts, dim=1), features, atol=1e-5)


def test_images_of_a_batch_do_not_see_each_other_when_used() -> None:
    model = VisionTransformer(TINY, (3, 16, 16)).eval()
    x = torch.randn(4, 3, 16, 16)
    assert torch.allclose(model(x)[1:2], model(x[1:2]), atol=1e-5)


def test_every_weight_learns() -> None:
    model = VisionTransformer(TINY, (3, 16, 16))
    model(torch.randn(4, 3, 16, 16)).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name


def test_settings_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match="power of two"):
        VisionTransformerConfig(stride=6)
    with pytest.raises(ConfigError, match="3 heads cannot share"):
        VisionTransformerConfig(width=256, heads=3)
