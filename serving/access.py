"""Who calls, and what they may do. Certificates were verified by the transport; tokens are verified here.

A principal is known by a name in its certificate, or by a bearer token (RFC 6750, section 2.1) of which the settings
hold the SHA-256 alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from serving.errors import NotAllowedError, UnauthenticatedError
from serving.security import is_loopback
from serving.settings import Role, Settings
from serving.transport import Call

_RANK = {Role.CALLER: 0, Role.VIEWER: 1, Role.OPERATOR: 2}
_BEARER = "bearer "


@dataclass(frozen=True, slots=True)
class Principal:
    name: str
    role: Role


class Access:
    """Of one node. Its own certificate counts as an operator's: who holds its key is the node."""

    def __init__(self, settings: Settings) -> None:
        self._party = settings.party
        self._peers = frozenset(settings.peers)
        self._plaintext_caller = settings.plaintext_caller
        self._anonymous_callers = settings.anonymous_callers
        self._open = not settings.principals
        self._open_http = self._open and is_loopback(settings.ports.http)
        known = {name: (Principal(name, given.role), given) for name, given in settings.principals.items()}
        self._by_token = {
            given.token_sha256.lower(): principal for principal, given in known.values() if given.token_sha256
        }
        self._by_certificate = {
            given.certificate: principal for principal, given in known.values() if given.certificate
        }

    # --- service and HTTP ports ---

    def caller(self, call: Call) -> str:
        """For limits: the principal, else the first name of the certificate, else "". Raises UnauthenticatedError."""
        authorization = _authorization(call) if self._by_token else ""
        return self.caller_named(call.peer_identities(), authorization)

    def caller_named(self, names: Sequence[str], authorization: str) -> str:
        principal = self._identify(names, authorization)
        if principal is not None:
            return principal.name
        if names:
            return names[0]
        if not self._anonymous_callers:
            raise UnauthenticatedError("this port takes no anonymous calls: send a bearer token or show a certificate")
        return ""

    def operator(self, call: Call) -> None:
        """Whoever calls must be one, also when no principals are named. Raises NotAllowedError."""
        self.operator_named(call.peer_identities(), _authorization(call))

    def operator_named(self, names: Sequence[str], authorization: str) -> str:
        """The operator's name."""
        return self._require(self._identify(names, authorization), Role.OPERATOR)

    def viewer_named(self, names: Sequence[str], authorization: str) -> None:
        """Whoever reads what operators see must be a viewer at least; everybody may on this machine where the settings
        name no principals, if the HTTP port is bound to loopback. Raises NotAllowedError or UnauthenticatedError."""
        if not self._open_http:
            self._require(self._identify(names, authorization), Role.VIEWER)

    # --- party port ---

    def party(self, call: Call) -> str:
        """The party that calls: from its certificate, or the one configured for plaintext. Raises NotAllowedError."""
        names = call.peer_identities()
        if not names:
            if self._plaintext_caller:
                return self._plaintext_caller
            raise NotAllowedError(f"party {self._party} takes no calls without a certificate")
        for name in names:
            if name in self._peers:
                return name
        raise NotAllowedError(f"the certificate names no party that {self._party} knows")

    # --- admin port ---

    def admin(self, call: Call, role: Role) -> None:
        """Everybody may everything where the settings name no principals: such a port is bound to loopback.
        Raises NotAllowedError or UnauthenticatedError."""
        if not self._open:
            self._require(self._identify(call.peer_identities(), _authorization(call)), role)

    def who(self, call: Call) -> str:
        """As the audit log names the caller: the principal, else the certificate, else the address."""
        names = call.peer_identities()
        principal = self._identify(names, _authorization(call) if self._by_token else "")
        return principal.name if principal is not None else " ".join(names) or call.peer()

    # ---

    def _identify(self, names: Sequence[str], authorization: str) -> Principal | None:
        if authorization and self._by_token:
            if authorization[: len(_BEARER)].lower() != _BEARER:
                raise UnauthenticatedError("authorization is not `Bearer TOKEN`")
            digest = hashlib.sha256(authorization[len(_BEARER) :].strip().encode()).hexdigest()
            found = self._by_token.get(digest)
            if found is None:
                raise UnauthenticatedError("nobody here has this token")
            return found
        for name in names:
            if name in self._by_certificate:
                return self._by_certificate[name]
        return Principal(self._party, Role.OPERATOR) if self._party in names else None

    def _require(self, principal: Principal | None, role: Role) -> str:
        if principal is None:
            raise UnauthenticatedError(f"this needs the role {role.value}: send a bearer token or show a certificate")
        if _RANK[principal.role] < _RANK[role]:
            raise NotAllowedError(f"{principal.name!r} has the role {principal.role.value}, this needs {role.value}")
        return principal.name


def _authorization(call: Call) -> str:
    for key, value in call.metadata():
        if key == "authorization" and isinstance(value, str):
            return value
    return ""
