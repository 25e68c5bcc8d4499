"""`tessera token`: a bearer token for a caller or an operator."""

from __future__ import annotations

import hashlib
import secrets

import click

_BYTES = 32


@click.command()
@click.argument("name")
@click.option("--role", type=click.Choice(["caller", "viewer", "operator"]), default="caller", show_default=True)
def token(name: str, role: str) -> None:
    """Make a token for NAME. It goes to standard output, once; what goes into the node's settings to standard error.

    Callers send it as `authorization: Bearer TOKEN`; the other commands read it from TESSERA_CLIENT_TOKEN.
    """
    made = secrets.token_urlsafe(_BYTES)
    digest = hashlib.sha256(made.encode()).hexdigest()
    click.echo(f"[principals.{name}]\nrole = '{role}'\ntoken_sha256 = '{digest}'", err=True)
    click.echo(made)
