"""Who leads: the rules, what is read of Slurm, and that nothing is sent without the lease."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from slurm_gov.core.snapshot import Behind, Mark, Unstarted
from slurm_gov.daemon import leadership
from slurm_gov.daemon.leadership import LENGTH, SPARE, Leadership, Step, decide
from slurm_gov.daemon.lease import Lease
from slurm_gov.database import DatabaseError
from slurm_gov.slurm import commands, controllers, nodes_commands
from slurm_gov.slurm.client import SlurmError
from slurm_gov.slurm.commands import CommandClient
from slurm_gov.slurm.controllers import Controllers, is_here, parse
from slurm_gov.slurm.nodes_commands import CommandNodes
from slurm_gov.slurm.permit import NotLeading

HELD = Lease("them", "ctl2", 3, 0.0, 1.0, 9.0)
ENDED = Lease("them", "ctl2", 3, 0.0, 12.0, -2.0)
GIVEN_BACK = Lease("", "ctl2", 3, 0.0, 12.0, 0.0)
CONFIG = """\
Configuration data as of 1700000000
SlurmctldHost[0]        = ctl1(10.0.0.1)
SlurmctldHost[1]        = ctl2
SlurmctldPort           = 6817
StateSaveLocation       = {state}
"""


@pytest.mark.parametrize(
    ("mine", "lease", "here", "step"),
    [
        (False, None, True, Step.TAKE),
        (False, ENDED, True, Step.TAKE),
        (False, GIVEN_BACK, True, Step.TAKE),
        (False, HELD, True, Step.WAIT),  # it gives it back when it sees that, or it ends
        (False, None, False, Step.WAIT),
        (False, ENDED, False, Step.WAIT),
        (False, ENDED, None, Step.WAIT),
        (True, HELD, True, Step.RENEW),
        (True, HELD, None, Step.RENEW),
        (True, ENDED, True, Step.RENEW),
        (True, HELD, False, Step.RELEASE),
    ],
)
def test_the_rules(mine: bool, lease: Lease | None, here: bool | None, step: Step) -> None:
    assert decide(mine, lease, here) is step


# -- which slurmctld is in control -----------------------------------------------------------------------------------


def heartbeat(folder: Path, number: int) -> None:
    (folder / "heartbeat").write_bytes(struct.pack("!QQ", 1_700_000_000, number))


def test_the_one_in_control_is_read_from_the_heartbeat(tmp_path: Path) -> None:
    found = parse(CONFIG.format(state=tmp_path))
    assert found == Controllers(("ctl1", "ctl2"), tmp_path)
    for number, host in enumerate(found.hosts):
        heartbeat(tmp_path, number)
        assert found.active() == host
    heartbeat(tmp_path, 7)
    with pytest.raises(SlurmError, match=r"number 7 is in control; slurm\.conf has 2"):
        found.active()


def test_a_heartbeat_that_cannot_be_read(tmp_path: Path) -> None:
    found = Controllers(("ctl1", "ctl2"), tmp_path)
    with pytest.raises(SlurmError, match="No such file"):
        found.active()
    (tmp_path / "heartbeat").write_bytes(b"12345")
    with pytest.raises(SlurmError, match="cut short"):
        found.active()
    assert Controllers(("ctl1",), tmp_path).active() == "ctl1"  # alone it writes none
    with pytest.raises(SlurmError, match="does not say"):
        parse("slurm_load_ctl_conf error")


def test_a_host_is_here_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controllers.socket, "gethostname", lambda: "ctl1.example.org")
    assert is_here("ctl1") and is_here("ctl1.example.org")
    assert not is_here("ctl2") and not is_here("ctl")


# -- the lease -------------------------------------------------------------------------------------------------------


class Table:
    """The row, without a database; ``away``: it does not answer."""

    def __init__(self) -> None:
        self.lease: Lease | None = None
        self.away = False
        self.asked: list[str] = []

    def _ask(self, what: str) -> None:
        if self.away:
            raise DatabaseError("it is away")
        self.asked.append(what)

    def read(self) -> Lease | None:
        self._ask("read")
        return self.lease

    def take(self, holder: str, host: str, length: float) -> Lease | None:
        self._ask("take")
        self.lease = Lease(holder, host, (self.lease.term if self.lease else 0) + 1, 0.0, 0.0, length)
        return self.lease

    def renew(self, holder: str, term: int, length: float) -> bool:
        self._ask("renew")
        return self.lease is not None and (self.lease.holder, self.lease.term) == (holder, term)

    def release(self, holder: str, term: int) -> None:
        self._ask("release")
        self.lease = GIVEN_BACK

    def close(self) -> None:
        pass


class World:
    """One governor, a clock that we turn, and who is in control."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.table = Table()
        self.here: bool | Exception = True
        self.changes = 0
        monkeypatch.setattr(leadership, "_clock", lambda: self.now)
        self.one = Leadership(self.table, 1.0, self._changed)  # type: ignore[arg-type]
        monkeypatch.setattr(self.one, "_active_here", self._active_here)

    def _changed(self, why: str) -> None:
        self.changes += 1

    async def _active_here(self) -> bool:
        if isinstance(self.here, Exception):
            raise self.here
        return self.here

    def look(self, after: float = 0.0) -> None:
        self.now += after
        run(self.one._look())


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def test_it_leads_while_it_renews(world: World) -> None:
    assert not world.one.leads
    world.look()
    assert world.one.leads and world.one.term == 1 and world.changes == 1
    for _ in range(20):
        world.look(after=1)
        assert world.one.leads
    assert world.one.begin() and world.one.permit(5.0) == 5.0
    assert world.one.about.startswith("this one leads")


