"""Power for a sandbox's nodes: what a site's reboot and provisioning scripts are, for slurmds that share a host.

``python -m slurm_gov.sandbox.power reboot|replace|off|on NODE`` does it and returns when it is done: so it serves as
the executable of a ``command`` provider. ``python -m slurm_gov.sandbox.power reboot`` without a node, called by a
slurmd as its RebootProgram, reboots that slurmd's node in the background.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import hostlist

from slurm_gov.sandbox import agents
from slurm_gov.sandbox.cluster import Sandbox
from slurm_gov.sandbox.errors import SandboxError

NODE = ("SLURM_NODE_NAME", "SLURM_GOV_SANDBOX_NODE")
"""Where a RebootProgram finds its node's name: slurmd 26.05 gives it the first variable and no other, an older one
its own environment, in which the sandbox puts the second.
"""


def off(sandbox: Sandbox, node: str) -> None:
    """Slurmd and agent end at once, as when the power goes; a sandbox's jobs end with their slurmd's next start."""
    sandbox.stop_agent(node, sig=signal.SIGKILL)
    sandbox.stop_node(node, sig=signal.SIGKILL)


def on(sandbox: Sandbox, node: str) -> None:
    """The node boots: with the agent that it had, and a new boot id."""
    had_agent = agents.config_file(sandbox.layout, node).exists()
    if had_agent:
        agents.new_boot(sandbox.layout, node)
    sandbox.start_node(node, "-b")
    if had_agent:
        sandbox.start_agent(node)


def reboot(sandbox: Sandbox, node: str) -> None:
    """Off and on again."""
    off(sandbox, node)
    on(sandbox, node)


def replace(sandbox: Sandbox, node: str) -> None:
    """Another machine under the same name: nothing that was on the node's disk is left."""
    off(sandbox, node)
    state = agents.folder(sandbox.layout, node) / "state"
    shutil.rmtree(state, ignore_errors=True)
    on(sandbox, node)


_DO = {"reboot": reboot, "replace": replace, "off": off, "on": on}


def main(arguments: list[str]) -> int:
    """The command line."""
    folder = Path(os.environ["SLURM_CONF"]).parent.parent
    if arguments == ["reboot"]:
        # Called by the slurmd that is to end: its own process must not be what starts the next one.
        node = next(os.environ[name] for name in NODE if name in os.environ)
        again = [sys.executable, "-m", "slurm_gov.sandbox.power", "reboot", node]
        subprocess.Popen(again, start_new_session=True, stdin=subprocess.DEVNULL)
        return 0
    try:
        sandbox = Sandbox.attach(folder.name, folder.parent)
        what, nodes = arguments[0], hostlist.expand_hostlist(arguments[1])
        if what == "status":
            print(sandbox.nodes().get(nodes[0], "unknown"))
            return 0
        for node in nodes:
            _DO[what](sandbox, node)
    except (SandboxError, KeyError, IndexError) as error:
        print(f"power: {error}", file=sys.stderr)
        return 1
    print(f"{what}: done")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
