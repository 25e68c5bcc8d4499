"""The console's files, and what they show beside `/readyz` and `/metrics`: models and services, for viewers.

Nothing here tells of users, features or secrets.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from serving.access import Access
from serving.control import Service, Variant
from serving.figures.counts import VariantFigures
from serving.figures.effects import Effects
from serving.frontdoor.http_call import HTTP, JSON, answering
from serving.lifecycle import ModelState
from serving.pool import ModelPool
from serving.publishing import ModelStatus, Publishing
from serving.reports import ReplicaReport
from serving.telemetry.histogram import BOUNDS_S
from serving.telemetry.requests import RequestFigures
from serving.transport import Code

PATH = "/console"
DATA = f"{PATH}/data"
FILES = {PATH: "index.html", f"{PATH}/console.css": "console.css", f"{PATH}/console.js": "console.js"}
_FOLDER = Path(__file__).parent
_KINDS = {".html": "text/html; charset=utf-8", ".css": "text/css", ".js": "text/javascript"}
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


@dataclass(frozen=True, slots=True)
class ConsoleDoor:
    """`party` is this one."""

    party: str
    publishing: Publishing
    pool: ModelPool
    effects: Effects
    access: Access
    figures: RequestFigures

    def routes(self) -> list[Route]:
        data = answering(self._data, self.figures.of(HTTP, DATA), _error)
        return [*(_file(path, name) for path, name in FILES.items()), Route(DATA, data, methods=["GET"])]

    async def _data(self, request: Request) -> Response:
        self.access.viewer_named((), request.headers.get("authorization", ""))
        figures = await self.effects.figures()
        return Response(msgspec.json.encode(self._shown(figures)), media_type=JSON, headers=HEADERS)

    def _shown(self, figures: list[VariantFigures]) -> dict[str, Any]:
        state, heard = self.publishing.state(), self.publishing.heard()
        routes = self.publishing.routes.current.services
        return {
            "party": self.party,
            "pool": {"bytes": self.pool.held_bytes, "max_bytes": self.pool.max_bytes},
            "models": [_model(one, heard) for one in self.publishing.models()],
            "services": [
                {
                    **_service(service),
                    "service": name,
                    "is_default": name == state.default_service,
                    "refusal": routes[name].refusal if name in routes else "",
                    "figures": [_figures(one) for one in figures if one.subject.service == name],
                }
                for name, service in sorted(state.services.items())
            ],
            "bounds_s": BOUNDS_S,
        }


def _file(path: str, name: str) -> Route:
    async def answer(request: Request) -> Response:
        del request
        return FileResponse(_FOLDER / name, media_type=_KINDS[Path(name).suffix], headers=HEADERS)

    return Route(path, answer, methods=["GET"])


def _model(status: ModelStatus, heard: list[ReplicaReport]) -> dict[str, Any]:
    life, handle = status.life, status.handle
    said = [one.models[str(life.model)].state for one in heard if str(life.model) in one.models]
    return {
        "model": life.model.model,
        "version": life.model.version,
        "state": life.state.value,
        "reason": life.reason,
        "held_by": status.held_by,
        "role": "" if handle is None else handle.artifact.manifest.role,
        "bytes": None if handle is None else handle.bytes,
        "replicas": len(said),
        "replicas_ready": said.count(ModelState.READY.value),
    }


def _service(service: Service) -> dict[str, Any]:
    return {
        "revision": service.revision,
        "app": service.current.app,
        "variants": [*_variants(service.current.variants, False), *_variants(service.current.shadows, True)],
        "previous": [] if service.previous is None else _variants(service.previous.variants, False),
    }


def _variants(variants: tuple[Variant, ...], shadow: bool) -> list[dict[str, Any]]:
    return [{"variant": f"{one.model}:{one.version}", "weight": one.weight, "shadow": shadow} for one in variants]


def _figures(one: VariantFigures) -> dict[str, Any]:
    """`times`: answers by how long they took, for each of `bounds_s` and above."""
    names = ("answers", "positives", "negatives", "auc", "ks", "seconds_mean", "seconds_p50", "seconds_p99", "times")
    return {
        "variant": one.subject.variant,
        "shadow": one.subject.shadow,
        **{name: getattr(one, name) for name in names},
    }


def _error(code: Code, text: str) -> object:
    return {"error": {"code": code.name, "message": text}}
