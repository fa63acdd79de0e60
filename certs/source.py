"""Where the certificate to serve comes from: we issue it ourselves, or somebody gives it to us."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, Protocol

from certs import authority, store, tls

if TYPE_CHECKING:
    from collections.abc import Sequence

    from allocator.runtime.clock import Clock
    from certs.authority import Material

# Each loss of a race means that somebody else has written; two replicas settle in two tries.
TRIES: Final = 10
# A registration is put right every 5 s, and the API server hears of it within moments.
SPREAD_S: Final = 10.0
# Other replicas may find the new certificate a little later.
OVERLAP_S: Final = 60.0


class Source(Protocol):
    async def latest(self) -> Material:
        """What is to be served now. UnusableError when there is nothing that can be."""


class Own:
    """Issued by our own CA; made, renewed and kept here.

    What somebody kept there without the CA's key is served as it is.
    """

    def __init__(self, kept: store.Store, names: Sequence[str], clock: Clock) -> None:
        self._kept = kept
        self._names = names
        self._clock = clock

    async def latest(self) -> Material:
        for _ in range(TRIES):
            kept = await self._kept.load()
            material = authority.renewed(kept, self._names, self._clock.now())
            if material is kept or await self._kept.save(material):
                return material
        raise store.UnusableError(
            f"{self._kept.where}: the certificates change faster than they can be read: is a second authority at work? "
            "Use --certificates given when cert-manager or somebody else issues them"
        )


class Given:
    """Issued by cert-manager or a person. Nothing is ever written.

    Both change CA and certificate at once, but the API server hears of a new CA from us, a little later: the
    certificate waits until the CA is trusted, and the old CA is trusted for a while after that.
    """

    def __init__(self, kept: store.Store, clock: Clock) -> None:
        self._kept = kept
        self._clock = clock
        self._given: Material | None = None
        self._served: Material | None = None
        # Each CA, and when it was first and last there, or needed.
        self._seen: dict[str, tuple[float, float]] = {}

    async def latest(self) -> Material:
        given = await self._kept.load(store.GIVEN)
        if given is None:
            raise store.UnusableError(f"{self._kept.where} is not there yet: {store.GIVEN.remedy}")
        if given != self._given and (why := tls.refusal(given)) is not None:
            raise store.UnusableError(f"{self._kept.where}: {_WHO_TRUSTS} refuses {store.CERTIFICATE}: {why}")
        self._given = given
        now = self._clock.monotonic()
        listed = authority.separate(given.ca)
        first = now if self._served is not None else float("-inf")
        for ca in [*listed, *(authority.separate(self._served.ca) if self._served is not None else ())]:
            self._seen[ca] = (self._seen.get(ca, (first,))[0], now)
        self._seen = {ca: seen for ca, seen in self._seen.items() if now - seen[1] < OVERLAP_S}
        is_spread = all(now - self._seen[ca][0] >= SPREAD_S for ca in listed)
        if self._served is None or is_spread or tls.refusal(self._served) is not None:
            self._served = given
        return replace(self._served, ca="".join([*listed, *(ca for ca in self._seen if ca not in listed)]))


_WHO_TRUSTS: Final = f"who trusts {store.CA}"
