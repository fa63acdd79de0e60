"""The accounts of one subnet in a turn, and laws over any sequence of turns, however early each is cut off."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allocator.domain import lending
from allocator.domain.addresses import IntervalSet, parse_network
from allocator.domain.desk import Desk
from allocator.domain.lending import Holding, Loan
from allocator.domain.overlap import Extent

if TYPE_CHECKING:
    from collections.abc import Iterator

NETWORK = parse_network("10.20.0.0/16")
FIRST = 0x0A140201  # 10.20.2.1
NOTHING = IntervalSet(4)
TOTAL = 12


def ips(*lasts: int) -> IntervalSet:
    return IntervalSet.of(4, [(FIRST - 1 + last, FIRST - 1 + last) for last in lasts])


def upto(last: int, first: int = 1) -> IntervalSet:
    return ips(*range(first, last + 1))


def extent(name: str, offered: IntervalSet, kind: str = "SpiderIPPool") -> Extent:
    return Extent(kind, name, f"u-{name}", NETWORK, offered)


def desk(accounts: dict[str, Loan], total: IntervalSet | None = None, **changes: Any) -> Desk:
    subnet = extent("dc1", upto(TOTAL) if total is None else total, "SpiderSubnet")
    made: dict[str, Any] = {
        "automatic": [],
        "handmade": [],
        "withheld": NOTHING,
        "others": NOTHING,
        "is_terminating": False,
    }
    return Desk(subnet, accounts, **made | changes)


def holding(pool: str, recorded: IntervalSet, **changes: Any) -> Holding:
    """That nobody uses, and offers what is recorded, unless said otherwise."""
    made: dict[str, Any] = {"offered": recorded, "in_use": NOTHING, "is_observed": True}
    return Holding(pool=pool, subnet="dc1", recorded=recorded, **made | changes)


# One turn


def test_what_is_lent_reserved_or_offered_is_not_free() -> None:
    opened = desk(
        {"auto": Loan(ips(1, 2), "app")},
        automatic=[extent("auto", ips(1, 2))],
        handmade=[extent("hand", ips(3, 20))],
        withheld=ips(4),
    )
    assert opened.free == upto(TOTAL, 5)
    assert opened.accounts == {"auto": Loan(ips(1, 2), "app"), "hand": Loan(ips(3))}


def test_what_others_have_of_the_network_is_not_free() -> None:
    assert desk({}, others=ips(1, 2)).free == upto(TOTAL, 3)


def test_an_address_that_is_reserved_after_it_was_lent_is_exchanged_and_stays_while_it_is_used() -> None:
    opened = desk({"auto": Loan(ips(1, 2), "app")}, automatic=[extent("auto", ips(1, 2))], withheld=ips(1))
    step = opened.resize(holding("auto", ips(1, 2), in_use=ips(1)), 2, "app")
    assert (step.offered, step.recorded) == (ips(2, 3), ips(1, 2, 3))


def test_a_pool_that_the_accounts_do_not_know_has_what_it_offers() -> None:
    opened = desk({}, automatic=[extent("auto", ips(1, 2, 20))])
    assert opened.accounts == {"auto": Loan(ips(1, 2))}


def test_what_two_automatic_pools_offer_is_the_accounts_of_the_one_that_they_name() -> None:
    opened = desk({"b": Loan(ips(1, 2), "app")}, automatic=[extent("a", ips(2, 3)), extent("b", ips(1, 2))])
    assert opened.accounts == {"a": Loan(ips(3)), "b": Loan(ips(1, 2), "app")}


def test_an_entry_without_pool_stands_until_somebody_has_made_sure() -> None:
    opened = desk({"gone": Loan(ips(1, 2), "app")})
    assert opened.strays == ["gone"]
    assert opened.free == upto(TOTAL, 3)
    opened.drop("gone")
    assert opened.strays == []
    assert opened.free == upto(TOTAL)
    assert opened.accounts == {}


def test_what_one_gives_back_and_another_still_offers_is_not_free() -> None:
    opened = desk({"b": Loan(ips(1, 2), "app")}, automatic=[extent("a", ips(1)), extent("b", ips(2))])
    opened.settle("b", ips(2))
    assert opened.free == upto(TOTAL, 3)


def test_a_subnet_that_is_being_deleted_lends_nothing_and_forgets_pools_made_by_hand() -> None:
    opened = desk(
        {"hand": Loan(ips(3)), "auto": Loan(ips(1), "app")},
        automatic=[extent("auto", ips(1))],
        handmade=[extent("hand", ips(3))],
        is_terminating=True,
    )
    assert opened.room == 0
    assert opened.accounts == {"auto": Loan(ips(1), "app")}
    assert opened.resize(holding("auto", ips(1)), 5, "app").offered == ips(1)


def test_what_a_pool_made_by_hand_has_is_taken_out_of_the_automatic_one() -> None:
    opened = desk(
        {"auto": Loan(ips(1, 2), "app")},
        automatic=[extent("auto", ips(1, 2))],
        handmade=[extent("hand", ips(2))],
    )
    assert opened.resize(holding("auto", ips(1, 2)), 2, "app").offered == ips(1, 3)


# Any number of turns


@dataclass
class World:
    """What the API server has, and what a leader writes there. Writes are numbered: a turn may be cut off after any."""

    total: IntervalSet = field(default_factory=lambda: upto(TOTAL))
    hand: IntervalSet = NOTHING
    accounts: dict[str, Loan] = field(default_factory=dict)
    offered: dict[str, IntervalSet] = field(default_factory=dict)
    used: dict[str, IntervalSet] = field(default_factory=dict)
    unseen: set[str] = field(default_factory=set)

    def turn(self, sizes: dict[str, int]) -> Iterator[None]:
        """Yields after each write. Of each application there is one pool, of its name."""
        for app in sizes:
            if app not in self.offered:
                self.offered[app], self.used[app] = NOTHING, NOTHING
                yield
        open_ = self._desk()
        offers, takings = {}, {}
        for app, size in sizes.items():
            is_observed = app not in self.unseen
            has = holding(
                app, open_.recorded(app), offered=self.offered[app], in_use=self.used[app], is_observed=is_observed
            )
            share = lending.shares(size, [has], {"dc1": open_.room}).by_pool[app]
            step = open_.resize(has, share, app)
            offers[app] = step.offered
            if step.settled is not None:
                takings[app] = step.settled
        for app, settled in takings.items():
            if self.used[app] <= settled:
                open_.settle(app, settled)
        self.accounts = dict(open_.accounts)
        yield
        for app, offer in offers.items():
            if offer != self.offered[app]:
                self.offered[app] = offer
                self.unseen.add(app)
                yield

    def _desk(self) -> Desk:
        return desk(
            self.accounts,
            self.total,
            automatic=[extent(name, offered) for name, offered in self.offered.items()],
            handmade=[extent("hand", self.hand)],
        )

    def check(self) -> None:
        """No address is in two pools: neither by the accounts nor by what pools offer, and pods use."""
        loans = {name: loan.ips for name, loan in self.accounts.items()}
        stand = {app: offered | self.used[app] for app, offered in self.offered.items()}
        for book in (loans, stand):
            union = IntervalSet.of(4, (span for each in book.values() for span in each.spans))
            assert sum(each.size for each in book.values()) == union.size, book
        for app, has in stand.items():
            assert has <= loans.get(app, NOTHING), f"{app} has what it was not lent"
            assert not has & self.hand


APPS = st.sampled_from(["a", "b", "c"])
STEPS = st.one_of(
    st.tuples(st.just("size"), APPS, st.integers(0, 7)),
    st.tuples(st.just("use"), APPS, st.integers(0, 7)),
    st.tuples(st.just("leave"), APPS, st.integers(0, 7)),
    st.tuples(st.just("total"), st.just(""), st.integers(3, TOTAL)),
    st.tuples(st.just("hand"), st.just(""), st.integers(1, TOTAL)),
    st.tuples(st.just("seen"), APPS, st.just(0)),
    st.tuples(st.just("turn"), st.just(""), st.integers(0, 8)),
)


def _nth(addresses: IntervalSet, nth: int) -> IntervalSet:
    return IntervalSet.addresses(4, [addresses.nth(nth % addresses.size)] if addresses else [])


def _after(steps: list[tuple[str, str, int]]) -> tuple[World, dict[str, int]]:
    world, sizes = World(), dict.fromkeys("abc", 0)
    for what, app, number in steps:
        offered, used = world.offered.get(app, NOTHING), world.used.get(app, NOTHING)
        match what:
            case "size":
                sizes[app] = number
            case "use":
                world.used[app] = used | _nth(offered - used, number)
            case "leave":
                world.used[app] = used - _nth(used, number)
            case "total":
                world.total = upto(number)
            case "hand":
                # The webhook keeps it from what is lent.
                world.hand = ips(number) - lending.lent(world.accounts, 4)
            case "seen":
                world.unseen.discard(app)
            case _:
                for _, _write in zip(range(number), world.turn(sizes), strict=False):
                    world.check()
        world.check()
    return world, sizes


@given(st.lists(STEPS, max_size=40))
def test_no_address_is_ever_in_two_pools_wherever_a_turn_is_cut_off(steps: list[tuple[str, str, int]]) -> None:
    _after(steps)


@given(st.lists(STEPS, max_size=40))
def test_undisturbed_turns_give_everybody_what_fits(steps: list[tuple[str, str, int]]) -> None:
    world, _ = _after(steps)
    world.total, world.hand = upto(TOTAL), NOTHING
    world.used = dict.fromkeys(world.used, NOTHING)
    wanted = {"a": 4, "b": 1, "c": 7}
    for _ in range(6):
        world.unseen.clear()
        for _write in world.turn(wanted):
            world.check()
    assert {app: offered.size for app, offered in world.offered.items()} == wanted
    assert {app: loan.ips for app, loan in world.accounts.items()} == world.offered


@pytest.mark.parametrize("cut", range(9))
def test_who_follows_a_leader_that_died_after_any_write_serves_all(cut: int) -> None:
    world, wanted = World(), {"a": 4, "b": 1, "c": 7}
    for _, _write in zip(range(cut), world.turn(wanted), strict=False):
        world.check()
    for _ in range(2):
        for _write in world.turn(wanted):
            world.check()
    assert {app: offered.size for app, offered in world.offered.items()} == wanted
