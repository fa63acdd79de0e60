"""How a pod is told that no pool of those that serve it has a free address, and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from allocator.domain import errors
from allocator.domain.candidates import SHOWN, summary
from allocator.domain.overlapping import owners
from allocator.domain.subnet_annotations import IP_NUMBER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from allocator.domain.applications import Application
    from allocator.domain.basis import Basis
    from allocator.domain.overlapping import Overlap
    from allocator.domain.planning import Want


def exhausted(refusals: Sequence[errors.Exhausted], want: Want, basis: Basis) -> errors.Exhausted:
    """`refusals` are those of the pools that are wanted, in their order."""
    application = _application(want)
    if application is None:
        advice = "Add addresses to spec.ips, or list one more pool for the pod"
    else:
        advice = (
            f"The controller sizes what it makes for {application}: ask for more than replicas with the annotation "
            f'{IP_NUMBER.key}, as "+2", or run fewer'
        )
    return errors.Exhausted(
        f"no free IPv{want.version} address: {_told(refusals, want, basis)}. {advice}; "
        f"kubectl get sia --field-selector spec.pool={want.pools[0].name} shows who has them",
        application=application,
    )


def _application(want: Want) -> Application | None:
    """That all of the pools are made for; None where people can give one of them more."""
    purposes = [pool.purpose for pool in want.pools]
    return None if purposes[0] is None or None in purposes else purposes[0].application


def _told(refusals: Sequence[errors.Exhausted], want: Want, basis: Basis) -> str:
    """Why no pool gives an address: few are spelled out, so that the advice behind them still fits an event."""
    whys = [f"{each}{_ceded(basis.overlap(pool))}" for pool, each in zip(want.pools[:SHOWN], refusals, strict=False)]
    if len(refusals) > SHOWN:
        whys.append(f"{len(refusals) - SHOWN} more pools have no free address")
    return "; ".join([*whys, *([summary(want.refusals)] if want.refusals else [])])


def _ceded(overlap: Overlap | None) -> str:
    return f" ({owners(overlap)} {overlap.ceded.size} more)" if overlap is not None and overlap.ceded else ""
