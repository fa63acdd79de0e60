"""The plane as a process: starts, says what it is, stops and leaves nothing."""

import asyncio
import os
import signal
import socket
import sys
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from allocator.kube import resources
from allocator.kube.client import KubeClient
from allocator.kube.errors import Unreachable
from devcluster.plane import Plane, start_plane

_ROOT = Path(__file__).resolve().parents[2]


def _read(path: Path) -> str:
    return path.read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_stopped_plane_leaves_no_port_and_no_file_elsewhere(tmp_path: Path, number: signal.Signals) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "devcluster.plane", "--kind", "embedded", "--dir", str(tmp_path / "plane"),
        cwd=_ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path / "elsewhere")},
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    kubeconfig = Path((await process.stdout.readline()).decode().strip())
    server = urlsplit(yaml.safe_load(_read(kubeconfig))["clusters"][0]["cluster"]["server"])
    process.send_signal(number)
    async with asyncio.timeout(10):
        assert await process.wait() == 0
    notice = (await process.stderr.read()).decode()
    assert len(notice.splitlines()) == 1
    assert "development stand-in" in notice
    assert [*os.walk(tmp_path)] == [(str(tmp_path), ["plane"], []), (str(tmp_path / "plane"), [], [])]
    with pytest.raises(ConnectionRefusedError), socket.socket() as probe:
        probe.connect((str(server.hostname), server.port or 0))


async def test_an_open_watch_does_not_hold_up_the_end(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        plane = await stack.enter_async_context(start_plane("embedded", tmp_path))
        async with KubeClient.connect(kubeconfig=plane.kubeconfig, user_agent="tests") as client:
            watch = client.watch(resources.NAMESPACES, resource_version="")
            assert (await anext(watch))[0] == "ADDED"
            ending = asyncio.get_running_loop().time()
            await stack.aclose()
            assert asyncio.get_running_loop().time() - ending < 5
            with suppress(Unreachable):
                async for _ in watch:
                    pass  # what was already on its way


async def test_missing_binaries_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=f"etcd and kube-apiserver not found in {tmp_path}"):
        async with start_plane("envtest", tmp_path / "plane"):
            pass


@pytest.mark.parametrize("failing", ["etcd", "kube-apiserver"])
async def test_a_binary_that_fails_is_told_with_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    for name in ("etcd", "kube-apiserver"):
        last = "echo cannot do this >&2; exit 3" if name == failing else "exec sleep 60"
        (tmp_path / name).write_text(f"#!/bin/sh\n{last}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    directory = tmp_path / "plane"
    with pytest.raises(RuntimeError, match=rf"{failing} ended with 3.*\n.*cannot do this"):
        async with start_plane("envtest", directory):
            pass
    assert list(directory.iterdir()) == []


async def test_a_given_cluster_needs_its_kubeconfig(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--kubeconfig"):
        async with start_plane("kubeconfig", tmp_path):
            pass
    async with start_plane("kubeconfig", tmp_path, kubeconfig=tmp_path / "config") as plane:
        assert plane == Plane("kubeconfig", tmp_path / "config", real=True, controllers=True, scheduler=True)
