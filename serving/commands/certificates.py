"""`tessera certificates`: certificates of a small authority, for trials and for one organisation's own services."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("parties", metavar="PARTY[=NAME,NAME...]...", nargs=-1, required=True)
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), default=Path("certificates"), show_default=True
)
@click.option("--days", type=click.IntRange(1, 3650), default=365, show_default=True, help="How long they are valid.")
@click.option("--authority", default="Tessera trial authority", show_default=True, help="Its name, when it is made.")
def certificates(parties: tuple[str, ...], out: Path, days: int, authority: str) -> None:
    """Make a certificate and a key per PARTY, with an authority when the folder has none.

    The NAMEs are host names and addresses under which the party's node is reached. Running it again renews the
    certificates and keeps the authority; a node takes the new files without a restart.

    Parties that do not trust each other use an authority they agree on instead of this one.
    """
    from serving.certificates import CertificateError, make_authority, make_certificate  # noqa: PLC0415

    try:
        make_authority(out, authority)
        for given in parties:
            party, _, names = given.partition("=")
            certificate, key = make_certificate(out, party, [name for name in names.split(",") if name], days)
            click.echo(f"{certificate} and {key.name}, {days} days")
    except CertificateError as error:
        raise click.ClickException(str(error)) from None
    except ValueError as error:
        raise click.ClickException(f"{given!r}: {error}") from None
