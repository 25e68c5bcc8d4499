import re


def test_show_has_a_line_for_every_peer(tessera):
    _, bakery, shop = tessera("peers", "show").stdout.splitlines()
    assert re.split(r"  +", bakery.strip()) == ["bakery", "unreachable", "any"]
    assert re.split(r"  +", shop.strip()) == [
        "shop",
        "in 1.2 ms",
        "0.1.0",
        "1.0",
        "lr:v2 ready",
        "*",
        "infer, warmup",
        "70 of 1000, 3 rejected, 5000 users",
        "2023-11-15 00:00:00",
    ]


def test_one_peer_as_json(as_json):
    [shop] = as_json("peers", "show", "shop")
    assert (shop["budget"], shop["spent"], shop["users"]) == (1_000, 70, 5_000)
    assert shop["halves"] == [{"model": "lr", "version": "v2", "state": "ready"}]
    assert as_json("peers", "show", "bakery")[0]["budget"] is None


def test_an_unknown_peer_names_the_known_ones(tessera):
    result = tessera("peers", "show", "nobody")
    assert (result.exit_code, result.stderr) == (1, "Error: NOT_FOUND: no peer nobody; known: bakery, shop\n")
