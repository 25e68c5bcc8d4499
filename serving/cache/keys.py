"""Keys of the remote caches: no raw id, and another one for every host, model, version and binding.

`t1:{party}:{key_id}:` + HMAC-SHA256(secret, host, model, version, binding digest, user id)[:16], each part after its
length as four bytes. `party` is the party whose cache it is.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

SECRET_BYTES = 32
SECRET_FILE = "cache.secret"  # noqa: S105 - a file name
KEY_BYTES = 16
_BLOCK = 64
_LENGTHS = tuple(size.to_bytes(4, "big") for size in range(256))
_PADS = tuple(bytes(byte ^ pad for byte in range(256)) for pad in (0x36, 0x5C))
"""By what each byte of the secret is replaced in the inner and in the outer hash."""


class SecretFileError(OSError):
    """The secret's file is not as it must be; the text names the file and what to do."""


Half = tuple[str, str, str]
"""Model, version, binding digest (hex)."""


class KeyMaker:
    """Keys of the users of one half of `host`, from the secret that all replicas of `party` share; `key_id` says which
    secret that is. All that does not depend on the user is hashed once, here: HMAC (RFC 2104) is two hashes, and copies
    of both cost half of what a copy of `hmac.HMAC` does."""

    def __init__(self, secret: bytes, party: str, key_id: int, host: str, half: Half) -> None:
        model, version, binding_digest = half
        self._prefix = f"t1:{party}:{key_id}:".encode()
        self._inner, self._outer = (hashlib.sha256(secret.ljust(_BLOCK, b"\0").translate(pad)) for pad in _PADS)
        for part in (host.encode(), model.encode(), version.encode(), bytes.fromhex(binding_digest)):
            self._inner.update(len(part).to_bytes(4, "big") + part)

    def keys(self, user_ids: Sequence[str]) -> list[bytes]:
        """One for each."""
        prefix, inner_of, outer_of, made = self._prefix, self._inner.copy, self._outer.copy, []
        for user_id in user_ids:
            user, inner, outer = user_id.encode(), inner_of(), outer_of()
            size = len(user)
            inner.update((_LENGTHS[size] if size < 256 else size.to_bytes(4, "big")) + user)
            outer.update(inner.digest())
            made.append(prefix + outer.digest()[:KEY_BYTES])
        return made


def node_secret(shared_file: str, state_dir: Path) -> bytes:
    """The secret that replicas share, when the settings name its file: it must be there, else each replica would make
    one of its own. Otherwise the node's own, made in its state folder. Raises SecretFileError naming the file."""
    return read_secret(Path(shared_file)) if shared_file else load_secret(state_dir / SECRET_FILE)


def load_secret(path: Path) -> bytes:
    """The secret in `path`, made there when there is none. Raises SecretFileError."""
    if not path.exists():
        _make_secret(path)
    return read_secret(path)


def read_secret(path: Path) -> bytes:
    """The secret in `path`. Raises SecretFileError."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            secret = file.read(SECRET_BYTES + 1)
    except OSError as error:
        raise SecretFileError(f"cannot read the cache secret {path}: {error.strerror}") from None
    if mode & 0o077:
        raise SecretFileError(f"cache secret {path} has mode {mode:04o}; others must not read it: chmod 600 it")
    if len(secret) != SECRET_BYTES:
        raise SecretFileError(f"cache secret {path} must hold exactly {SECRET_BYTES} bytes; remove it or restore it")
    return secret


def _make_secret(path: Path) -> None:
    """Whole or not at all, also when two processes start at once: the first to link its file wins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(SECRET_BYTES))
            file.flush()
            os.fsync(file.fileno())
        path.hardlink_to(draft)
    except FileExistsError:
        return
    finally:
        draft.unlink()
