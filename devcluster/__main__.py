"""`python -m devcluster demo|up`: a cluster on this machine, for show or to work with, until it ends or Ctrl-C."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path


def main() -> int:
    try:
        arguments = _arguments()
        # The rest of the program takes a second to import: Ctrl-C may come meanwhile.
        from devcluster import main as program  # noqa: PLC0415

        return program.main(arguments)
    except KeyboardInterrupt:
        return 130


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m devcluster", description=__doc__)
    parser.add_argument("verb", choices=("demo", "up"), help="demo: show the main job; up: only bring it up")
    parser.add_argument("--plane", choices=("embedded", "envtest", "kubeconfig"), default="embedded")
    given = os.environ.get("KUBECONFIG")
    parser.add_argument("--kubeconfig", type=Path, default=given, help="of the cluster to use, with --plane kubeconfig")
    parser.add_argument("--nodes", type=_number, default=3, help="default: %(default)s")
    parser.add_argument("--network", choices=("plugins", "netlink", "none"), help="default: the most real one here")
    parser.add_argument("--keep", action="store_true", help="after the demo, leave it running until Ctrl-C")
    parser.add_argument("--dir", type=Path, default=Path(".devcluster"), help="all its files; default: %(default)s")
    return parser.parse_args()


def _number(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 50:
        raise argparse.ArgumentTypeError("1 to 50 nodes")
    return number


if __name__ == "__main__":
    sys.exit(main())
