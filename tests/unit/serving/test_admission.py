from __future__ import annotations

from pathlib import Path

import pytest

from serving.admission import Admission, Asker, Guard, make_admission
from serving.budget import Ledger, QueryBudget
from serving.errors import LimitError, NotAllowedError
from serving.limit_kind import LimitKind
from serving.limits import Gates, make_limiter
from serving.pool import ModelId
from serving.settings import PeerSettings, Purpose, RateLimit, Settings
from tests.clock import Clock

M = ModelId("m", "1")
INFER = frozenset({Purpose.INFER})
BANK = Asker("bank")


def admission(folder: Path, peer: PeerSettings) -> Admission:
    settings = Settings(party="shop", state_dir=str(folder), registry="", peers={"bank": peer})
    return make_admission(settings, b"s" * 32, make_limiter(settings).parties)


def test_by_default_a_party_may_infer_about_anybody_and_nothing_else(tmp_path: Path) -> None:
    one = admission(tmp_path, PeerSettings())
    assert one.admit(BANK, M, ["u1", "u2"]) is None
    for purpose in set(Purpose) - {Purpose.INFER}:
        with pytest.raises(NotAllowedError, match=rf"'bank' no {purpose.value} calls: see peers.bank.purposes"):
            one.admit(Asker("bank", purpose), M, ["u1"])
        with pytest.raises(NotAllowedError):
            one.admit(Asker("stranger", purpose), M, ["u1"])


def test_purposes_are_allowed_one_by_one_and_cost_the_same_budget(tmp_path: Path) -> None:
    one = admission(tmp_path, PeerSettings(purposes=(Purpose.INFER, Purpose.WARMUP), budget=2))
    one.admit(Asker("bank", Purpose.WARMUP), M, ["u1", "u2"])
    assert one.admit(BANK, M, ["u1", "u2"]) is None
    with pytest.raises(LimitError):
        one.admit(BANK, M, ["u3"])
    with pytest.raises(NotAllowedError):
        one.admit(Asker("bank", Purpose.SHADOW), M, ["u1"])


def test_users_of_the_list_only(tmp_path: Path) -> None:
    (tmp_path / "users.txt").write_text("u1\nu 2\r\n")
    one = admission(tmp_path, PeerSettings(users=str(tmp_path / "users.txt")))
    assert one.admit(BANK, M, ["u1", "u 2"]) is None
    assert one.admit(BANK, M, ["u3", "u1"]) == [False, True]
    with pytest.raises(NotAllowedError, match=r"may not ask about these users: see peers.bank.users"):
        one.admit(BANK, M, ["u3"])


def test_users_off_the_list_cost_nothing(tmp_path: Path) -> None:
    budget = QueryBudget(Ledger(tmp_path, "bank", b"s"), 2, 60.0, Clock(0.0))
    one = Admission({"bank": Guard(INFER, frozenset({"u1", "u2", "u3"}), budget)})
    assert one.admit(BANK, M, ["x", "u1", "y", "u2", "u3"]) == [False, True, False, True, False]
    assert budget.spent == 2


def test_the_limit_is_that_of_the_settings(tmp_path: Path) -> None:
    one = admission(tmp_path, PeerSettings(limit=RateLimit(concurrent=1)))
    one.enter(BANK, 1)
    with pytest.raises(LimitError, match="party 'bank' is limited to 1 calls at once"):
        one.enter(BANK, 1)


def test_a_party_asks_no_more_than_its_limit(tmp_path: Path) -> None:
    clock = Clock(0.0)
    gates = Gates(LimitKind.PARTY, {"bank": RateLimit(per_s=2, concurrent=1)}, clock)
    one = Admission({"bank": Guard(INFER)}, gates)
    entered = one.enter(BANK, 2)
    assert one.enter(Asker("telco"), 1_000) is None
    with pytest.raises(LimitError, match="party 'bank' is limited to 2 rows a second") as refused:
        one.enter(BANK, 1)
    assert refused.value.retry_after_s == pytest.approx(0.5)
    clock.tick(0.5)
    with pytest.raises(LimitError, match="party 'bank' is limited to 1 calls at once"):
        one.enter(BANK, 1)
    assert entered is not None
    entered.leave()
    clock.tick(1.0)
    assert one.enter(BANK, 1) is entered


def test_a_list_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "users.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(OSError, match=r"users.txt is not UTF-8 text"):
        admission(tmp_path, PeerSettings(users=str(tmp_path / "users.txt")))
    with pytest.raises(OSError, match=r"none.txt"):
        admission(tmp_path, PeerSettings(users=str(tmp_path / "none.txt")))
