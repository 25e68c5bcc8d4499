"""`tessera ready`: a probe for containers and scripts."""

from __future__ import annotations

import sys

import click

from serving.commands.connection import Connection, connected


@click.command()
@connected("service", "127.0.0.1:8700")
def ready(connection: Connection) -> None:
    """Exit with 0 when the node takes calls, with 1 when it does not, yet or any more."""
    from grpc_health.v1 import health_pb2, health_pb2_grpc  # noqa: PLC0415 - keeps `tessera --help` quick

    reply = connection.ask(health_pb2_grpc.HealthStub, "Check", health_pb2.HealthCheckRequest())
    state = health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)
    click.echo(state)
    sys.exit(0 if reply.status == health_pb2.HealthCheckResponse.SERVING else 1)
