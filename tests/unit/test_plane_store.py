"""The store of the embedded plane: versions, compare-and-swap, history."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devcluster.plane.problems import Object
from devcluster.plane.store import Event, Key, KeyExists, KeyMissing, Stale, Store, TooOld

A, B = Key("g/things", "ns", "a"), Key("g/things", "ns", "b")
OTHER = Key("g/others", "", "a")


def thing(**fields: object) -> Object:
    return {"metadata": {"name": "x"}, **fields}


def version(obj: Object | None) -> str:
    assert obj is not None
    return str(obj["metadata"]["resourceVersion"])


def test_every_write_has_the_next_version_over_all_collections() -> None:
    store = Store()
    versions = [version(store.create(key, thing())) for key in (A, OTHER, B)]
    assert versions == ["2", "3", "4"]
    assert store.revision == 4


def test_a_name_is_given_once() -> None:
    store = Store()
    store.create(A, thing())
    with pytest.raises(KeyExists):
        store.create(A, thing())


def test_a_write_from_an_old_state_is_refused() -> None:
    store = Store()
    first = version(store.create(A, thing()))
    store.replace(A, thing(v=2), seen=first)
    with pytest.raises(Stale):
        store.replace(A, thing(v=3), seen=first)
    with pytest.raises(Stale):
        store.delete(A, seen=first)
    assert store.get(A) == {"metadata": {"name": "x", "resourceVersion": "3"}, "v": 2}


def test_what_is_not_there_cannot_be_written() -> None:
    with pytest.raises(KeyMissing):
        Store().delete(A, seen="1")


def test_a_deletion_carries_its_own_version_and_the_last_state() -> None:
    store = Store()
    events: list[Event] = []
    store.subscribe(events.append)
    made = store.create(A, thing(v=1))
    gone = store.delete(A, seen=version(made))
    assert (version(made), version(gone), gone["v"]) == ("2", "3", 1)
    assert [(event.revision, event.kind) for event in events] == [(2, "ADDED"), (3, "DELETED")]


def test_a_listener_can_leave() -> None:
    store = Store()
    events: list[Event] = []
    store.subscribe(events.append)()
    store.create(A, thing())
    assert events == []


def test_the_past_can_be_listed_until_it_is_forgotten() -> None:
    store = Store()
    first = store.create(A, thing(v=1))
    then = store.revision
    store.replace(A, thing(v=2), seen=version(first))
    store.create(B, thing())
    assert [(key.name, obj["v"]) for key, obj in store.items("g/things", at=then)] == [("a", 1)]
    store.compact()
    with pytest.raises(TooOld) as refused:
        store.items("g/things", at=then)
    assert refused.value.oldest == store.revision


def test_the_history_is_bounded() -> None:
    store = Store(history=2)
    for at in range(4):
        store.create(Key("g/things", "", f"{at}"), thing())
    assert [event.key.name for event in store.since("g/things", 3)] == ["2", "3"]
    with pytest.raises(TooOld):
        store.since("g/things", 2)


def test_namespaces_are_listed_apart() -> None:
    store = Store()
    for namespace in ("one", "two"):
        store.create(Key("g/things", namespace, "a"), thing(of=namespace))
    assert [obj["of"] for _, obj in store.items("g/things", namespace="two")] == ["two"]


_OPERATIONS = st.lists(st.tuples(st.sampled_from("cud"), st.sampled_from("abc")), max_size=30)


@given(_OPERATIONS)
def test_any_past_moment_is_what_it_was(operations: list[tuple[str, str]]) -> None:
    store = Store()
    snapshots = {store.revision: store.items("g/things")}
    for what, name in operations:
        key = Key("g/things", "", name)
        current = store.get(key)
        if what == "c" and current is None:
            store.create(key, thing(at=store.revision))
        elif what == "u" and current is not None:
            store.replace(key, thing(at=store.revision), seen=version(current))
        elif what == "d" and current is not None:
            store.delete(key, seen=version(current))
        snapshots[store.revision] = store.items("g/things")
    for revision, then in snapshots.items():
        assert store.items("g/things", at=revision) == then


@given(_OPERATIONS)
def test_replaying_the_events_gives_the_present(operations: list[tuple[str, str]]) -> None:
    store = Store()
    for what, name in operations:
        key = Key("g/things", "", name)
        current = store.get(key)
        if current is None:
            store.create(key, thing())
        elif what == "u":
            store.replace(key, thing(), seen=version(current))
        elif what == "d":
            store.delete(key, seen=version(current))
    replayed: dict[Key, Object] = {}
    for event in store.since("g/things", 1):
        if event.kind == "DELETED":
            del replayed[event.key]
        else:
            replayed[event.key] = event.new
    assert sorted(replayed.items(), key=lambda pair: pair[0]) == store.items("g/things")