def test_a_command_ends_before_the_lease_does(world: World) -> None:
    world.look()
    assert world.one.begin()
    assert world.one.permit(30.0) == LENGTH - SPARE
    world.now += 5
    assert world.one.permit(10.0) == LENGTH - SPARE - 5
    world.now += 3  # too little is left for a command that may need longer
    with pytest.raises(NotLeading):
        world.one.permit(10.0)
    assert world.one.permit(1.5) == 1.5


def test_one_that_stood_still_does_nothing_when_it_goes_on(world: World) -> None:
    world.look()
    assert world.one.begin()
    world.now += 60
    with pytest.raises(NotLeading):
        world.one.permit(0.1)
    world.table.lease = HELD
    world.look()
    assert not world.one.leads and world.table.lease is HELD
    assert "standby: the governor on ctl2 leads (term 3)" in world.one.about


def test_what_was_decided_under_an_earlier_lease_is_not_done_under_a_later_one(world: World) -> None:
    world.look()
    assert world.one.begin()
    world.now += 60
    world.table.lease = ENDED  # another had it meanwhile
    world.look()
    assert world.one.leads and world.one.term == 4
    with pytest.raises(NotLeading):
        world.one.permit(1.0)
    assert world.one.begin() and world.one.permit(1.0) == 1.0


def test_it_gives_the_lease_back_when_another_slurmctld_is_in_control(world: World) -> None:
    world.look()
    world.here = False
    world.look(after=1)
    assert not world.one.leads and world.table.asked[-1] == "release"
    world.look(after=1)
    assert world.table.asked[-1] == "read"


def test_it_keeps_the_lease_while_that_is_not_known_and_takes_none(world: World) -> None:
    world.here = SlurmError("the folder is away")
    world.look()
    assert not world.one.leads and "the folder is away" in world.one.about
    world.here = True
    world.look()
    world.here = SlurmError("the folder is away")
    world.look(after=5)
    assert world.one.leads


def test_without_the_database_it_leads_only_until_its_lease_ends(world: World) -> None:
    world.look()
    world.table.away = True
    world.look(after=LENGTH - 1)
    assert world.one.leads
    world.look(after=1.1)
    assert not world.one.leads and "it is away" in world.one.about
    world.table.away = False
    world.table.lease = ENDED
    world.look()
    assert world.one.leads and world.one.term == 4


def test_another_that_took_it_is_believed(world: World) -> None:
    world.look()
    world.table.lease = HELD
    world.look(after=1)
    assert not world.one.leads


def test_when_it_stops_it_gives_the_lease_back(world: World) -> None:
    async def briefly() -> None:
        task = asyncio.create_task(world.one.run())
        await world.one.led()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run(briefly())
    assert world.table.lease is GIVEN_BACK and not world.one.leads


# -- nothing is sent without it --------------------------------------------------------------------------------------


def refuse(limit: float) -> float:
    raise NotLeading("not now")


CHANGES = {
    "set_caps": ({"research": {"gres/gpu": 8}},),
    "mark": (1, Mark(2, "product", 3.0, 4.0, 1.0)),
    "note_fault": (1, None),
    "keep_place": (1, 5.0),
    "avoid": (1, ["n1"]),
    "hold": (1,),
    "signal": (1, "USR1"),
    "requeue": ([1],),
    "cancel": ([1],),
    "nudge": (1,),
    "wait_on": (1, Mark(2, "product", 3.0, 4.0, 1.0), 5.0),
    "step_back": (1, Behind(2, 5.0)),
    "note_unstarted": (1, Unstarted(2.0, 5.0, "5d41402a", "Resources")),
    "let_go": (1, 5.0),
    "allow_start": (1,),
}
NODE_CHANGES = {
    "drain": ("n1", "r"),
    "down": ("n1", "r"),
    "resume": ("n1",),
    "reboot": ("n1", "r"),
    "power": ("n1", True),
    "reserve": ("x", ["n1"], 60.0),
    "unreserve": ("x",),
}
READS = {"snapshot", "nodes", "cluster", "looked_at"}
NODE_READS = {"details", "racks", "reservations"}


@pytest.mark.parametrize(
    ("kind", "module", "name", "arguments"),
    [
        *((CommandClient, commands, name, given) for name, given in CHANGES.items()),
        *((CommandNodes, nodes_commands, name, given) for name, given in NODE_CHANGES.items()),
    ],
)
def test_no_change_is_sent_without_the_permit(
    kind: type, module: Any, name: str, arguments: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[list[str]] = []

    async def record(args: list[str], *_: object) -> str:
        if "show" not in args:
            sent.append(list(args))
        return "ClusterName = c\nPriorityWeightAge = 1\nPriorityMaxAge = 7-00:00:00\nPriorityFlags =\n"

    async def record_raw(args: list[str], *_: object) -> tuple[int, str, str]:
        return 0, await record(args), ""

    monkeypatch.setattr(module, "run", record)
    monkeypatch.setattr(module, "run_raw", record_raw)
    if kind is CommandNodes:
        monkeypatch.setattr(CommandNodes, "reservations", lambda self: _those())
    with pytest.raises(NotLeading):
        run(getattr(kind(permit=refuse), name)(*arguments))
    assert sent == []


async def _those() -> dict[str, tuple[str, ...]]:
    return {"x": ("n1",)}


def test_every_change_is_among_these() -> None:
    public = lambda kind: {name for name in vars(kind) if not name.startswith("_")}  # noqa: E731
    assert public(CommandClient) == CHANGES.keys() | READS
    assert public(CommandNodes) == NODE_CHANGES.keys() | NODE_READS
