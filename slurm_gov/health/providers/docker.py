"""Provider ``docker``: nodes that are containers, on one Docker Engine.

A reboot restarts the node's container. A replacement stops it and starts a new one from the same image with the same
name, host name, environment, mounts, networks, addresses and rights, so that its slurmd registers under the same
name; what the old container wrote into its own layer is gone, as with a new machine.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from slurm_gov.health.messages import Request
from slurm_gov.health.providers.provider import ProviderError

if TYPE_CHECKING:
    from docker.models.containers import Container

    from docker import DockerClient

LABEL = "slurm-gov.operation"
"""On a new container: the operation that made it. So it is not made twice after a crash of the daemon."""
OLD = "-slurm-gov-old"
STOP = 10
"""Seconds that a container has to end by itself."""


class DockerProvider:
    """``container`` is the container's name, ``{node}`` in it the node's; ``engine`` where the engine listens, empty
    for what the environment says (DOCKER_HOST).
    """

    def __init__(self, container: str = "", engine: str = "") -> None:
        self._container = container or "{node}"
        self._engine = engine

    async def operate(self, request: Request, say: Callable[[str], None]) -> str:
        loop = asyncio.get_running_loop()
        told = lambda text: loop.call_soon_threadsafe(say, text)  # noqa: E731
        return await self._call(lambda engine: self._operate(engine, request, told))

    async def status(self, node: str) -> str:
        return await self._call(lambda engine: str(_get(engine, self._name(node)).status))

    def _name(self, node: str) -> str:
        return self._container.replace("{node}", node)

    async def _call(self, work: Any) -> str:
        """In a thread: the library blocks. Cancelled, the thread ends by its own time limits."""
        try:
            from docker.errors import DockerException

            import docker
        except ImportError:
            raise ProviderError(
                "the docker library is not installed: pip install 'slurm-gov[docker]'", True
            ) from None

        def run() -> str:
            try:
                options = {"base_url": self._engine} if self._engine else {}
                client = docker.DockerClient(timeout=60, **options) if options else docker.from_env(timeout=60)
                with contextlib.closing(client):
                    return str(work(client))
            except DockerException as error:
                raise ProviderError(" ".join(str(error).split())[:300]) from None

        return await asyncio.to_thread(run)

    def _operate(self, engine: DockerClient, request: Request, say: Callable[[str], object]) -> str:
        name = self._name(request.node)
        if request.operation == "reboot":
            _get(engine, name).restart(timeout=STOP)
            return f"container {name} restarted"
        return self._replace(engine, name, request.id, say)

    def _replace(self, engine: DockerClient, name: str, operation: str, say: Callable[[str], object]) -> str:
        """The old one is kept under another name until the new one runs, so that a crash loses nothing."""
        new, old = _find(engine, name), _find(engine, f"{name}{OLD}")
        if new is not None and new.labels.get(LABEL) != operation:
            if old is not None:
                old.remove(force=True)  # of an earlier operation
            new.rename(f"{name}{OLD}")
            old, new = _get(engine, f"{name}{OLD}"), None
        if new is None:
            if old is None:
                raise ProviderError(f"there is no container {name}", final=True)
            # Its addresses are to be the new one's.
            with contextlib.suppress(Exception):
                old.stop(timeout=STOP)
            say(f"the old container {name} is stopped")
            new = _create_like(engine, old, name, operation)
        new.start()
        if old is not None:
            old.remove(force=True)
        return f"container {name} replaced"


def _find(engine: DockerClient, name: str) -> Container | None:
    from docker.errors import NotFound

    try:
        return engine.containers.get(name)
    except NotFound:
        return None


def _get(engine: DockerClient, name: str) -> Container:
    found = _find(engine, name)
    if found is None:
        raise ProviderError(f"there is no container {name}", final=True)
    return found


def _create_like(engine: DockerClient, old: Container, name: str, operation: str) -> Container:
    """A container configured like another one, through the engine's own words, which know every setting."""
    config = dict(old.attrs["Config"])
    host = dict(old.attrs["HostConfig"])
    if config.get("Hostname") == old.id[:12]:
        config.pop("Hostname")  # it was made up from the old one's id
    config["Labels"] = dict(config.get("Labels") or {}) | {LABEL: operation}
    config["HostConfig"] = host
    config["NetworkingConfig"] = {"EndpointsConfig": _networks(old, str(host.get("NetworkMode", "")))}
    for key in ("Volumes",):
        config.pop(key, None)  # anonymous volumes are the old machine's disk
    made = engine.api.create_container_from_config(config, name)
    return engine.containers.get(made["Id"])


def _networks(old: Container, mode: str) -> dict[str, Any]:
    """Its networks with the addresses and names that were asked for, not those that happened."""
    if mode in ("host", "none") or mode.startswith("container:"):
        return {}
    found = {}
    for name, given in old.attrs["NetworkSettings"]["Networks"].items():
        aliases = [one for one in given.get("Aliases") or [] if one != old.id[:12]]
        wanted = {"IPAMConfig": given.get("IPAMConfig"), "Aliases": aliases or None, "Links": given.get("Links")}
        found[name] = {key: value for key, value in wanted.items() if value}
    return found
