def take_away(name: str) -> None:
    assert not name
