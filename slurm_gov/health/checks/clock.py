"""The clock: is it kept, and did it jump?

munge refuses credentials that differ by more than five minutes, Kerberos and TLS likewise; NCCL traces and logs of a
job across nodes are useless with less. The kernel knows whether anybody keeps its clock: adjtimex(2). How far a node
is from the controller the governor sees in the times of its messages.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slurm_gov.health.checks.base import FAIL, UNKNOWN, WARN, Look, Memory, Outcome, Probe, Result

_STA_UNSYNC = 0x0040
_TIME_ERROR = 5


@dataclass(frozen=True, slots=True)
class Settings:
    """How wrong the clock may be."""

    synchronised: bool = True  # whether somebody (chrony, ntpd, PTP) must keep the clock
    # Seconds. The kernel raises its own estimate by 0.5 ms a second while nobody corrects the clock.
    warn_error: float = 1.0
    fail_error: float = 30.0  # a tenth of munge's tolerance
    warn_jump: float = 2.0  # between two looks; daylight saving is no jump, the clock counts in UTC


@dataclass(frozen=True, slots=True)
class Reading:
    """``error``: the kernel's largest possible error in seconds. ``offset``: the clock less the time since boot."""

    synchronised: bool
    error: float
    offset: float


def judge(reading: Reading, memory: Memory, settings: Settings) -> tuple[list[Result], Memory]:
    found = []
    if not reading.synchronised:
        if settings.synchronised:
            found.append(
                Result(WARN, "nobody keeps the clock (chronyd, ntpd?)", "synchronised", "clock", advice="person")
            )
    elif reading.error >= settings.warn_error:
        state = FAIL if reading.error >= settings.fail_error else WARN
        found.append(
            Result(state, f"the clock may be {reading.error:.1f} s wrong", "error", "clock", advice="person")
        )
    before = memory.get("offset")
    if before is not None and abs(jump := reading.offset - before) >= settings.warn_jump:
        found.append(Result(WARN, f"the clock jumped by {jump:+.1f} s", "jump", "clock", advice="person"))
    return found, {"offset": reading.offset}


class _Timex(ctypes.Structure):
    # struct timex of <sys/timex.h>; only its beginning is read.
    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 256),
    )


def read_clock() -> Reading:
    """Ask the kernel. OSError if it does not tell."""
    timex = _Timex()  # modes=0: read, change nothing
    state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex))
    if state < 0:
        raise OSError(ctypes.get_errno(), "adjtimex failed")
    kept = state != _TIME_ERROR and not timex.status & _STA_UNSYNC
    offset = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return Reading(kept, timex.maxerror / 1e6, offset)


def run(look: Look, settings: Mapping[str, Any]) -> Outcome:
    try:
        reading = read_clock()
    except (OSError, AttributeError) as error:
        return Outcome({"clock": [Result(UNKNOWN, f"the kernel does not tell: {error}", fault="clock")]})
    results, memory = judge(reading, look.memory, settings["clock"])
    return Outcome({"clock": results}, memory)


PROBE = Probe("clock", every=60, limit=5, settings={"clock": Settings}, run=run)
