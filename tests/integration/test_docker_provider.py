"""The docker provider against a real Docker Engine: a container node that dies is replaced and takes its job back."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import NewSandbox, unique_name
from docker.errors import NotFound
from docker.models.containers import Container
from docker_engine import engine, make_image
from governed import Cluster

import docker
import slurm_gov
from slurm_gov.health.messages import Request
from slurm_gov.health.providers import ProviderError
from slurm_gov.health.providers.docker import DockerProvider
from slurm_gov.sandbox.config import Pool

POLICY = """\
pools:
  h100: {{partition: gpu, gres: "gpu:h100"}}
teams:
  research: {{quota: {{h100: 16}}, fair_share_weight: 50}}
health:
  provider: engine
  providers:
    engine: {{kind: docker, container: "{prefix}-{{node}}", socket: "{socket}", time_limit: 60s}}
  faults: {{node lost: {{repair: replace}}}}
  recover: 1s
  breaker: 50%
  max_away: 50%
"""

STAY = "trap exit TERM; sleep 600 & wait"

Engine = tuple[str, docker.DockerClient]


@pytest.fixture(scope="module")
def dockerd() -> Iterator[Engine]:
    with engine() as found:
        make_image(found[1])
        yield found


@pytest.fixture
def prefix(dockerd: Engine) -> Iterator[str]:
    """What the names of the test's containers begin with; none of them is left."""
    name = unique_name()
    yield name
    for container in dockerd[1].containers.list(all=True):
        if container.name.startswith(name):
            container.remove(force=True)


def start(
    client: docker.DockerClient, name: str, command: str, folders: tuple[Path, ...] = (), **more: object
) -> Container:
    """A container in which the host's programs run."""
    mounted = {str(path): {"bind": str(path), "mode": "rw"} for path in folders}
    mounted |= {path: {"bind": path, "mode": "ro"} for path in ("/usr", "/etc")}
    return client.containers.run(
        make_image(client), ["/bin/sh", "-c", command], name=name, detach=True, network_mode="host", volumes=mounted,
        environment={"PATH": "/usr/sbin:/usr/bin", "KEPT": "yes"}, **more,
    )  # fmt: skip


def request(operation: str, id: str) -> Request:
    now = time.time()
    return Request(node="n1", id=id, time=now, operation=operation, deadline=now + 60)  # type: ignore[arg-type]


def test_a_container_is_rebooted_and_replaced(dockerd: Engine, prefix: str) -> None:
    socket, client = dockerd
    name = f"{prefix}-n1"
    first = start(client, name, STAY, labels={"rack": "7"}, hostname=None)
    heard: list[str] = []
    provider = DockerProvider(prefix + "-{node}", socket)
    assert asyncio.run(provider.status("n1")) == "running"
    began = client.containers.get(name).attrs["State"]["StartedAt"]
    asyncio.run(provider.operate(request("reboot", "n1.1"), heard.append))
    again = client.containers.get(name)
    assert again.id == first.id and again.attrs["State"]["StartedAt"] != began
    asyncio.run(provider.operate(request("replace", "n1.2"), heard.append))
    new = client.containers.get(name)
    assert new.id != first.id and new.status == "running" and heard == [f"the old container {name} is stopped"]
    old = first.attrs
    assert new.attrs["Config"]["Env"] == old["Config"]["Env"] and new.labels["rack"] == "7"
    assert sorted(new.attrs["HostConfig"]["Binds"]) == sorted(old["HostConfig"]["Binds"])
    assert new.attrs["HostConfig"]["NetworkMode"] == "host"
    # the same request again, as after a crash of the daemon: nothing is done twice
    asyncio.run(provider.operate(request("replace", "n1.2"), heard.append))
    assert client.containers.get(name).id == new.id
    assert [one.name for one in client.containers.list(all=True) if one.name.startswith(prefix)] == [name]


def test_a_crash_in_the_middle_of_a_replacement(dockerd: Engine, prefix: str) -> None:
    """The old one was renamed, the new one not yet made: it is made now."""
    socket, client = dockerd
    name = f"{prefix}-n1"
    start(client, name, STAY).rename(f"{name}-slurm-gov-old")
    provider = DockerProvider(prefix + "-{node}", socket)
    asyncio.run(provider.operate(request("replace", "n1.3"), print))
    assert client.containers.get(name).status == "running"
    assert [one.name for one in client.containers.list(all=True) if one.name.startswith(prefix)] == [name]


