"""How Slurm was before slurm-gov first changed it, so that it can be so again.

Kept in a file, for Slurm keeps no history: for everything that was changed, what it was before the first change.
The first one stands; what is changed again later is not what was there before us.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from slurm_gov.slurm.accounts import Change, State, What

DEFAULT_STATE_DIR = Path("/var/lib/slurm-gov")
FILE = "before.json"
NONE = "none"
"""What a cap was that was not there."""
_VERSION = 1

Key = tuple[What, str, str]
Caps = Mapping[str, Mapping[str, int]]


class Before:
    """What was there before us: each kind, name and setting with its value then.

    Raises ``ValueError`` when the file is there and cannot be understood: then nothing is forgotten by guessing.
    """

    def __init__(self, folder: Path = DEFAULT_STATE_DIR, name: str = "") -> None:
        """``name`` is for people, where it is not a file in ``folder``."""
        self.path = folder / FILE
        self.name = name or str(self.path)
        self.known: dict[Key, str] = {}
        self.reload()

    def reload(self) -> None:
        """Know what is kept now."""
        if (text := self._load()) is not None:
            self._read(text)

    def _load(self) -> str | None:
        try:
            return self.path.read_text()
        except FileNotFoundError:
            return None

    def _read(self, text: str) -> None:
        try:
            data = json.loads(text)
            if data["version"] != _VERSION:
                raise ValueError(f"its version is {data['version']}, and this slurm-gov knows {_VERSION}")
            self.known = {(What(one["what"]), one["name"], one["setting"]): one["before"] for one in data["before"]}
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{self.name} says how Slurm was before slurm-gov, and cannot be read: {error}; put a copy of "
                "it back, or move it away (slurm-gov policy remove can then not restore what was there)"
            ) from error

    def remember(self, todo: Iterable[Change]) -> None:
        """Write down what these changes will change, before they are made. Raises ``OSError`` and ``ValueError``."""
        new = {key: before for one in todo for key, before in _each(one)}
        if new.keys() - self.known.keys():
            self.reload()  # policy apply, or another controller, may have written since
            self.known = {**new, **self.known}
            self._write()

    def remember_caps(self, have: Caps, wanted: Iterable[Caps]) -> None:
        """The same for caps: account to TRES to amount, as they are and as they will be."""
        self.remember(
            Change(What.CAP, account, str(have.get(account, {}).get(tres, NONE)), str(amount), tres)
            for caps in wanted
            for account, limits in caps.items()
            for tres, amount in limits.items()
        )

    def forget(self) -> None:
        """All is as it was."""
        self.known = {}
        self._save(None)

    def _write(self) -> None:
        data = {
            "version": _VERSION,
            "before": [
                {"what": what.value, "name": name, "setting": setting, "before": before}
                for (what, name, setting), before in sorted(self.known.items())
            ],
        }
        self._save(json.dumps(data, indent=1))

    def _save(self, text: str | None) -> None:
        """Keep this, or nothing. Raises ``OSError``."""
        if text is None:
            self.path.unlink(missing_ok=True)
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=self.path.parent, prefix=f".{FILE}.", delete=False) as file:
            try:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
                Path(file.name).chmod(0o644)
                if self.path.exists():
                    # root's policy apply must not take the file from the daemon
                    stat = self.path.stat()
                    with contextlib.suppress(PermissionError):
                        os.chown(file.name, stat.st_uid, stat.st_gid)
                Path(file.name).replace(self.path)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise


def _each(change: Change) -> Iterable[tuple[Key, str]]:
    """What a change changes, each with its value before; QOS that are allowed one by one, as others may come."""
    if change.what is What.ALLOW_QOS:
        for qos in set(change.after.split(",")) - set(change.before.split(",")):
            yield (change.what, change.name, qos), ""
    else:
        yield (change.what, change.name, change.setting), change.before


def undo(known: Mapping[Key, str], state: State) -> tuple[list[Change], list[Change]]:
    """The changes that make Slurm as it was, and those that would remove what slurm-gov created.

    The latter are the administrator's to decide: a created account may have users and jobs by now. Pure.
    """
    back: list[Change] = []
    created: list[Change] = []
    allowed: dict[str, set[str]] = {}
    made = {name for (what, name, _), _before in known.items() if what is What.CREATE_ACCOUNT}
    for (what, name, setting), before in sorted(known.items()):
        account = state.accounts.get(name)
        match what:
            case What.CREATE_ACCOUNT if account:
                created.append(Change(what, name, account.parent, ""))
            case What.CREATE_QOS if name in state.qos:
                created.append(Change(what, name, str(state.qos[name]), ""))
            case What.QOS_PRIORITY if name in state.qos and state.qos[name] != int(before):
                back.append(Change(what, name, str(state.qos[name]), before))
            case What.CAP if account and name not in made:
                now = account.caps.get(setting)
                if str(NONE if now is None else now) != before:
                    back.append(Change(what, name, NONE if now is None else str(now), before, setting))
            case What.ALLOW_QOS if account and name not in made and setting in account.qos:
                allowed.setdefault(name, set()).add(setting)
            case _:
                pass
    for name, ours in allowed.items():
        now_allowed = state.accounts[name].qos
        back.append(Change(What.ALLOW_QOS, name, ",".join(sorted(now_allowed)), ",".join(sorted(now_allowed - ours))))
    order = list(What)
    return sorted(back, key=lambda one: order.index(one.what)), sorted(created, key=lambda one: order.index(one.what))


def undo_commands(back: Iterable[Change], created: Iterable[Change], cluster: str) -> list[str]:
    """Lines for sacctmgr that do it. A cap of -1 is none."""
    lines = []
    caps: dict[str, list[str]] = {}
    for one in back:
        match one.what:
            case What.CAP:
                caps.setdefault(one.name, []).append(f"{one.setting}={-1 if one.after == NONE else one.after}")
            case What.QOS_PRIORITY:
                lines.append(f"modify qos where name={one.name} set priority={one.after}")
            case What.ALLOW_QOS:
                gone = ",".join(sorted(set(one.before.split(",")) - set(one.after.split(","))))
                lines.append(f"modify account where name={one.name} cluster={cluster} set qos-={gone}")
            case _:
                raise AssertionError(one)
    for account, settings in caps.items():
        lines.append(f"modify account where name={account} cluster={cluster} set GrpTRES={','.join(settings)}")
    order = sorted(created, key=lambda one: one.what is What.CREATE_QOS)  # a QOS goes when no account names it
    lines += [
        f"delete {'account' if one.what is What.CREATE_ACCOUNT else 'qos'} where name={one.name}"
        + (f" cluster={cluster}" if one.what is What.CREATE_ACCOUNT else "")
        for one in order
    ]
    return lines
