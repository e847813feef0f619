"""The trees of commands; every file of a command adds it to one of them."""

from __future__ import annotations

from cyclopts import App

from smalti._version import __version__

app = App(
    name="smalti",
    version=__version__,
    help="Train GANs and VQ-VAEs on your own images, then generate, reconstruct and measure.",
    help_format="plaintext",
    help_epilogue="First steps: smalti demo    Every command has examples: smalti train --help",
    result_action="return_value",
)
data_app = App(name="data", help="Look at a source of images, or pack it for training.", help_format="plaintext")
app.command(data_app)
evaluate_app = App(
    name="evaluate",
    help="Measure a model or any images; every figure comes with its interval and its protocol.",
    help_format="plaintext",
)
app.command(evaluate_app)


def examples(*commands: str) -> str:
    """The last lines of a command's help."""
    return "\n".join(["Examples:", *(f"  {command}" for command in commands)])
