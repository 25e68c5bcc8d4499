"""Where a FATE model's parts come from: FATE-Flow, or a file. Only from where the settings allow it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from loaders.fate.export import ExportError, Parts, parts_of_json, parts_of_zip
from loaders.fate.names import FateName
from serving.errors import ConflictError, InvalidRequestError, NotAllowedError
from serving.fate_settings import FateSettings

if TYPE_CHECKING:
    import httpx

FATEFLOW, FILE, CACHE = "FATEFLOW", "FILE", "CACHE"


class ModelSources:
    """Of one node."""

    def __init__(self, settings: FateSettings) -> None:
        self._settings = settings
        if settings.transfer_urls:
            import httpx  # noqa: F401, PLC0415 - only nodes beside a FATE-Flow pay for it, and at their start

    async def parts(self, load_type: str, place: str, name: FateName) -> Parts:
        """`place`: an address or a path, as `load_type` says. Raises InvalidRequestError, NotAllowedError and
        ConflictError with what came instead of a model."""
        try:
            match load_type or FATEFLOW:
                case "FATEFLOW":
                    return await self._from_flow(unquote(place), name)
                case "FILE":
                    return await asyncio.to_thread(self._from_file, place, parts_of_zip)
                case "CACHE":
                    return await asyncio.to_thread(self._from_file, place, parts_of_json)
        except ExportError as error:
            raise ConflictError(f"what was read is no export of {name.namespace} {name.table}: {error}") from None
        raise InvalidRequestError(f"loadType {load_type!r} is none of {FATEFLOW}, {FILE}, {CACHE}")

    async def _from_flow(self, url: str, name: FateName) -> Parts:
        allowed = self._settings.transfer_urls
        chosen = url or next(iter(allowed), "")
        if chosen.rstrip("/") not in {one.rstrip("/") for one in allowed}:
            raise NotAllowedError(f"model address {chosen!r} is not in this node's fate.transfer_urls")
        import httpx  # noqa: PLC0415 - __init__ has done so already

        asked = {"name": name.table, "namespace": name.namespace}
        timeout_s = self._settings.fetch_timeout_s
        try:
            async with (
                asyncio.timeout(timeout_s),
                httpx.AsyncClient(timeout=timeout_s, trust_env=False) as client,
                client.stream("POST", chosen, json=asked) as answer,
            ):
                if answer.status_code != httpx.codes.OK:
                    raise ConflictError(f"FATE-Flow at {chosen} answers with HTTP status {answer.status_code}")
                return parts_of_json(await self._bounded(answer))
        except (httpx.HTTPError, TimeoutError) as error:
            raise ConflictError(f"FATE-Flow at {chosen} does not answer: {type(error).__name__}") from None

    async def _bounded(self, answer: httpx.Response) -> bytes:
        kept = bytearray()
        async for chunk in answer.aiter_bytes():
            kept += chunk
            if len(kept) > self._settings.max_model_bytes:
                raise ConflictError(f"the model has more than {self._settings.max_model_bytes} bytes")
        return bytes(kept)

    def _from_file(self, place: str, parse: Callable[[bytes], Parts]) -> Parts:
        """Nothing outside of the root, whatever links lead there."""
        if not self._settings.models_root:
            raise NotAllowedError("this node loads no models from files: fate.models_root is not set")
        root = Path(self._settings.models_root).resolve()
        path = (root / place).resolve()
        if not place or not path.is_relative_to(root) or not path.is_file():
            raise NotAllowedError("filePath names no file in this node's fate.models_root")
        if path.stat().st_size > self._settings.max_model_bytes:
            raise ConflictError(f"the model has more than {self._settings.max_model_bytes} bytes")
        return parse(path.read_bytes())
