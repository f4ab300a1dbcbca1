"""How the daemon's memory is looked after."""

from __future__ import annotations

import gc

YOUNG, MIDDLE, OLD = 100_000, 20, 50
"""When garbage is looked for: after so many new records among those, the 20th time among the middle-aged ones too,
and the 50th time of that among all.
"""


def tune() -> None:
    """Look for garbage in cycles only when told to, by ``tidy()``: hundreds of thousands of records make each look
    take a tenth of a second and more, and Python would take many of them while a plan is made. Records hold no
    cycles: they go as soon as nobody needs them.

    To be called when all modules are loaded: they stay, and are looked at no more.
    """
    gc.collect()
    gc.freeze()
    gc.disable()


def tidy() -> None:
    """Look for garbage now if it is time to: to be called when a cycle has acted."""
    young, middle, old = gc.get_count()
    if young > YOUNG:
        gc.collect(2 if old > OLD else 1 if middle > MIDDLE else 0)
