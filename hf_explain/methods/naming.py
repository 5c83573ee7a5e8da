"""A method by its name, with options behind it where they are wanted: "occlusion(window=8, stride=4)"."""

from __future__ import annotations

import ast
import inspect
import keyword
import types
from collections.abc import Callable, Mapping
from functools import partial
from numbers import Integral, Real
from typing import Any, Union, get_args, get_origin, get_type_hints

import torch

from ..methods import METHODS
from ..modeling.errors import ExplainerError, spelled_as, unknown_name

GIVEN_BESIDE = {"seed": "give it to the pipeline as seed=, or to a command as --seed"}


def find_method(text: str, options: Mapping[str, Any] | None = None) -> Callable[..., torch.Tensor]:
    """The function of a method with its options, those in the text and others.

    >>> find_method("rise(masks=8000)", {"cells": 7}).keywords
    {'masks': 8000, 'cells': 7}
    """
    name, inside = read_method(text)
    method = named(str(text).partition("(")[0].strip())
    both = sorted(set(inside) & set(options or {}))
    if both:
        raise ExplainerError(f"{both[0]} of {name} was given twice, in the name and beside it; give it once.")
    return with_options(method, name, {**inside, **(options or {})})


def named(name: str) -> Callable[..., torch.Tensor]:
    """The function of a method's name without options, with - or _ between words."""
    found = METHODS.get(spelled_as(name))
    if found is None:
        raise ExplainerError(f"{unknown_name('method', name, METHODS)}.")
    return found


def read_method(text: str) -> tuple[str, dict[str, Any]]:
    """Name, as it is spelled in `METHODS` if it is there, and options of "name(option=value, ...)".

    A value is a literal of Python; a word needs no quotes.

    >>> read_method("Semantic-Pullback(variant=ascent, steps=3)")
    ('semantic_pullback', {'variant': 'ascent', 'steps': 3})
    """
    name, bracket, rest = str(text).strip().partition("(")
    if not bracket:
        return spelled_as(name), {}
    try:
        call = ast.parse(f"f({rest}", mode="eval").body
        if not isinstance(call, ast.Call) or call.args or not isinstance(call.func, ast.Name):
            raise ValueError
        options = {str(one.arg or ""): read_value(one.value) for one in call.keywords}
        if "" in options or len(options) < len(call.keywords):  # **another, or one of them twice
            raise ValueError
        return spelled_as(name), options
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        raise ExplainerError(
            f"{text!r:.80} is no method with options; give a name, and in brackets option=value with commas, such as "
            "occlusion(window=8, stride=4)."
        ) from None


def read_value(node: ast.expr):
    return node.id if isinstance(node, ast.Name) else ast.literal_eval(node)


def spelled(text: str) -> str:
    """A method with its options, always written in the same way: what results are filed under.

    >>> spelled("Semantic-Pullback( variant='ascent',steps = 3 )")
    'semantic_pullback(variant=ascent, steps=3)'
    """
    name, options = read_method(text)
    written = ", ".join(f"{option}={write_value(value)}" for option, value in options.items())
    return f"{name}({written})" if options else name


def write_value(value) -> str:
    word = isinstance(value, str) and value.isidentifier() and not keyword.iskeyword(value)
    return value if word else repr(value)


def split_names(text: str) -> list[str]:
    """The names of a list with commas, where those inside brackets divide nothing.

    >>> split_names("occlusion(window=8, stride=4), random")
    ['occlusion(window=8, stride=4)', 'random']
    """
    found, depth = [""], 0
    for sign in text:
        depth += (sign in "([{") - (sign in ")]}")
        if sign == "," and depth < 1:
            found.append("")
        else:
            found[-1] += sign
    return [name for name in map(str.strip, found) if name]


# ---- options ----


def with_options(method: Callable, name: str, options: Mapping[str, Any]) -> Callable[..., torch.Tensor]:
    """The method with other defaults, or why it has no such option."""
    if not options:
        return method
    known, hints = options_of(method), hints_of(method)
    for option, value in options.items():
        if option in GIVEN_BESIDE:
            raise ExplainerError(f"{option} is no option of {name}; {GIVEN_BESIDE[option]}.")
        if not known:
            raise ExplainerError(f"{name} has no options, but {option}={value!r:.60} was given; leave it out.")
        if option not in known:
            raise ExplainerError(f"{unknown_name(f'option of {name}', option, known)}.")
        if option in hints and not fits(value, hints[option]):
            raise ExplainerError(f"{option}={value!r:.60} of {name}; give {said(hints[option])}.")
    return partial(method, **options)


def options_of(method: Callable) -> list[str]:
    parameters = inspect.signature(method).parameters.values()
    return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in GIVEN_BESIDE]


def hints_of(method: Callable) -> dict[str, Any]:
    try:
        return get_type_hints(innermost(method))
    except NameError:  # of a method that imports its types for checkers only
        return {}


def innermost(method: Callable) -> Callable:
    while isinstance(method, partial):
        method = method.func
    return inspect.unwrap(method)


def kinds_of(hint) -> tuple[type, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def fits(value, hint) -> bool:
    """Whether a value is of an annotation's kind; a whole number is a number too, and True is none."""
    kinds = tuple({int: Integral, float: Real}.get(kind, kind) for kind in kinds_of(hint))
    if isinstance(value, bool):
        return bool in kinds
    return isinstance(value, kinds)


def said(hint) -> str:
    words = {int: "an integer", float: "a number", str: "a word", type(None): "None", torch.Tensor: "a tensor"}
    *most, last = [words.get(kind, f"a {kind.__name__}") for kind in kinds_of(hint)]
    return f"{', '.join(most)} or {last}" if most else last
