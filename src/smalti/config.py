"""Settings: frozen dataclasses, read from JSON or TOML, changed with dotted paths. Imports no torch.

A whole training is one `RunConfig`. Its plain form (`to_plain`) is what a run folder's `config.json` and the
header of a checkpoint hold; `from_plain` reads it back and checks every name, type and range, so that a hostile
or mistyped file is refused before anything of its size is allocated.

    >>> override(RunConfig(recipe="vqvae", model=VQVAEConfig()), ["model.quantizer.codes=64"]).model.quantizer.codes
    64
"""

from __future__ import annotations

import dataclasses
import json
import re
import tomllib
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from smalti.autoencoder_config import (  # noqa: F401 - whoever needs settings finds them all here
    AutoencoderConfig,
    ClassicConfig,
    ModernConfig,
    TransformConfig,
)
from smalti.checked import Checked, alternatives, choice, number, shown
from smalti.errors import ConfigError, did_you_mean
from smalti.gan_config import (  # noqa: F401
    AnnealConfig,
    AugmentationConfig,
    DCGANConfig,
    DiscriminatorConfig,
    GANConfig,
    PenaltyConfig,
    R3GANConfig,
    SNGANConfig,
)
from smalti.optimizer_config import OptimizerConfig
from smalti.prior_config import PriorConfig
from smalti.quantizer_config import (  # noqa: F401
    QUANTIZER_CONFIGS,
    BinaryConfig,
    LayerConfig,
    ProductConfig,
    QuantizerConfig,
    ResidualConfig,
    ScalarConfig,
    SimConfig,
    VectorConfig,
)
from smalti.units import parse_count

T = TypeVar("T")


@dataclass(frozen=True)
class PerceptualConfig(Checked):
    """The distance between the feature maps of a network, beside that of the pixels: losses/perceptual.py."""

    weight: float = number(0.0, 0.0, 1e6)
    network: str = choice("smalti-vit", "efficientnet-lite0")
    start: int = number(0, 0, 10**13)  # images after which it counts
    every: int = number(1, 1, 10**6)  # it looks at one of so many images of a batch: it costs more than all the rest


@dataclass(frozen=True)
class AdversaryConfig(Checked):
    """Discriminators that tell reconstructions from images, patch by patch: recipes/adversary.py."""

    # What they look at: the images, or the perceptual network's feature maps of them (all but the finest).
    sees: str = choice("pixels", "features")
    weight: float = number(0.0, 0.0, 1e6)  # times the ratio of the gradients' sizes, where `adaptive`
    adaptive: bool = True
    start: int = number(0, 0, 10**13)  # images after which they train
    ramp: int = number(20_000, 0, 10**13)  # images over which its weight then rises
    loss: str = choice("hinge", "bce", "least-squares")
    width: int = number(64, 4, 8192)  # channels after the first convolution
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=2e-4, beta1=0.5, beta2=0.99)


@dataclass(frozen=True)
class VQVAEConfig(Checked):
    """Recipe `vqvae`: autoencoder, quantizer, losses, optimizer."""

    autoencoder: AutoencoderConfig = ClassicConfig()
    quantizer: QuantizerConfig = VectorConfig()
    loss: str = choice("mse", "l1", "huber", "charbonnier")
    # 1 / variance of natural pixels in [-1, 1], so that the error counts in units of the data's own spread.
    loss_weight: float = number(4.0, 0.0, 1e6)
    perceptual: PerceptualConfig = PerceptualConfig()
    adversary: AdversaryConfig = AdversaryConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    settle: int | None = number(None, 0, 10**12)  # images from which encoder and codes stay; the decoder learns on

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.adversary.weight and self.adversary.sees == "features":
            if not self.perceptual.weight:
                raise ConfigError(
                    "adversary.sees is 'features', those of the perceptual network, but perceptual.weight is 0; "
                    "give it a weight, or let the adversary see 'pixels'"
                )
            if self.adversary.start < self.perceptual.start:
                raise ConfigError(
                    f"adversary.start is {self.adversary.start}, but with adversary.sees='features' must be at least "
                    f"perceptual.start, {self.perceptual.start}: there are no features before"
                )


