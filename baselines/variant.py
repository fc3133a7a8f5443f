"""A variant, and the table of variants that one source declares: this project itself, a file of the user's own, or a package.

In: variants. Out: `Table`, checked. The built-in ones pass the same checks as anybody's.
"""
from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tcn.config import BUILT_IN, Config, InputError, flatten, to_dict
from tcn.train.method import TCN, Method, no_losses

NAME = "[a-z0-9][a-z0-9.-]{0,59}"
METHOD_NAME = "[a-z0-9][a-z0-9-]{0,59}"
"""As `tcn.config.Config.method` takes it."""
RESERVED = r"tcn-(weight|dim)-.*|tcn-\d+d?|ledger-.*|.*-as-released|.*\.py"
"""Names that the report reads a weight, a length or a deviation from."""
HELD = ("seed", "method", "method_source", "data.dataset", "data.declared", "data.split", "network.weights", "network.teacher_weights")
"""Settings that belong to the call, not to a variant."""
GUIDE = "docs/own-method.md shows a whole file"


@dataclass(frozen=True)
class Variant:
    """A named delta: dotted settings replaced in the profile's base config."""

    name: str
    title: str
    shows: str
    delta: dict[str, Any] = field(default_factory=dict)
    factors: dict[str, float] = field(default_factory=dict)
    """Dotted settings of the profile's base config multiplied, where a delta is relative."""
    grid_point: bool = False
    """One of several values of a setting: not run again where another variant has it already, or one that makes no difference."""
    method: Method[Any] = TCN
    as_released: bool = False
    """Every deviation of the ledger is turned on, as the data set has it."""
    ledger: bool = False
    """Scoring deviations of the ledger are measured on this variant's trained network. No part of a run's identity: a finished
    run without those scores gets them from its checkpoint (benchmarks/runner.py: `lacks_ledger`)."""
    optional: bool = False
    """Where its encoder's weights can't be had, the row is left out with a line, and the other rows of the call run."""
    source: str = BUILT_IN
    """As `Config.method_source`; filled in where the variant is read from a file."""
    place: str = ""
    """The file, or the name of the package's entry point, that another process finds it by; empty for a built-in one."""


@dataclass(frozen=True)
class VariantTable:
    """The variants of one source, by name, and what is kept of the source beside each run."""

    source: str
    about: str = ""
    """The source in a few words: a file's name, or a package with its version."""
    variants: Mapping[str, Variant] = field(default_factory=dict)
    kept_name: str = ""
    """Name of the copy in a run's folder; empty for built-in variants."""
    kept: bytes = b""
    files: tuple[str, ...] = ()
    """Paths of the source's Python files."""

    def method(self, name: str) -> Method[Any]:
        """The method that a variant of this table has. InputError naming the known ones where there is none of that name."""
        found = {variant.method.name: variant.method for variant in self.variants.values()}
        if name not in found:
            raise InputError(f"unknown method '{name}'; choose among {', '.join(found)}")
        return found[name]


def checked(declared: Any, place: str, taken: Collection[str] = ()) -> tuple[Variant, ...]:
    """The variants of a table that was declared. InputError naming the place, the entry and the cure where one can't be used.

    taken: names that a variant declared elsewhere than here can't have.
    """
    entries = (declared,) if isinstance(declared, Variant) else declared
    if not isinstance(entries, (tuple, list)) or not entries:
        raise InputError(f"{place}: VARIANTS is {declared!r:.60}; it has to be a tuple of baselines.Variant, such as VARIANTS = "
                         f"(Variant(name, title, shows, delta, method=Method(name, build, losses)),); {GUIDE}")
    methods: dict[str, Method[Any]] = {}
    for number, variant in enumerate(entries):
        where = f"{place}: VARIANTS[{number}]"
        if not isinstance(variant, Variant):
            raise InputError(f"{where} is {variant!r:.60}; it has to be a baselines.Variant; {GUIDE}")
        _check_words(variant, where)
        _check_settings(variant, where)
        if taken and re.fullmatch(RESERVED, variant.name):
            raise InputError(f"{where}: the report reads names like '{variant.name}' as those of built-in variants; choose another name")
        if variant.name in taken:
            raise InputError(f"{where}: '{variant.name}' is the name of a built-in variant or group; choose another name")
        if variant.name in [one.name for one in entries[:number]]:
            raise InputError(f"{where}: '{variant.name}' stands there twice; each variant needs a name of its own")
        _check_method(variant, where)
        if methods.setdefault(variant.method.name, variant.method) is not variant.method:
            raise InputError(f"{where}: two methods are called '{variant.method.name}'; results are told apart by that name, so give "
                             "each its own")
    return tuple(entries)


def _check_words(variant: Variant, where: str) -> None:
    if not isinstance(variant.name, str) or not re.fullmatch(NAME, variant.name):
        raise InputError(f"{where}: the name is {variant.name!r:.60}; it takes up to 60 letters in lower case, digits, dots and hyphens")
    for key, most in (("title", 80), ("shows", 400)):
        text = getattr(variant, key)
        if not isinstance(text, str) or not text.strip() or not text.isprintable() or len(text) > most:
            raise InputError(f"{where} '{variant.name}': {key} is {text!r:.60}; it takes one line of up to {most} characters")


def _check_settings(variant: Variant, where: str) -> None:
    known = flatten(to_dict(Config()))
    for what in ("delta", "factors"):
        values = getattr(variant, what)
        if not isinstance(values, dict):
            raise InputError(f"{where} '{variant.name}': {what} is {values!r:.60}; it takes a dictionary from dotted settings to values")
        for key in values:
            if key not in known:
                raise InputError(f"{where} '{variant.name}': unknown setting '{key}' in its {what}; tcn/config.py lists them all")
            if key in HELD:
                raise InputError(f"{where} '{variant.name}': its {what} can't set '{key}', which belongs to the call")


def _check_method(variant: Variant, where: str) -> None:
    method = variant.method
    if not isinstance(method, Method):
        raise InputError(f"{where} '{variant.name}': method is {method!r:.60}; it takes a tcn.method.Method(name, build, losses)")
    if not isinstance(method.name, str) or not re.fullmatch(METHOD_NAME, method.name):
        raise InputError(f"{where} '{variant.name}': the method's name is {method.name!r:.60}; it takes up to 60 letters in lower case, "
                         "digits and hyphens")
    for function in ("build", "losses"):
        if not callable(getattr(method, function)):
            raise InputError(f"{where} '{variant.name}': {function} of its method is {getattr(method, function)!r:.60}; it takes a "
                             f"function; {GUIDE}")
    if method.losses is no_losses and variant.delta.get("training.optimizer") != "none":
        raise InputError(f"{where} '{variant.name}': its method has no losses; give it some, or the variant "
                         "{'training.optimizer': 'none'} where nothing is trained")


def sourced(variants: Iterable[Variant], source: str, place: str) -> dict[str, Variant]:
    """The same variants by name, each with where it comes from."""
    return {variant.name: replace(variant, source=source, place=place) for variant in variants}
