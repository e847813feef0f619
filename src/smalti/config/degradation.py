"""Degradations of images as text: what is done to a picture that a restorer then has to undo.  Imports no torch.

    noise(5..30)|poisson(5..20)?0.8 jpeg(30..90)

    degradation   steps, separated by spaces, applied in this order; or `none`
    step          name, or name(arguments), from `FORMS`; or the name of a composition, from `COMPOSITIONS`
    a|b|c         one of them, each with the same probability
    step?0.5      with this probability, otherwise nothing; after alternatives it is about all of them
    2  2..5       a number; a number drawn uniformly from a range
    5%  2..5%     for lengths: percent of the shorter side that the picture has when the step begins
    box|lanczos   one of these words; `any`: any of them

Parsing calls nothing that a text names, and refuses long texts before reading them. `str` gives the canonical text, and
parse_degradation(str(d)) == d.  `second-order` is a milder version of the model of Wang et al. 2021, arXiv:2107.10833
(Real-ESRGAN), section 3.2, whose ranges are meant for a fourfold reduction of photographs.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

from smalti.config.fields import shown
from smalti.errors import ConfigError, did_you_mean

TEXT_LIMIT = 2000  # characters of a degradation
STEP_LIMIT = 64  # steps, with all alternatives and those of compositions
LARGEST, SMALLEST = 8, 1 / 64  # sizes of a picture on the way, in sizes of the original
DECIMALS = 4  # of numbers that are drawn
COLOURS = ("colour", "grey")
FILTERS = ("bicubic", "box", "bilinear", "lanczos", "nearest")
HOLES = ("boxes", "strokes", "text")


@dataclass(frozen=True)
class Argument:
    """A number of a step, from `low` to `high`."""

    name: str
    low: float
    high: float
    percent: float = 0.0  # highest percentage of the shorter side; 0 if it is no length
    whole: bool = False  # an integer
    fixed: bool = False  # no range may be given


@dataclass(frozen=True)
class Form:
    """What may be written for a step. A last argument ANGLE, in degrees, is drawn when only it is left out."""

    usage: str
    arguments: tuple[Argument, ...] = ()
    needed: int = 0  # of the arguments
    words: tuple[str, ...] = ()  # that may be given; the first one is the default, unless `word_needed`
    anything: tuple[str, ...] = ()  # the words that `any` stands for
    word_needed: bool = False


def _sizing(usage: str, *arguments: Argument) -> Form:
    return Form(usage, arguments, len(arguments), FILTERS, FILTERS[:4])


ANGLE = Argument("ANGLE", 0, 180)
_LEVELS = (Argument("S", 0, 255),)
_TIMES = Argument("F", 2, 8, whole=True, fixed=True)
_RADIUS = Argument("R", 0, 100, percent=10)
_QUALITY = Argument("Q", 1, 100, whole=True)

FORMS: dict[str, Form] = {
    "noise": Form("noise(S[,grey])", _LEVELS, 1, COLOURS, COLOURS),
    "poisson": Form("poisson(S[,grey])", _LEVELS, 1, COLOURS, COLOURS),
    "speckle": Form("speckle(S[,grey])", _LEVELS, 1, COLOURS, COLOURS),
    "blur": Form("blur(R) or blur(R,R[,ANGLE])", (_RADIUS, _RADIUS, ANGLE), 1),
    "motion": Form("motion(L[,ANGLE])", (Argument("L", 0, 500, percent=50), ANGLE), 1),
    "defocus": Form("defocus(R)", (_RADIUS,), 1),
    "down": _sizing("down(F[,FILTER])", _TIMES),
    "up": _sizing("up(F[,FILTER])", _TIMES),
    "resize": _sizing("resize(F[,FILTER])", Argument("F", 0.1, 4)),
    "back": _sizing("back or back(FILTER)"),
    "jpeg": Form("jpeg(Q)", (_QUALITY,), 1),
    "webp": Form("webp(Q)", (_QUALITY,), 1),
    "grey": Form("grey"),
    "mask": Form("mask(boxes|strokes|text,SHARE)", (Argument("SHARE", 0.01, 0.9),), 1, HOLES, HOLES, True),
    "scratches": Form("scratches(N)", (Argument("N", 0, 100, whole=True),), 1),
}
"""The steps by name, which are words of the file format; what they do is in docs/degradations.md."""

COMPOSITIONS: dict[str, str] = {
    "light": "blur(0.3..0.8)?0.5 noise(1..8)|noise(1..8,grey)|poisson(1..8)?0.7 jpeg(60..95)?0.7",
    "web": "resize(0.5..1,any)?0.7 jpeg(50..95) back jpeg(30..85)|webp(30..85)",
    "old-photo": "grey blur(0.3..1.5) noise(3..15,grey) scratches(1..8)?0.8 jpeg(60..95)?0.5",
    "second-order": (
        "blur(0.2..2)|blur(0.2..2.5,0.2..2.5)|defocus(0.5..2)?0.9 resize(0.35..1.3,any) "
        "noise(1..25)|noise(1..25,grey)|poisson(1..20) jpeg(35..95) "
        "blur(0.2..1)|blur(0.2..1.2,0.2..1.2)?0.8 resize(0.6..1.2,any) "
        "noise(1..12)|noise(1..12,grey)|poisson(1..10) back?0.5 jpeg(40..95)"
    ),
}
"""Degradations that have a name, usable as a step."""
_NAMES = (*FORMS, *COMPOSITIONS)
_NO_FORM = Form("its name alone")


@dataclass(frozen=True)
class Number:
    """A number from `low` to `high`, drawn uniformly; with `percent`, of the shorter side. Kept to 6 decimals."""

    low: float
    high: float
    percent: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "low", round(float(self.low), 6))
        object.__setattr__(self, "high", round(float(self.high), 6))

    def __str__(self) -> str:
        text = _digits(self.low) if self.low == self.high else f"{_digits(self.low)}..{_digits(self.high)}"
        return f"{text}%" if self.percent else text

    def at(self, chance: float, *, whole: bool) -> Number:
        """The fixed number for a chance in [0, 1)."""
        value = round(self.low + chance * (self.high - self.low), DECIMALS)
        if whole:
            value = self.low + int(chance * (self.high - self.low + 1))
        value = min(max(value, self.low), self.high)
        return Number(value, value, self.percent)

    def in_pixels(self, side: int, most: float) -> Number:
        """The number without percent, for a picture with this shorter side; at most `most`."""
        low, high = (min(round(value * side / 100, DECIMALS), most) for value in (self.low, self.high))
        return Number(low, high) if self.percent else self


@dataclass(frozen=True)
class Step:
    """One step, checked when it is made.

    Attributes:
        name: a key of `FORMS` or `COMPOSITIONS`.
        numbers: its numbers.
        words: its words, of which one is drawn; none given: the default of the step.
        probability: of the step, or of its alternatives, being applied at all.
        alternatives: other steps of which one may take this one's place; each is as likely as this one.

    Raises:
        ConfigError: there is no such step, or it cannot have these arguments.
    """

    name: str
    numbers: tuple[Number, ...] = ()
    words: tuple[str, ...] = ()
    probability: float = 1.0
    alternatives: tuple[Step, ...] = ()

    def __post_init__(self) -> None:
        if self.name not in _NAMES:
            raise ConfigError(f"there is no degradation {shown(self.name)}; {did_you_mean(self.name[:40], _NAMES)}")
        object.__setattr__(self, "words", _checked_words(self))
        object.__setattr__(self, "probability", round(float(self.probability), 6))
        _check_numbers(self)
        if not 0 < self.probability <= 1:
            raise ConfigError(f"the probability of {self.name} is {self.probability:g}, but must be above 0, at most 1")
        for step in self.alternatives:
            if step.alternatives or step.probability != 1:
                raise ConfigError(f"the alternative {_short(step)} has a probability or alternatives of its own")
        for step in (self, *self.alternatives):
            if step.name in ("down", "up") and (self.alternatives or self.probability != 1):
                raise ConfigError(
                    f"{_short(step)} would change the size of some pictures and not of others; use it as a step of its "
                    "own, or resize, after which pictures come back to their size"
                )

    def __str__(self) -> str:
        text = "|".join(step._alone for step in (self, *self.alternatives))
        return text if self.probability == 1 else f"{text}?{_digits(self.probability)}"

    @property
    def _alone(self) -> str:
        """The text without alternatives and probability."""
        form, numbers, word = self.form, [str(number) for number in self.numbers], ""
        if form.word_needed or self.words != form.words[:1]:
            word = "any" if self.words == form.anything else "|".join(self.words)
        inside = ",".join(filter(None, [word, *numbers] if form.word_needed else [*numbers, word]))
        return f"{self.name}({inside})" if inside else self.name

    @property
    def form(self) -> Form:
        """What may be written for it."""
        return FORMS.get(self.name, _NO_FORM)

    @property
    def ranges(self) -> tuple[Number, ...]:
        """The numbers that are drawn: those that are given, and the angle if only it was left out."""
        left_out = self.form.arguments[len(self.numbers) :]
        return (*self.numbers, *([Number(ANGLE.low, ANGLE.high)] if left_out == (ANGLE,) else []))

    @property
    def branches(self) -> tuple[tuple[Step, ...], ...]:
        """The steps that each alternative, this one first, stands for; ((self,),) if it is nothing but one step."""
        if not self.alternatives and self.name in FORMS:
            return ((self,),)
        first = dataclasses.replace(self, probability=1.0, alternatives=())
        return tuple(composition(step.name) or (step,) for step in (first, *self.alternatives))

    def in_pixels(self, side: int) -> Step:
        """The step with lengths in pixels in place of percentages, for a picture with this shorter side."""
        pairs = zip(self.numbers, self.form.arguments, strict=False)
        return dataclasses.replace(self, numbers=tuple(number.in_pixels(side, most.high) for number, most in pairs))


@dataclass(frozen=True)
class Degradation:
    """What is done to a picture, in order.

    Raises:
        ConfigError: there are too many steps, or pictures would become too large or too small on the way.
    """

    steps: tuple[Step, ...]
    factor: Fraction = dataclasses.field(init=False, repr=False, compare=False)  # result / picture, of their sides

    def __post_init__(self) -> None:
        steps = list(elementary(self.steps))
        if len(steps) > STEP_LIMIT:
            raise ConfigError(f"a degradation has {len(steps)} steps, but may have at most {STEP_LIMIT}")
        object.__setattr__(self, "factor", _size_after(steps))

    def __str__(self) -> str:
        return " ".join(map(str, self.steps)) or "none"

    @property
    def scale(self) -> int:
        """Size of the picture in sizes of the result.

        Raises:
            ConfigError: it is no whole number, because the degradation enlarges pictures.
        """
        if self.factor.numerator != 1:
            raise ConfigError(
                f"the degradation {_short(self)} makes pictures {self.factor} times as large, but to be undone it must "
                "make them 1, 1/2, 1/3, ... times as large; leave up out, or let down follow"
            )
        return self.factor.denominator

    @property
    def has_hole(self) -> bool:
        """Whether it may cut holes."""
        return any(step.name == "mask" for step, _ in elementary(self.steps))

    def drawn(self, uniform: Callable[[], float]) -> Degradation:
        """What is applied to one picture; `uniform` draws the chances, from [0, 1)."""
        return Degradation(tuple(_drawn(self.steps, uniform)))


@functools.cache
def composition(name: str) -> tuple[Step, ...]:
    """The steps of a composition; nothing for the name of a step."""
    return parse_degradation(COMPOSITIONS[name]).steps if name in COMPOSITIONS else ()


def _drawn(steps: tuple[Step, ...], uniform: Callable[[], float]) -> Iterator[Step]:
    for step in steps:
        if step.probability < 1 and uniform() >= step.probability:
            continue
        branches = step.branches
        branch = branches[int(uniform() * len(branches))] if len(branches) > 1 else branches[0]
        if branch != (step,):
            yield from _drawn(branch, uniform)
            continue
        numbers = [
            number if number.low == number.high else number.at(uniform(), whole=argument.whole)
            for number, argument in zip(step.ranges, step.form.arguments, strict=False)
        ]
        word = step.words[int(uniform() * len(step.words)) :][:1] if len(step.words) > 1 else step.words
        yield Step(step.name, tuple(numbers), word)


def elementary(steps: tuple[Step, ...], sure: bool = True) -> Iterator[tuple[Step, bool]]:
    """Every step that may be applied, those of all alternatives and compositions, and whether it surely is."""
    for step in steps:
        always = sure and step.probability == 1 and not step.alternatives
        for branch in step.branches:
            yield from [(step, always)] if branch == (step,) else elementary(branch, always)


def _size_after(steps: Iterable[tuple[Step, bool]]) -> Fraction:
    """Size after the steps in sizes of the picture, once back from `resize`; ConfigError if it was out of bounds."""
    size, low, high = Fraction(1), 1.0, 1.0  # and the least and the greatest factor of `resize`
    for step, sure in steps:
        if step.name in ("down", "up"):
            times = int(step.numbers[0].low)
            size = size * times if step.name == "up" else size / times
        elif step.name == "resize":
            number = step.numbers[0]
            low, high = low * min(number.low, 1), high * max(number.high, 1)
        elif step.name == "back" and sure:
            low = high = 1.0
        if size * high > LARGEST or size * low < SMALLEST:
            raise ConfigError(
                f"by {_short(step)} a picture could have {float(size) * low:.3g} to {float(size) * high:.3g} times its "
                f"size, but may have from 1/64 to {LARGEST} times; take smaller factors, or put back between them"
            )
    return size


def _short(text: object) -> str:
    """Text for a message, without its middle if it is long."""
    return shown(str(text)).strip("'\"")


def _digits(value: float) -> str:
    return f"{value:.6f}".rstrip("0").rstrip(".")


def _checked_words(step: Step) -> tuple[str, ...]:
    """The words in the order of the table, or the default."""
    form = step.form
    words = form.anything if step.words == ("any",) and form.anything else step.words
    for word in words:
        if word not in form.words:
            hint = f"; {did_you_mean(word[:40], (*form.words, 'any'))}" if form.words else ""
            raise ConfigError(f"{step.name} has the word {shown(word)}, expected {form.usage}{hint}")
    if not words and form.word_needed:
        raise ConfigError(f"{step.name} has no word, expected {form.usage}")
    return tuple(word for word in form.words if word in (words or form.words[:1]))


def _check_numbers(step: Step) -> None:
    form = step.form
    if not form.needed <= len(step.numbers) <= len(form.arguments):
        raise ConfigError(f"{step.name} has {len(step.numbers) or 'no'} numbers, expected {form.usage}")
    for number, argument in zip(step.numbers, form.arguments, strict=False):
        high, unit = (argument.percent, "%") if number.percent else (argument.high, "")
        whole = number.low.is_integer() and number.high.is_integer()
        for bad, expected in (
            (number.percent and not argument.percent, "it is no length; write it without %"),
            (not number.low <= number.high, "a range goes from the smaller number to the larger"),  # also for NaN
            (not argument.low <= number.low, f"must be from {argument.low:g} to {high:g}{unit}"),
            (not number.high <= high, f"must be from {argument.low:g} to {high:g}{unit}"),
            (argument.whole and not whole, "must be a whole number"),
            (argument.fixed and number.low != number.high, "all pictures get the same size; write one number"),
        ):
            if bad:
                raise ConfigError(f"{argument.name} of {step.name} is {number}, but {expected}")


_FIGURE = r"([0-9]{1,6}(?:\.[0-9]{1,6})?)"
_GAP = r"[ \t\r\n]*"
_STEP = re.compile(r"([A-Za-z][A-Za-z0-9_-]*)(?:\(([^()]*)\))?")
_PLAIN_STEP = r"[A-Za-z][A-Za-z0-9_-]*(?:\([^()]*\))?"
_ITEM = re.compile(rf"{_GAP}({_PLAIN_STEP}(?:{_GAP}\|{_GAP}{_PLAIN_STEP})*)(?:\?{_FIGURE})?(?![^ \t\r\n])")
_NUMBER = re.compile(rf"{_FIGURE}(%?)(?:\.\.{_FIGURE}(%?))?")
_WORDS = re.compile(rf"[A-Za-z][A-Za-z-]*(?:{_GAP}\|{_GAP}[A-Za-z][A-Za-z-]*)*")


def parse_degradation(text: str) -> Degradation:
    """Parse a degradation, in the language at the top of this file.

    Raises:
        ConfigError: it is longer than `TEXT_LIMIT`, or not in that language.
    """
    if not isinstance(text, str):
        raise ConfigError(f"a degradation is {shown(text)}, but must be text such as 'noise(5..30) jpeg(50)'")
    if len(text) > TEXT_LIMIT:
        raise ConfigError(f"a degradation has {len(text):,} characters, but may have at most {TEXT_LIMIT:,}")
    text, place, steps = text.strip(" \t\r\n"), 0, list[Step]()
    if not text:
        raise ConfigError("a degradation has no steps; write some, such as 'noise(5..30) jpeg(50)', or none")
    while place < len(text) and text != "none":
        item = _ITEM.match(text, place)
        if item is None:
            raise ConfigError(
                f"{_short(text[place:].strip())} does not begin with a step; write steps as name(numbers), a space "
                "between two of them, alternatives as a|b, and a probability at the end: a|b?0.5"
            )
        first, *others = (_step(match[1], match[2] or "") for match in _STEP.finditer(item[1]))
        probability = float(item[2]) if item[2] else 1.0
        steps.append(dataclasses.replace(first, probability=probability, alternatives=tuple(others)))
        place = item.end()
    return Degradation(tuple(steps))


def _step(name: str, inside: str) -> Step:
    """A step from its name and what is in its brackets."""
    numbers, words = list[Number](), list[str]()
    for part in inside.split(",") if inside.strip(" \t\r\n") else ():
        text = part.strip(" \t\r\n")
        match = _NUMBER.fullmatch(text)
        if _WORDS.fullmatch(text) and not words:
            words = [word.strip(" \t\r\n") for word in text.split("|")]
        elif match and bool(match[2]) <= bool(match[4] or not match[3]):  # not 5%..10
            numbers.append(Number(float(match[1]), float(match[3] or match[1]), bool(match[2] or match[4])))
        else:
            found = f"{_short(name)} has {_short(text) or 'nothing'} where a number is expected"
            raise ConfigError(f"{found}; write 5, 0.25, 5..10 or 5..10%")
    return Step(name, tuple(numbers), tuple(words))
