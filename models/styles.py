"""Style expressions: the name of a style, or a weighted mix.

calm
calm(0.7)+lively(0.3)
{"calm": 0.7, "lively": 0.3}
"""

import json
import math
import re
from collections.abc import Collection, Iterable

from models.errors import SHOWN, MalformedInput, OutOfRange, TooLarge, UnknownName, blaming

MAX_TERMS = 64
TERM = re.compile(r"([^()+]*)(?:\(([^()]*)\)\s*)?(\+|\Z)")
"""A name, its weight if it has one, and the plus that follows unless it is the last."""


def parse_style(expression: str, known: Collection[str], *, field: str = "style") -> dict[str, float]:
    """Shares by name, which sum to 1; weights of a name that comes twice add up. `field` is what errors name.

    UnknownName for a style that is not `known`, OutOfRange for weights that are negative or all 0, MalformedInput for
    what is no expression, TooLarge for one of more than MAX_TERMS terms.
    """
    with blaming(field):
        return _shares(_json_terms(expression) if expression.lstrip().startswith("{") else _terms(expression), known)


def _shares(terms: Iterable[tuple[str, float]], known: Collection[str]) -> dict[str, float]:
    weights: dict[str, float] = {}
    for count, (name, weight) in enumerate(terms):
        if count == MAX_TERMS:
            raise TooLarge(f"a style of more than {MAX_TERMS} terms; the limit is {MAX_TERMS}: leave out the lightest")
        if name not in known:
            raise UnknownName("style", name, known)
        if not math.isfinite(weight):
            raise MalformedInput(f"style {name} has the weight {weight}; wanted a finite one", code="not_finite")
        if weight < 0:
            raise OutOfRange(f"style {name} has the weight {weight:g}; wanted 0 or more")
        weights[name] = weights.get(name, 0.0) + weight
    total = sum(weights.values())
    if not 0 < total < math.inf:
        raise OutOfRange(f"the weights of the styles sum to {total:g}; wanted more than 0, and finite")
    return {name: weight / total for name, weight in weights.items()}


def _terms(expression: str) -> Iterable[tuple[str, float]]:
    place, more = 0, "+"
    while more:
        if not (parts := TERM.match(expression, place)):
            raise _malformed(expression)
        name, weight, more = parts.groups()
        yield name.strip(), 1.0 if weight is None else _number(weight, expression)
        place = parts.end()


def _json_terms(expression: str) -> Iterable[tuple[str, float]]:
    try:
        terms = json.loads(expression)
    except (ValueError, RecursionError):
        raise _malformed(expression) from None
    for name, weight in terms.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            raise _malformed(expression)
        yield name, _number(weight, expression)


def _number(value: str | float, expression: str) -> float:
    try:
        return float(value)
    except (ValueError, OverflowError):
        raise _malformed(expression) from None


def _malformed(expression: str) -> MalformedInput:
    return MalformedInput(
        f"style = {expression[:SHOWN]!r}; wanted a name, a sum such as calm(0.7)+lively(0.3), or the same in JSON"
    )