def test_errors_are_one_clear_line(dockerd: Engine, prefix: str) -> None:
    with pytest.raises(ProviderError, match=f"there is no container {prefix}-n1") as gone:
        asyncio.run(
            DockerProvider(prefix + "-{node}", dockerd[0]).operate(request("reboot", "n1.1"), lambda said: None)
        )
    assert gone.value.final
    with pytest.raises(ProviderError) as away:
        asyncio.run(DockerProvider("{node}", "unix:///nowhere").operate(request("reboot", "n1.1"), print))
    assert not away.value.final and "\n" not in str(away.value)


def test_a_container_node_that_dies_is_replaced_and_takes_its_job_back(
    dockerd: Engine, prefix: str, new_sandbox: NewSandbox, tmp_path: Path
) -> None:
    socket, client = dockerd
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY.format(prefix=prefix, socket=socket))
    sandbox = new_sandbox(pools=(Pool(nodes=2),), broker=True, policy=policy, governor_args=("--interval", "0.5"))
    cluster = Cluster(sandbox)
    # n1 moves into a container: its slurmd, its agent.
    sandbox.start_agent("n1")
    config = sandbox.layout.agents / "n1" / "agent.yaml"
    sandbox.stop_agent("n1")
    sandbox.stop_node("n1")
    ours = (sandbox.dir, Path(slurm_gov.__file__).parent.parent, Path(sys.prefix), Path(sys.base_prefix))
    agent = f"{sys.prefix}/bin/slurm-gov-agent --config {config} run >> {sandbox.log('agent-n1')} 2>&1"
    agent = f"PYTHONPATH={ours[1]} {agent}"  # the code that is tested, wherever it was installed from
    command = f"{agent} & SLURM_CONF={sandbox.layout.slurm_conf} exec slurmd -D -N n1"
    folders = tuple(path for path in dict.fromkeys(ours) if not path.is_relative_to("/usr"))
    start(client, f"{prefix}-n1", command, folders)
    first = client.containers.get(f"{prefix}-n1").id
    cluster.until(lambda: sandbox.nodes().get("n1") == "idle", "n1 is idle", 60)
    cluster.until(lambda: _reported(sandbox.layout.node_journal), "its agent has reported", 60)

    job = cluster.sbatch("research", "-N1", "-w", "n1", "--gpus-per-node=8", "--requeue")
    cluster.running(job)
    client.containers.get(f"{prefix}-n1").kill()
    cluster.until(lambda: cluster.restarts(job) == 1, "the job was requeued", 60)
    cluster.until(lambda: _id(client, f"{prefix}-n1") not in ("", first), "a new container", 60)
    cluster.running(job, timeout=60)
    assert sandbox.nodes()["n1"] in ("allocated", "mixed")
    assert _arrows(sandbox.layout.node_journal) == ["doubted", "condemned", "replaced", "returned", "passed"]
    # The containers go before the sandbox, whose folder they use.
    client.containers.get(f"{prefix}-n1").remove(force=True)


def _id(client: docker.DockerClient, name: str) -> str:
    """The id of the container of this name; for a moment of its replacement there is none."""
    try:
        return str(client.containers.get(name).id)
    except NotFound:
        return ""


def _reported(journal: Path) -> bool:
    """Whether the daemon has noted a report of n1."""
    if not journal.exists():
        return False
    with sqlite3.connect(f"file:{journal}?mode=ro", uri=True, timeout=10) as db:
        made = db.execute("SELECT 1 FROM sqlite_master WHERE name = 'report'").fetchall()
        return bool(made and db.execute("SELECT 1 FROM report WHERE node = 'n1'").fetchall())


def _arrows(journal: Path) -> list[str]:
    with sqlite3.connect(f"file:{journal}?mode=ro", uri=True, timeout=10) as db:
        return [row[0] for row in db.execute("SELECT event FROM history WHERE after IS NOT NULL ORDER BY id")]
