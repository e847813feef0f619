"""Degradations as text: what is understood, what is refused, what is drawn."""

from __future__ import annotations

import random
import re
import time
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smalti.config.degradation import (
    ANGLE,
    COMPOSITIONS,
    FILTERS,
    FORMS,
    HOLES,
    STEP_LIMIT,
    TEXT_LIMIT,
    Degradation,
    Number,
    Step,
    elementary,
    parse_degradation,
)
from smalti.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("noise(5)", "noise(5)"),
        (" noise( 5.50 ,  grey )\n\tjpeg(30..90) ", "noise(5.5,grey) jpeg(30..90)"),
        ("noise(grey,5)", "noise(5,grey)"),
        ("noise(5,colour)", "noise(5)"),
        ("noise(5,grey|colour)", "noise(5,any)"),
        ("noise(7..7)", "noise(7)"),
        ("blur(5%)", "blur(5%)"),
        ("blur(1..5%)", "blur(1..5%)"),
        ("blur(1%..5%)", "blur(1..5%)"),
        ("blur(1,2)", "blur(1,2)"),
        ("blur(1, 2, 45)", "blur(1,2,45)"),
        ("down(4,bicubic)", "down(4)"),
        ("down(4,lanczos|box)", "down(4,box|lanczos)"),
        ("resize(0.5..1,any)", "resize(0.5..1,any)"),
        ("resize(0.5) back(box|bilinear|bicubic|lanczos)", "resize(0.5) back(any)"),
        ("back()", "back"),
        ("grey()", "grey"),
        ("mask(0.1..0.3,text|boxes)", "mask(boxes|text,0.1..0.3)"),
        ("mask(any,0.2)", "mask(any,0.2)"),
        ("noise(1) | blur(2) |jpeg(3)?0.25", "noise(1)|blur(2)|jpeg(3)?0.25"),
        ("noise(1)?1", "noise(1)"),
        ("second-order?0.5 light|web", "second-order?0.5 light|web"),
        ("none", "none"),
    ],
)
def test_texts_and_their_canonical_form(text: str, canonical: str) -> None:
    found = parse_degradation(text)
    assert str(found) == canonical
    assert parse_degradation(canonical) == found
    assert hash(parse_degradation(canonical)) == hash(found)