@dataclass(frozen=True)
class VisionTransformerConfig(Checked):
    """Encoder of images: convolutions down to one token for `stride` x `stride` pixels, then a transformer."""

    stem_width: int = number(32, 4, 4096)  # channels of the first convolution; doubled at each halving
    stride: int = number(8, 2, 32)
    width: int = number(256, 8, 8192)
    depth: int = number(4, 1, 64)
    heads: int = number(4, 1, 256)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stride & (self.stride - 1):
            raise ConfigError(f"stride is {self.stride}, but must be a power of two: 2, 4, 8, 16 or 32")
        if self.width % self.heads:
            raise ConfigError(f"width is {self.width}, which {self.heads} heads cannot share evenly")


@dataclass(frozen=True)
class ContrastiveConfig(Checked):
    """Recipe `contrastive`: an encoder whose features tell images apart, learned without labels."""

    encoder: VisionTransformerConfig = VisionTransformerConfig()
    projection: int = number(128, 1, 65536)  # numbers in the embedding that the loss compares
    temperature: float = number(0.2, 0.001, 100.0)
    crop: float = number(0.2, 0.001, 1.0)  # smallest share of an image's area in a view
    jitter: float = number(0.5, 0.0, 1.0)  # strength of the colour changes
    blur: float = number(0.0, 0.0, 1.0)  # share of the views that are blurred
    warm_up: int = number(20_000, 0, 10**10)  # images over which the learning rate rises to its value
    optimizer: OptimizerConfig = OptimizerConfig("adamw", learning_rate=1e-3, beta2=0.98, weight_decay=0.05)


@dataclass(frozen=True)
class DataConfig(Checked):
    """Which images, and how they are made to fit. `size` is (height, width); None keeps the source's."""

    source: str = "emoji"
    split: str | None = None
    size: tuple[int, int] | None = number(None, 1, 16384)
    resize: str = choice("cover", "contain", "stretch")
    channels: int | None = number(None, 1, 4)
    flip: bool = True  # mirror every other image at random
    shift: int = number(0, 0, 16383)  # move each by up to so many pixels at random, mirrored at the border

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.channels == 2:
            raise ConfigError("channels is 2, but must be 1 (grey), 3 (RGB) or 4 (RGBA)")


@dataclass(frozen=True)
class LoopConfig(Checked):
    """How long, in what steps, and what is written on the way. Everything is counted in images."""

    images: int = number(1_000_000, 1, 10**13)
    batch: int = number(64, 1, 10**6)  # over all ranks together
    seed: int = number(0, 0, 2**63 - 1)
    average_half_life: int = number(20_000, 0, 10**10)  # of the averaged weights; 0: no averaging
    log_every: int = number(2_000, 1, 10**12)
    preview_every: int = number(50_000, 1, 10**12)
    save_every: int = number(50_000, 1, 10**12)


@dataclass(frozen=True)
class RunConfig(Checked):
    """Everything that decides what a training computes; the machine, the precision and the folder are apart."""

    recipe: str = choice("vqvae", "gan", "contrastive", "prior")
    model: VQVAEConfig | GANConfig | ContrastiveConfig | PriorConfig = VQVAEConfig()
    data: DataConfig = DataConfig()
    train: LoopConfig = LoopConfig()
    preset: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.model, MODELS[self.recipe]):
            raise ConfigError(f"recipe {self.recipe!r} needs a {MODELS[self.recipe].__name__} as its model")


ENDLESS = 10**13  # images, for a training that the clock ends

