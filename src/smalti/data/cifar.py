"""CIFAR-10 as its authors publish it: the python or binary version, in a folder or an archive.

    python    data_batch_1 .. data_batch_5, test_batch: pickles of {data: (n, 3072) uint8, labels: n integers}
    binary    data_batch_1.bin .. data_batch_5.bin, test_batch.bin: n records of (label, 3072 bytes)

Both store an image as its red, green and blue planes of 32 x 32 pixels. Images are named "train/00000" and so on,
because the binary version has no names; both versions give the same pixels and the same fingerprint.

A pickle can run arbitrary code. Here every opcode is checked first, then the file is read by an unpickler that knows
only the few names CIFAR-10 needs, all bound to inert stand-ins in this file; numpy's own unpickling is never used.

Source: Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from smalti.data.archives import Contents, Entry, Tree, bytes_of
from smalti.data.sources import Block, Encoded, Listing, Numbered, Source, choose_split
from smalti.errors import DataError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

_PIXELS = 3 * 32 * 32
_BATCHES = {"train": tuple(f"data_batch_{number}" for number in range(1, 6)), "test": ("test_batch",)}

_OPCODES = frozenset(
    """
    PROTO FRAME STOP MARK EMPTY_DICT EMPTY_LIST EMPTY_TUPLE DICT LIST TUPLE TUPLE1 TUPLE2 TUPLE3 SETITEM SETITEMS
    APPEND APPENDS NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG1 STRING BINSTRING SHORT_BINSTRING BINBYTES
    SHORT_BINBYTES BINUNICODE SHORT_BINUNICODE GLOBAL STACK_GLOBAL REDUCE BUILD PUT BINPUT LONG_BINPUT MEMOIZE GET
    BINGET LONG_BINGET
    """.split()  # noqa: SIM905
)
_UNPICKLING = (pickle.UnpicklingError, ValueError, EOFError, TypeError, LookupError, AttributeError, ArithmeticError)
_MEMO_LIMIT = 2**22  # the C unpickler allocates its memo up to the highest index used


class CifarSource(Source):
    """CIFAR-10 batch files in a folder or archive."""

    def __init__(self, tree: Tree, location: str, *, binary: bool) -> None:
        self.kind = "CIFAR-10 binary" if binary else "CIFAR-10 python"
        self.location = location
        self.tree = tree
        self._suffix = ".bin" if binary else ""
        self._parse = _parse_binary if binary else parse_python
        self._first_rows: dict[str, int] = {}

    def signature(self) -> str:
        return self.tree.signature()

    def listing(self, split: str | None, *, look: bool) -> Listing:
        chosen = choose_split(split, tuple(_BATCHES), self.location)
        assert chosen is not None
        labels = {name: batch.labels for name, batch in self._batches(sum(_BATCHES.values(), ()))}
        missing = [name + self._suffix for name in _BATCHES[chosen] if name not in labels]
        if missing:
            raise DataError(f"{self.location} lacks {', '.join(missing)}; unpack or download {self.kind} again")
        ordered = [labels[name] for name in _BATCHES[chosen]]
        starts = np.cumsum([0, *(len(part) for part in ordered)]).tolist()
        self._first_rows = dict(zip(_BATCHES[chosen], starts[:-1], strict=True))
        names = Numbered(f"{chosen}/", starts[-1])
        return Listing.uniform(
            chosen,
            tuple(_BATCHES),
            names,
            (32, 32, 3),
            labels=np.concatenate(ordered).tolist(),
            classes=CLASSES,
            counts={split: sum(len(labels.get(name, ())) for name in _BATCHES[split]) for split in _BATCHES},
        )

    def stream(self, listing: Listing) -> Iterator[Encoded | Block]:
        assert listing.split is not None
        for name, batch in self._batches(_BATCHES[listing.split]):
            yield Block(self._first_rows[name], batch.images)

    def _batches(self, names: tuple[str, ...]) -> Iterator[tuple[str, CifarBatch]]:
        """Yield the named batches in the order of the walk."""
        wanted = {name + self._suffix: name for name in names}
        for entry, contents in self.tree.walk(lambda entry: PurePosixPath(entry.name).name in wanted):
            name = wanted.get(PurePosixPath(entry.name).name)
            if name is None:
                continue
            try:
                yield name, self._parse(_bytes_of(entry, contents))
            except DataError as error:
                raise DataError(f"{entry.name} in {self.location}: {error}; download it again") from error


@dataclass(frozen=True)
class CifarBatch:
    """One batch file: images (n, 32, 32, 3) uint8 and labels (n,) int64."""

    images: np.ndarray
    labels: np.ndarray


def layout_of(names: list[str]) -> str | None:
    """The version, "python" or "binary", if the file names are those of CIFAR-10, else None."""
    files = {PurePosixPath(name).name for name in names}
    if files & {"data_batch_1.bin", "test_batch.bin"}:
        return "binary"
    if files & {"data_batch_1", "test_batch"}:
        return "python"
    return None


def parse_python(data: bytes) -> CifarBatch:
    """Parse one batch file of the python version.

    Raises:
        DataError: the data is not a CIFAR-10 batch, or the pickle refers to anything CIFAR-10 does not need.
    """
    try:
        _check_opcodes(data)
        batch = _Unpickler(io.BytesIO(data), encoding="bytes").load()
    except _UNPICKLING as error:
        raise DataError(f"not a batch of CIFAR-10 ({' '.join(str(error).split())[:200]})") from error
    if not isinstance(batch, dict):
        raise DataError(f"a pickled {type(batch).__name__}, expected a dictionary with data and labels")
    fields = {key.decode("latin-1") if isinstance(key, bytes) else key: value for key, value in batch.items()}
    array, labels = fields.get("data"), fields.get("labels")
    if not isinstance(array, _Array) or not isinstance(labels, list):
        raise DataError("no array under data or no list under labels")
    return _checked(array.rows(_PIXELS), labels)


def _parse_binary(data: bytes) -> CifarBatch:
    if not data or len(data) % (1 + _PIXELS):
        raise DataError(f"{len(data):,} bytes, expected a multiple of {1 + _PIXELS:,}")
    rows = np.frombuffer(data, np.uint8).reshape(-1, 1 + _PIXELS)
    return _checked(rows[:, 1:], rows[:, 0].tolist())


def _checked(rows: np.ndarray, labels: list[Any]) -> CifarBatch:
    if len(labels) != len(rows) or not len(rows):
        raise DataError(f"{len(rows)} images but {len(labels)} labels")
    if not all(type(label) is int and 0 <= label < len(CLASSES) for label in labels):
        raise DataError("a label outside 0..9")
    images = rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)  # planes to channels last
    return CifarBatch(np.ascontiguousarray(images), np.array(labels, np.int64))


class _Array:
    """Stand-in for numpy.ndarray that stores the pickled state and checks it in `rows`."""

    def __init__(self) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def rows(self, width: int) -> np.ndarray:
        """The array, (n, width) uint8.

        Raises:
            DataError: the state is not that of such an array.
        """
        if not isinstance(self.state, tuple) or len(self.state) != 5:
            raise DataError("data is an array without contents")
        _, shape, dtype, fortran, data = self.state
        known = isinstance(shape, tuple) and len(shape) == 2 and isinstance(dtype, _Type) and isinstance(data, bytes)
        if not known or dtype.name not in (b"u1", "u1", b"|u1", "|u1") or fortran:
            raise DataError("data is not a C-ordered (n, 3072) uint8 array")
        if not all(type(side) is int for side in shape) or shape[1] != width or shape[0] * width != len(data):
            raise DataError(f"data of shape {shape} with {len(data):,} bytes, expected (n, {width}) uint8")
        return np.frombuffer(data, np.uint8).reshape(shape)


class _Type:
    """Stand-in for numpy.dtype that stores the type name."""

    def __init__(self, name: Any = None, *_: Any) -> None:
        self.name = name

    def __setstate__(self, state: Any) -> None:
        """Ignore byte order and alignment, which do not matter for single bytes."""


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
        raise pickle.UnpicklingError("_codecs.encode of something else than a latin1 string")
    return text.encode("latin-1")


_NAMES: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _encode,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _NAMES:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which CIFAR-10 does not need")
        return _NAMES[module, name]


def _check_opcodes(data: bytes) -> None:
    """Refuse opcodes that CIFAR-10 does not use, and memo indices that would allocate gigabytes."""
    argument: Any
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name not in _OPCODES:
            raise pickle.UnpicklingError(f"opcode {opcode.name}")
        if opcode.name in ("PUT", "LONG_BINPUT") and argument > _MEMO_LIMIT:
            raise pickle.UnpicklingError(f"memo {argument}")


def _bytes_of(entry: Entry, contents: Contents) -> bytes:
    if isinstance(contents, DataError):
        raise contents
    if contents is None:
        raise DataError(entry.problem or "cannot be read")
    return bytes_of(contents)
