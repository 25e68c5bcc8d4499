"""The whole story of one inference request. The only file that knows the order of the steps.

result cache -> route -> calls of one turn together -> app.preprocess -> partials at hand; else from the shared level;
else hosts asked, the local half meanwhile -> merge -> app.postprocess

What needs nobody else is answered in the same turn of the event loop, without a task.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, TypeVar

from apps.app import CacheLevel, Request, Response
from loaders.loader import Scores
from serving.cache.result import Case, ResultCache
from serving.cache.tier import MISS
from serving.calls import Finish, Gathering, Waiting, all_replies, itself
from serving.codec import Codec
from serving.errors import LimitError, code_of
from serving.limits import Gate, Limiter, deadline_of, leave
from serving.peers.fallback import FAIL, Fallbacks, filled, own_scores
from serving.peers.hosts import Hosts, all_of
from serving.peers.partials import HostPartials
from serving.pool import ModelHandle, ModelPool
from serving.rounds import Round, interleave, response
from serving.routing import RouteTable, ServiceRoute, Target
from serving.settings import FallbackSettings
from serving.shadows import Comparing, Shadows
from serving.telemetry.served import Served, variant_of
from serving.telemetry.stages import Stages
from serving.transport import Code, Promise

T = TypeVar("T")


class Counting(Comparing, Protocol):
    """Counts what each variant answers."""

    def answered(self, target: Target, scores: Scores, seconds: Sequence[float], attributed: bool) -> tuple[bytes, ...]:
        """The attribution of each row when they are wanted. NaN: no score. `seconds`: how long each row took."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What becomes of answers: repeated from memory, counted. `seen` is told of the users of each call, `seen_again`
    of the mark of one whose answer is repeated unread; `fallbacks`: what stands in when a party fails."""

    repeated: ResultCache
    counted: Counting
    seen: Callable[[str, Sequence[str]], None] = lambda service, users: None
    seen_again: Callable[[str, bytes], None] = lambda service, mark: None
    fallbacks: Fallbacks = field(default_factory=lambda: Fallbacks({}))


class Pipeline:
    """Answers inference requests of every protocol. `clock` is monotonic seconds, as deadlines are."""

    rounds: type[Round] = Round

    def __init__(
        self,
        routes: RouteTable,
        pool: ModelPool,
        hosts: Hosts,
        answers: Answers,
        limiter: Limiter,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._routes = routes
        self._pool = pool
        self._hosts = hosts
        self._results = answers.repeated
        self._counting = answers.counted
        self._seen = answers.seen
        self._seen_again = answers.seen_again
        self._fallbacks = answers.fallbacks
        self._limits = limits = limiter.limits
        self.limiter = limiter
        self._clock = clock
        self._gathering = Gathering(self._start, limits.peer_timeout_s)
        self._running: set[Promise[None]] = set()
        self.shadows = Shadows(self._shadow, answers.counted, clock)
        self.stages = Stages()
        self.served = Served()

    # --- a call, from its bytes to its bytes ---

    def answer(self, codec: Codec, raw: bytes, remaining_s: float | None, caller: str = "") -> bytes | Promise[bytes]:
        """The reply to serialised request bytes; a repeated case is answered at once. `caller`: who asks, for limits,
        which come before anything is answered or counted. Raises what is wrong with the request, at once or when
        awaited."""
        routes, service = self._routes.current, ""
        try:
            hit = self._results.by_raw(codec.name, raw, routes.epoch)
            if hit is not MISS:
                service = routes.service_name(hit.address)
                self.limiter.take(service, caller, 1)
                self._seen_again(service, hit.user)
                self._results.counts.hits += 1
                hit.repeats.calls += 1
                return hit.reply
            request = codec.decode(raw)
            address = request.address
            service = routes.service_name(address)
            self.limiter.take(service, caller, request.rows)
            self._seen(service, request.user_ids)
            case = self._results.case_of(codec.name, request)
            hit = self._results.by_case(case, routes.epoch)
            if hit is not MISS:
                hit.repeats.calls += 1
                return hit.reply
            finish = partial(self._encoded, codec, raw, case, routes.epoch(address))
            return self._begin(request, remaining_s, finish, self.limiter.enter(service, caller), codec.protocol)
        except Exception as error:
            self._refused(codec.protocol, service, error)
            raise

    def predict(self, request: Request, remaining_s: float | None, protocol: str = "") -> Promise[Response]:
        """Answer all rows. Users of one call may meet different variants; each variant's rows run as one batch."""
        try:
            return self._begin(request, remaining_s, itself, (), protocol)
        except Exception as error:
            self._refused(protocol, self._routes.current.service_name(request.address), error)
            raise

    async def stop(self) -> None:
        """What answers nobody ends, and nothing is computed any more."""
        await self.shadows.stop()
        await self._pool.threads.stop()

    def _encoded(
        self, codec: Codec, raw: bytes, case: Case | None, epoch: int, response: Response, row: int | None
    ) -> bytes:
        if case is not None and response.complete:
            repeats = self.served.repeats(codec.protocol, self._routes.current.service_name(case.address), response)
            self._results.store(codec.name, raw, case, epoch, codec.reply(response, row, CacheLevel.L1), repeats)
        return codec.reply(response, row, CacheLevel.NONE)

    def _begin(
        self, request: Request, remaining_s: float | None, finish: Finish[T], gates: Sequence[Gate], protocol: str
    ) -> Promise[T]:
        """`gates` are left when the reply is there, or could not be begun."""
        reply: Promise[T] | None = None
        try:
            came, routes, address = self._clock(), self._routes.current, request.address
            deadline = deadline_of(self._limits, request.rows, remaining_s, came)
            shadowed = routes.shadowed(address)
            if shadowed is not None:
                finish = partial(self._followed, shadowed, request, finish)
            call = Waiting(request, (came, deadline), finish, protocol)
            if request.columnar or request.rows != 1:
                groups = routes.targets(address, request.user_ids, request.case_id)
                self.served.rows.observe(request.rows)
                reply = Promise.of(self._split(call, groups))
            else:
                target = routes.target(address, request.user_ids[0] or request.case_id)
                self._counted(target, call)
                self._gathering.add(target, call)
                self.served.single += 1
                reply = call.reply
        finally:
            if gates:
                leave(gates) if reply is None else reply.add_done_callback(lambda _: leave(gates))
        return reply

    def _counted(self, target: Target, call: Waiting[Any]) -> None:
        gates = self.limiter.enter_model(target.model.model, call.request.rows)
        if gates:
            call.reply.add_done_callback(lambda _: leave(gates))

    def _refused(self, protocol: str, service: str, error: Exception) -> None:
        """Before it met a version."""
        self.served.count((protocol, service if service in self._routes.current.services else "", ""), code_of(error))

    def _followed(
        self, route: ServiceRoute, request: Request, finish: Finish[T], response: Response, row: int | None
    ) -> T:
        self.shadows.follow(route, request, itself(response, row))
        return finish(response, row)

    async def _split(self, whole: Waiting[T], groups: Mapping[Target, list[int]]) -> T:
        """A call of several rows: a round for each variant that they meet."""
        request, times = whole.request, (whole.came, whole.deadline)
        parts = [request] if len(groups) == 1 else [request.select(rows) for rows in groups.values()]
        calls: list[Waiting[Response]] = [Waiting(part, times, itself, whole.protocol) for part in parts]
        try:
            self._count_all(groups, calls)
            for target, call in zip(groups, calls, strict=True):
                self._start(target, [call])
            answers = await all_replies([call.reply for call in calls])
        finally:
            for call in calls:
                call.reply.cancel()
        joined = answers[0] if len(answers) == 1 else interleave(request.rows, list(groups.values()), answers)
        return whole.finish(joined, None)

    def _count_all(self, targets: Iterable[Target], calls: Sequence[Waiting[Any]]) -> None:
        for target, call in zip(targets, calls, strict=True):
            try:
                self._counted(target, call)
            except LimitError as error:
                self._refused(call.protocol, target.service, error)
                raise

    # --- a round: calls that run as one batch ---

    def _start(self, target: Target, calls: Sequence[Waiting[Any]]) -> None:
        try:
            handle = self._pool.acquire(target.model)
        except Exception as error:  # noqa: BLE001 - the caller is told, whatever went wrong
            self._fail(target.service, target.variant, calls, error)
            return
        self.stages.gather.observe(self._clock() - calls[0].came)
        for first in range(0, len(calls), handle.together):
            began = self._clock()
            round_ = self._prepared(target, handle, calls[first : first + handle.together])
            self.stages.prepare.observe(self._clock() - began - (round_.app_s if round_ else 0.0))
            if round_ is not None:
                self._go(round_)

    def _go(self, round_: Round) -> None:
        if round_.handle.is_long(len(round_.users)):
            self._spawn(round_, self._take_long(round_))
            return
        whole, rest = round_.parted()
        if whole is not None:
            self._settle(whole)
        if rest is not None:
            self._spawn(rest, self._collect(rest))

    def _prepared(self, target: Target, handle: ModelHandle, calls: Sequence[Waiting[Any]]) -> Round | None:
        """With what is at hand of the hosts. A call that is wrong fails alone; None when all are."""
        round_ = self.rounds(target, handle, calls, self._clock)
        try:
            round_.prepare()
        except Exception as error:  # noqa: BLE001 - the caller is told, whatever went wrong
            if len(calls) == 1:
                self._fail(target.service, variant_of(target), calls, error)
                return None
            middle = len(calls) // 2  # few are wrong: the others should stay together
            each = [self._prepared(target, handle, part) for part in (calls[:middle], calls[middle:])]
            return self.rounds.joined([one for one in each if one is not None])
        round_.lookups = [self._hosts.look(party, handle, round_.users) for party in handle.hosts]
        return round_

    def _spawn(self, round_: Round, steps: Coroutine[Any, Any, None]) -> None:
        """They begin at once, and end when nobody waits for any of its calls any more."""
        round_.handle.__enter__()
        running = Promise.of(steps)
        self._running.add(running)
        running.add_done_callback(partial(self._ended, round_))
        awaited = len(round_.calls)

        def left(reply: Promise[Any]) -> None:
            """It is answered, or nobody waits for it."""
            nonlocal awaited
            awaited -= 1
            if not awaited and reply.cancelled():
                running.cancel()

        for call in round_.calls:
            call.reply.add_done_callback(left)

    def _ended(self, round_: Round, running: Promise[None]) -> None:
        self._running.discard(running)
        round_.handle.__exit__(None, None, None)
        if running.cancelled():
            for call in round_.calls:
                self.served.count((call.protocol, round_.target.service, variant_of(round_.target)), Code.CANCELLED)
                call.reply.cancel()
        elif (error := running.exception()) is not None:
            self._fail(round_.target.service, variant_of(round_.target), round_.calls, error)

    def _fail(self, service: str, variant: str, calls: Sequence[Waiting[Any]], error: BaseException) -> None:
        code = code_of(error)
        for call in calls:
            self.served.count((call.protocol, service, variant), code)
            call.fail(error)

    async def _collect(self, round_: Round) -> None:
        """Calls go on as soon as they have all that they need."""
        await self._find(round_)
        whole, rest = round_.parted()
        if whole is not None:
            self._settle(whole)
        if rest is not None:
            first, *others = rest.by_lacking()
            for other in others:
                self._spawn(other, self._ask(other))
            await self._ask(first)

    async def _find(self, round_: Round) -> None:
        began = self._clock()
        await all_of([self._hosts.find(lookup) for lookup in round_.lookups if not lookup.is_whole])
        self.stages.shared.observe(self._clock() - began)

    async def _take_long(self, round_: Round) -> None:
        """The local half runs on a thread while the hosts answer."""
        began = self._clock()
        local = round_.run_on(self._pool.threads)
        try:
            await self._find(round_)
            await self._ask_all(round_)
            round_.outputs = await local
            self.stages.long.observe(self._clock() - began)
        finally:
            local.cancel()
        self._settle(round_)

    async def _ask(self, round_: Round) -> None:
        round_.run_meanwhile()
        await self._ask_all(round_)
        self._settle(round_)

    async def _ask_all(self, round_: Round) -> None:
        began, deadline = self._clock(), round_.deadline
        asking = [lookup for lookup in round_.lookups if not lookup.is_whole]
        if asking:
            self.stages.asking += max(lookup.pieces.count(None) for lookup in asking)
            await all_of([self._hosts.ask(lookup, deadline) for lookup in asking])
            self.stages.peers.observe(self._clock() - began)

    def _settle(self, round_: Round) -> None:
        """Nothing is missing any more, but a party may have said that it does not know a user, say."""
        remote = round_.partials()
        if all(part.complete for part in remote):
            self._finish(round_, remote)
        else:
            self._spawn(round_, self._conclude(round_, remote))

    async def _conclude(self, round_: Round, remote: Sequence[HostPartials]) -> None:
        """Calls that have all parties together, each other by what stands in for the party, if anything does."""
        fallback = self._fallbacks.of(round_.target.service)
        remote = await filled(fallback, round_.handle, round_.users, remote, self._hosts)
        if len(round_.calls) == 1:
            self._finish(round_, remote, fallback)
            return
        lacking = sorted({row for part in remote for row in part.failures()})
        whole = sorted(set(range(len(round_.calls))).difference(lacking))
        if whole:
            self._finish(round_.take(whole))
        for place in lacking:
            self._finish(round_.take([place]), [part.row(place) for part in remote], fallback)

    def _finish(
        self, round_: Round, remote: Sequence[HostPartials] | None = None, fallback: FallbackSettings | None = None
    ) -> None:
        """Answer the calls; without a `fallback` no party is lacking. When something is wrong with one of several, each
        is answered alone."""
        calls = round_.calls
        try:
            answer, since = self._response(round_, round_.partials() if remote is None else remote, fallback)
        except Exception as error:  # noqa: BLE001 - the caller is told, whatever went wrong
            if len(calls) == 1:
                self._fail(round_.target.service, variant_of(round_.target), calls, error)
            else:
                for place in range(len(calls)):
                    self._finish(round_.take([place]))
            return
        if len(calls) == 1:
            calls[0].succeed(answer, None)
        else:
            for row, call in enumerate(calls):
                call.succeed(answer, row)
        self.stages.reply.observe(self._clock() - since)

    def _response(
        self, round_: Round, remote: Sequence[HostPartials], fallback: FallbackSettings | None
    ) -> tuple[Response, float]:
        """Of all calls, and when the scores were there. Calls that go together are complete."""
        target, request = round_.target, round_.request
        result = round_.result(remote, fallback or FAIL)
        now = self._clock()
        self.stages.took(round_.app_s, round_.local_s, round_.merge_s)
        self.stages.answered += len(round_.users)
        self.served.answered(round_.calls, target)
        seconds = [now - call.came for call in round_.calls for _ in call.request.user_ids]
        scores = own_scores(result.scores, remote)
        whole = response(target, result, remote, self._counting.answered(target, scores, seconds, request.attributed))
        return whole, now

    async def _shadow(self, target: Target, request: Request) -> Response:
        """No limit and no figure of requests counts it, and it has a deadline of its own."""
        came = self._clock()
        deadline = came + self._limits.peer_timeout_s
        with self._pool.acquire(target.model) as handle:
            call = Waiting(request, (came, deadline), itself)
            round_ = self.rounds(target, handle, [call], self._clock)
            round_.prepare()
            round_.lookups = [self._hosts.look(party, handle, round_.users) for party in handle.hosts]
            aside = [self._hosts.ask_aside(lookup, deadline) for lookup in round_.lookups if not lookup.is_whole]
            await all_of(aside)
            round_.outputs = await self._pool.predict(handle, round_.batch)
            remote = round_.partials()
            return response(target, round_.result(remote, FAIL), remote, ())
