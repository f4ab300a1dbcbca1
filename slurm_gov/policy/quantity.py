"""Kubernetes quantities: ``8``, ``"8"``, ``1k``, ``500m``, ``16Gi``, ``1e3``."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

_QUANTITY = re.compile(r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))(?:([eE][+-]?[0-9]{1,2})|([numkMGTPE]|[KMGTPE]i)?)")
_SUFFIX = {None: Fraction(1), "n": Fraction(1, 10**9), "u": Fraction(1, 10**6), "m": Fraction(1, 1000)}
_SUFFIX |= {suffix: Fraction(1000**power) for power, suffix in enumerate("kMGTPE", 1)}
_SUFFIX |= {f"{suffix}i": Fraction(1024**power) for power, suffix in enumerate("KMGTPE", 1)}


def quantity(value: Any) -> Fraction | None:
    """The number that a quantity stands for, exactly; ``None`` if it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    found = _QUANTITY.fullmatch(str(value)) if len(str(value)) <= 40 else None
    if not found:
        return None
    power = Fraction(10) ** int(found[2][1:]) if found[2] else _SUFFIX[found[3]]
    return Fraction(found[1]) * power
