"""`make bench`: how fast, as ratios to a floor measured in the same run, since machines and their noise differ.

`python -m tests.bench [embedded|envtest|kubeconfig] [TABLE ...]` measures those tables only.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final, get_args

from devcluster.plane import Kind
from tests.bench import burst, growth, nodes, plugin, steady
from tests.bench.cluster import ROOT, running_cluster
from tests.bench.report import machine

if TYPE_CHECKING:
    from collections.abc import Sequence

TABLES: Final = {
    "burst": burst.run,
    "nodes": nodes.run,
    "steady": steady.run,
    "plugin": plugin.run,
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


def main() -> None:
    kinds = [each for each in get_args(Kind) if each in sys.argv]
    asyncio.run(bench(kinds[0] if kinds else "embedded", [each for each in sys.argv[1:] if each in TABLES]))


if __name__ == "__main__":
    main()
