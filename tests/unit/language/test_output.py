"""The output definition against brute force: small languages are written out whole."""

import json
import re
from bisect import bisect_left
from os.path import commonprefix
from random import Random
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, create_model

from serving.language.fields import Derived, OnlyIf, OutputError
from serving.language.output import Output
from serving.tasks.rate import answer as rate


class Inner(BaseModel):
    kind: Literal["밀기", "당기기"]
    sets: Literal[1, 10, 100]


class Small(BaseModel):
    a: Literal["x", "xy"]
    b: Annotated[Literal[1, 2], OnlyIf(lambda b, a: a == "x" or b == 2, "a")]
    c: Annotated[list[int], Derived(lambda a, b: [len(a), b], "a", "b")]


class Nested(BaseModel):
    title: Literal['시험 \\ "x" (a|b)* #']
    first: Literal[1, 12, 125]
    double: Annotated[str, Derived(lambda first: f"{first}+{first}", "first")]
    inner: Inner
    flag: Literal[True, False]
    end: Literal["끝"]


class Slots(BaseModel):
    slots: tuple[
        tuple[
            Literal["없음", "딥스"],
            Annotated[Literal[0, 3], OnlyIf(lambda n, e: n or e == "없음", "0")],
        ],
        Literal[8],
        Annotated[Literal[6, 8], OnlyIf(lambda n, sets: n == 6 or sets > 0, "0.1")],
    ]


class Chain(BaseModel):
    a: Literal[1, 2]
    b: Annotated[Literal[1, 2], OnlyIf(lambda b, a: b <= a, "a")]
    c: Literal[True, False]
    d: Annotated[str, Derived(lambda b: "x" * b, "b")]
    e: Literal[1, 2]


OUTPUTS = [Output(Small), Output(Nested), Output(Slots), Output(Chain), rate.OUTPUT]
LAST = chr(0x10FFFF)
"""Sorts after every text that goes on."""
each_output = pytest.mark.parametrize("output", OUTPUTS, ids=lambda o: o.model.__name__)


def all_texts(output: Output) -> dict[str, dict[str, Any]]:
    return {output.text(values): values for values in output.enumerate()}


@each_output
def test_parse_inverts_text_and_read_inverts_decided(output: Output) -> None:
    texts = all_texts(output)
    assert len(texts) == len(list(output.enumerate())) > 2
    for text, values in texts.items():
        assert output.parse(text) == values
        assert output.read(output.decided(values)) == values
        assert text.startswith(output.head + output.decided(values))
        assert text == json.dumps(json.loads(text), ensure_ascii=False, separators=(",", ":"))


@each_output
def test_every_text_is_what_the_pydantic_model_accepts(output: Output) -> None:
    for text in all_texts(output):
        parsed = output.model.model_validate_json(text)
        assert list(json.loads(text)) == list(type(parsed).model_fields)


@each_output
def test_what_may_follow_equals_brute_force_for_every_reachable_prefix(output: Output) -> None:
    """The common beginning of all that may follow, and whether there is only one: of the texts that
    end with the last decision, and beyond it, of whole texts."""
    decided = sorted({output.head + output.decided(v) for v in output.enumerate()})
    whole = sorted(all_texts(output))
    for prefix in {text[:cut] for text in whole for cut in range(len(text) + 1)}:
        texts = decided if beginning_with(decided, prefix) else whole
        rests = [text[len(prefix) :] for text in beginning_with(texts, prefix)]
        ways, ends = output.following.continuations(output.following.after(prefix))
        common, expected = map(commonprefix, (ways, rests))
        assert (common, ends) == (expected, len(rests) == 1), prefix
        assert all(any(rest.startswith(way) for rest in rests) for way in ways), prefix
        assert all(any(rest.startswith(way) for way in ways) for rest in rests), prefix


@each_output
def test_text_in_two_parts_leads_where_the_whole_leads(output: Output) -> None:
    text = output.text(output.sample(Random(4)))
    for cut in range(len(text) + 1):
        state = output.following.after(text[:cut])
        assert output.following.after(text[cut:], state) == output.following.after(text)


def beginning_with(texts: list[str], prefix: str) -> list[str]:
    """Of sorted texts, those that begin so."""
    return texts[bisect_left(texts, prefix) : bisect_left(texts, prefix + LAST)]


