from serving.peers.occasions import NONE, Occasion, Occasions

LOAN, OTHER = Occasion("credit", "loan-1", "c1"), Occasion("credit", "loan-2", "c2")


def test_users_of_one_occasion_share_a_packet_in_their_order() -> None:
    occasions = Occasions(asked_for=True)
    occasions.begin(["a", "c"], LOAN)
    occasions.begin(["b"], OTHER)
    assert occasions.by_packet(["a", "b", "c", "d"]) == {LOAN: [0, 2], OTHER: [1], NONE: [3]}


def test_a_packet_about_several_cases_names_none() -> None:
    occasions = Occasions(asked_for=True)
    occasions.begin(["a"], LOAN)
    occasions.begin(["b"], again := Occasion("credit", "loan-1", "c3"))
    assert occasions.by_packet(["a", "b"]) == {Occasion("credit", "loan-1"): [0, 1]}
    assert occasions.by_packet(["b"]) == {again: [0]}


def test_the_first_of_several_counts_for_as_long_as_it_is_kept() -> None:
    occasions = Occasions(asked_for=True)
    occasions.begin(["a"], first := Occasion("s", "1"))
    occasions.begin(["a"], second := Occasion("s", "2"))
    assert list(occasions.by_packet(["a"])) == [first]
    del first
    assert list(occasions.by_packet(["a"])) == [NONE]
    occasions.begin(["a"], second)
    assert list(occasions.by_packet(["a"])) == [second]
