"""The command line of the generator."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console

from bench.load.arrivals import Arrivals
from bench.load.plan import Factory, Plan, PlanError
from bench.load.processes import LoadError, load_now
from bench.load.terminal import bar, table
from serving.transport import Transport

_TEACHING = """Load a gRPC server and say how fast it answers.

TARGET is host:port, METHOD is /package.Service/Method.

\b
How many calls a second does it take?     a closed loop: --connections 4 --streams 32
How long do callers wait at that rate?    an open loop:  --rate 5000

Judge latency by the open loop. Its calls leave at intended times, whatever the server does, and latency counts from
those: a server that stalls for a second is seen by every call of that second. In a closed loop the same stall is one
slow call per caller. `lateness` says how late the generator itself was.

\b
python -m bench.load 127.0.0.1:50051 /bench.Echo/Echo --size 300 --echo --rate 5000 --deadline 1 --traceparent
python -m bench.load 127.0.0.1:50051 /tessera.v1.Inference/Predict --bodies request.bin --streams 32
"""


@click.command(help=_TEACHING)
@click.argument("target")
@click.argument("method")
@click.option("--bodies", type=click.Path(exists=True, dir_okay=False, path_type=Path), multiple=True,
    help="a file with one serialised request; given several times they are sent in turn")  # fmt: skip
@click.option("--size", type=int, help="instead: a request of that many zero bytes")
@click.option("--make-body", metavar="MODULE:FUNCTION", help="instead: a factory of `number -> bytes`")
@click.option("--echo", is_flag=True, help="a reply must equal its request")
@click.option("--make-check", metavar="MODULE:FUNCTION", help="a factory of `(request, reply) -> bool`")
@click.option("--rate", type=float, help="calls per second: an open loop; without it a closed one")
@click.option("--arrivals", type=click.Choice([kind.value for kind in Arrivals]), default="poisson", show_default=True)
@click.option("--connections", "-c", default=1, show_default=True)
@click.option("--streams", "-m", default=1, show_default=True, help="callers per connection of a closed loop")
@click.option("--duration", default=10.0, show_default=True, help="seconds measured")
@click.option("--warmup", default=1.0, show_default=True, help="seconds before that, not counted")
@click.option("--deadline", type=float, help="seconds each call may take")
@click.option("--traceparent", is_flag=True, help="send a trace id, another one with every call")
@click.option("--transport", type=click.Choice([kind.value for kind in Transport]), default="native", show_default=True)
@click.option("--processes", default=1, show_default=True, help="generators that share the rate and the connections")
@click.option("--seed", default=0, show_default=True, help="of Poisson arrivals")
@click.option("--json", "as_json", is_flag=True, help="the result as JSON; its schema is in bench/load/results.py")
def main(processes: int, as_json: bool, **given: Any) -> None:
    try:
        plan = _plan(given)
        with nullcontext() if as_json else bar(plan) as follow:
            result = load_now(plan, processes, on_progress=follow)
    except (PlanError, LoadError) as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(result)).decode())
    else:
        Console().print(table(result))
    if not result.latency_ms:
        raise click.ClickException(f"no right answer: {result.outcomes}")


def _plan(given: dict[str, Any]) -> Plan:
    bodies = tuple(path.read_bytes() for path in given["bodies"])
    if given["size"] is not None:
        bodies = (bytes(given["size"]),)
    return Plan(
        target=given["target"],
        method=given["method"],
        bodies=bodies or (b"",),
        make_body=Factory(given["make_body"]) if given["make_body"] else None,
        echo=given["echo"],
        make_check=Factory(given["make_check"]) if given["make_check"] else None,
        transport=Transport(given["transport"]),
        connections=given["connections"],
        streams=given["streams"],
        rate_per_s=given["rate"],
        arrivals=Arrivals(given["arrivals"]),
        duration_s=given["duration"],
        warmup_s=given["warmup"],
        deadline_s=given["deadline"],
        traceparent=given["traceparent"],
        seed=given["seed"],
    )


if __name__ == "__main__":
    main()
