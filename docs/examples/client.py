"""Ask a service from Python: one case, the same case again, many users at once.

    python docs/examples/client.py 127.0.0.1:8700 credit

The feature names are those of the model; `a` and `b` here.
"""

import asyncio
import sys

from serving.client import Case, Cases, Client
from serving.transport import RpcError


async def main(target: str, service: str) -> None:
    async with Client(target, timeout_s=1.0) as client:
        case = Case(user_id="0001", case_id="application 77", numbers={"a": 0.25, "b": -1.5})
        first = await client.predict(case, service=service)
        print(f"score {first.score[0]:.4f} by {first.model}:{first.version}, complete: {first.complete}")
        for party in first.parties:
            print(f"  {party.party}: {party.status.name}, from {party.level.name}")

        again = await client.predict(case, service=service)
        print(f"the same case again: from cache {again.cache.name}")

        cases = Cases(["0001", "0002", "nobody"], numbers={"a": [0.25, 0.5, 1.0], "b": [-1.5, 0.0, 1.0]})
        many = await client.predict_many(cases, service=service)
        for user, score, status in zip(cases.user_ids, many.scores, many.statuses, strict=True):
            print(f"{user}: {score[0]:.4f} {status.name}")

        try:
            await client.predict(Case(user_id="0001", numbers={"height": 1.8}), service=service)
        except RpcError as error:
            print(f"{error.code.name}: {error.details}")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
