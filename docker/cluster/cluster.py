"""make cluster-up, cluster-demo, cluster-down: the container cluster of docker/compose.yaml."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
import images
from matrix import source

PROJECT = "slurm-gov"
COMPOSE = images.ROOT / "docker/compose.yaml"
BUILD = images.ROOT / "build/cluster"
START_TIMEOUT = 180


def main(args: list[str]) -> int:
    if args == ["up"]:
        return up(os.environ.get("RELEASE", "trixie"), int(os.environ.get("NODES", "4")))
    if args == ["demo"]:
        tty = ["-t"] if sys.stdout.isatty() else []
        return run(*images.docker(), "exec", *tty, "slurm-gov-controller", "/src/docker/cluster/demo")
    if args == ["down"]:
        return run(*compose(), "down", "--volumes", "--remove-orphans", "--timeout=5")
    print("usage: cluster.py up | demo | down", file=sys.stderr)
    return 2


def up(release: str, nodes: int) -> int:
    if not 2 <= nodes <= 64:
        sys.exit(f"cluster: NODES={nodes}; from 2 to 64 are possible")
    BUILD.mkdir(parents=True, exist_ok=True)
    image = f"slurm-gov-cluster:{release}"
    base = images.build(release)
    built = subprocess.run(
        [
            *images.docker(),
            "build",
            "--network=none",
            "-q",
            f"--build-arg=BASE={base}",
            f"--tag={image}",
            "--file=docker/cluster/Dockerfile",
            "-",
        ],
        input=source(),
        stdout=subprocess.DEVNULL,
        env=os.environ | {"DOCKER_BUILDKIT": "1"},
    )
    if built.returncode:
        sys.exit("cluster: the image did not build")
    override(image, nodes)
    if run(*compose(), "up", "-d", "--remove-orphans"):
        return 1
    deadline = time.monotonic() + START_TIMEOUT
    while (idle := sinfo()) != nodes:
        if time.monotonic() > deadline:
            run(*compose(), "ps")
            run(*images.docker(), "logs", "--tail=30", "slurm-gov-controller")
            sys.exit(f"cluster: {idle} of {nodes} nodes are idle after {START_TIMEOUT} s")
        time.sleep(0.5)
    token = out(*images.docker(), "exec", "slurm-gov-controller", "cat", "/shared/token").strip()
    print(f"{nodes} nodes are idle; look at http://127.0.0.1:{os.environ.get('SLURM_GOV_PORT', '6824')}/")
    print(f"  any user name, password {token}")
    print("a shell in it: docker exec -it slurm-gov-controller bash     make cluster-demo     make cluster-down")
    return 0


def override(image: str, nodes: int) -> None:
    """What is not in compose.yaml: more nodes, or fewer; Grafana where it can be had."""
    services: dict[str, object] = {}
    for i in range(5, nodes + 1):
        services[f"n{i}"] = {
            "image": image,
            "init": True,
            "command": ["node"],
            "hostname": f"n{i}",
            "container_name": f"slurm-gov-n{i}",
            "volumes": ["shared:/shared"],
            "environment": {"NODES": str(nodes)},
            "depends_on": ["controller"],
        }
    for i in range(nodes + 1, 5):
        services[f"n{i}"] = {"profiles": ["unused"]}
    if run(*images.docker(), "pull", "-q", "grafana/grafana-oss:latest", quiet=True) == 0:
        services["grafana"] = {
            "image": "grafana/grafana-oss:latest",
            "container_name": "slurm-gov-grafana",
            "ports": ["127.0.0.1:3000:3000"],
            "depends_on": ["prometheus"],
            "volumes": [
                f"{images.ROOT}/etc/grafana/provisioning:/etc/grafana/provisioning:ro",
                f"{images.ROOT}/etc/grafana/dashboards:/var/lib/grafana/dashboards:ro",
            ],
        }
    else:
        print("cluster: Grafana's image cannot be pulled; the cluster comes up without it", file=sys.stderr)
    (BUILD / "override.json").write_text(json.dumps({"version": "2.4", "services": services}, indent=1))
    socket = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")
    (BUILD / "env").write_text(f"SLURM_GOV_IMAGE={image}\nNODES={nodes}\nDOCKER_SOCKET={socket}\n")


def compose() -> list[str]:
    """The command: `docker compose` where there is that plugin, docker-compose otherwise."""
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]) and run(*command, "version", quiet=True) == 0:
            break
    else:
        sys.exit("cluster: needs docker compose: package docker-compose")
    files = [
        "-f",
        str(COMPOSE),
        *(["-f", str(BUILD / "override.json")] if (BUILD / "override.json").exists() else []),
    ]
    env = ["--env-file", str(BUILD / "env")] if (BUILD / "env").exists() else []
    return [*command, "-p", PROJECT, *env, *files]


def sinfo() -> int:
    """How many nodes are idle; 0 until slurm-govd listens."""
    if run(
        *images.docker(), "exec", "slurm-gov-controller", "test", "-S", "/run/slurm-gov/admission.sock", quiet=True
    ):
        return 0
    said = out(*images.docker(), "exec", "slurm-gov-controller", "sinfo", "-h", "-t", "idle", "-o", "%D")
    return int(said) if said.strip().isdecimal() else 0


def run(*command: str, quiet: bool = False) -> int:
    hide = subprocess.DEVNULL if quiet else None
    return subprocess.run(command, stdout=hide, stderr=hide).returncode


def out(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True).stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
