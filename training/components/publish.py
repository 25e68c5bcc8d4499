"""Publishes a linear model: every party writes its own half into its own registry, bound to the others' by digest.

    host -> guest  mean_partial  [] unless the host's settings let the guest know it: then one number per score
    each -> each   half    the SHA-256 of the sender's half (its manifest and files stay with it)
    each -> each   bound   the SHA-256 of the binding that the sender wrote; all must be equal

Only then the alias moves. Each party learns the digests of the others' halves, and of what they hold nothing but the
mean partial, the guest alone and where the host consents: it goes into both manifests as `stand_ins`, for services that
answer without the host (policy `partial`). The self-test of a half is made up from the ranges of its inputs; no row
of anybody is in it.
"""

from __future__ import annotations

import asyncio
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar

import msgspec
import numpy as np

from loaders import registry
from loaders.artifact import ArtifactError, HalfRef, Link, Manifest, Merge, MergeKind, SelfTest
from loaders.signature import Missing, TensorSpec
from training.component import Component, ComponentError, Context, ModelPart, PortKind, Role, Value
from training.together import together

Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
DIGEST = re.compile(r"[0-9a-f]{64}")
OUTPUT, WIDTH, SELF_TEST_ROWS, RANGE_DEVIATIONS = "partial", 1, 4, 3.0
GOLDEN = (math.sqrt(5) - 1) / 2


class PublishParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Equal on every party. `version` is the job's id unless given; an empty `alias` sets none."""

    model: Name
    version: Annotated[str, msgspec.Meta(pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{0,127})?$")] = ""
    alias: Annotated[str, msgspec.Meta(pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{0,127})?$")] = "latest"


class Publish(Component):
    """`model` is what hetero_lr learned, `scale` what prepared its columns; without `scale` the model takes the columns
    as they are and none may be missing. `figures` is what evaluate found: it goes into the guest's own manifest, with
    which it stays in the guest's registry."""

    equal_parameters: ClassVar[bool] = True
    Parameters: ClassVar[type[msgspec.Struct]] = PublishParameters
    inputs: ClassVar[Mapping[str, PortKind]] = {
        "model": PortKind.MODEL,
        "scale": PortKind.MODEL,
        "figures": PortKind.MODEL,
    }
    optional_inputs: ClassVar[frozenset[str]] = frozenset({"scale", "figures"})
    outputs: ClassVar[Mapping[str, PortKind]] = {}

    async def run(
        self, context: Context, parameters: PublishParameters, inputs: Mapping[str, Value]
    ) -> Mapping[str, Value]:
        model, scale, figures = inputs["model"], inputs.get("scale"), inputs.get("figures")
        if not isinstance(model, ModelPart) or model.kind != "hetero_lr":
            raise ComponentError(f"publish at party {context.party}: input model must come from hetero_lr")
        if scale is not None and (not isinstance(scale, ModelPart) or scale.columns != model.columns):
            raise ComponentError(f"publish at party {context.party}: input scale is not of the model's columns")
        if figures is not None and (not isinstance(figures, ModelPart) or figures.kind != "evaluate"):
            raise ComponentError(f"publish at party {context.party}: input figures must come from evaluate")
        half = Half(model, scale, figures)
        version = parameters.version or context.job
        manifest = half.manifest(context, parameters.model, version)
        manifest = msgspec.structs.replace(manifest, stand_ins=await exchanged_means(context, model))
        try:
            await self._publish(context, manifest, half.files(), parameters.alias)
        except ArtifactError as error:
            raise ComponentError(f"publish at party {context.party}: {error}") from None
        return {}

    async def _publish(self, context: Context, manifest: Manifest, files: Mapping[str, bytes], alias: str) -> None:
        root, model, version = context.registry, manifest.model, manifest.version
        digest = await asyncio.to_thread(registry.write_half, root, manifest, files)
        binding = await exchanged_binding(context, digest)
        folder = registry.half_path(root, model, version, manifest.role, manifest.party)
        bound = await asyncio.to_thread(registry.bind, folder, binding)
        for peer, theirs in (await exchanged(context, "bound", bound)).items():
            if theirs != bound:
                raise ComponentError(
                    f"publish: party {peer} bound other halves than party {context.party}; nobody loads"
                )
        if alias:
            await asyncio.to_thread(registry.set_alias, root, model, alias, version)


class Half:
    """One party's part of the model as an artifact of format `tessera`."""

    def __init__(self, model: ModelPart, scale: ModelPart | None, figures: ModelPart | None = None) -> None:
        self.columns = model.columns
        self._metrics = {"metrics": dict(figures.attributes)} if figures is not None else {}
        self._arrays = {name: model.arrays[name] for name in ("weights", "intercept") if name in model.arrays}
        if scale is not None:
            self._arrays |= {name: scale.arrays[name] for name in ("fill", "mean", "scale")}

    def files(self) -> dict[str, bytes]:
        return {f"{name}.npy": npy(array) for name, array in self._arrays.items()}

    def manifest(self, context: Context, model: str, version: str) -> Manifest:
        scaled = "scale" in self._arrays
        steps: list[dict[str, Any]] = [
            {"kind": "impute", "values": "fill.npy"},
            {"kind": "scale", "mean": "mean.npy", "scale": "scale.npy"},
        ]
        return Manifest(
            model=model,
            version=version,
            role=context.role.value,
            party=context.party,
            format="tessera",
            inputs=tuple(self._inputs(Missing.IMPUTE if scaled else Missing.ERROR)),
            outputs=(TensorSpec(name=OUTPUT, dtype="float64", shape=(-1, WIDTH)),),
            preprocess=steps if scaled else [],
            merge=Merge(kind=MergeKind.SUM, link=Link.SIGMOID),
            self_test=self._self_test(),
            provenance={"job": context.job, **self._metrics},
        )

    def _inputs(self, missing: Missing) -> Iterator[TensorSpec]:
        for name, bounds in zip(self.columns, self._ranges(), strict=True):
            yield TensorSpec(name=name, dtype="float64", shape=(-1,), missing=missing, range=bounds)

    def _ranges(self) -> list[tuple[float, float]]:
        """Without `scale` nothing is known of the columns but that they suit the model: about standardised."""
        count = len(self.columns)
        means = self._arrays.get("mean", np.zeros(count)).tolist()
        deviations = self._arrays.get("scale", np.ones(count)).tolist()
        return [
            (mean - RANGE_DEVIATIONS * deviation, mean + RANGE_DEVIATIONS * deviation)
            for mean, deviation in zip(means, deviations, strict=True)
        ]

    def _self_test(self) -> SelfTest:
        """Rows spread over the ranges by the golden ratio, so that the same half has the same digest; the last lacks
        its first value where the half imputes."""
        rows: list[list[float | None]] = [
            [low + (high - low) * ((1 + row * len(self.columns) + place) * GOLDEN % 1.0)
             for place, (low, high) in enumerate(self._ranges())]
            for row in range(SELF_TEST_ROWS)
        ]  # fmt: skip
        if "fill" in self._arrays and self.columns:
            rows[-1][0] = None
        return SelfTest(numbers=rows, outputs={OUTPUT: [[self.expected(row)] for row in rows]})

    def expected(self, row: Sequence[float | None]) -> float:
        """What the half must answer, computed value by value and not as the loader does."""
        count = len(self.columns)
        weights = self._arrays["weights"].tolist()
        fills = self._arrays.get("fill", np.zeros(count)).tolist()
        means = self._arrays.get("mean", np.zeros(count)).tolist()
        deviations = self._arrays.get("scale", np.ones(count)).tolist()
        terms = [float(self._arrays.get("intercept", np.zeros(())))]
        for value, fill, mean, deviation, weight in zip(row, fills, means, deviations, weights, strict=True):
            terms.append(((fill if value is None else value) - mean) / deviation * weight)
        return math.fsum(terms)


async def exchanged_means(context: Context, model: ModelPart) -> dict[str, list[float]]:
    """By host, the mean partials that this party's manifest declares."""
    if context.role is Role.HOST:
        known = model.attributes.get("mean_partial", [])
        own = known if context.gives_mean_partial(context.guest) else []
        await context.channel(context.guest).send("mean_partial", msgspec.json.encode(own))
        told = {context.party: own}
    else:
        told = {host: decoded_mean(await context.channel(host).receive("mean_partial"), host) for host in context.hosts}
    return {host: mean for host, mean in told.items() if mean}


def decoded_mean(payload: bytes, host: str) -> list[float]:
    try:
        mean = msgspec.json.decode(payload, type=list[float])
    except msgspec.MsgspecError:
        mean = [math.nan]
    if len(mean) > WIDTH or not all(map(math.isfinite, mean)):
        raise ComponentError(f"publish: party {host} sent no mean partial, and not that it gives none")
    return mean


async def exchanged_binding(context: Context, digest: str) -> list[HalfRef]:
    """The halves of all parties, sorted. Who a half belongs to is known from the channel and the job."""
    halves = {context.party: digest, **await exchanged(context, "half", digest)}
    return sorted(
        HalfRef((Role.GUEST if party == context.guest else Role.HOST).value, party, half)
        for party, half in halves.items()
    )


async def exchanged(context: Context, name: str, digest: str) -> dict[str, str]:
    """Send ours to all others; returns theirs by party."""
    peers = [party for party in (context.guest, *context.hosts) if party != context.party]
    await together(*(context.channel(peer).send(name, digest.encode()) for peer in peers))
    answers = await together(*(context.channel(peer).receive(name) for peer in peers))
    texts = {peer: answer.decode("ascii", "replace") for peer, answer in zip(peers, answers, strict=True)}
    for peer, text in texts.items():
        if not DIGEST.fullmatch(text):
            raise ComponentError(f"publish: party {peer} sent no SHA-256 as {name!r}")
    return texts


def npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asarray(array, dtype=np.float64), allow_pickle=False)
    return buffer.getvalue()