def test_what_a_text_means() -> None:
    (first, second) = parse_degradation("noise(5..10,grey)|poisson(3)?0.5 down(2)").steps
    assert first == Step("noise", (Number(5, 10),), ("grey",), 0.5, (Step("poisson", (Number(3, 3),)),))
    assert second.words == ("bicubic",)
    assert parse_degradation("none") == Degradation(())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no steps; write some"),
        ("  \n", "no steps"),
        ("blurr(1)", "there is no degradation 'blurr'; did you mean 'blur'?"),
        ("Blur(1)", "did you mean 'blur'?"),
        ("gray", "did you mean 'grey'?"),
        ("second-odrer", "did you mean 'second-order'?"),
        ("xyz", "known: "),
        ("noise", "noise has no numbers, expected noise(S[,grey])"),
        ("noise()", "noise has no numbers"),
        ("noise(1,2)", "noise has 2 numbers, expected noise(S[,grey])"),
        ("noise(,)", "noise has nothing where a number is expected; write 5"),
        ("noise(300)", "S of noise is 300, but must be from 0 to 255"),
        ("noise(5..300)", "S of noise is 5..300, but must be from 0 to 255"),
        ("noise(5..2)", "S of noise is 5..2, but a range goes from the smaller number to the larger"),
        ("noise(5%)", "S of noise is 5%, but it is no length; write it without %"),
        ("noise(5,gray)", "noise has the word 'gray', expected noise(S[,grey]); did you mean 'grey'?"),
        ("noise(5,grey,grey)", "noise has grey where a number is expected"),
        ("noise(-5)", "noise has -5 where"),
        ("noise(1e3)", "noise has 1e3 where"),
        ("noise(.5)", "noise has .5 where"),
        ("noise(5.)", "noise has 5. where"),
        ("noise(1.1234567)", "noise has 1.1234567 where"),
        ("noise(1234567)", "noise has 1234567 where"),
        ("noise(nan)", "noise has the word 'nan'"),
        ("noise(inf)", "noise has the word 'inf'"),
        ("noise(٣)", "noise has ٣ where"),
        ("blur(1%..2)", "blur has 1%..2 where"),
        ("blur(11%)", "R of blur is 11%, but must be from 0 to 10%"),
        ("blur(101)", "must be from 0 to 100"),
        ("blur(1,2,200)", "ANGLE of blur is 200, but must be from 0 to 180"),
        ("down(1)", "F of down is 1, but must be from 2 to 8"),
        ("down(2.5)", "F of down is 2.5, but must be a whole number"),
        ("down(2..4)", "F of down is 2..4, but all pictures get the same size; write one number"),
        ("down(2)?0.5", "down(2)?0.5 would change the size of some pictures and not of others; use it as"),
        ("noise(1)|down(2)", "down(2) would change the size of some pictures"),
        ("down(2,cubic)", "down has the word 'cubic', expected down(F[,FILTER]); did you mean 'bicubic'?"),
        ("jpeg(0)", "Q of jpeg is 0, but must be from 1 to 100"),
        ("jpeg(5.5)", "Q of jpeg is 5.5, but must be a whole number"),
        ("mask(0.5)", "mask has no word, expected mask(boxes|strokes|text,SHARE)"),
        ("mask(boxes)", "mask has no numbers"),
        ("mask(boxes,0.95)", "SHARE of mask is 0.95, but must be from 0.01 to 0.9"),
        ("grey(1)", "grey has 1 numbers, expected grey"),
        ("grey(box)", "grey has the word 'box', expected grey"),
        ("light(3)", "light has 1 numbers, expected its name alone"),
        ("noise(1)?0", "the probability of noise is 0, but must be above 0"),
        ("noise(1)?2", "the probability of noise is 2"),
        ("noise(1)?", "noise(1)? does not begin with a step; write steps as name(numbers)"),
        ("noise(1)?0.5|blur(1)", "and a probability at the end: a|b?0.5"),
        ("noise(1)x", "noise(1)x does not begin with a step"),
        ("noise(1),blur(1)", "a space between two of them"),
        ("noise(1)||blur(2)", "does not begin with a step"),
        ("noise(1)|", "does not begin with a step"),
        ("jpeg(5) (noise(1))", "(noise(1)) does not begin with a step"),
        ("noise(1", "does not begin with a step"),
        ("none noise(1)", "there is no degradation 'none'"),
        ("шум(1)", "шум(1) does not begin with a step"),
        ("resize(4) resize(4)", "by resize(4) a picture could have 1 to 16 times its size, but may have from 1/64"),
        ("up(8) up(2)", "by up(2) a picture could have 16 to 16 times"),
        ("down(8) down(8) down(2)", "1/64"),
        ("down(8) resize(0.1)?0.5", "0.0125"),
    ],
)  # fmt: skip
def test_what_is_refused_and_how(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        parse_degradation(text)
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "text",
    [
        "a" * 10_000_000,
        "noise(1) " * 1_000_000,
        "(" * TEXT_LIMIT,
        "noise(" * 300,
        "noise(" + "1" * 1900 + ")",
        "noise(" + "1.." * 600 + ")",
        "noise(" + "," * 1900 + ")",
        "noise(" + "a|" * 900 + ")",
        "noise(1)|" * 200,
        "noise(1)" + " " * 1900 + "!",
        " | " * 600,
        "a" * 1999 + "!",
        "a|" * 999 + "!",
        "mask(" + " | ".join(["boxes"] * 200) + ",2)",
        "a" + "\u0301" * 1000,
        "\x00",
        "\ud800",
        "noise(1)\u2028blur(1)",
        "noise\u00a0(1)",
        "__import__('os').system('true')",
        "none " * 300,
        "light " * (STEP_LIMIT + 1),
        "noise(1) " * (STEP_LIMIT + 1),
    ],
)
def test_hostile_texts_are_refused_at_once_and_in_few_words(text: str) -> None:
    start = time.perf_counter()
    with pytest.raises(ConfigError) as refusal:
        parse_degradation(text)
    assert time.perf_counter() - start < 0.5
    assert len(str(refusal.value)) < 400


