"""python -m bench.planner POLICY: compute the plan for this Slurm again and again until told to stop."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from slurm_gov.core.plan import plan
from slurm_gov.policy.load import load
from slurm_gov.slurm.commands import CommandClient


def main() -> None:
    policy = load(Path(sys.argv[1]))
    snapshot = asyncio.run(CommandClient().snapshot())
    print("planning", flush=True)
    while True:
        plan(policy, snapshot)


if __name__ == "__main__":
    main()
