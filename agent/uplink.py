"""What a pod's interface stands on: the master of a macvlan or ipvlan, the physical function of an SR-IOV VF.

A network namespace belongs to a thread. Each question gets a thread of its own, which ends with the answer: the event
loop's never leaves the agent's namespace.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import os
import socket
import struct
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Final

from allocator.domain.candidates import Master

if TYPE_CHECKING:
    from collections.abc import Iterator

SYSFS: Final = Path("/sys")
OWN_NAMESPACE: Final = Path("/proc/thread-self/ns/net")
STANDS_ON_ANOTHER: Final = frozenset({"macvlan", "macvtap", "ipvlan", "ipvtap"})

CLONE_NEWNET: Final = 0x40000000
# linux/sockios.h and linux/ethtool.h: struct ethtool_drvinfo is a command, five texts, padding and five counts.
SIOCETHTOOL: Final = 0x8946
ETHTOOL_GDRVINFO: Final = 0x00000003
DRVINFO: Final = struct.Struct("I32s32s32s32s32s12x5I")

_libc = ctypes.CDLL(None, use_errno=True)


class Unknown(Exception):
    """Why the master cannot be told, as a sentence."""


async def master_of(netns: str, interface: str, *, sysfs: Path = SYSFS) -> Master:
    """The addresses of the interface that `interface` in the namespace at the path `netns` stands on.

    Nothing is raised: what is not known is said by Master.problem.
    """
    thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="uplink")
    try:
        return await asyncio.get_running_loop().run_in_executor(thread, _master_of, netns, interface, sysfs)
    except Unknown as unknown:
        problem = str(unknown)
    except OSError as error:
        problem = error.strerror or str(error)
    finally:
        thread.shutdown(wait=False)
    return Master((), f"match_master_subnet cannot find what {interface} in {netns} stands on: {problem}")


def _master_of(netns: str, interface: str, sysfs: Path) -> Master:
    from pyroute2.netlink.exceptions import NetlinkError  # noqa: PLC0415 - 10 MiB, for match_master_subnet only

    try:
        return _master_by_netlink(netns, interface, sysfs)
    except NetlinkError as error:
        raise OSError(error.code, os.strerror(error.code)) from error


def _master_by_netlink(netns: str, interface: str, sysfs: Path) -> Master:
    import pyroute2  # noqa: PLC0415

    with _namespace(OWN_NAMESPACE) as own:
        # Not blocking, so that a path which is no namespace (a FIFO, say) does not hold the thread for ever.
        with _namespace(Path(netns)) as pod:
            _enter(pod)
            index, bus = _link_below(interface, own)
        _enter(own)
    with pyroute2.IPRoute() as route:
        if bus:
            physical = physical_function(bus, sysfs)
            found = route.link_lookup(ifname=physical)
            if not found:
                raise Unknown(f"its physical function {physical} is not in the agent's network namespace")
            index = found[0]
        return Master(tuple(ip_address(each.get("address")) for each in route.get_addr(index=index)))


def _link_below(interface: str, own: int) -> tuple[int, str]:
    """The master's index in the agent's namespace; or 0, and the place on its bus of an interface that is a device."""
    import pyroute2  # noqa: PLC0415

    with pyroute2.IPRoute() as route:
        (link,) = route.link("get", ifname=interface)
        kind = link.get(("linkinfo", "kind"))
        if kind in STANDS_ON_ANOTHER:
            # An index means nothing without its namespace; the kernel numbers those that it knows from here.
            if link.get("link_netnsid") != route.get_netnsid(fd=own)["nsid"]:
                raise Unknown("its master is not in the agent's network namespace; the agent needs the host's")
            return int(link.get("link")), ""
    if kind is not None:
        raise Unknown(f"it is of kind {kind}; only macvlan, ipvlan and SR-IOV interfaces have a master")
    return 0, _place_on_bus(interface)


def _place_on_bus(interface: str) -> str:
    """What ethtool -i calls bus-info: of a PCI device its address, such as 0000:03:02.1."""
    info = ctypes.create_string_buffer(DRVINFO.pack(ETHTOOL_GDRVINFO, b"", b"", b"", b"", b"", 0, 0, 0, 0, 0))
    request = struct.pack("16sP16x", interface.encode(), ctypes.addressof(info))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control, suppress(OSError):
        fcntl.ioctl(control, SIOCETHTOOL, request)
    place: bytes = DRVINFO.unpack(info.raw[: DRVINFO.size])[4].rstrip(b"\0")
    if place:
        return place.decode(errors="replace")
    raise Unknown("its driver names no device; only macvlan, ipvlan and SR-IOV interfaces have a master")


def physical_function(bus: str, sysfs: Path) -> str:
    """The interface of the physical function that the virtual function at this PCI address belongs to."""
    folder = sysfs / "bus/pci/devices" / bus / "physfn/net"
    if not folder.is_dir():
        raise Unknown(f"{bus} is no virtual function, or the agent does not see the host's sysfs: no {folder}")
    name = min((path.name for path in folder.iterdir()), default="")
    if not name:
        raise Unknown(f"the physical function of {bus} has no interface in the agent's network namespace")
    return name


@contextmanager
def _namespace(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"cannot enter the network namespace: {os.strerror(number)}")
