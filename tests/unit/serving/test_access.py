import hashlib
from dataclasses import dataclass

import pytest

from serving.access import Access
from serving.errors import NotAllowedError, UnauthenticatedError
from serving.settings import PeerSettings, Ports, PrincipalSettings, Role, Settings

TOKEN = "a token of thirty-two characters"


@dataclass
class From:
    """A call of whoever holds a certificate with these names, or sends this header."""

    names: tuple[str, ...] = ()
    authorization: str = ""

    def peer_identities(self):
        return self.names

    def peer(self):
        return "ipv4:127.0.0.1:5"

    def metadata(self):
        return (("other", "x"), ("authorization", self.authorization)) if self.authorization else (("other", "x"),)


def access(**changes):
    return Access(Settings(party="bank", state_dir="s", registry="r", peers={"shop": PeerSettings()}, **changes))


def with_principals(**changes):
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
    principals = {
        "ann": PrincipalSettings(role=Role.OPERATOR, token_sha256=digest.upper()),
        "vic": PrincipalSettings(role=Role.VIEWER, certificate="vic.bank.example"),
        "app": PrincipalSettings(certificate="app.bank.example"),
    }
    return access(principals=principals, **changes)


ANN = From(authorization=f"Bearer {TOKEN}")
VIC = From(("vic.bank.example",))
APP = From(("x", "app.bank.example"))
NODE = From(("bank", "127.0.0.1"))


def test_a_certificate_names_the_party_that_calls():
    assert access(plaintext_caller="other").party(From(("x.example", "shop"))) == "shop"


def test_without_a_certificate_the_configured_party_calls():
    assert access(plaintext_caller="shop").party(From()) == "shop"


def test_strangers_are_no_party():
    with pytest.raises(NotAllowedError, match="no calls without a certificate"):
        access().party(From())
    with pytest.raises(NotAllowedError, match="names no party"):
        access(plaintext_caller="shop").party(From(("mallory",)))


def test_while_nobody_is_named_everybody_administers():
    access().admin(From(), Role.OPERATOR)
    with pytest.raises(UnauthenticatedError):
        access().operator(From())  # on other ports nobody does


def test_who_looks_on_the_http_port_is_a_viewer_or_on_this_machine():
    some = with_principals()
    some.viewer_named((), ANN.authorization)
    some.viewer_named(VIC.names, "")
    with pytest.raises(NotAllowedError, match="'app' has the role caller, this needs viewer"):
        some.viewer_named(APP.names, "")
    with pytest.raises(UnauthenticatedError):
        some.viewer_named((), "")
    access().viewer_named((), "")
    with pytest.raises(UnauthenticatedError):
        access(ports=Ports(http="10.0.0.1:8703")).viewer_named((), "")


@pytest.mark.parametrize("call", [ANN, NODE])
def test_operators_may_everything(call):
    for role in Role:
        with_principals().admin(call, role)
    with_principals().operator(call)


def test_viewers_and_callers_may_less():
    with_principals().admin(VIC, Role.VIEWER)
    with_principals().admin(APP, Role.CALLER)
    with pytest.raises(NotAllowedError, match="'vic' has the role viewer, this needs operator"):
        with_principals().admin(VIC, Role.OPERATOR)
    with pytest.raises(NotAllowedError, match="'app' has the role caller, this needs viewer"):
        with_principals().admin(APP, Role.VIEWER)


@pytest.mark.parametrize(
    "call", [From(), From(("mallory",)), From(authorization="Bearer guess"), From(authorization="Basic x")]
)
def test_strangers_are_told_to_say_who_they_are(call):
    for role in Role:
        with pytest.raises(UnauthenticatedError):
            with_principals().admin(call, role)


def test_callers_have_the_name_of_their_limits():
    some = with_principals()
    assert [some.caller(call) for call in (ANN, VIC, APP, From(("y", "z")), From())] == ["ann", "vic", "app", "y", ""]
    with pytest.raises(UnauthenticatedError):
        some.caller(From(authorization="Bearer guess"))
    with pytest.raises(UnauthenticatedError, match="no anonymous calls"):
        with_principals(anonymous_callers=False).caller(From())
    assert access().caller(From(authorization="Bearer of another system")) == ""


def test_the_audit_log_gets_the_best_name_there_is():
    some = with_principals()
    names = [some.who(call) for call in (ANN, VIC, From(("y", "z")), From(), NODE)]
    assert names == ["ann", "vic", "y z", "ipv4:127.0.0.1:5", "bank"]
