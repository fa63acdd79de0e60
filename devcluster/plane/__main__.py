"""`python -m devcluster.plane`: a plane in the foreground until Ctrl-C; prints its kubeconfig's path when ready."""

import argparse
import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import get_args

from devcluster.plane import Kind, start_plane


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m devcluster.plane", description=__doc__)
    parser.add_argument("--kind", choices=get_args(Kind), default="embedded")
    parser.add_argument("--dir", type=Path, required=True, help="where all files of the plane lie")
    parser.add_argument("--data-dir", type=Path, help="what is written outlives a SIGKILL (see start_plane)")
    given = os.environ.get("KUBECONFIG")
    parser.add_argument("--kubeconfig", type=Path, default=given, help="of the cluster to use, with --kind kubeconfig")
    return parser.parse_args()


async def _run(arguments: argparse.Namespace) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    started = start_plane(arguments.kind, arguments.dir, kubeconfig=arguments.kubeconfig, data_dir=arguments.data_dir)
    async with started as plane:
        print(plane.kubeconfig, flush=True)
        await stop.wait()


def main() -> int:
    try:
        asyncio.run(_run(_arguments()))
    except (OSError, RuntimeError, ValueError) as error:
        print(f"plane: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
