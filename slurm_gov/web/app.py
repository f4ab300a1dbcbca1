"""The ASGI application: the live page, its stream, and the read API."""

from __future__ import annotations

import gzip
import mimetypes
from collections.abc import Callable
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute
from starlette.routing import Route

from slurm_gov import __version__
from slurm_gov.web.api import make_api
from slurm_gov.web.board import Board
from slurm_gov.web.stream import Stream
from slurm_gov.web.view import Views


def make_app(board: Board, token: bool = False) -> FastAPI:
    """Everything that slurm-govd serves of this board; more pages can be added with ``add_page``.

    ``token``: whether the server in front asks for one, so that the OpenAPI document says so.
    """
    app = FastAPI(
        title="slurm-gov",
        version=__version__,
        summary="Who holds what on a Slurm cluster, who borrows from whom, what waits and why.",
        description="For reading only. Times are seconds since the epoch, durations seconds, GPUs counts.",
        license_info={"name": "GPL-2.0-or-later", "identifier": "GPL-2.0-or-later"},
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/v1/openapi.json",
        redirect_slashes=False,
        generate_unique_id_function=_operation,
    )
    views = Views()
    app.include_router(make_api(board, views))
    app.router.routes.append(Route("/api/v1/stream", Stream(board, views), methods=["GET", "HEAD"]))
    if token:
        _describe_token(app)
    for file in files("slurm_gov.web").joinpath("static").iterdir():
        if file.is_file():
            kind = mimetypes.guess_type(file.name)[0] or "text/plain"
            content = f"{kind}; charset=utf-8" if kind.startswith("text/") else kind
            for path in ("/", f"/{file.name}") if file.name == "index.html" else (f"/{file.name}",):
                _add_file(app, path, content, file.read_bytes())
    return app


def add_page(app: FastAPI, path: str, page: Callable[[], tuple[str, bytes]]) -> None:
    """Serve what a function returns, its content type and the body, at a path. It is called in the server's thread
    for every request, and while it runs nobody else is answered.
    """

    async def serve(request: Request) -> Response:
        content_type, body = page()
        headers = {"content-type": content_type, "cache-control": "no-store", "vary": "accept-encoding"}
        if "gzip" in request.headers.get("accept-encoding", ""):
            body = gzip.compress(body, 1)
            headers["content-encoding"] = "gzip"
        return Response(body, headers=headers)

    app.add_route(path, serve, methods=["GET", "HEAD"], include_in_schema=False)


def _add_file(app: FastAPI, path: str, content_type: str, body: bytes) -> None:
    tag = f'"{__version__}-{len(body)}-{hash(body) & 0xFFFFFFFF:x}"'

    async def serve(request: Request) -> Response:
        headers = {"content-type": content_type, "cache-control": "no-cache", "etag": tag}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(body, headers=headers)

    app.add_route(path, serve, methods=["GET", "HEAD"], include_in_schema=False)


def _operation(route: APIRoute) -> str:
    return route.name


def _describe_token(app: FastAPI) -> None:
    make = app.openapi

    def openapi() -> dict[str, Any]:
        described = make()
        schemes = described.setdefault("components", {}).setdefault("securitySchemes", {})
        schemes["token"] = {"type": "http", "scheme": "bearer", "description": "The word in --token-file."}
        schemes["password"] = {"type": "http", "scheme": "basic", "description": "Any user name; the token."}
        described["security"] = [{"token": []}, {"password": []}]
        for path in described["paths"].values():
            for operation in path.values():
                operation["responses"].setdefault("401", {"description": "The token is missing or wrong."})
        return described

    app.openapi = openapi  # type: ignore[method-assign]
