"""How the plugin is installed and started: whole or not at all, with the standard library, isolated, fast."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cni import install

if TYPE_CHECKING:
    from tests.unit.cni.harness import FakeAgent, Plugin

SLOW = {"asyncio", "dataclasses", "email", "http", "inspect", "ipaddress", "logging", "pathlib", "ssl", "typing"}


def test_the_file_starts_as_it_lies_in_the_sources(plugin: Plugin) -> None:
    first = install.SOURCE.read_text().splitlines()[0]
    assert first == "#!/usr/bin/env -S python3 -I -S"
    done = subprocess.run(
        [install.SOURCE], env=plugin.base_environment | {"CNI_COMMAND": "VERSION"}, capture_output=True, check=True
    )
    assert json.loads(done.stdout)["cniVersion"] == "1.1.0"


def test_it_imports_the_standard_library_only() -> None:
    tree = ast.parse(install.SOURCE.read_text())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in imported} <= sys.stdlib_module_names


def test_an_add_loads_no_module_that_is_slow(plugin: Plugin, agent: FakeAgent) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-X", "importtime", plugin.executable],
        input=json.dumps(plugin.config()).encode(),
        env=plugin.environment("ADD"),
        capture_output=True,
        check=True,
    )
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.decode().splitlines()}
    assert "json" in loaded
    assert not loaded & SLOW


def test_the_environment_cannot_bring_in_code(plugin: Plugin, agent: FakeAgent, tmp_path: Path) -> None:
    for name in ("json", "sitecustomize", "usercustomize"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('taken over')")
    assert plugin.run("ADD", PYTHONPATH=str(tmp_path), PYTHONSTARTUP=str(tmp_path / "json.py")).status == 0


def test_the_installed_file_names_the_hosts_python_and_both_flags(tmp_path: Path) -> None:
    target = install.install(tmp_path / "bin", python=Path("/usr/bin/python3.12"))
    assert target == tmp_path / "bin" / "spiderpool"
    assert target.read_text().splitlines()[0] == "#!/usr/bin/python3.12 -IS"
    assert target.read_text().splitlines()[1:] == install.SOURCE.read_text().splitlines()[1:]
    assert target.stat().st_mode & 0o777 == 0o755


def test_an_installation_replaces_the_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "spiderpool").write_text("the old one")
    with (tmp_path / "spiderpool").open() as running:
        install.install(tmp_path)
        assert running.read() == "the old one"  # a process that runs keeps its file
    assert [path.name for path in tmp_path.iterdir()] == ["spiderpool"]


@pytest.mark.parametrize("python", ["python3", "/opt/my python/bin/python3", "/" + "x" * 130])
def test_an_interpreter_that_a_script_cannot_name_is_refused(tmp_path: Path, python: str) -> None:
    with pytest.raises(ValueError, match="first line"):
        install.install(tmp_path, python=Path(python))
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_what_it_did_and_what_it_could_not(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cni.install", "--bin-dir"]
    done = subprocess.run([*command, tmp_path / "bin"], capture_output=True, text=True, check=True)
    assert done.stdout == f"installed {tmp_path}/bin/spiderpool\n"
    (tmp_path / "file").write_text("")
    done = subprocess.run([*command, tmp_path / "file"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "cannot install the plugin" in done.stderr