def test_the_bound_looks_only_at_what_a_computed_piece_needs() -> None:
    eight = Literal[1, 2, 3, 4, 5, 6, 7, 8]
    fields: dict[str, Any] = {f"d{n}": (eight, ...) for n in range(12)}
    fields["between"] = (Annotated[str, Derived(lambda d0: "x" * d0, "d0")], ...)
    model = create_model("Many", **fields, last=(eight, ...))
    longest = {f"d{n}": 8 for n in range(12)} | {"last": 8}
    output = Output(model)
    assert output.max_new_tokens == len(output.decided(longest)) + 1


@each_output
def test_the_constraint_accepts_the_language_and_nothing_near_it(output: Output) -> None:
    whole, decided = re.compile(output.regex), re.compile(output.decided_regex)
    texts = all_texts(output)
    parts = {output.decided(values) for values in texts.values()}
    for text, values in texts.items():
        assert whole.fullmatch(text)
        part = output.decided(values)
        assert decided.fullmatch(part)
        for wrong in (part[1:], part[:-1], part + " ", " " + part, part.replace(":", ": ")):
            assert (decided.fullmatch(wrong) is not None) == (wrong in parts)
        assert not whole.fullmatch(text.replace('":', '": ', 1))


@each_output
def test_a_generation_of_the_bound_always_closes(output: Output) -> None:
    longest = max(len(output.decided(values).encode()) for values in output.enumerate())
    assert longest < output.max_new_tokens <= longest + 9


@each_output
def test_decision_spans_cover_the_decisions_alone(output: Output) -> None:
    for text, values in all_texts(output).items():
        spans = output.decision_spans(values)
        decided = [text[start:end] for start, end in spans]
        assert decided == [
            json.dumps(values[d.path], ensure_ascii=False).strip('"') for d in output.decisions
        ]


@each_output
@given(noise=st.text(max_size=12))
def test_what_is_not_in_the_language_is_refused(output: Output, noise: str) -> None:
    parts = {output.decided(values) for values in output.enumerate()}
    if noise not in parts:
        with pytest.raises(OutputError):
            output.read(noise)
    with pytest.raises(OutputError):
        output.parse(noise)


@each_output
def test_values_outside_the_options_are_refused(output: Output) -> None:
    values = next(output.enumerate())
    first = output.decisions[0].path
    with pytest.raises(OutputError, match="no value"):
        output.text({})
    with pytest.raises(OutputError, match="not one of"):
        output.text({**values, first: "no such option"})
    with pytest.raises(OutputError):
        output.following.after("not a beginning")


def test_an_error_shows_where_the_text_goes_wrong() -> None:
    output, noise = OUTPUTS[0], "".join(map(str, range(200)))
    with pytest.raises(OutputError) as caught:
        output.following.after(noise)
    assert str(caught.value) == f"no output continues with {noise[-200:]!r}"
    with pytest.raises(OutputError) as caught:
        output.parse(noise)
    assert str(caught.value) == f"not an output of Small: {noise[:200]!r}"
    with pytest.raises(OutputError) as caught:
        output.read(noise)
    assert str(caught.value) == f"not a complete decided text: {(output.head + noise)[:200]!r}"


def test_independent_decisions_do_not_multiply_in_the_constraint() -> None:
    """The deload needs the start alone. The plan after the last decision needs all four, and is
    not the constraint's concern."""
    starts = rate.OUTPUT.decisions[0].options
    assert rate.OUTPUT.decided_regex.count("deloading_rate") <= len(starts)
    assert rate.OUTPUT.regex.count("deloading_rate") > 1


def test_a_boolean_is_not_taken_for_the_number_one() -> None:
    values = next(OUTPUTS[1].enumerate())
    with pytest.raises(OutputError, match="not one of"):
        OUTPUTS[1].text({**values, "first": True})


def test_a_leaf_that_is_neither_literal_nor_derived_is_refused() -> None:
    class Free(BaseModel):
        text: str

    class Late(BaseModel):
        early: Annotated[str, Derived(str, "late")]
        late: Literal[1, 2]

    class Fixed(BaseModel):
        text: Literal["one"]

    with pytest.raises(TypeError, match="neither Literal"):
        Output(Free)
    with pytest.raises(TypeError, match="not decided before"):
        Output(Late)
    with pytest.raises(TypeError, match="decides nothing"):
        Output(Fixed)
