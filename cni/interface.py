"""Which addresses an interface in another network namespace has: rtnetlink(7), asked from inside it."""

from __future__ import annotations

import ctypes
import os
import struct
from _socket import AF_NETLINK, SOCK_RAW, if_nametoindex, socket

from cni.errors import FAILED, CniError

CLONE_NEWNET = 0x40000000
# linux/netlink.h, linux/rtnetlink.h, linux/if_addr.h
NETLINK_ROUTE, RTM_GETADDR, NLM_F_REQUEST, NLM_F_DUMP = 0, 22, 0x1, 0x300
NLMSG_ERROR, NLMSG_DONE, RTM_NEWADDR = 2, 3, 20
IFA_ADDRESS, IFA_LOCAL = 1, 2
HEADER, ADDRESS, ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct("=BBBBI"), struct.Struct("=HH")


def addresses(netns: str, if_name: str) -> set[bytes]:
    """Packed addresses of both families. CniError 999. This thread stays in the namespace."""
    enter(netns)
    try:
        index = if_nametoindex(if_name)
    except OSError as error:
        raise CniError(FAILED, f"there is no interface {if_name} in {netns}: {error.strerror}") from error
    try:
        return dump(index)
    except OSError as error:
        raise CniError(FAILED, f"cannot read the addresses of {if_name} in {netns}: {error}") from error


def enter(netns: str) -> None:
    try:
        descriptor = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise CniError(FAILED, f"the network namespace {netns} is gone", "the pod needs a new sandbox") from error
    except OSError as error:
        raise CniError(FAILED, f"cannot open the network namespace {netns}: {error.strerror}") from error
    try:
        # os.setns came with Python 3.12
        if ctypes.CDLL(None, use_errno=True).setns(descriptor, CLONE_NEWNET):
            why = os.strerror(ctypes.get_errno())
            raise CniError(FAILED, f"cannot enter the network namespace {netns}: {why}", "is it one, and are you root?")
    finally:
        os.close(descriptor)


def dump(index: int) -> set[bytes]:
    found: set[bytes] = set()
    request = ADDRESS.pack(0, 0, 0, 0, 0)  # all families; not every kernel filters by index
    head = HEADER.pack(HEADER.size + len(request), RTM_GETADDR, NLM_F_REQUEST | NLM_F_DUMP, 1, 0)
    link = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE)
    try:
        link.send(head + request)
        while True:
            received = link.recv(1 << 17)  # the kernel's largest piece of a dump is 32 KiB
            while received:
                length, kind, *_ = HEADER.unpack_from(received)
                if kind == NLMSG_DONE:
                    return found
                if kind == NLMSG_ERROR:
                    number = -struct.unpack_from("=i", received, HEADER.size)[0]
                    raise OSError(number, os.strerror(number))
                if kind == RTM_NEWADDR:
                    found |= address_of(received[HEADER.size : length], index)
                received = received[aligned(length) :]
    finally:
        link.close()


def address_of(message: bytes, index: int) -> set[bytes]:
    """The address in an RTM_NEWADDR, if it is that of interface `index`."""
    if ADDRESS.unpack_from(message)[4] != index:
        return set()
    attributes: dict[int, bytes] = {}
    rest = message[ADDRESS.size :]
    while len(rest) >= ATTRIBUTE.size:
        length, kind = ATTRIBUTE.unpack_from(rest)
        attributes[kind] = rest[ATTRIBUTE.size : length]
        rest = rest[aligned(length) :]
    # On a point-to-point link IFA_ADDRESS is the peer's; IPv6 has IFA_LOCAL only there.
    return {attributes.get(IFA_LOCAL, attributes[IFA_ADDRESS])}


def aligned(length: int) -> int:
    return (length + 3) & ~3
