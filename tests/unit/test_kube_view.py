"""The rules of `note` and `note_deleted`, told with events that come late, twice or not at all."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allocator.kube.resources import Object
from allocator.kube.view import DOUBT_AFTER_S, LATE_ANSWER_S, Change, View


def obj(version: str, *, uid: str = "u1", name: str = "a", **more: Any) -> Object:
    return {"metadata": {"name": name, "uid": uid, "resourceVersion": version}, **more}


class Told:
    def __init__(self) -> None:
        self.changes: list[tuple[str, str | None, str | None]] = []

    def __call__(self, change: Change) -> None:
        self.changes.append((change.kind, version(change.old), version(change.new)))


def version(found: Object | None) -> str | None:
    return None if found is None else str(found["metadata"]["resourceVersion"])


def listed(view: View, *items: Object) -> None:
    view.replace_all(items, view.begin_list())


def shown(view: View, name: str = "a") -> str | None:
    return version(view.objects.get(("", name)))


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def view(told: Told) -> View:
    return View(told)


def test_events_are_told_with_old_and_new(view: View, told: Told) -> None:
    view.show("ADDED", obj("1"), 0)
    view.show("MODIFIED", obj("2"), 0)
    view.show("DELETED", obj("3"), 0)
    assert told.changes == [("added", None, "1"), ("modified", "1", "2"), ("deleted", "2", None)]
    assert shown(view) is None


def test_an_event_that_comes_twice_is_told_once(view: View, told: Told) -> None:
    view.show("ADDED", obj("1"), 0)
    view.show("ADDED", obj("1"), 0)
    assert told.changes == [("added", None, "1")]


def test_an_object_made_again_under_its_name_is_a_deletion_and_an_addition(view: View, told: Told) -> None:
    view.show("ADDED", obj("1"), 0)
    view.show("MODIFIED", obj("5", uid="u2"), 0)
    assert told.changes == [("added", None, "1"), ("deleted", "1", None), ("added", None, "5")]


def test_a_list_tells_only_what_changed(view: View, told: Told) -> None:
    listed(view, obj("1"), obj("2", name="b", uid="u2"))
    told.changes.clear()
    listed(view, obj("1"), obj("9", name="c", uid="u3"))
    assert told.changes == [("deleted", "2", None), ("added", None, "9")]


def test_a_note_is_shown_at_once_and_its_own_event_tells_nothing_new(view: View, told: Told) -> None:
    view.show("ADDED", obj("1"), 0)
    view.note(obj("2"), 0)
    assert shown(view) == "2"
    view.show("MODIFIED", obj("2"), 0)
    assert told.changes == [("added", None, "1"), ("modified", "1", "2")]


def test_events_older_than_the_note_are_ignored(view: View) -> None:
    view.show("ADDED", obj("1"), 0)
    view.note(obj("4"), 0)
    view.show("MODIFIED", obj("2"), 0)
    view.show("MODIFIED", obj("3"), 0)
    assert shown(view) == "4"


def test_after_its_own_event_the_watch_leads_again(view: View) -> None:
    view.note(obj("4"), 0)
    view.show("ADDED", obj("4"), 0)
    view.show("MODIFIED", obj("5"), 0)
    assert shown(view) == "5"


def test_a_note_that_comes_after_its_own_event_changes_nothing(view: View) -> None:
    view.show("ADDED", obj("1"), 0)
    view.show("MODIFIED", obj("2"), 0)
    view.note(obj("2"), 0)
    view.show("MODIFIED", obj("3"), 0)
    assert shown(view) == "3"


def test_a_note_that_others_have_overtaken_in_the_watch_changes_nothing(view: View) -> None:
    view.show("ADDED", obj("1"), 0)
    view.show("MODIFIED", obj("2"), 0)
    view.show("MODIFIED", obj("3"), 0)
    view.note(obj("2"), LATE_ANSWER_S)
    assert shown(view) == "3"
    view.show("MODIFIED", obj("4"), LATE_ANSWER_S)
    assert shown(view) == "4"


def test_what_was_shown_is_forgotten_in_time_whatever_has_ended_since(view: View) -> None:
    """Else the end of an object would keep all that was shown since its last change, and there is always an end."""
    view.show("ADDED", obj("1", name="a", uid="u1"), 0)
    view.show("ADDED", obj("2", name="b", uid="u2"), 1)
    view.show("MODIFIED", obj("3", name="b", uid="u2"), 2)
    view.show("DELETED", obj("4", name="a", uid="u1"), LATE_ANSWER_S)
    view.note(obj("2", name="b", uid="u2"), LATE_ANSWER_S + 3)
    assert shown(view, "b") == "2"


def test_a_note_of_an_object_whose_end_was_shown_does_not_revive_it(view: View) -> None:
    view.show("ADDED", obj("1"), 0)
    view.show("DELETED", obj("3"), 0)
    view.note(obj("2"), 1)
    assert shown(view) is None


def test_the_end_of_a_predecessor_does_not_drop_the_noted_object(view: View) -> None:
    view.show("ADDED", obj("1", uid="old"), 0)
    view.note(obj("5", uid="new"), 0)
    view.show("MODIFIED", obj("2", uid="old"), 0)
    view.show("DELETED", obj("3", uid="old"), 0)
    assert shown(view) == "5"
    view.show("ADDED", obj("5", uid="new"), 0)
    assert shown(view) == "5"


def test_the_end_of_the_noted_object_drops_it_whatever_came_before(view: View, told: Told) -> None:
    view.note(obj("5"), 0)
    view.show("DELETED", obj("7"), 0)
    assert shown(view) is None
    view.show("ADDED", obj("8", uid="u2"), 0)
    assert shown(view) == "8"


def test_leaving_the_selection_by_the_noted_write_drops_the_object(view: View) -> None:
    """The server tells a selector's watch DELETED with the version of the write that left the selection."""
    view.show("ADDED", obj("1"), 0)
    view.note(obj("2"), 0)
    view.show("DELETED", obj("2"), 0)
    assert shown(view) is None


