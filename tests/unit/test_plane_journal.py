"""The journal of the embedded plane: what was answered is there after a SIGKILL, and nothing else."""

from pathlib import Path

from devcluster.plane.journal import Journal
from devcluster.plane.problems import Object
from devcluster.plane.store import Event, Key, Store

A, B = Key("g/things", "ns", "a"), Key("g/things", "ns", "b")


def thing(name: str, **fields: object) -> Object:
    return {"metadata": {"name": name}, **fields}


def revision_of(obj: Object) -> str:
    return str(obj["metadata"]["resourceVersion"])


def followed(folder: Path, lines_limit: int = 1000) -> Store:
    """A store on what the folder has; a second one there is what a process finds after the first was killed."""
    store, journal = Store(), Journal(folder, lines_limit=lines_limit)
    journal.restore(store)
    journal.follow(store)
    return store


def state(store: Store) -> tuple[int, dict[Key, Object]]:
    return store.revision, dict(store.everything())


def written(folder: Path, lines_limit: int = 1000) -> Store:
    """Two made, one changed, one deleted last."""
    store = followed(folder, lines_limit)
    first = store.create(A, thing("a", v=1))
    second = store.create(B, thing("b"))
    store.replace(A, thing("a", v=2), seen=revision_of(first))
    store.delete(B, seen=revision_of(second))
    return store


def test_what_was_written_stands_after_a_restart(tmp_path: Path) -> None:
    before = state(written(tmp_path))
    assert before == (5, {A: {"metadata": {"name": "a", "resourceVersion": "4"}, "v": 2}})
    assert state(followed(tmp_path)) == before
    assert state(followed(tmp_path)) == before


def test_versions_go_on_after_a_restart_whose_last_write_was_a_deletion(tmp_path: Path) -> None:
    written(tmp_path)
    assert revision_of(followed(tmp_path).create(B, thing("b"))) == "6"


def test_a_write_that_was_cut_off_counts_as_not_made_and_hides_none_that_follows(tmp_path: Path) -> None:
    before = state(written(tmp_path))
    with (tmp_path / "journal").open("ab") as journal:
        journal.write(b'[6,"g/things","ns","torn",{"meta')
    store = followed(tmp_path)
    assert state(store) == before
    store.create(B, thing("b"))
    assert state(followed(tmp_path)) == state(store)


def test_the_file_is_begun_anew_with_what_stands_before_it_grows_long(tmp_path: Path) -> None:
    store = followed(tmp_path, lines_limit=10)
    last = store.create(A, thing("a"))
    for number in range(100):
        last = store.replace(A, thing("a", v=number), seen=revision_of(last))
        assert len((tmp_path / "journal").read_bytes().splitlines()) <= 11
    assert state(followed(tmp_path)) == state(store)


def test_a_draft_of_a_process_that_was_killed_while_it_began_anew_is_nobodys(tmp_path: Path) -> None:
    before = state(written(tmp_path))
    (tmp_path / "journal.new").write_bytes(b'[9,"g/things"')
    assert state(followed(tmp_path)) == before


def test_listeners_hear_of_what_is_restored(tmp_path: Path) -> None:
    written(tmp_path)
    store, heard = Store(), list[Event]()
    store.subscribe(heard.append)
    Journal(tmp_path).restore(store)
    assert [(event.kind, event.key) for event in heard] == [("ADDED", A)]
