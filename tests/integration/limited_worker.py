"""A process that asks for all it can get, as one of several workers: `limited_worker MEMORY SEAT`.

Says when it is ready, then reads until when (nanoseconds) it is to ask. Prints, as JSON, how many rows a rate let in,
and from when to when each call was in that a number of calls at once let in.
"""

import json
import sys
import time

from serving.errors import LimitError
from serving.limits import Limiter, leave
from serving.settings import Limits, RateLimit
from serving.shared_counts import Seat, SharedCounts

RATE = RateLimit(per_s=1_000, burst=50)
CONCURRENT = RateLimit(concurrent=1)


def main():
    memory, seat = map(int, sys.argv[1:])
    counts = SharedCounts(Seat(memory, seat))
    limiter = Limiter(Limits(services={"rate": RATE, "calls": CONCURRENT}), counts=counts)
    print("ready", flush=True)
    end_ns = int(sys.stdin.readline())
    rows, calls = 0, []
    while time.monotonic_ns() < end_ns:
        try:
            limiter.take("rate", "", 1)
            rows += 1
        except LimitError:
            pass
        try:
            gates = limiter.enter("calls", "")
        except LimitError:
            continue
        began_ns = time.monotonic_ns()
        calls.append((began_ns, time.monotonic_ns()))
        leave(gates)
    print(json.dumps([rows, calls]))


if __name__ == "__main__":
    main()
