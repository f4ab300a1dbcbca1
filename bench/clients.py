"""The two ways of reading Slurm: time, CPU and bytes of a snapshot of 256 nodes and 5,000 jobs."""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import time
from collections.abc import Callable
from importlib.util import find_spec

import psutil

from bench.stats import percentile
from slurm_gov.sandbox import Pool, Sandbox, SandboxConfig
from slurm_gov.slurm import run
from slurm_gov.slurm.commands import CommandClient
from slurm_gov.slurm.pyslurm_client import PyslurmClient

NODES = 256
SUBMIT = ("sbatch", "-Q", "--account=research", "--output=/dev/null", "-n2", "--gpus-per-node=h100:1")


def measure(jobs: int, rounds: int, command: str, say: Callable[[str], None]) -> str:
    """A table in Markdown."""
    config = SandboxConfig(name="bench-clients", pools=(Pool(nodes=NODES),), governor=False, accounts=("research",))
    with Sandbox.up(config, say) as sandbox:
        say(f"{jobs} jobs")
        _submit(sandbox, jobs)
        os.environ["SLURM_CONF"] = str(sandbox.layout.slurm_conf)
        version = sandbox.run(["scontrol", "--version"]).stdout.split()[-1]
        clients: dict[str, CommandClient] = {"commands": CommandClient(60)}
        if find_spec("pyslurm"):
            clients["pyslurm"] = PyslurmClient(60)
        taken: dict[str, list[tuple[float, float, int]]] = {name: [] for name in clients}
        for round_ in range(rounds + 1):
            for name, client in clients.items():
                one = _snapshot(client)
                if round_:  # the first one starts the process and fills caches
                    taken[name].append(one)
            say(f"round {round_} of {rounds}")
    lines = [
        f"`{command}`, Slurm {version}, {NODES} nodes, {jobs} jobs, {rounds} snapshots of each in turns.",
        "",
        "| client | median | slowest of ten | CPU, all processes of ours | bytes read |",
        "|---|---|---|---|---|",
    ]
    for name, found in taken.items():
        wall, cpu, size = zip(*found, strict=True)
        lines.append(
            f"| {name} | {percentile(wall, 50) * 1000:.0f} ms | {percentile(wall, 90) * 1000:.0f} ms "
            f"| {sum(cpu) / len(cpu) * 1000:.0f} ms | {sum(size) / len(size) / 1e6:.2f} MB |"
        )
    return "\n".join(lines) + "\n"


def _submit(sandbox: Sandbox, jobs: int) -> None:
    """Each by itself: the tasks of an array would be one record."""
    line = " ".join([*SUBMIT, "--wrap='sleep 100000'"])
    subprocess.run(
        ["xargs", "-P2", "-I{}", "sh", "-c", line],
        input="\n".join(map(str, range(jobs))), text=True, check=True, stdout=subprocess.DEVNULL,
        env=os.environ | {"SLURM_CONF": str(sandbox.layout.slurm_conf)}, cwd="/",
    )  # fmt: skip


def _snapshot(client: CommandClient) -> tuple[float, float, int]:
    """Seconds, seconds of CPU (ours, our commands', the pyslurm process's) and bytes read."""
    size = 0
    raw = run.run_raw

    async def counted(*args: object, **how: object) -> tuple[int, str, str]:
        nonlocal size
        code, out, err = await raw(*args, **how)  # type: ignore[arg-type]
        size += len(out)
        return code, out, err

    run.run_raw = counted  # type: ignore[assignment]
    try:
        received, cpu, began = _received(client), _cpu(client), time.perf_counter()
        asyncio.run(_ask(client))
        return time.perf_counter() - began, _cpu(client) - cpu, size + _received(client) - received
    finally:
        run.run_raw = raw


async def _ask(client: CommandClient) -> None:
    await client.snapshot()


def _received(client: CommandClient) -> int:
    return client._worker.received if isinstance(client, PyslurmClient) else 0


def _cpu(client: CommandClient) -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = time.process_time() + children.ru_utime + children.ru_stime
    process = client._worker._process if isinstance(client, PyslurmClient) else None
    if process is not None:
        times = psutil.Process(process.pid).cpu_times()
        total += times.user + times.system
    return total
