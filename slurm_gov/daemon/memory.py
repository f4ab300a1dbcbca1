"""How the daemon's memory is looked after."""

from __future__ import annotations

import gc


def tune() -> None:
    """Look for garbage in cycles seldom: hundreds of thousands of records make a full look take 0.1 s and more, and
    Python would take many of them while a plan is made. Records hold no cycles: they go as soon as nobody needs them.

    To be called when all modules are loaded: they stay, and are looked at no more.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 50)
