"""An autoencoder's two halves as modules that `torch.export` takes.

    batch = torch.export.Dim("batch")
    program = torch.export.export(EncodeModule(autoencoder.eval()), (images,), dynamic_shapes=({0: batch},))

Neither reads the values of its input, so that latents that are not finite and codes outside the alphabet, which
`Autoencoder.encode` and `Autoencoder.decode` refuse, are not noticed.
Layout: images (B, C, H, W), codes (B, P, h, w).
"""

from __future__ import annotations

from torch import Tensor, nn

from smalti.models.autoencoder.autoencoder import Autoencoder


class EncodeModule(nn.Module):
    """Images to codes: (B, C, H, W) in [-1, 1] -> (B, P, ceil(H/stride), ceil(W/stride)) int64."""

    def __init__(self, autoencoder: Autoencoder) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, images: Tensor) -> Tensor:
        return self.autoencoder.codes_of(images)


class DecodeModule(nn.Module):
    """Codes to images: (B, P, h, w) int64 -> (B, C, h * stride, w * stride) float32 in [-1, 1]."""

    def __init__(self, autoencoder: Autoencoder) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, codes: Tensor) -> Tensor:
        return self.autoencoder.images_of(codes)
