"""Signed packets: what FATE-Serving signs passes once, everything else does not."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from serving.cache.redis import RedisTier
from serving.errors import NotAllowedError
from serving.fate_settings import FateKeySettings, FateSettings
from serving.peers import signing
from serving.peers.signing import AccessKey, Signatures, access_keys, sign, signature_of
from tessera.compat import fate_proxy_pb2 as wire
from tests.clock import Clock
from tests.redis_server import redis_server

KEYS = {"key-9999": AccessKey("9999", b"secret"), "key-10001": AccessKey("10001", b"other")}
EXPIRE_S = 10.0


@pytest.fixture
def clock() -> Clock:
    return Clock(1_700_000_000.0)


@pytest.fixture
def signatures(clock: Clock) -> Signatures:
    return Signatures(KEYS, EXPIRE_S, clock)


def packet(body: bytes = b'{"x":1}', party: str = "9999") -> wire.Packet:
    return wire.Packet(
        header=wire.Metadata(
            task=wire.Task(model=wire.Model(namespace="host#10000#m", tableName="1")),
            src=wire.Topic(partyId=party, role="serving", name="partnerPartyName"),
            dst=wire.Topic(partyId="10000", role="serving"),
            command=wire.Command(name="federatedInference"),
            operator="216",
            version=216,
        ),
        body=wire.Data(value=body),
    )


def signed(clock: Clock, made: wire.Packet | None = None, key: str = "key-9999") -> wire.Packet:
    made = made or packet()
    sign(made, key, KEYS[key].secret, clock())
    return made


def test_the_signed_text_is_timestamp_header_and_body_in_one_line_each(clock: Clock) -> None:
    made = signed(clock, packet('{"name":"Ä\u2028"}'.encode()))
    text = (
        "1700000000000\n"
        '{"task":{"model":{"namespace":"host#10000#m","tableName":"1"}},'
        '"src":{"name":"partnerPartyName","partyId":"9999","role":"serving"},'
        '"dst":{"partyId":"10000","role":"serving"},"command":{"name":"federatedInference"},'
        '"operator":"216","version":"216"}\n'
        f'{{"value":"{base64.b64encode(made.body.value).decode()}"}}'
    )
    expected = base64.b64encode(hmac.new(b"secret", text.encode(), hashlib.sha1).digest()).decode()
    assert made.auth.signature == expected


def test_texts_are_escaped_as_java_does() -> None:
    made = packet()
    made.header.operator = 'ä\u2028</b>"\x01\x7f'
    shown = signing._one_line(made.header)
    assert '"operator":"ä\\u2028</b>\\"\\u0001\x7f"' in shown


def test_an_empty_header_and_body_are_signed_as_empty_objects() -> None:
    digest = hmac.new(b"secret", b"0\n{}\n{}", hashlib.sha1).digest()
    assert signature_of(wire.Packet(), b"secret") == base64.b64encode(digest).decode()


def test_a_signed_packet_passes_once(signatures: Signatures, clock: Clock) -> None:
    made = signed(clock)
    signatures.check(made)
    for wait_s in (0.0, EXPIRE_S - 0.1):
        clock.tick(wait_s)
        with pytest.raises(NotAllowedError, match="sent before"):
            signatures.check(made)
    signatures.check(signed(clock))


UNSIGNED = wire.AuthInfo(appKey="key-9999-too", applyId="a", nonce="another", version="210", serviceId="s")


@pytest.mark.parametrize("field", [field.name for field in UNSIGNED.DESCRIPTOR.fields])
def test_a_repeated_packet_is_refused_whatever_is_changed_of_it(clock: Clock, field: str) -> None:
    """What is signed makes it another's; what is not, another key with the same secret too, leaves it the same."""
    signatures = Signatures({**KEYS, UNSIGNED.appKey: KEYS["key-9999"]}, EXPIRE_S, clock)
    made = packet()
    made.auth.nonce = "case"
    signatures.check(signed(clock, made))
    change = getattr(UNSIGNED, field) or {"timestamp": made.auth.timestamp + 1, "signature": "c2ln"}[field]
    setattr(made.auth, field, change)
    with pytest.raises(NotAllowedError, match=r"sent before|no valid signature"):
        signatures.check(made)
    made.MergeFromString(b"\xfa\x07\x01x")  # a field that nobody knows
    with pytest.raises(NotAllowedError, match=r"sent before|no valid signature"):
        signatures.check(made)


def test_a_case_that_is_asked_for_again_is_signed_again_and_passes(signatures: Signatures, clock: Clock) -> None:
    """FATE's guests have the case for a nonce, and callers repeat a case of which they have no answer."""
    made = packet()
    made.auth.nonce = "case"
    for _ in range(3):
        signatures.check(signed(clock, made))
        clock.tick(0.01)


