"""A site's own checks: any executable with the exit codes of Nagios plugins, so that NHC and others plug in."""

from __future__ import annotations

from slurm_gov.health.checks.base import FAIL, OK, UNKNOWN, WARN, Result

_NAGIOS = {0: OK, 1: WARN, 2: FAIL, 3: UNKNOWN}


def judge(
    name: str, code: int, output: str, *, fault: str = "site", advice: str = "none", nonzero: str = ""
) -> Result:
    """What an exit code means. ``code`` is negative for a signal.

    ``nonzero``: the state of every exit code but 0, for programs that know only good and bad (NHC).
    """
    if code == 0:
        return Result(OK)
    state = nonzero if nonzero and code > 0 and code not in (126, 127) else _NAGIOS.get(code, UNKNOWN)
    return Result(state, f"{name}: {first_line(output) or how_it_ended(code)}", "", fault, max(code, 0), advice)


def first_line(output: str) -> str:
    """What a plugin says: its first line, without performance data after ``|``, and nothing that moves a cursor."""
    for line in output.splitlines():
        text = "".join(c if c.isprintable() else " " for c in line.partition("|")[0]).strip()
        if text:
            return text[:250]
    return ""


def how_it_ended(code: int) -> str:
    if code < 0:
        return f"ended by signal {-code}"
    return {126: "cannot be executed", 127: "not found"}.get(code, f"exit code {code}")