MODELS: dict[str, type[VQVAEConfig] | type[GANConfig] | type[ContrastiveConfig] | type[PriorConfig]] = {
    "vqvae": VQVAEConfig,
    "gan": GANConfig,
    "contrastive": ContrastiveConfig,
    "prior": PriorConfig,
}


def to_plain(config: Any) -> Any:
    """A settings object as dicts, lists and scalars, ready for JSON."""
    if dataclasses.is_dataclass(config):
        return {entry.name: to_plain(getattr(config, entry.name)) for entry in dataclasses.fields(config)}
    return list(config) if isinstance(config, tuple) else config


def from_plain(kind: type[T], plain: Any, where: str = "") -> T:
    """The inverse of `to_plain`; every key must be known, every value of its type and in its range.

    Args:
        kind: the dataclass to build, for example `RunConfig`.
        plain: a dict as read from JSON or TOML; absent keys take their defaults.
        where: dotted path of `plain` for messages.

    Raises:
        ConfigError: an unknown key, a wrong type or a value out of range, with its dotted path.
    """
    if not isinstance(plain, Mapping):
        raise ConfigError(f"{where or 'the settings'} must be a table of settings, found {shown(plain)}")
    hints = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    for key, value in plain.items():
        path = f"{where}.{key}" if where else str(key)
        if key not in hints:
            raise ConfigError(f"there is no setting {path!r}; {did_you_mean(str(key), hints)}")
        table = _table(kind, key, hints[key], plain, path)
        if table is not None:
            value = from_plain(table, value, path)
        elif isinstance(value, list):
            value = tuple(value)
        values[key] = value
    try:
        return kind(**values)
    except ConfigError as error:
        raise ConfigError(f"{where}.{error}" if where else str(error)) from None


def _table(kind: type, key: str, hint: Any, plain: Mapping[str, Any], path: str) -> type | None:
    """The dataclass that the table under a key is read as, or None where the key holds a plain value.

    Where there are several, the table's first word chooses; a run's model is chosen by the recipe beside it.
    """
    if kind is RunConfig and key == "model":
        recipe = plain.get("recipe", "vqvae")
        if not isinstance(recipe, str) or recipe not in MODELS:
            raise ConfigError(f"there is no recipe {shown(recipe)}; {did_you_mean(shown(recipe), MODELS)}")
        return MODELS[recipe]
    kinds = _kinds_by_word(hint)
    value = plain[key]
    if value is None and type(None) in alternatives(hint):
        return None
    if len(set(kinds.values())) < 2 or not isinstance(value, Mapping):
        return next(iter(kinds.values()), None)
    word = _word(hint)
    return _named(kinds, value.get(word, next(iter(kinds))), f"{path}.{word}")


def _word(hint: Any) -> str:
    """The field that says of which kind a table is: the first one of each kind."""
    first = next(kind for kind in alternatives(hint) if dataclasses.is_dataclass(kind))
    return dataclasses.fields(first)[0].name


def _kinds_by_word(hint: Any) -> dict[str, type]:
    """The dataclasses that a hint allows, by what their first field may say; one that is alone by its default."""
    kinds: dict[str, type] = {}
    for kind in alternatives(hint):
        if dataclasses.is_dataclass(kind):
            first = dataclasses.fields(kind)[0]
            for word in first.metadata.get("choices", (str(first.default),)):
                kinds[word] = typing.cast(type, kind)
    return kinds


def _named(kinds: Mapping[str, type], name: Any, path: str) -> type:
    if not isinstance(name, str) or name not in kinds:
        raise ConfigError(
            f"{path} is {shown(name)}: {did_you_mean(shown(name).strip(chr(39)), kinds)} (one of {', '.join(kinds)})"
        )
    return kinds[name]


def paths(config: Any, prefix: str = "") -> dict[str, Any]:
    """Every setting by its dotted path, in order: `{"model.quantizer.codes": 512, ...}`."""
    found: dict[str, Any] = {}
    for entry in dataclasses.fields(config):
        value = getattr(config, entry.name)
        if dataclasses.is_dataclass(value):
            found |= paths(value, f"{prefix}{entry.name}.")
        else:
            found[prefix + entry.name] = value
    return found


