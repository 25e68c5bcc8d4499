from serving.peers.occasions import NONE, Occasion, Occasions
from serving.pool import ModelId

MODEL = ModelId("m", "1")
LOAN, OTHER = Occasion("credit", "loan-1", "c1"), Occasion("credit", "loan-2", "c2")


def test_users_of_one_occasion_share_a_packet_in_their_order() -> None:
    occasions = Occasions(asked_for=True)
    occasions.begin([MODEL], ["a", "c"], LOAN)
    occasions.begin([MODEL], ["b"], OTHER)
    assert occasions.by_packet(MODEL, ["a", "b", "c", "d"]) == {LOAN: [0, 2], OTHER: [1], NONE: [3]}


def test_a_packet_about_several_cases_names_none() -> None:
    occasions = Occasions(asked_for=True)
    occasions.begin([MODEL], ["a"], LOAN)
    occasions.begin([MODEL], ["b"], again := Occasion("credit", "loan-1", "c3"))
    assert occasions.by_packet(MODEL, ["a", "b"]) == {Occasion("credit", "loan-1"): [0, 1]}
    assert occasions.by_packet(MODEL, ["b"]) == {again: [0]}


def test_the_first_of_several_counts_for_as_long_as_it_is_kept() -> None:
    occasions = Occasions(asked_for=True)
    occasions.begin([MODEL], ["a"], first := Occasion("s", "1"))
    occasions.begin([MODEL], ["a"], second := Occasion("s", "2"))
    assert list(occasions.by_packet(MODEL, ["a"])) == [first]
    del first
    assert list(occasions.by_packet(MODEL, ["a"])) == [NONE]
    occasions.begin([MODEL], ["a"], second)
    assert list(occasions.by_packet(MODEL, ["a"])) == [second]


def test_hosts_of_other_models_hear_nothing() -> None:
    occasions = Occasions(asked_for=True)
    occasions.begin([MODEL], ["a"], LOAN)
    assert list(occasions.by_packet(ModelId("m", "2"), ["a"])) == [NONE]
    assert list(occasions.by_packet(MODEL, ["a"])) == [LOAN]