@pytest.mark.parametrize("value", [None, 5, ["noise(1)"], b"noise(1)", {"noise": 1}])
def test_what_is_no_text_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match="must be text such as"):
        parse_degradation(value)  # type: ignore[arg-type]


@given(st.text(alphabet="noisemakblurgyd()|?,.%0159 \t\n-\u0663", max_size=60))
def test_any_text_is_a_degradation_or_a_mistake(text: str) -> None:
    try:
        found = parse_degradation(text)
    except ConfigError:
        return
    assert parse_degradation(str(found)) == found


def test_steps_made_by_hand_are_checked_too() -> None:
    for make in (
        lambda: Step("nothing"),
        lambda: Step("noise"),
        lambda: Step("noise", (Number(float("nan"), 5),)),
        lambda: Step("noise", (Number(5, float("inf")),)),
        lambda: Step("noise", (Number(5, 5),), probability=float("nan")),
        lambda: Step("noise", (Number(5, 5),), alternatives=(Step("grey", probability=0.5),)),
        lambda: Step("grey", alternatives=(Step("grey", alternatives=(Step("grey"),)),)),
        lambda: Step("grey", words=("box",)),
    ):
        with pytest.raises(ConfigError):
            make()
    assert str(Step("noise", (Number(1 / 3, 2 / 3),), probability=1 / 3)) == "noise(0.333333..0.666667)?0.333333"


@st.composite
def steps(draw: st.DrawFn, *, resizing: bool = True) -> Step:
    """A step with numbers, words, a probability and alternatives."""
    name = draw(st.sampled_from([name for name in FORMS if resizing or name not in ("down", "up")]))
    form = FORMS[name]
    numbers = []
    for argument in form.arguments[: draw(st.integers(form.needed, len(form.arguments)))]:
        percent = bool(argument.percent) and draw(st.booleans())
        low, high = argument.low, argument.percent if percent else argument.high
        # So few and so small steps that no picture becomes too large or too small.
        low, high = (
            (max(low, 0.8), min(high, 1.2)) if name == "resize" else (low, min(high, 3) if argument.fixed else high)
        )
        values = st.integers(int(low), int(high)) if argument.whole else st.floats(low, high)
        ends = sorted([draw(values), draw(values)])
        numbers.append(Number(ends[0], ends[0] if argument.fixed else ends[1], percent))
    words = draw(st.sets(st.sampled_from(form.words), min_size=int(form.word_needed)) if form.words else st.just(set()))
    chance, others = 1.0, ()
    if name not in ("down", "up") and resizing:
        chance = draw(st.floats(0.01, 1))
        others = tuple(draw(st.lists(steps(resizing=False), max_size=2)))
    return Step(name, tuple(numbers), tuple(words), chance, others)


@given(st.lists(steps(), max_size=3).map(tuple), st.integers(0, 9))
def test_a_text_says_all_of_a_degradation_and_of_what_is_drawn(made: tuple[Step, ...], seed: int) -> None:
    degradation = Degradation(made)
    assert parse_degradation(str(degradation)) == degradation
    drawn = degradation.drawn(random.Random(seed).random)
    assert parse_degradation(str(drawn)) == drawn
    assert drawn.drawn(random.Random(1).random) == drawn, "nothing is left to draw"
    assert drawn.factor == degradation.factor
    for step in drawn.steps:
        assert step.probability == 1
        assert not step.alternatives
        assert len(step.words) <= 1
        assert all(number.low == number.high for number in step.ranges)
        assert str(step.in_pixels(99)) == str(step.in_pixels(99).in_pixels(99))


