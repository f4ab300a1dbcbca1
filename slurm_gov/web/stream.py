"""The live page's stream: server-sent events with the document, then with what changes of it.

Whoever reads slowly gets fewer, larger changes; nothing is kept for anybody but the document last sent.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from slurm_gov.web.board import Board, State
from slurm_gov.web.document import Document, changes, document
from slurm_gov.web.view import Views

PACE = 1.0
"""Seconds between two events at least."""
BEAT = 5.0
"""Seconds between two signs of life at most."""

Message = MutableMapping[str, Any]


class Stream:
    """The ASGI endpoint.

    Events: ``all``, the document; ``change``, a merge patch; ``beat``, nothing new. Each carries the server's clock
    (``now``) and when the governor last tried to look at Slurm (``seen``), in seconds since the epoch.
    """

    def __init__(self, board: Board, views: Views, pace: float = PACE, beat: float = BEAT) -> None:
        self._board = board
        self._views = views
        self._pace = pace
        self._beat = beat
        self._last: tuple[int, Document] = (-1, {})

    async def __call__(
        self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store"),
                   (b"x-accel-buffering", b"no")]  # fmt: skip
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body", "body": b""})
            return
        gone = asyncio.ensure_future(_gone(receive))
        telling = asyncio.ensure_future(self._tell(send))
        try:
            await asyncio.wait({gone, telling}, return_when=asyncio.FIRST_COMPLETED)
            if telling.done():
                telling.result()
        finally:
            gone.cancel()
            telling.cancel()

    async def _tell(self, send: Callable[[Message], Awaitable[None]]) -> None:
        sent: Document | None = None
        number = -1

        async def say(event: str, more: bool = True, **data: Any) -> None:
            state = self._board.state
            text = json.dumps({"now": time.time(), "seen": state.seen, **data}, separators=(",", ":"))
            body = f"event: {event}\ndata: {text}\n\n"
            await send({"type": "http.response.body", "body": body.encode(), "more_body": more})

        while not self._board.closed:
            state = self._board.state
            if state.number == number:
                await say("beat")
            else:
                number = state.number
                new = self._document(state)
                if sent is None or not new:
                    await say("all", document=new)
                elif patch := changes(sent, new):
                    await say("change", patch=patch)
                else:
                    await say("beat")
                sent = new or None
                await asyncio.sleep(self._pace)
            await self._board.changed(number, self._beat)
        await say("end", more=False)

    def _document(self, state: State) -> Document:
        """The document of a state, made once for all who read; empty until Slurm has answered."""
        if self._last[0] != state.number:
            seen = self._views.of(state)
            self._last = (state.number, document(self._board, state, seen) if seen else _nothing(state))
        return self._last[1]


def _nothing(state: State) -> Document:
    return {} if not state.error else {"cluster": {"silent_since": state.blind_since, "slurm_error": state.error}}


async def _gone(receive: Callable[[], Awaitable[Message]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