def test_a_note_of_an_object_that_comes_back_into_the_selection_is_shown(told: Told) -> None:
    view = View(told, selects=True)
    view.show("ADDED", obj("1"), 0)
    view.show("DELETED", obj("2"), 0)
    view.note(obj("5"), 1)
    assert shown(view) == "5"
    view.show("ADDED", obj("5"), 1)
    view.note(obj("6"), 2)
    assert shown(view) == "6"


def test_a_note_from_before_the_object_left_the_selection_does_not_bring_it_back(told: Told) -> None:
    view = View(told, selects=True)
    listed(view, obj("1"))
    view.show("DELETED", obj("2"), 0)
    view.note(obj("1"), 1)
    view.note(obj("2"), 1)
    assert shown(view) is None


def test_the_deletion_of_an_object_that_has_come_back_is_shown_at_once(told: Told) -> None:
    view = View(told, selects=True)
    view.show("ADDED", obj("1"), 0)
    view.show("DELETED", obj("2"), 0)
    view.note(obj("5"), 1)
    view.note_deleted(("", "a"), "u1", 1)
    view.show("ADDED", obj("5"), 2)
    assert shown(view) is None


def test_what_a_late_watch_tells_of_an_object_that_came_back_and_was_deleted_does_not_revive_it(told: Told) -> None:
    view = View(told, selects=True)
    view.show("ADDED", obj("1"), 0)
    view.note(obj("5"), 1)
    view.note_deleted(("", "a"), "u1", 1)
    view.show("DELETED", obj("2"), 2)
    view.show("ADDED", obj("5"), 2)
    assert shown(view) is None


def test_a_list_begun_before_the_note_does_not_lose_it(view: View) -> None:
    view.show("ADDED", obj("1"), 0)
    turn = view.begin_list()
    view.note(obj("2"), 0)
    view.replace_all([obj("1")], turn)
    assert shown(view) == "2"
    view.show("MODIFIED", obj("2"), 0)
    view.show("MODIFIED", obj("3"), 0)
    assert shown(view) == "3"