def test_draws_are_from_the_ranges_the_words_and_the_alternatives() -> None:
    uniform = random.Random(0).random
    degradation = parse_degradation(
        "noise(5..10,any)|poisson(1..2)|speckle(3)?0.75 jpeg(30..32) motion(7) blur(1..2%,1)"
    )
    seen = [degradation.drawn(uniform) for _ in range(2000)]
    first = [drawn.steps[0] for drawn in seen if len(drawn.steps) == 4]
    assert len(first) / len(seen) == pytest.approx(0.75, abs=0.04)
    for name in ("noise", "poisson", "speckle"):
        assert sum(step.name == name for step in first) / len(first) == pytest.approx(1 / 3, abs=0.05)
    values = [step.numbers[0].low for step in first if step.name == "noise"]
    assert 5 <= min(values) < 5.2
    assert 9.8 < max(values) <= 10
    assert {step.words for step in first if step.name == "noise"} == {("colour",), ("grey",)}
    qualities = [drawn.steps[-3].numbers[0].low for drawn in seen]
    assert {quality: round(qualities.count(quality) / 2000, 1) for quality in qualities} == {30: 0.3, 31: 0.3, 32: 0.3}
    angles = [drawn.steps[-2].numbers[1].low for drawn in seen]
    assert 0 <= min(angles) < 5 < 175 < max(angles) <= ANGLE.high
    assert all(drawn.steps[-1].numbers[0].percent for drawn in seen)


def test_percentages_become_pixels_up_to_the_limit() -> None:
    (step,) = parse_degradation("blur(1..5%,3)").steps
    assert str(step.in_pixels(64)) == "blur(0.64..3.2,3)"
    assert str(step.in_pixels(20_000)) == "blur(100,3)"
    assert step.in_pixels(64).in_pixels(10) == step.in_pixels(64)


@pytest.mark.parametrize(
    ("text", "factor", "hole"),
    [
        ("noise(5)", 1, False),
        ("down(4) noise(5)", Fraction(1, 4), False),
        ("down(2) mask(boxes,0.1) down(3)", Fraction(1, 6), True),
        ("down(4) up(4)", 1, False),
        ("resize(0.5) light", 1, False),
        ("grey|mask(text,0.1)?0.1", 1, True),
        ("none", 1, False),
    ],
)
def test_size_and_holes(text: str, factor: Fraction, hole: bool) -> None:
    degradation = parse_degradation(text)
    assert degradation.factor == factor
    assert degradation.scale == 1 / factor
    assert degradation.has_hole == hole


@pytest.mark.parametrize(("text", "times"), [("up(2)", "2"), ("up(3) down(2)", "3/2"), ("down(3) up(2)", "2/3")])
def test_what_a_restorer_cannot_undo(text: str, times: str) -> None:
    with pytest.raises(ConfigError, match=f"makes pictures {times} times as large.*leave up out"):
        _ = parse_degradation(text).scale


def test_a_resize_is_bounded_until_it_is_back() -> None:
    assert parse_degradation("resize(4) back resize(4) back down(8) up(8)").factor == 1
    with pytest.raises(ConfigError, match="1 to 16 times"):
        parse_degradation("resize(4) back?0.5 resize(4)")


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_compositions_are_usable_as_a_step_anywhere(name: str) -> None:
    assert name not in FORMS
    assert str(parse_degradation(COMPOSITIONS[name])) == COMPOSITIONS[name], "written in the canonical form"
    assert parse_degradation(f"{name}|noise(1)?0.5").factor == 1
    assert [step for step, _ in elementary(parse_degradation(name).steps)] == [
        step for step, _ in elementary(parse_degradation(COMPOSITIONS[name]).steps)
    ]
    drawn = [parse_degradation(name).drawn(random.Random(seed).random) for seed in range(20)]
    assert len(set(map(str, drawn))) > 15
    assert all(step.name in FORMS for one in drawn for step in one.steps)


def test_the_guide_names_every_step_and_its_texts_are_understood() -> None:
    page = (Path(__file__).parents[2] / "docs" / "degradations.md").read_text(encoding="utf-8")
    for name in (*FORMS, *COMPOSITIONS):
        assert re.search(rf"^\| .*`{name}[(`]", page, re.MULTILINE), name
    for word in (*FILTERS, *HOLES):
        assert word in page
    commands = re.findall(r"^\$ smalti degrade ('[^']+'|\S+)", page, re.MULTILINE)
    assert len(commands) == 4
    examples = [text.replace("\\|", "|") for text in re.findall(r"`([a-z-]+\([^`A-Z]*)`", page)]
    assert len(examples) >= 12
    for text in (*examples, *(command.strip("'") for command in commands)):
        parse_degradation(text)
