"""Constraints that would harm an engine that compiles whatever it is sent."""

from typing import Any


def _nested(levels: int, kind: str) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        if kind == "array":
            schema = {"type": "array", "items": schema, "maxItems": 50}
        else:
            schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    return schema


def _properties(number: int, schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": {f"p{place}": schema for place in range(number)}}


_STRINGS = {"type": "array", "maxItems": 200, "items": {"type": "string", "maxLength": 500}}
_TREE = {"type": "object", "properties": {side: {"$ref": "#/$defs/n"} for side in "lr"}}
_FORMATS = ("date-time", "uuid", "email", "ipv6", "uri", "hostname", "duration")

SCHEMAS: dict[str, dict[str, Any]] = {
    "40 arrays of long strings": _properties(40, _STRINGS),
    "very long string": {"type": "string", "maxLength": 100_000},
    "very long string at least": {"type": "string", "minLength": 100_000},
    "very long array at least": {"type": "array", "minItems": 10**6, "items": {"type": "integer"}},
    "array too big for a grammar": {"type": "array", "minItems": 10**4, "maxItems": 10**5},
    "arrays in arrays": _nested(10, "array"),
    "deep": _nested(60, "object"),
    "deeper than the body may be": _nested(200, "object"),
    "binary tree": {"$defs": {"n": _TREE}, "$ref": "#/$defs/n"},
    "refers to itself": {"$ref": "#"},
    "refers in a circle": {
        "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}},
        "$ref": "#/$defs/a",
    },
    "all of itself": {"$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}]}}, "$ref": "#/$defs/a"},
    "refers to nothing": {"$ref": "#/$defs/none"},
    "wide": _properties(500, {"type": "string"}),
    "wide with patterns": _properties(300, {"type": "string", "pattern": "(a|b)*c{50}"}),
    "many options": {"anyOf": [_properties(3, {"const": str(n)}) for n in range(300)]},
    "many values": {"enum": [f"value {number}" for number in range(3000)]},
    "pattern that explodes": {"type": "string", "pattern": "[ab]*a[ab]{18}"},
    "patterns at once": {
        "allOf": [{"type": "string", "pattern": f"^(.*{c}.*){{5}}$"} for c in "abcdefgh"]
    },
    "multiple of a large prime": {"type": "integer", "multipleOf": 9_999_991},
    "multiple of large primes": {
        "allOf": [{"type": "integer", "multipleOf": prime} for prime in (9973, 9967, 9949)]
    },
    "narrow number": {"type": "number", "minimum": 0.1234567890123, "maximum": 0.1234567890124},
    "one of one of": {"oneOf": [{"oneOf": [_nested(n, "array") for n in range(8)]}] * 8},
    "formats": {"allOf": [_properties(1, {"type": "string", "format": f}) for f in _FORMATS]},
    "pattern properties": {"patternProperties": {f"^a{n}.*b": {} for n in range(40)}},
    "any property": {"additionalProperties": {"type": "string", "pattern": "(x+x+)+y"}},
    "whitespace that explodes": {"x-guidance": {"whitespace_pattern": "[ab]*a[ab]{18}"}},
}
EXPRESSIONS = (
    "(a+)+b", "((a*)*)*b", "a{100000}", "(a{1000}){1000}", "((a{100}){100}){100}", "[ab]*a[ab]{18}",
    "[ab]*a[ab]{200}", "(.*a.{30}){10}", ".*.*.*.*.*.*.*.*.*.*x", r"\p{L}{1,500}",
    r"(\p{L}|\p{N}|\p{Han}){0,2000}", r"\w{5000}", r"[^\p{Hangul}]*\p{Hangul}[^a]{50}",
    "|".join(f"word{number}.*end{number}" for number in range(500)),
    "(" + "|".join(f".{{{number},{2 * number}}}" for number in range(60)) + ")",
    "(" * 300 + "a" + ")" * 300, r"a\Z", "[[a]", "(?=a)b", r"(a)\1", "a{,3}", "\x00", "a" * 70_000,
)  # fmt: skip
GRAMMARS = (
    'start: start start | "a"',
    'start: a a a a a a a a\na: "x"* | a a',
    "start: X\nX: /[ab]*a[ab]{200}/",
    "start: A\nA: "
    + " & ".join(f"/(.|\\n)*{c}(.|\\n){{{9 + n}}}/" for n, c in enumerate("abcdef")),
    'start: "a"{1000000}',
    'start: (("a"|"b"){1000}){1000}',
    "start: " + "r " * 20_000 + '\nr: "a"? "b"?',
    'start: %json {"type": "integer", "multipleOf": 9999991}',
    "no grammar",
)

CONSTRAINTS: dict[str, dict[str, Any]] = {
    **{name: {"json": schema} for name, schema in SCHEMAS.items()},
    **{expression[:40]: {"regex": expression} for expression in EXPRESSIONS},
    **{grammar[:40]: {"grammar": grammar} for grammar in GRAMMARS},
    "long choices": {"choice": ["가" * number for number in range(1, 200)]},
}
"""Values of ``structured_outputs`` by what they are."""