def test_a_packet_of_the_future_is_remembered_until_it_has_expired(signatures: Signatures, clock: Clock) -> None:
    clock.tick(EXPIRE_S - 1)
    made = signed(clock)
    clock.tick(1 - EXPIRE_S)
    signatures.check(made)
    clock.tick(2 * EXPIRE_S - 2)
    with pytest.raises(NotAllowedError, match="sent before"):
        signatures.check(made)
    clock.tick(2)
    with pytest.raises(NotAllowedError, match="time is not now"):
        signatures.check(made)


@pytest.mark.parametrize("offset_s", [EXPIRE_S, -EXPIRE_S, 1e6, -1e6])
def test_only_what_was_signed_now_passes(signatures: Signatures, clock: Clock, offset_s: float) -> None:
    made = signed(clock)
    clock.tick(offset_s)
    with pytest.raises(NotAllowedError, match="time is not now"):
        signatures.check(made)


@pytest.mark.parametrize(
    "change",
    [
        lambda made: made.ClearField("auth"),
        lambda made: setattr(made.auth, "signature", ""),
        lambda made: setattr(made.auth, "appKey", "unknown"),
        lambda made: (setattr(made.auth, "appKey", "unknown"), setattr(made.auth, "signature", "")),
        lambda made: setattr(made.auth, "appKey", "key-10001"),
        lambda made: setattr(made.auth, "timestamp", made.auth.timestamp + 1),
        lambda made: setattr(made.body, "value", b"{}"),
        lambda made: setattr(made.header.dst, "partyId", "10001"),
        lambda made: setattr(made.auth, "signature", made.auth.signature + "\u00e4"),
    ],
)
def test_whatever_is_changed_is_refused(
    signatures: Signatures, clock: Clock, change: Callable[[wire.Packet], object]
) -> None:
    made = signed(clock)
    change(made)
    with pytest.raises(NotAllowedError, match="no valid signature"):
        signatures.check(made)


def test_a_party_signs_with_its_own_key(signatures: Signatures, clock: Clock) -> None:
    with pytest.raises(NotAllowedError, match="another party's key"):
        signatures.check(signed(clock, key="key-10001"))


def test_without_keys_nothing_is_asked_for(clock: Clock) -> None:
    Signatures({}, EXPIRE_S, clock).check(packet())


def test_a_flood_is_refused_and_memory_stays_bounded(
    signatures: Signatures, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signing, "MAX_SEEN", 3)
    for number in range(3):
        signatures.check(signed(clock, packet(b"%d" % number)))
    with pytest.raises(NotAllowedError, match="too many"):
        signatures.check(signed(clock, packet(b"more")))
    clock.tick(2 * EXPIRE_S)
    signatures.check(signed(clock, packet(b"more")))


def test_a_flood_of_one_party_refuses_no_other(
    signatures: Signatures, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signing, "MAX_SEEN", 1)
    signatures.check(signed(clock))
    with pytest.raises(NotAllowedError, match="too many"):
        signatures.check(signed(clock, packet(b"more")))
    signatures.check(signed(clock, packet(party="10001"), "key-10001"))


def test_secrets_come_from_files_and_are_not_empty(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3cret\n")
    (tmp_path / "empty").write_text("\n")
    settings = FateSettings(keys={"k": FateKeySettings(party="9999", secret_file=str(tmp_path / "secret"))})
    assert access_keys(settings) == {"k": AccessKey("9999", b"s3cret")}
    for name in ("empty", "none"):
        wrong = FateSettings(keys={"k": FateKeySettings(party="9999", secret_file=str(tmp_path / name))})
        with pytest.raises(OSError, match=name):
            access_keys(wrong)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    with redis_server(tmp_path) as url:
        yield url


async def test_replicas_remember_packets_together(server: str, clock: Clock) -> None:
    tiers = [RedisTier(server, 5.0) for _ in range(2)]
    one, other = (Signatures(KEYS, EXPIRE_S, clock, tier.claim) for tier in tiers)
    first, second = signed(clock), signed(clock, packet(b"{}"))
    await one.take(first)
    with pytest.raises(NotAllowedError, match="sent before"):
        await other.take(first)
    await other.take(second)
    for tier in tiers:
        await tier.close()


async def test_a_packet_of_which_replicas_cannot_be_asked_is_refused(tmp_path: Path, clock: Clock) -> None:
    tier = RedisTier(f"unix://{tmp_path}/nobody.sock", 0.5)
    with pytest.raises(NotAllowedError, match="cannot be told"):
        await Signatures(KEYS, EXPIRE_S, clock, tier.claim).take(signed(clock))
    await Signatures({}, EXPIRE_S, clock, tier.claim).take(packet())
    await tier.close()