def test_a_list_begun_before_the_note_of_a_new_object_does_not_lose_it(view: View) -> None:
    turn = view.begin_list()
    view.note(obj("2"), 0)
    view.replace_all([], turn)
    assert shown(view) == "2"


def test_a_list_begun_after_the_note_wins(view: View) -> None:
    view.note(obj("2"), 0)
    listed(view, obj("3"))
    assert shown(view) == "3"
    view.note(obj("5", name="b", uid="u2"), 0)
    listed(view, obj("3"))
    assert shown(view, "b") is None


def test_a_list_that_shows_the_noted_version_confirms_it(view: View) -> None:
    turn = view.begin_list()
    view.note(obj("2"), 0)
    view.replace_all([obj("2")], turn)
    view.show("MODIFIED", obj("3"), 0)
    assert shown(view) == "3"


def test_a_second_note_replaces_the_first(view: View) -> None:
    view.note(obj("2"), 0)
    view.note(obj("3"), 0)
    view.show("ADDED", obj("2"), 0)
    assert shown(view) == "3"
    view.show("MODIFIED", obj("3"), 0)
    view.show("MODIFIED", obj("4"), 0)
    assert shown(view) == "4"


def test_a_note_that_the_watch_never_shows_gives_way_in_the_end(view: View, told: Told) -> None:
    """Its write was overtaken before a list, and its answer came after it: the watch begins behind both."""
    turn = view.begin_list()
    view.replace_all([obj("3")], turn)
    view.note(obj("2"), 0)
    view.settle(DOUBT_AFTER_S)
    assert shown(view) == "2"
    view.settle(DOUBT_AFTER_S + 1)
    assert shown(view) == "3"
    assert told.changes[-1] == ("modified", "2", "3")


def test_what_gives_way_gives_way_to_what_the_watch_showed_last(view: View) -> None:
    listed(view, obj("3"))
    view.note(obj("2"), 0)
    view.show("MODIFIED", obj("4"), 1)
    view.show("MODIFIED", obj("5"), 2)
    view.settle(DOUBT_AFTER_S + 1)
    assert shown(view) == "5"
    view.show("MODIFIED", obj("6"), 3)
    assert shown(view) == "6"


def test_two_notes_that_the_watch_never_shows_give_way_to_what_it_showed(view: View) -> None:
    listed(view, obj("5"))
    view.note(obj("2"), 0)
    view.note(obj("3"), 0)
    view.settle(DOUBT_AFTER_S + 1)
    assert shown(view) == "5"


def test_what_gives_way_gives_way_to_nothing_when_the_successor_ended(view: View) -> None:
    listed(view)
    view.note(obj("2"), 0)
    view.show("ADDED", obj("4", uid="u2"), 1)
    view.show("DELETED", obj("5", uid="u2"), 2)
    view.settle(DOUBT_AFTER_S + 1)
    assert shown(view) is None


def test_replayed_events_after_an_outage_do_not_take_a_note_back(view: View) -> None:
    listed(view, obj("1"))
    view.note(obj("3"), 0)
    view.show("MODIFIED", obj("2"), 10 * DOUBT_AFTER_S)
    assert shown(view) == "3"
    view.show("MODIFIED", obj("3"), 10 * DOUBT_AFTER_S)
    view.settle(10 * DOUBT_AFTER_S)
    assert shown(view) == "3"


def test_a_noted_deletion_is_shown_at_once_and_later_events_of_that_uid_are_ignored(view: View, told: Told) -> None:
    view.show("ADDED", obj("1"), 0)
    view.note_deleted(("", "a"), "u1", 0)
    view.show("MODIFIED", obj("2"), 0)
    view.show("DELETED", obj("3"), 0)
    assert told.changes == [("added", None, "1"), ("deleted", "1", None)]


