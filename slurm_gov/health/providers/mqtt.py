"""Provider ``mqtt``: a request is published, and a site's provisioner acknowledges it (docs/mqtt.md)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from slurm_gov.health.messages import Acknowledgement, Request
from slurm_gov.health.monitor import Monitor
from slurm_gov.health.providers.provider import ProviderError


class MqttProvider:
    """Asks over the monitor's connection."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor

    async def operate(self, request: Request, say: Callable[[str], None]) -> str:
        if not self._monitor.can_publish:
            raise ProviderError("slurm-govd has no MQTT broker (--mqtt)", final=True)
        with self._monitor.acknowledgements(request.id) as answers:
            self._monitor.publish(request, retain=True)
            try:
                return await self._answered(answers, say)
            finally:
                self._monitor.clear(request)

    async def _answered(self, answers: asyncio.Queue[Acknowledgement], say: Callable[[str], None]) -> str:
        while True:
            answer = await answers.get()
            if answer.state == "accepted":
                say(answer.message or "accepted by the provisioner")
            if answer.state == "done":
                return answer.message or "done"
            if answer.state in ("refused", "failed"):
                raise ProviderError(answer.message or answer.state, final=answer.state == "refused")

    async def status(self, node: str) -> str:
        now = time.time()
        request = Request(node=node, id=f"{node}.status.{now:.0f}", time=now, operation="status", deadline=now + 60)
        return await self.operate(request, lambda said: None)
