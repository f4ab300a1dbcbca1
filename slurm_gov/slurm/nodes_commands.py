"""`NodeClient` on scontrol: drain, down, reboot, power, reservations."""

from __future__ import annotations

import re
from collections.abc import Iterable

from slurm_gov.slurm import parse, read
from slurm_gov.slurm.client import NodeDetails, SlurmError, SlurmUnavailable
from slurm_gov.slurm.permit import Permit, alone
from slurm_gov.slurm.run import run, run_raw


class CommandNodes:
    """What is done to nodes, on the command that every Slurm has."""

    def __init__(self, timeout: float = 10.0, permit: Permit = alone) -> None:
        """``timeout`` is the limit of every command, in seconds; ``permit`` is asked before those that change
        something.
        """
        self._timeout = timeout
        self._permit = permit

    async def drain(self, node: str, reason: str) -> None:
        await self._update(node, "DRAIN", reason)

    async def down(self, node: str, reason: str) -> None:
        await self._update(node, "DOWN", reason)

    async def resume(self, node: str) -> None:
        await self._change("scontrol", "update", f"NodeName={node}", "State=RESUME")

    async def reboot(self, node: str, reason: str) -> None:
        # Without nextstate a drained node comes back undrained (22.05).
        await self._change("scontrol", "reboot", "ASAP", "nextstate=DOWN", f"reason={reason}", node)

    async def power(self, node: str, up: bool, reason: str = "", force: bool = True) -> None:
        await self._update(node, "POWER_UP" if up else "POWER_DOWN_FORCE" if force else "POWER_DOWN", reason)

    async def details(self, nodes: Iterable[str]) -> dict[str, NodeDetails]:
        names = sorted(nodes)
        if not names:
            return {}
        code, out, err = await run_raw(["scontrol", "-o", "show", "node", ",".join(names)], self._timeout)
        if code != 0 and "not found" not in f"{out}{err}":
            raise SlurmError(f"scontrol show node: {' '.join((err or out).split())}")
        found: dict[str, NodeDetails] = {}
        for line in out.splitlines():
            fields = dict(re.findall(r"(\w+)=(\S*)", line))
            if "NodeName" in fields:
                port = fields.get("Port", "")
                reason = re.search(r" Reason=(.*?) \[\S+@\S+\]", line)
                found[fields["NodeName"]] = NodeDetails(
                    fields.get("State", "UNKNOWN"),
                    reason[1] if reason else "",
                    parse.time(fields.get("SlurmdStartTime", "")),
                    parse.time(fields.get("BootTime", "")),
                    fields.get("NodeAddr") or fields["NodeName"],
                    int(port) if port.isdecimal() else 6818,
                )
        return found

    async def racks(self) -> dict[str, str]:
        code, out, _ = await run_raw(["scontrol", "show", "topology"], self._timeout)
        return read.racks(out) if code == 0 else {}

    async def reserve(self, name: str, nodes: Iterable[str], seconds: float, maintenance: bool = False) -> None:
        flags = "MAINT,IGNORE_JOBS" if maintenance else "IGNORE_JOBS,OVERLAP"
        try:
            await self._change(
                "scontrol", "create", "reservation", f"ReservationName={name}", f"Nodes={','.join(sorted(nodes))}",
                "StartTime=now", f"Duration={max(1, round(seconds / 60))}", f"Flags={flags}", "Users=root",
            )  # fmt: skip
        except SlurmUnavailable:
            raise
        except SlurmError:
            if name not in await self.reservations():
                raise

    async def reservations(self) -> dict[str, tuple[str, ...]]:
        said = await self._run("scontrol", "-o", "show", "reservations")
        return {one.name: tuple(sorted(one.nodes)) for one in read.reservations(said)}

    async def unreserve(self, name: str) -> None:
        if name in await self.reservations():
            await self._change("scontrol", "delete", f"ReservationName={name}")

    async def _update(self, node: str, state: str, reason: str) -> None:
        why = [f"Reason={reason}"] if reason else []
        await self._change("scontrol", "update", f"NodeName={node}", f"State={state}", *why)

    async def _run(self, *args: str) -> str:
        return await run(args, self._timeout)

    async def _change(self, *args: str) -> None:
        """Run a command that changes something, if we may."""
        await run(args, self._permit(self._timeout))
