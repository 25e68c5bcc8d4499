import pytest

from serving.prefetch import Prefetched, PrefetchOutcome
from serving.warmup import RETRY_S, TRIES, Pace, Plan, Progress, report, run, top_share
from tests.clock import Clock

CACHED, FETCHED, NOT_FOUND, MISSING, FAILED, REFUSED = PrefetchOutcome
PLAN = Plan([f"u{number}" for number in range(10)], [10 - number for number in range(10)], 100)


class Node:
    """Remembers what it fetched; answers `said` for some users."""

    def __init__(self):
        self.asked = []
        self.there = set()
        self.said = {}

    async def prefetch(self, user_ids):
        self.asked.append(list(user_ids))
        outcomes = [self.said.get(one, CACHED if one in self.there else FETCHED) for one in user_ids]
        self.there.update(one for one, said in zip(user_ids, outcomes, strict=True) if said is FETCHED)
        return Prefetched(outcomes, "party 'shop': no" if {FAILED, REFUSED} & set(outcomes) else "")


@pytest.fixture
def node():
    return Node()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def pace(clock):
    async def pause(seconds):
        clock.tick(seconds)

    return Pace(2.0, 4, clock, pause)


async def test_all_users_in_batches_at_the_rate(node, pace, clock):
    began = clock()
    done = await run(PLAN, node.prefetch, pace)
    assert [len(asked) for asked in node.asked] == [4, 4, 2]
    assert (done.done, done.fetched, done.stopped) == (10, 10, "")
    assert clock() - began == 8 / 2.0


async def test_it_goes_on_where_it_was_ended(node, pace):
    saved = []

    class KilledError(Exception):
        pass

    async def save(progress):
        saved.append(progress)
        if len(saved) == 2:
            raise KilledError

    with pytest.raises(KilledError):
        await run(PLAN, node.prefetch, pace, save=save)
    done = await run(PLAN, node.prefetch, pace, saved[-1])
    assert sum(map(len, node.asked)) == 10
    assert (done.done, done.fetched, done.cached) == (10, 10, 0)


async def test_a_cursor_of_another_plan_is_not_gone_on_with(node, pace):
    done = await run(PLAN, node.prefetch, pace, Progress(plan="other", done=9))
    assert done.fetched == 10


async def test_a_refusal_stops_it_and_the_batch_comes_again(node, pace):
    node.said = dict.fromkeys(["u4", "u5", "u6", "u7"], REFUSED)
    stopped = await run(PLAN, node.prefetch, pace)
    assert (stopped.done, stopped.fetched, stopped.refused, stopped.stopped) == (4, 4, 4, "party 'shop': no")
    assert len(node.asked) == 2
    node.said = {}
    done = await run(PLAN, node.prefetch, pace, stopped)
    assert node.asked[2] == ["u4", "u5", "u6", "u7"]
    assert (done.done, done.stopped) == (10, "")


async def test_users_that_are_refused_beside_others_stop_nothing(node, pace):
    node.said = {"u5": REFUSED}
    done = await run(PLAN, node.prefetch, pace)
    assert (done.done, done.fetched, done.refused, done.stopped) == (10, 9, 1, "")


async def test_hosts_that_do_not_answer_are_asked_again_and_then_left(node, pace, clock):
    node.said = dict.fromkeys(PLAN.user_ids, FAILED)
    began = clock()
    stopped = await run(PLAN, node.prefetch, pace)
    assert (stopped.done, len(node.asked)) == (0, TRIES)
    assert clock() - began == (TRIES - 1) * RETRY_S


async def test_one_user_that_fails_stops_nothing(node, pace):
    node.said = {"u2": FAILED, "u3": NOT_FOUND}
    done = await run(PLAN, node.prefetch, pace)
    assert (done.done, done.fetched, done.failed, done.not_found) == (10, 8, 1, 1)


async def test_the_report_tells_users_and_calls(node, pace):
    node.there = {"u0", "u1"}
    told = report(PLAN, await run(PLAN, node.prefetch, pace))
    assert (told.coverage_before, told.coverage_after) == (0.2, 1.0)
    assert (told.hit_share_before, told.expected_hit_share) == (0.19, 0.55)


async def test_without_counts_no_hit_share_is_claimed(node, pace):
    plan = Plan(PLAN.user_ids)
    told = report(plan, await run(plan, node.prefetch, pace))
    assert (told.coverage_after, told.hit_share_before, told.expected_hit_share) == (1.0, None, None)


async def test_a_dry_run_tells_what_a_run_would_come_to(node, pace):
    node.said = dict.fromkeys(PLAN.user_ids[2:], MISSING) | dict.fromkeys(PLAN.user_ids[:2], CACHED)
    told = report(PLAN, await run(PLAN, node.prefetch, pace), dry_run=True)
    assert (told.coverage_before, told.coverage_after, told.expected_hit_share) == (0.2, 1.0, 0.55)


async def test_nobody_to_warm_is_done_at_once(node, pace):
    plan = Plan([])
    assert report(plan, await run(plan, node.prefetch, pace)).coverage_after == 0.0
    assert node.asked == []


@pytest.mark.parametrize(("users", "share", "top"), [(10, 0.25, 3), (10, 1.0, 10), (1, 0.01, 1), (0, 0.5, 0)])
def test_the_top_share(users, share, top):
    assert top_share(users, share) == top
