"""`Demo` over HTTP, for the page in page/, on the loopback address alone.

In: JSON requests of the page. Out: JSON, small JPEGs, and the page's own three files. Every error is `{"error": SENTENCE}`. The
page may load nothing from elsewhere (its Content-Security-Policy), and requests under another host's name are refused, so that no
other site's page can send requests.
"""
from __future__ import annotations

import base64
import io
import json
import socket
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, JSONResponse, Response
from PIL import Image
from starlette.middleware.trustedhost import TrustedHostMiddleware

from benchmarks.demo.answers import Demo
from tcn.config import InputError

HOST = "127.0.0.1"
PAGE = Path(__file__).parent / "page"
LARGEST = 4_000_000
"""Largest size of a request in bytes; `drawing.MOST_POINTS` points take less."""
HEADERS = {"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
                                      "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
           "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}


def application(demo: Demo) -> FastAPI:
    """The web application of a demo."""
    # FastAPI's own pages of documentation load scripts from elsewhere.
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])

    @app.middleware("http")
    async def with_headers(request: Request, call_next: Any) -> Any:
        response = await call_next(request)
        response.headers.update(HEADERS)
        return response

    @app.exception_handler(InputError)
    async def refused(_: Request, error: InputError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 400)

    _add_page(app)
    _add_questions(app, demo)
    return app


def _add_page(app: FastAPI) -> None:
    @app.get("/")
    def page() -> FileResponse:
        return FileResponse(PAGE / "index.html")

    @app.get("/page.css")
    def style() -> FileResponse:
        return FileResponse(PAGE / "page.css")

    @app.get("/page.js")
    def script() -> FileResponse:
        return FileResponse(PAGE / "page.js", media_type="text/javascript")


def _add_questions(app: FastAPI, demo: Demo) -> None:
    @app.get("/state")
    def state() -> JSONResponse:
        return JSONResponse(demo.state())

    @app.get("/picture/{which}/{number}")
    def picture(which: int, number: int) -> Response:
        try:
            if not 0 <= which < len(demo.sets):
                raise IndexError(which)
            content = demo.sets[which].thumbnail(number)
        except (IndexError, OSError):
            return JSONResponse({"error": "This picture does not exist, or can't be read."}, 404)
        return Response(content, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})

    @app.post("/draw")
    async def draw(request: Request) -> JSONResponse:
        asked = await _json(request)
        wanted = asked.get("wanted")
        if wanted is not None and (not isinstance(wanted, str) or any("\ud800" <= sign <= "\udfff" for sign in wanted)):
            raise InputError("The class that was drawn must be a name: load the page again.")
        drawn, answers = await run_in_threadpool(demo.draw, asked.get("strokes"), _numbers(asked), _text(asked), wanted=wanted)
        return JSONResponse({"picture": _png(drawn), "wanted": wanted, "answers": [asdict(one) for one in answers]})

    @app.post("/query")
    async def query(request: Request) -> JSONResponse:
        asked = await _json(request)
        task, number = asked.get("task"), asked.get("number")
        if type(task) is not int or type(number) is not int:
            raise InputError("There is no such query sketch: load the page again.")
        wanted, answers = await run_in_threadpool(demo.query, task, number, _numbers(asked), _text(asked))
        return JSONResponse({"wanted": wanted, "answers": [asdict(one) for one in answers]})


async def _json(request: Request) -> dict[str, Any]:
    """The body of a request, a JSON object. The content type must be JSON, which a form on another site's page can't send."""
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":
        raise InputError("The content type of the request is not JSON: use the page that this server shows.")
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > LARGEST:
            raise InputError(f"The drawing takes more than {LARGEST / 1e6:.0f} MB: clear the canvas and draw it with fewer "
                             "lines.")
    try:
        found = json.loads(bytes(body))
    except (ValueError, RecursionError) as error:
        raise InputError("The request can't be read as JSON: load the page again.") from error
    if not isinstance(found, dict):
        raise InputError("The request is no JSON object: load the page again.")
    return found


def _numbers(asked: dict[str, Any]) -> list[int]:
    found = asked.get("runs")
    if not isinstance(found, list) or any(type(one) is not int for one in found):
        raise InputError("The request names no runs: load the page again.")
    return found


def _text(asked: dict[str, Any]) -> str:
    return str(asked.get("gallery"))


def _png(picture: np.ndarray) -> str:
    target = io.BytesIO()
    Image.fromarray(picture).save(target, "PNG")
    return "data:image/png;base64," + base64.b64encode(target.getvalue()).decode()


def listening(port: int) -> socket.socket:
    """A socket on the loopback address. port: 0 takes any free one. InputError if the port is taken."""
    found = socket.socket()
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((HOST, port))
    except OSError as error:
        found.close()
        raise InputError(f"port {port} of {HOST} can't be used ({error.strerror or error}): pass another --port, or --port 0 for "
                         f"any that is free") from error
    return found


def serve(demo: Demo, own: socket.socket) -> None:
    """Answer until Ctrl-C."""
    uvicorn.Server(uvicorn.Config(application(demo), log_level="warning", access_log=False)).run(sockets=[own])