def test_a_noted_deletion_leaves_a_successor_alone(view: View) -> None:
    view.show("ADDED", obj("5", uid="new"), 0)
    view.note_deleted(("", "a"), "old", 0)
    assert shown(view) == "5"


def test_a_successor_is_shown_while_the_end_of_its_predecessor_is_awaited(view: View) -> None:
    view.show("ADDED", obj("1", uid="old"), 0)
    view.note_deleted(("", "a"), "old", 0)
    view.note(obj("5", uid="new"), 0)
    view.show("MODIFIED", obj("2", uid="old"), 0)
    view.show("DELETED", obj("3", uid="old"), 0)
    view.show("ADDED", obj("5", uid="new"), 0)
    assert shown(view) == "5"


def test_a_list_begun_before_a_noted_deletion_does_not_revive_the_object(view: View) -> None:
    turn = view.begin_list()
    view.note_deleted(("", "a"), "u1", 0)
    view.replace_all([obj("1")], turn)
    assert shown(view) is None
    view.show("DELETED", obj("3"), 0)
    assert shown(view) is None


def test_a_list_begun_after_a_noted_deletion_is_believed(view: View) -> None:
    view.show("ADDED", obj("1"), 0)
    view.note_deleted(("", "a"), "u1", 0)
    listed(view, obj("2"))
    assert shown(view) == "2"


def test_a_note_of_a_deleted_object_is_late_and_ignored(view: View) -> None:
    view.note_deleted(("", "a"), "u1", 0)
    view.note(obj("2"), 0)
    assert shown(view) is None


def test_names_in_different_namespaces_are_different_objects(view: View) -> None:
    one, two = obj("1"), obj("2", uid="u2")
    one["metadata"]["namespace"] = "x"
    two["metadata"]["namespace"] = "y"
    view.show("ADDED", one, 0)
    view.show("ADDED", two, 0)
    assert set(view.objects) == {("x", "a"), ("y", "a")}


def test_a_bug_in_on_change_comes_out() -> None:
    def broken(_change: Change) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        View(broken).show("ADDED", obj("1"), 0)


@given(st.data())
def test_whatever_the_order_of_answers_and_events_the_view_ends_with_the_last_write(data: st.DataObject) -> None:
    """One name is created, changed and deleted a few times, by us and by others, and may leave the selection and come
    back. The watch delivers in order, at any moment after the write; the answers to our own writes come at any moment
    after the write, in any order.
    """
    selects = data.draw(st.booleans())
    writes: list[tuple[str, Object, bool]] = []
    alive: str | None = None
    away = False
    for number in range(1, data.draw(st.integers(1, 8)) + 1):
        ours = data.draw(st.booleans())
        if alive is None:
            alive = f"u{number}"
            writes.append(("ADDED", obj(str(number), uid=alive), ours))
        elif away or (selects and data.draw(st.booleans())):
            away = not away
            writes.append(("LEFT" if away else "ADDED", obj(str(number), uid=alive), ours))
        elif data.draw(st.booleans()):
            writes.append(("MODIFIED", obj(str(number), uid=alive), ours))
        else:
            writes.append(("DELETED", obj(str(number), uid=alive), ours))
            alive = None
    view = View(lambda _change: None, selects=selects)
    unseen = list(writes)
    unanswered = [write for write in writes if write[2]]
    while unseen or unanswered:
        if unseen and (not unanswered or data.draw(st.booleans())):
            kind, event, _ = unseen.pop(0)
            view.show("DELETED" if kind == "LEFT" else kind, event, 0)
            continue
        kind, answer, _ = unanswered.pop(data.draw(st.integers(0, len(unanswered) - 1)))
        if kind == "DELETED":
            view.note_deleted(("", "a"), answer["metadata"]["uid"], 0)
        else:
            view.note(answer, 0)
    view.settle(DOUBT_AFTER_S + 1)
    kind, last, _ = writes[-1]
    assert shown(view) == (None if kind in ("DELETED", "LEFT") else version(last))
