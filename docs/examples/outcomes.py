"""Ask a service about every row of a table whose outcomes are known, and write the file that `tessera feedback` takes.

    python docs/examples/outcomes.py 127.0.0.1:8700 tumour-check table.csv malignant --authority certificates/ca.pem

A business does the same over weeks: it keeps the attribution of every answer, and adds the outcome once that is known.
"""

import argparse
import asyncio
import csv
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl

from serving.client import Cases, Client
from serving.transport import ChannelCredentials

ROWS = 1_000
"""In one call."""


async def ask(client: Client, service: str, table: pl.DataFrame) -> Iterator[tuple[str, str]]:
    """Variant and attribution of every row, both empty where the hosts do not know the user."""
    numbers = {name: table[name].cast(pl.Float64).to_list() for name in table.columns if name != "id"}
    cases = Cases(table["id"].cast(pl.String).to_list(), numbers, attributed=True)
    answers = await client.predict_many(cases, service=service)
    variants = answers.variants if len(answers.variants) == table.height else answers.variants * table.height
    return zip(variants, (one.hex() for one in answers.attributions), strict=True)


async def main(options: argparse.Namespace) -> None:
    table = pl.read_csv(options.table)
    labels, features = table[options.label].to_list(), table.drop(options.label)
    credentials = ChannelCredentials(options.authority) if options.authority else None
    counted: dict[str, int] = {}
    lines: list[tuple[str, int]] = []
    async with Client(options.target, credentials=credentials, timeout_s=10) as client:
        for start in range(0, table.height, ROWS):
            answers = await ask(client, options.service, features.slice(start, ROWS))
            for (variant, attribution), label in zip(answers, labels[start : start + ROWS], strict=True):
                if attribution:
                    counted[variant] = counted.get(variant, 0) + 1
                    lines.append((attribution, label))
    write(options.out, lines)
    for variant, count in sorted(counted.items()):
        print(f"{variant}: {count} answers")


def write(path: Path, lines: Sequence[tuple[str, int]]) -> None:
    with path.open("w", newline="") as out:
        rows = csv.writer(out)
        rows.writerow(("attribution", "label"))
        rows.writerows(lines)


def options(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", metavar="HOST:PORT")
    parser.add_argument("service")
    parser.add_argument("table", type=Path, help="CSV with a column id, the features, and the outcome")
    parser.add_argument("label", help="column of the outcome")
    parser.add_argument("--authority", type=Path, help="TLS: who signs the node's certificate")
    parser.add_argument("--out", type=Path, default=Path("outcomes.csv"))
    return parser.parse_args(words)


if __name__ == "__main__":
    asyncio.run(main(options(sys.argv[1:])))
