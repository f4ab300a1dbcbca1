"""What an agent knows of its node: the last results, since when each is so, what was injected. No clock, no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from slurm_gov.health.checks.base import BADNESS, OK, Result
from slurm_gov.health.messages import MAX_BYTES, MAX_RESULTS, Advice, CheckResult, Fault, Gpu, State, Status


@dataclass(frozen=True, slots=True)
class Entry:
    """One result; times in seconds since 1970."""

    result: Result
    since: float
    checked: float
    injected: bool = False

    @property
    def verdict(self) -> tuple[Any, ...]:
        """What makes a change that is told at once. A message may carry figures that always change."""
        r = self.result
        return r.state, r.fault, r.code, r.advice, r.gpu_index, r.gpu_uuid, self.injected


class Board:
    """Results by check and subject."""

    def __init__(self) -> None:
        self._entries: dict[str, dict[str, Entry]] = {}
        self._injected: dict[str, dict[str, Entry]] = {}
        self._past: Mapping[str, Mapping[str, Any]] = {}
        self.changed = False  # since whoever publishes set it to False

    def put(self, check: str, results: Iterable[Result], now: float) -> None:
        """All that a check says now; nothing means that all is well."""
        found = {one.subject: one for one in results} or {"": Result(OK)}
        old, past, new = self._entries.get(check), self._past.get(check, {}), {}
        for subject, result in found.items():
            before = old.get(subject) if old else None
            known = (
                (before.result.state, before.since) if before else tuple(past.get(subject, ())) if old is None else ()
            )
            since = known[1] if len(known) == 2 and known[0] == result.state else now
            new[subject] = Entry(result, since, now)
        self._entries[check] = new
        if old is None or {s: e.verdict for s, e in new.items()} != {s: e.verdict for s, e in old.items()}:
            self.changed = True

    def inject(self, faults: Mapping[str, Iterable[tuple[Result, float]]]) -> None:
        """All that is injected now, by check, each with the time at which it was."""
        new = {
            check: {one.subject: Entry(one, since, since, injected=True) for one, since in results}
            for check, results in faults.items()
        }
        if new != self._injected:
            self._injected, self.changed = new, True

    def drop(self, check: str) -> None:
        """Forget a check, one that is no longer run."""
        if self._entries.pop(check, None):
            self.changed = True

    def checks(self) -> set[str]:
        """Those that have spoken."""
        return set(self._entries)

    def entries(self) -> list[tuple[str, Entry]]:
        """Check and result, the worst first; a check with something injected does not say that all is well."""
        shown = []
        for check in {**self._entries, **self._injected}:
            injected = self._injected.get(check, {})
            real = self._entries.get(check, {})
            shown += [
                (check, e) for s, e in real.items() if s not in injected and not (injected and e.result.state == OK)
            ]
            shown += [(check, e) for e in injected.values()]
        return sorted(shown, key=lambda one: (BADNESS[one[1].result.state], one[0], one[1].result.subject))

    def status(self, **head: Any) -> Status:
        """The message, with as many results as fit. ``head``: its other fields."""
        results = [message_result(check, entry) for check, entry in self.entries()]
        fit = min(len(results), MAX_RESULTS)
        while True:
            status = Status(results=tuple(results[:fit]), left_out=len(results) - fit, **head)
            if len(status.model_dump_json().encode()) <= MAX_BYTES:
                return status
            fit = fit * 3 // 4

    def to_json(self) -> dict[str, Any]:
        """Since when each check says what it says, for the next agent of this boot."""
        return {
            check: {subject: [entry.result.state, entry.since] for subject, entry in entries.items()}
            for check, entries in self._entries.items()
        }

    def recall(self, data: Mapping[str, Mapping[str, Any]]) -> None:
        """What the agent before this one wrote with `to_json`. Every check must speak for itself all the same."""
        self._past = data


def message_result(check: str, entry: Entry) -> CheckResult:
    """A result as it travels: printable, within the limits of the message."""
    one = entry.result
    gpu = Gpu(index=one.gpu_index, uuid=one.gpu_uuid) if one.gpu_index is not None or one.gpu_uuid else None
    return CheckResult(
        check=check,
        state=State(one.state),
        subject=line(one.subject, 120),
        fault=Fault(one.fault) if one.fault and one.state != OK else None,
        code=one.code if one.code is not None and 0 <= one.code < 100_000 else None,
        advice=Advice(one.advice) if one.state != OK else Advice.NONE,
        gpu=gpu,
        message=line(one.message, 400),
        since=entry.since,
        checked=entry.checked,
        injected=entry.injected,
    )


def line(text: str, limit: int) -> str:
    """Text as one printable line."""
    plain = "".join(c if c.isprintable() else " " for c in text)
    return plain if len(plain) <= limit else plain[: limit - 1] + "…"
