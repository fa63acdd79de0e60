"""The installation: all that the plugin needs in one folder, switched by one rename, and never half there."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cni import install, tree
from tests.unit.cni.harness import ADDED, FakeAgent, Plugin, http

if TYPE_CHECKING:
    from collections.abc import Iterator

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root for chroot and mount")
VERSION = {"CNI_COMMAND": "VERSION"}
# What costs milliseconds: https://docs.python.org/3/using/cmdline.html#cmdoption-X with importtime.
SLOW = {"asyncio", "ctypes", "dataclasses", "email", "enum", "http", "json", "logging", "pathlib", "re", "typing"}


def trees(folder: Path) -> set[Path]:
    return set(folder.glob(".spiderpool-*"))


def tree_of(executable: Path) -> Path:
    return Path(executable.read_text().split()[0][2:]).parent


@pytest.fixture
def installed(executable: Path, tmp_path: Path) -> Plugin:
    """An installation of this test's own: a copy would name the original's interpreter."""
    return Plugin(install.install(tmp_path / "bin"), tmp_path)


def test_it_runs_with_an_empty_environment(executable: Path) -> None:
    done = subprocess.run([executable], env=VERSION, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    assert json.loads(done.stdout)["cniVersion"] == "1.1.0"


@needs_root
@pytest.mark.root
def test_it_serves_an_add_on_a_host_that_has_nothing_else(tmp_path: Path) -> None:
    """As a container installs it: the folder has one path here, another for the host."""
    root = tmp_path / "host"
    install.install(root / "opt" / "cni" / "bin", host_bin_dir=Path("/opt/cni/bin"))
    plugin = Plugin(Path("/opt/cni/bin/spiderpool"), tmp_path)
    config = plugin.config("1.0.0", ipam_unix_socket_path="/agent.sock", log_file_path="/log", state_dir="/state")
    assert {path.name for path in root.rglob("*") if path.is_file() and ".spiderpool-" not in str(path)} == {
        "spiderpool"
    }
    with FakeAgent(root / "agent.sock"):
        done = subprocess.run(
            [plugin.executable],
            input=json.dumps(config).encode(),
            env=plugin.environment("ADD", PATH=None),
            capture_output=True,
            check=False,
            preexec_fn=lambda: os.chroot(root),
        )
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout)["ips"] == [{"address": "10.20.0.10/16", "gateway": "10.20.0.1"}]
    assert (root / "log").read_bytes().count(b"\n") == 1
    assert {path.name for path in root.iterdir()} == {"agent.sock", "log", "opt"}


def test_it_maps_no_file_of_the_host(plugin: Plugin) -> None:
    mapped = (
        plugin.altered("print(open('/proc/self/maps').read(), flush=True)").run("VERSION").stdout.decode().splitlines()
    )
    code = {Path(line.split()[5]) for line in mapped if " r-xp " in line and "/" in line}
    assert len(code) >= 3
    assert {path for path in code if not path.is_relative_to(tree_of(plugin.executable))} == set()


def test_the_environment_cannot_bring_in_code(plugin: Plugin, agent: FakeAgent, tmp_path: Path) -> None:
    for name in ("ctypes", "sitecustomize", "usercustomize", "time"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('taken over')")
    (tmp_path / "libc.so.6").write_text("no library")
    hostile = {"PYTHONPATH": str(tmp_path), "PYTHONHOME": "/nonexistent", "LD_LIBRARY_PATH": str(tmp_path)}
    assert plugin.run("ADD", **hostile).status == 0


def test_the_locale_of_the_runtime_does_not_matter(plugin: Plugin, agent: FakeAgent, tmp_path: Path) -> None:
    """Its character set would be looked for among codecs that are not in the tree."""
    name = "de_DE.ISO-8859-15"
    command = ["localedef", "-i", "de_DE", "-f", "ISO-8859-15", str(tmp_path / name)]
    if shutil.which("localedef") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs localedef and its sources to make such a locale")
    assert plugin.run("ADD", LC_ALL=name, LOCPATH=str(tmp_path)).status == 0


def test_the_plugin_imports_the_standard_library_and_itself() -> None:
    own, others = tree.sources_of_the_plugin()
    assert {"cni.plugin", "cni.commands", "cni.interface", "cni.intents"} <= set(own)
    assert not {"cni.install", "cni.tree"} & set(own)
    assert {name.partition(".")[0] for name in others} <= sys.stdlib_module_names


def test_an_add_loads_no_module_that_is_slow(plugin: Plugin, agent: FakeAgent) -> None:
    watching = plugin.altered(
        "import os, sys; leave = os._exit\n"
        "os._exit = lambda status: (sys.stderr.write(' '.join(sys.modules)), sys.stderr.flush(), leave(status))"
    )
    loaded = set(watching.run("ADD").stderr.split())
    assert "cni.commands" in loaded
    assert not {name.partition(".")[0] for name in loaded} & SLOW
    assert not {"cni.interface", "cni.intents", "fcntl"} & loaded


def test_an_installation_for_a_container_names_the_hosts_path(tmp_path: Path) -> None:
    entry = install.install(tmp_path / "bin", host_bin_dir=Path("/opt/cni/bin"))
    (folder,) = trees(tmp_path / "bin")
    assert entry.read_text().splitlines()[0] == f"#!/opt/cni/bin/{folder.name}/python -ISXutf8"
    assert entry.stat().st_mode & 0o777 == 0o755
    assert tree.patchelf("--print-interpreter", folder / "python").startswith(f"/opt/cni/bin/{folder.name}/lib/ld-")


def test_everybody_may_run_it_whatever_the_umask(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cni.install", "--bin-dir", str(tmp_path)]
    subprocess.run(command, umask=0o077, check=True, capture_output=True)
    (folder,) = trees(tmp_path)
    paths = [tmp_path / "spiderpool", folder, *folder.rglob("*")]
    assert {oct(path.stat().st_mode & 0o777) for path in paths if not path.is_file()} == {"0o755"}
    assert {oct(path.stat().st_mode & 0o777) for path in paths if path.is_file()} == {"0o755", "0o644"}


def test_each_start_during_an_installation_works(installed: Plugin) -> None:
    before = installed.executable.read_text()
    command = [sys.executable, "-m", "cni.install", "--bin-dir", str(installed.home / "bin")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    statuses = []
    while process.poll() is None:
        statuses.append(installed.run("VERSION").status)
    assert process.returncode == 0
    assert installed.executable.read_text() != before
    assert set(statuses) == {0}


def test_a_plugin_that_waits_for_its_answer_outlives_two_upgrades(installed: Plugin) -> None:
    """It needs its old tree to the end: what only a lost agent needs is imported then."""
    with FakeAgent(installed.socket_path) as agent:
        agent.answer = None
        process = installed.start("DEL")
        assert agent.got_request.wait(10)
        old = tree_of(installed.executable)
        for _ in range(2):
            install.install(installed.home / "bin")
        assert tree_of(installed.executable) != old
        process.communicate(timeout=10)
        assert process.returncode == 0
    assert [intent["containerID"] for intent in installed.intents()] == ["4f0c"]


def test_the_text_of_the_entry_is_the_same_for_each_tree(installed: Plugin) -> None:
    """The kernel reads the first line, the interpreter that it names reads the rest, maybe an upgrade later."""
    _, *before = installed.executable.read_text().splitlines()
    install.install(installed.home / "bin")
    _, *after = installed.executable.read_text().splitlines()
    assert before == after == ["import cni.plugin", "cni.plugin.main()"]


def test_the_replaced_tree_goes_once_nothing_can_run_from_it(installed: Plugin) -> None:
    folder = installed.home / "bin"
    (first,) = trees(folder)
    long_ago = time.time() - 2 * install.KEEP_REPLACED_S
    os.utime(first, (long_ago, long_ago))  # installed last month, replaced now
    install.install(folder)
    (second,) = trees(folder) - {first}
    install.install(folder)
    assert {first, second} < trees(folder)
    os.utime(first, (long_ago, long_ago))
    install.install(folder)
    assert first not in trees(folder)
    assert second in trees(folder)


@pytest.fixture
def stopped_installer(installed: Plugin) -> Iterator[subprocess.Popen[bytes]]:
    """A second installation, stopped in the middle of its copies."""
    folder = installed.home / "bin"
    before = trees(folder)
    process = subprocess.Popen([sys.executable, "-m", "cni.install", "--bin-dir", folder], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 20
    while not any((path / "lib").exists() for path in trees(folder) - before):
        assert process.poll() is None
        assert time.monotonic() < deadline
    process.send_signal(signal.SIGSTOP)
    yield process
    process.kill()
    process.wait()


def test_an_installation_that_is_killed_leaves_the_old_plugin_working(
    installed: Plugin, stopped_installer: subprocess.Popen[bytes]
) -> None:
    entry = installed.executable.read_text()
    stopped_installer.kill()
    stopped_installer.wait()
    assert installed.executable.read_text() == entry
    with FakeAgent(installed.socket_path):
        assert installed.run("ADD").status == 0
    (torn,) = trees(installed.home / "bin") - {tree_of(installed.executable)}
    long_ago = time.time() - 2 * install.KEEP_REPLACED_S
    os.utime(torn, (long_ago, long_ago))
    install.install(installed.home / "bin")
    assert torn not in trees(installed.home / "bin")


@needs_root
@pytest.mark.root
def test_an_installation_that_finds_no_room_leaves_the_old_plugin_and_nothing_of_its_own(tmp_path: Path) -> None:
    script = f"""
        mount -t tmpfs -o size=2m tmpfs {tmp_path} || exit 77
        echo old > {tmp_path}/spiderpool
        {sys.executable} -m cni.install --bin-dir {tmp_path}; status=$?
        ls -A {tmp_path}; cat {tmp_path}/spiderpool; exit $status
    """
    done = subprocess.run(["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, check=False)
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("may not mount a tmpfs here")
    assert (done.returncode, done.stdout) == (1, "spiderpool\nold\n")
    assert "No space left on device" in done.stderr


def test_the_tree_is_on_disk_before_the_entry_names_it_and_then_the_entry_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: dict[Path, bool] = {}
    fsync = os.fsync

    def note(descriptor: int) -> None:
        flushed[Path(f"/proc/self/fd/{descriptor}").readlink()] = (tmp_path / "spiderpool").exists()
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    install.install(tmp_path)
    (folder,) = trees(tmp_path)
    before = dict.fromkeys([folder, folder / "spiderpool", *folder.rglob("*")], False)
    assert flushed == before | {tmp_path: True}


def test_a_tree_that_does_not_run_is_not_put_in_place(
    installed: Plugin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "sources" / "cni"
    shutil.copytree(Path(install.__file__).parent, source, ignore=shutil.ignore_patterns("__pycache__"))
    with (source / "plugin.py").open("a") as file:
        file.write("def run(call):\n    return __import__('colorsys')\n")  # an import that nobody can see coming
    entry = installed.executable.read_text()
    monkeypatch.setattr(tree, "ROOT", source.parent)
    with pytest.raises(ValueError, match="No module named 'colorsys'"):
        install.install(installed.home / "bin")
    assert installed.executable.read_text() == entry
    assert trees(installed.home / "bin") == {tree_of(installed.executable)}


@pytest.mark.parametrize("folder", ["cni/bin", "/opt/my plugins", "/" + "x" * 260])
def test_a_folder_that_a_script_cannot_name_is_refused(tmp_path: Path, folder: str) -> None:
    with pytest.raises(ValueError, match="first line"):
        install.install(tmp_path, host_bin_dir=Path(folder))
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_what_it_did_and_what_it_could_not(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cni.install", "--bin-dir"]
    done = subprocess.run([*command, tmp_path / "bin"], capture_output=True, text=True, check=True)
    assert done.stdout == f"installed {tmp_path}/bin/spiderpool\n"
    (tmp_path / "file").write_text("")
    done = subprocess.run([*command, tmp_path / "file"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "cannot install the plugin" in done.stderr


def test_the_originals_plugin_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "spiderpool").write_bytes(b"\x7fELF" + bytes(range(256)) * 100)
    install.install(tmp_path)
    done = subprocess.run([tmp_path / "spiderpool"], env=VERSION, capture_output=True, check=True)
    assert json.loads(done.stdout)["cniVersion"] == "1.1.0"


def test_what_stands_in_the_way_of_the_entry_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "spiderpool").mkdir()
    with pytest.raises(OSError, match="directory"):
        install.install(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["spiderpool"]


def test_an_add_through_the_installed_entry_is_the_agents_answer(installed: Plugin) -> None:
    answer: dict[str, Any] = ADDED | {"routes": None}
    with FakeAgent(installed.socket_path) as agent:
        agent.answer = http(200, answer)
        assert installed.run("ADD", PATH=None).json()["ips"][0]["address"] == "10.20.0.10/16"