def override(config: RunConfig, assignments: Iterable[str]) -> RunConfig:
    """The settings with some replaced, each written `dotted.path=value`.

    Values are read as JSON where they are JSON (`64`, `0.5`, `true`, `null`, `[32, 48]`), as counts where they look
    like one (`3M`, `50k`), and as words otherwise. Where a name makes a table another kind of table, as
    `model.quantizer.name=scalar` does, that comes first and begins with the kind's defaults, wherever it stands.

    Raises:
        ConfigError: no such path (with the nearest one), or a value that does not fit.
    """
    changes: list[tuple[str, str]] = []
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        path = path.strip()
        if not equals:
            raise ConfigError(f"--set {assignment!r} has no '='; write it as {path or 'a.b'}=value")
        if path in ("recipe", "preset"):
            raise ConfigError(f"{path} cannot be set: it comes with the preset; give the name of another preset")
        changes.append((path, text.strip()))
    last = dict(changes)  # of several for one path, the last one
    for path in sorted(last, key=lambda path: path.count(".")):  # the outer table first, for it decides on the inner
        config = _renamed(config, path, last[path])

    plain = to_plain(config)
    known = paths(config)
    for path, text in changes:
        if path not in known:
            # People leave the first word out: `quantizer.codes` for `model.quantizer.codes`.
            whole = [name for name in known if name.endswith("." + path)]
            raise ConfigError(f"there is no setting {path!r}; {did_you_mean(path, whole or known)}")
        if text != last[path]:
            continue  # a later one wins, and where it is a name, the table is already of that kind
        node = plain
        *parents, leaf = path.split(".")
        for parent in parents:
            node = node[parent]
        node[leaf] = _value(text, _kinds(config, path))
    return from_plain(RunConfig, plain)


def _renamed(config: Any, path: str, word: str, whole: str = "") -> Any:
    """The settings with a table replaced by another kind's defaults, where the path is what says its kind."""
    table, _, rest = path.partition(".")
    inner = getattr(config, table, None)
    if not dataclasses.is_dataclass(inner):
        return config
    if "." in rest:
        return dataclasses.replace(config, **{table: _renamed(inner, rest, word, whole or path)})
    hint = typing.get_type_hints(type(config))[table]
    kinds = _kinds_by_word(hint)
    if len(set(kinds.values())) < 2 or rest != _word(hint):
        return config
    kind = _named(kinds, word, whole or path)
    return config if isinstance(inner, kind) else dataclasses.replace(config, **{table: kind(**{rest: word})})


def _kinds(config: Any, path: str) -> tuple[Any, ...]:
    """The types that the setting at a dotted path may have."""
    *parents, leaf = path.split(".")
    for parent in parents:
        config = getattr(config, parent)
    return alternatives(typing.get_type_hints(type(config))[leaf])


def _value(text: str, kinds: tuple[Any, ...]) -> Any:
    # By the type of the setting, not by the look of the text: a split may be called 2024.
    if str in kinds and float not in kinds:
        return None if type(None) in kinds and text in ("null", "None") else text
    try:
        return json.loads(text.lower() if text in ("True", "False", "None") else text)
    except (ValueError, RecursionError):  # not JSON, or a number or nesting beyond what Python reads
        return parse_count(text) if re.fullmatch(r"[\d.]+[kKMG]", text) else text


def read_toml(path: str | Path) -> list[str]:
    """The assignments a TOML file makes, as `override` takes them.

    Raises:
        ConfigError: the file is not there or is not TOML.
    """
    try:
        flat = _flatten(tomllib.loads(Path(path).read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigError(f"cannot read the settings {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    return [f"{name}={_text(value)}" for name, value in flat.items()]


def _flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
