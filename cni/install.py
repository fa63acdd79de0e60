"""Put the plugin into a CNI bin folder: `python -m cni.install --bin-dir /opt/cni/bin`.

    /opt/cni/bin/spiderpool             the entry: a script of two lines that the tree's interpreter runs
    /opt/cni/bin/.spiderpool-k3x_81ab/  the tree (cni/tree.py); each installation makes one under a new name

The host needs a Linux kernel of the same architecture and nothing else. A tree is complete, on disk and tried out
before the entry, replaced by one rename, names it: whoever starts the plugin meanwhile, and whatever ends the
installation, finds the old plugin or the new one, whole.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path

from cni import tree

ENTRY, PREFIX = "spiderpool", ".spiderpool-"
# A plugin lives 65 s at most and imports from its tree to its end. Trees that crashes left behind are gone by then too.
KEEP_REPLACED_S = 600.0


def install(bin_dir: Path, *, host_bin_dir: Path | None = None) -> Path:
    """The entry. `host_bin_dir`: where the host has the folder, when this runs in a container. OSError, ValueError."""
    bin_dir.mkdir(parents=True, exist_ok=True)
    entry = bin_dir / ENTRY
    remove_old(bin_dir, serving=first_line(entry))
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=bin_dir))
    try:
        fill(folder, seen_as=(host_bin_dir or bin_dir.absolute()) / folder.name)
    except BaseException:
        shutil.rmtree(folder)
        raise
    try:
        (folder / ENTRY).rename(entry)
    except OSError:
        shutil.rmtree(folder)
        raise
    flush(bin_dir)
    return entry


def remove_old(bin_dir: Path, *, serving: str) -> None:
    """Trees that no plugin can be running from any more. What the entry names counts as replaced from now on."""
    for tree_folder in bin_dir.glob(f"{PREFIX}*"):
        with contextlib.suppress(FileNotFoundError):  # another installation removes them too
            if tree_folder.name in serving:
                os.utime(tree_folder)
            elif time.time() - tree_folder.stat().st_mtime > KEEP_REPLACED_S:
                shutil.rmtree(tree_folder, ignore_errors=True)  # what stays is in nobody's way


def first_line(entry: Path) -> str:
    """Empty where there is none; of the original's plugin, some bytes of a program."""
    try:
        with entry.open("rb") as file:
            return file.readline(256).decode("latin-1")
    except FileNotFoundError:
        return ""


def fill(folder: Path, *, seen_as: Path) -> None:
    """Tree and entry, on disk and tried out."""
    # The interpreter of the replaced entry may still be handed the text of the next one, so it never changes.
    text = shebang(seen_as / "python") + f"import {tree.PLUGIN}\n{tree.PLUGIN}.main()\n"
    tree.build(folder, seen_as=seen_as)
    tree.try_out(folder)
    (folder / ENTRY).write_text(text)
    (folder / ENTRY).chmod(0o755)
    for path in (*folder.rglob("*"), folder):
        flush(path)


def shebang(interpreter: Path) -> str:
    """The first line of the entry. ValueError if it cannot name this interpreter."""
    line = f"#!{interpreter} {tree.FLAGS}\n"  # one word of options: the kernel passes them as one argument
    release = re.match(r"(\d+)\.(\d+)", os.uname().release)
    limit = 127 if release and (int(release[1]), int(release[2])) < (5, 1) else 255
    folder = str(interpreter.parents[1])
    too_long = len(line.encode()) - limit
    if not interpreter.is_absolute() or len(folder.split()) != 1 or too_long > 0:
        raise ValueError(
            f"the folder {folder!r} cannot stand in a script's first line: "
            f"give an absolute path without spaces, of at most {len(folder.encode()) - too_long} bytes"
        )
    return line


def flush(path: Path) -> None:
    """Onto the disk: after a power cut the entry must not name a tree of empty files."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m cni.install", description="Install the CNI plugin `spiderpool`.")
    parser.add_argument("--bin-dir", type=Path, default=Path("/opt/cni/bin"), help="default: %(default)s")
    parser.add_argument("--host-bin-dir", type=Path, help="the same folder as the host sees it; default: --bin-dir")
    options = parser.parse_args()
    try:
        entry = install(options.bin_dir, host_bin_dir=options.host_bin_dir)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"cannot install the plugin: {error}\n")
        return 1
    sys.stdout.write(f"installed {entry}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
