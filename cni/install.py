"""Put the plugin into a CNI bin directory as `spiderpool`: `python -m cni.install --bin-dir /opt/cni/bin`.

Atomic: a runtime that starts the plugin meanwhile finds the old file or the new one, whole.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

SOURCE = Path(__file__).with_name("plugin.py")
# Linux before 5.1 reads no more of a script's first line.
SHEBANG_LIMIT = 127


def install(bin_dir: Path, *, python: Path | None = None) -> Path:
    """The installed file. `python` is the interpreter as the host's runtime sees it (it need not exist here, in a
    container image say); by default the one that runs this. ValueError if a script cannot name it.
    """
    # The real path: with -S nothing of a virtual environment is used, and the plugin outlives it.
    interpreter = python or Path(sys.executable).resolve()
    shebang = f"#!{interpreter} -IS\n".encode()  # one word: the kernel passes all options as one argument
    if not interpreter.is_absolute() or len(str(interpreter).split()) != 1 or len(shebang) > SHEBANG_LIMIT:
        raise ValueError(
            f"the interpreter {str(interpreter)!r} cannot stand in a script's first line: give an absolute path "
            f"without spaces, of less than {SHEBANG_LIMIT - len('#! -IS')} bytes"
        )
    _, _, text = SOURCE.read_bytes().partition(b"\n")
    bin_dir.mkdir(parents=True, exist_ok=True)
    target = bin_dir / "spiderpool"
    temporary = bin_dir / f".spiderpool.{os.getpid()}"
    try:
        with temporary.open("wb") as file:
            file.write(shebang + text)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o755)
        temporary.rename(target)
    finally:
        temporary.unlink(missing_ok=True)
    return target


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m cni.install", description="Install the CNI plugin `spiderpool`.")
    parser.add_argument("--bin-dir", type=Path, default=Path("/opt/cni/bin"), help="default: %(default)s")
    parser.add_argument("--python", type=Path, help="the host's interpreter, 3.11 or newer; default: this one")
    options = parser.parse_args()
    try:
        target = install(options.bin_dir, python=options.python)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"cannot install the plugin: {error}\n")
        return 1
    sys.stdout.write(f"installed {target}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
