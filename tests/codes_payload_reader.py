"""A decoder of payload 2, the codes of VQ-VAEs, in plain Python, written from docs/format.md alone."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal, localcontext
from math import ceil, prod
from pathlib import Path
from typing import Any

from payload_coders import RangeDecoder, StateDecoder, decoder_of
from payload_reader import Codes, Output, Tensor, clip, codes_checksum, read_tensors

NEIGHBOURS = [(0, -1), (-1, -1), (-1, 0), (-1, 1), (0, -2), (-2, 0)]


class CodesModel:
    """What decoding needs of a model of the kind `context`."""

    def __init__(self, path: Path) -> None:
        card, tensors = read_tensors(path)
        assert card["kind"] == "context"
        self.digest = bytes.fromhex(card["digest"])
        self.native = tuple(card["spec"][name] for name in ("height", "width", "channels"))
        settings = card["tokenizer"]["config"]["model"]
        self.stride = settings["autoencoder"]["stride"]
        self.planes = codes_of(settings["quantizer"])
        own = {name.removeprefix("context."): tensor for name, tensor in tensors.items() if name.startswith("context.")}
        self.codes_by_rank = list(inverted(self.planes, own.get("ranks")))
        self.symbols = [n for plane in self.planes for n in digits(plane)]
        table = own["table"]
        self.table = [[clip(round(32 * w), -255, 255) for w in table.row(number)] for number in range(table.shape[0])]
        self.width = table.shape[1]
        self._read_layers(own)

    def _read_layers(self, own: dict[str, Tensor]) -> None:
        count, (width, before) = len(self.symbols), own["around.weight"].shape
        later = [own["own"].row(symbol) for symbol in range(count - 1)]  # each `width` rows of `self.width`
        first = [
            [*own["around.weight"].row(unit), *(w for part in later for w in row_of(part, unit, self.width))]
            for unit in range(width)
        ]
        assert before == len(NEIGHBOURS) * self.width
        second = [own["second.weight"].row(unit) for unit in range(own["second.weight"].shape[0])]
        self.first, self.second = layer(first, own["first_bias"]), layer(second, own["second_bias"])
        self.last, at = [], 0
        for n in self.symbols:
            rows = [own["last"].row(at + value) for value in range(n)]
            biases = Tensor([1, n], own["last_bias"].values[at : at + n])
            self.last.append(layer(rows, biases)[0])
            at += n

    def start(self, symbol: int) -> int:
        """The row of the table for the first value of a symbol."""
        return sum(self.symbols[:symbol]) + symbol

    def cumulative(self, inputs: list[int], symbol: int) -> list[int]:
        for each in (self.first[symbol], self.second[symbol]):
            inputs = [clip(output(inputs, output.s), 0, 255) for output in each]
        return cumulative([output(inputs, output.s + 1) for output in self.last[symbol]])


def codes_of(quantizer: dict[str, Any]) -> list[int]:
    """K of each plane."""
    match quantizer["name"]:
        case "vector" | "simvq":
            return [quantizer["codes"]]
        case "scalar":
            return [prod(quantizer["levels"])]
        case "binary":
            return [2 ** quantizer["bits"]]
        case "residual":
            return codes_of(quantizer["layer"]) * quantizer["depth"]
        case "product":
            return codes_of(quantizer["layer"]) * quantizer["groups"]
    raise AssertionError(quantizer["name"])


def low(codes: int) -> int:
    """B."""
    return 2 ** ceil((codes - 1).bit_length() / 2)


def digits(codes: int) -> list[int]:
    """The number of values of each symbol of a plane."""
    return [codes] if codes <= 4096 else [ceil(codes / low(codes)), low(codes)]


def inverted(planes: list[int], ranks: Tensor | None) -> Iterator[dict[int, int]]:
    """The code of each rank, for each plane."""
    at = 0
    for codes in planes:
        if codes <= 4096:
            yield {code: code for code in range(codes)}
            continue
        assert ranks is not None
        yield {int(ranks.values[at + code]): code for code in range(codes)}
        at += codes


def row_of(part: tuple[float, ...], unit: int, length: int) -> tuple[float, ...]:
    return part[unit * length : (unit + 1) * length]


def layer(rows: list[Any], biases: Tensor) -> list[list[Output]]:
    """The outputs of a layer for each symbol."""
    found = []
    by_symbol = [biases.row(symbol) for symbol in range(biases.shape[0])]
    for symbol in range(biases.shape[0]):
        outputs = []
        for unit, row in enumerate(rows):
            bound = max(abs(each[unit]) for each in by_symbol)
            outputs.append(Output(row, [255] * len(row), by_symbol[symbol][unit], bound))
        found.append(outputs)
    return found


def exponential(d: int) -> int:
    """F(d)."""
    if d not in _exponentials:
        with localcontext(prec=40):
            _exponentials[d] = int(2**24 * (-Decimal(d) / 16).exp())
    return _exponentials[d]


_exponentials: dict[int, int] = {}


def cumulative(logits: list[int]) -> list[int]:
    weights = [exponential(max(logits) - a) for a in logits]
    count, total, below = len(logits), sum(weights), 0
    found = [0]
    for k, weight in enumerate(weights, 1):
        below += weight
        found.append(k + below * (2**16 - count) // total)
    return found


def read_codes(model: CodesModel, stream: bytes, coder: int, images: int, height: int, width: int) -> list[Codes]:
    """Codes of the images of a stream, on grids of height x width."""
    decoder: StateDecoder | RangeDecoder = decoder_of(stream, coder)
    symbols = [Codes() for _ in range(images)]  # by (symbol, row, column)
    for wave in range(width + 2 * height - 2):
        places = [(y, wave - 2 * y) for y in range(height) if 0 <= wave - 2 * y < width]
        for symbol in range(len(model.symbols)):
            for y, x in places:
                for image in symbols:
                    inputs = inputs_of(model, image, symbol, y, x)
                    image[symbol, y, x] = decoder.symbol(model.cumulative(inputs, symbol))
    codes = [joined(model, image, height, width) for image in symbols]
    decoder.finish(codes_checksum(codes, len(model.planes), height, width))
    return codes


def inputs_of(model: CodesModel, known: Codes, symbol: int, y: int, x: int) -> list[int]:
    found = []
    for down, right in NEIGHBOURS:
        rows = [
            model.table[model.start(s) + known.get((s, y + down, x + right), n)] for s, n in enumerate(model.symbols)
        ]
        found += [clip(sum(values), -255, 255) for values in zip(*rows, strict=True)]
    for s in range(len(model.symbols) - 1):
        found += model.table[model.start(s) + known[s, y, x]] if s < symbol else [0] * model.width
    return found


def joined(model: CodesModel, known: Codes, height: int, width: int) -> Codes:
    """Symbols to codes."""
    found, symbol = Codes(), 0
    for plane, codes in enumerate(model.planes):
        count = len(digits(codes))
        for y in range(height):
            for x in range(width):
                rank = known[symbol, y, x]
                if count == 2:
                    rank = rank * low(codes) + known[symbol + 1, y, x]
                found[plane, y, x] = model.codes_by_rank[plane][rank]
        symbol += count
    return found
