"""Garbage is looked for when the daemon says so, and found."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import gc, weakref
from slurm_gov.daemon.memory import YOUNG, tidy, tune

class Ring:
    def __init__(self):
        self.me = self

tune()
ring = Ring()
seen = weakref.ref(ring)
del ring
tidy()
assert seen() is not None, "nothing is looked for while there is little new"
kept = [[] for _ in range(3 * YOUNG)]
assert seen() is not None, "Python looked by itself"
tidy()
assert seen() is None, "the garbage was not found"
assert gc.get_count()[0] < YOUNG
"""


def test_garbage_is_looked_for_when_the_daemon_says_so() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
