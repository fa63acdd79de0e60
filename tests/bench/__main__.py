"""`make bench`: how fast, as ratios to a floor measured in the same run, since machines and their noise differ.

`python -m tests.bench envtest burst nodes` measures those tables only. The plane `kubeconfig` is the cluster of
$KUBECONFIG, which must have no pools.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final, get_args

from devcluster.plane import Kind
from tests.bench import admission, burst, growth, nodes, plugin, steady, subnets
from tests.bench.cluster import ROOT, running_cluster
from tests.bench.report import machine

if TYPE_CHECKING:
    from collections.abc import Sequence

TABLES: Final = {
    "burst": burst.run,
    "nodes": nodes.run,
    "steady": steady.run,
    "plugin": plugin.run,
    "admission": admission.run,
    "subnets": subnets.run,
    # The last, for it leaves a hundred thousand records.
    "growth": growth.run,
}


async def bench(kind: Kind, names: Sequence[str]) -> None:
    print(f"plane {kind}; " + ", ".join(f"{key} {value}" for key, value in machine().items()), flush=True)
    tables = []
    with tempfile.TemporaryDirectory() as name:
        async with running_cluster(kind, Path(name)) as cluster:
            for each in names or TABLES:
                tables.append(await TABLES[each](cluster))
                print(tables[-1].text(), flush=True)
    build = ROOT / "build"
    build.mkdir(exist_ok=True)
    document = {"plane": kind, "machine": machine(), "tables": [asdict(table) for table in tables]}
    (build / "bench.json").write_text(json.dumps(document, indent=1) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("plane", nargs="?", choices=get_args(Kind), default="embedded")
    parser.add_argument("tables", nargs="*", choices=[*TABLES, []], help="default: all", metavar="TABLE")
    options = parser.parse_args()
    try:
        asyncio.run(bench(options.plane, options.tables))
    except (RuntimeError, ExceptionGroup) as failure:
        print(f"bench: {_first(failure)}", file=sys.stderr)
        return 1
    return 0


def _first(failure: Exception) -> Exception:
    """A thousand ADDs fail alike: one says enough. A bug of the bench itself keeps its traceback."""
    while isinstance(failure, ExceptionGroup):
        failure = failure.exceptions[0]
    if not isinstance(failure, RuntimeError):
        raise failure
    return failure


if __name__ == "__main__":
    sys.exit(main())
