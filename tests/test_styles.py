"""Style expressions."""

import json

import pytest

from models.errors import InputError, MalformedInput, OutOfRange, TooLarge, UnknownName
from models.styles import parse_style

KNOWN = ("calm", "lively", "neutral")


@pytest.mark.parametrize(
    ("expression", "shares"),
    [
        ("calm", {"calm": 1}),
        (" calm ", {"calm": 1}),
        ("calm(3)", {"calm": 1}),
        ("calm(0.7)+lively(0.3)", {"calm": 0.7, "lively": 0.3}),
        ("calm + lively", {"calm": 0.5, "lively": 0.5}),
        (" calm ( 2 ) + lively(6) ", {"calm": 0.25, "lively": 0.75}),
        ("calm(1e+1)+lively(3e1)", {"calm": 0.25, "lively": 0.75}),
        ("calm(0)+lively(1)", {"calm": 0, "lively": 1}),
        ("calm+lively+calm", {"calm": 2 / 3, "lively": 1 / 3}),
        (' {"calm": 0.7, "lively": 0.3}', {"calm": 0.7, "lively": 0.3}),
        ('{"lively": 5}', {"lively": 1}),
    ],
)
def test_shares_sum_to_one(expression, shares):
    assert parse_style(expression, KNOWN) == pytest.approx(shares)


@pytest.mark.parametrize(
    ("expression", "error", "code"),
    [
        ("clam", UnknownName, "unknown_style"),
        ("", UnknownName, "unknown_style"),
        ("calm+", UnknownName, "unknown_style"),
        ("calm(0.5)+clam(0.5)", UnknownName, "unknown_style"),
        ('{"clam": 1}', UnknownName, "unknown_style"),
        ("calm(", MalformedInput, "malformed"),
        ("calm)", MalformedInput, "malformed"),
        ("calm(0.5)lively(0.5)", MalformedInput, "malformed"),
        ("calm()", MalformedInput, "malformed"),
        ("calm(much)", MalformedInput, "malformed"),
        ("{calm: 1}", MalformedInput, "malformed"),
        ('{"calm": "1"}', MalformedInput, "malformed"),
        ('{"calm": true}', MalformedInput, "malformed"),
        ('{"calm": [1]}', MalformedInput, "malformed"),
        ('{"calm": 1' + "0" * 400 + "}", MalformedInput, "malformed"),
        ('{"calm":' * 5000, MalformedInput, "malformed"),
        ("calm(nan)", MalformedInput, "not_finite"),
        ("calm(inf)", MalformedInput, "not_finite"),
        ('{"calm": NaN}', MalformedInput, "not_finite"),
        ("calm(-1)", OutOfRange, "out_of_range"),
        ("calm(0)", OutOfRange, "out_of_range"),
        ("{}", OutOfRange, "out_of_range"),
        ("+".join(["calm"] * 65), TooLarge, "too_large"),
        ("+".join(["calm(0.1)"] * 10_000), TooLarge, "too_large"),
        ("calm(1e308)+lively(1e308)", OutOfRange, "out_of_range"),
    ],
)
def test_what_is_no_mix_of_known_styles_is_refused(expression: str, error: type[InputError], code: str):
    with pytest.raises(error) as refusal:
        parse_style(expression, KNOWN)
    assert (refusal.value.code, refusal.value.field) == (code, "style")
    with pytest.raises(error) as refusal:
        parse_style(expression, KNOWN, field="wrinkle_style")
    assert refusal.value.field == "wrinkle_style"


def test_64_terms_are_within_the_limit():
    names = [f"style-{index}" for index in range(64)]
    shares = parse_style("+".join(f"{name}(1e+3)" for name in names), names)
    assert shares == pytest.approx(dict.fromkeys(names, 1 / 64))


def test_a_mix_of_too_many_terms_in_json_is_refused_too():
    names = [f"style-{index}" for index in range(65)]
    with pytest.raises(TooLarge, match="the limit is 64"):
        parse_style(json.dumps(dict.fromkeys(names, 1)), names)


def test_an_unknown_name_is_named_alone():
    with pytest.raises(UnknownName, match="unknown style 'clam'; known: calm, lively, neutral"):
        parse_style("calm(0.5)+clam(0.5)", KNOWN)
