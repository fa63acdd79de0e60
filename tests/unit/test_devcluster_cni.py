from __future__ import annotations

import asyncio
import json
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from devcluster.nodes import cni
from devcluster.waiting import until_true

ATTACHMENT = cni.Attachment(
    container_id="4f0c",
    netns=Path("/proc/self/ns/net"),
    interface="eth0",
    args={"IgnoreUnknown": "1", "K8S_POD_NAME": "cart"},
)


def plugin(folder: Path, name: str, body: str) -> None:
    """An executable that has the configuration as `config` and the CNI variables in os.environ."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    head = f"#!{sys.executable} -IS\nimport json, os, sys, time\nconfig = json.load(sys.stdin)\n"
    path.write_text(head + textwrap.dedent(body))
    path.chmod(0o755)


def runtime(folder: Path, *types: str) -> cni.Runtime:
    network = cni.NetworkList("underlay", "1.0.0", tuple({"type": name} for name in types))
    return cni.Runtime(network, (folder,), None)


def calls(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "calls").read_text().splitlines()]


RECORD = """
    line = {"config": config, "env": {k: v for k, v in os.environ.items() if k.startswith("CNI_")}}
    with open(os.path.dirname(sys.argv[0]) + "/calls", "a") as log:
        log.write(json.dumps(line) + "\\n")
    result = config.get("prevResult") or {"cniVersion": "1.0.0", "ips": []}
    if os.environ["CNI_COMMAND"] == "ADD":
        print(json.dumps({**result, "seenBy": result.get("seenBy", []) + [config["type"]]}))
"""


async def test_a_plugin_gets_its_parameters_in_the_environment_and_its_configuration_on_stdin(
    tmp_path: Path,
) -> None:
    plugin(tmp_path, "one", RECORD)
    await runtime(tmp_path, "one").add(ATTACHMENT)

    (call,) = calls(tmp_path)
    assert call["config"] == {"cniVersion": "1.0.0", "name": "underlay", "type": "one"}
    assert call["env"] == {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "4f0c",
        "CNI_NETNS": "/proc/self/ns/net",
        "CNI_IFNAME": "eth0",
        "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAME=cart",
        "CNI_PATH": str(tmp_path),
    }


async def test_add_hands_each_result_to_the_next_plugin(tmp_path: Path) -> None:
    plugin(tmp_path, "one", RECORD)
    plugin(tmp_path, "two", RECORD)

    result = await runtime(tmp_path, "one", "two").add(ATTACHMENT)

    assert result["seenBy"] == ["one", "two"]
    assert calls(tmp_path)[1]["config"]["prevResult"]["seenBy"] == ["one"]


async def test_delete_goes_backwards_with_the_final_result(tmp_path: Path) -> None:
    plugin(tmp_path, "one", RECORD)
    plugin(tmp_path, "two", RECORD)

    await runtime(tmp_path, "one", "two").delete(ATTACHMENT, {"ips": [], "final": True})

    assert [call["config"]["type"] for call in calls(tmp_path)] == ["two", "one"]
    assert all(call["config"]["prevResult"]["final"] for call in calls(tmp_path))


async def test_an_error_of_a_plugin_carries_its_code_and_words(tmp_path: Path) -> None:
    plugin(
        tmp_path,
        "one",
        'print(json.dumps({"code": 999, "msg": "no address", "details": "pool v4 is full"})); sys.exit(1)',
    )

    with pytest.raises(cni.CniError, match=r"one: no address: pool v4 is full \(CNI code 999\)") as caught:
        await runtime(tmp_path, "one").add(ATTACHMENT)
    assert caught.value.code == 999


async def test_a_plugin_that_dies_without_error_json_is_reported_with_its_last_line(tmp_path: Path) -> None:
    plugin(tmp_path, "one", 'sys.exit("out of luck")')

    with pytest.raises(cni.CniError, match="one: exit status 1: out of luck"):
        await runtime(tmp_path, "one").add(ATTACHMENT)


async def test_a_missing_plugin_is_named_with_the_folders_that_were_searched(tmp_path: Path) -> None:
    with pytest.raises(cni.CniError, match=f"macvlan: there is no such CNI plugin in {tmp_path}"):
        await runtime(tmp_path, "macvlan").add(ATTACHMENT)


async def test_a_cancelled_call_kills_the_plugin_and_what_it_called(tmp_path: Path) -> None:
    plugin(
        tmp_path,
        "slow",
        """
        child = os.spawnv(os.P_NOWAIT, "/bin/sleep", ["sleep", "60"])
        with open(os.path.dirname(sys.argv[0]) + "/pids.new", "w") as file:
            file.write(f"{os.getpid()} {child}")
        os.rename(file.name, file.name[:-4])
        time.sleep(60)
        """,
    )
    pid_file = tmp_path / "pids"
    async with asyncio.TaskGroup() as group:
        adding = group.create_task(runtime(tmp_path, "slow").add(ATTACHMENT), name="add")
        await until_true(pid_file.exists, within_s=20, what="the plugin to run")
        adding.cancel()

    pids = [int(pid) for pid in pid_file.read_text().split()]
    await until_true(lambda: not any(map(is_running, pids)), within_s=5, what="both to be killed")


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
