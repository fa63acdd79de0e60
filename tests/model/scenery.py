"""Where the machine plays: names, pools and what people do to them, and the pods as their runtimes know them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from allocator.domain.addresses import IntervalSet, Version
from tests.unit import values

if TYPE_CHECKING:
    from collections.abc import Sequence

    from allocator.domain.addresses import Address
    from allocator.domain.pool import Pool
    from allocator.domain.request import AddRequest, Pod

NODES: Final = ("n1", "n2")
NAMES: Final = ("cart", "till", "web-0", "web-1")
Wish = Mapping[str, Mapping[Version, tuple[str, ...]]]
WISHES: Final[Sequence[Wish]] = (
    {"eth0": {4: ("alpha",)}},
    {"eth0": {4: ("beta", "alpha")}},
    {"eth0": {4: ("alpha",), 6: ("sigma",)}},
    {"eth0": {4: ("alpha",)}, "net1": {4: ("alpha",)}},
    {"eth0": {4: ("alpha",), 6: ("sigma",)}, "net1": {4: ("beta",)}},
)
# What `spec.ips` may become: a part of it, more of it, what the other pool has as well, nothing.
ALPHA: Final = ("10.20.0.1-10.20.0.3", "10.20.0.1", "10.20.0.3-10.20.0.4", "10.20.0.1-10.20.0.8", "")
ITEMS: Final = {
    "alpha": ALPHA,
    "beta": ("10.20.0.8", "10.20.0.8-10.20.0.9", "10.20.0.2-10.20.0.3"),
    "sigma": ("fd00::1", "fd00::1-fd00::2"),
}

DISTURBANCES: Final = ("lost", "late", "cut off", "cut off, and lands", "crash", "crash, and lands")
EDITS: Final = (
    "ips",
    "ips",
    "exclude",
    "exclude",
    "disable",
    "enable",
    "node",
    "delete",
    "reserve",
    "reserve",
    "scale",
)


def annotations_of(wish: Wish) -> dict[str, str]:
    items = [
        {"interface": name, **{f"ipv{version}": list(pools) for version, pools in families.items()}}
        for name, families in wish.items()
    ]
    return {"ipam.spidernet.io/ippools": json.dumps(items)}


def edited(pool: Pool, how: str, pick: int, taken: Sequence[Address]) -> Pool:
    match how:
        case "ips":
            items = ITEMS[pool.name][pick % len(ITEMS[pool.name])]
            return replace(pool, ips=IntervalSet.parse(pool.version, items.split()))
        case "exclude":
            some = [taken[pick % len(taken)]] if taken and pick % 3 else []
            return replace(pool, excludes=IntervalSet.addresses(pool.version, some))
        case "node":
            return replace(pool, node_names=(NODES[pick % 2],) if pick % 3 else ())
        case _:
            return replace(pool, disabled=how == "disable")


@dataclass(eq=False)
class Sandbox:
    """A pod as the runtime of its node knows it, also after its end; `number` counts its sandboxes."""

    pod: Pod
    wish: Wish
    number: int = 1

    def request(self, interface: str) -> AddRequest:
        return values.request(self.pod, container=f"{self.pod.uid}-{self.number}", interface=interface)
