"""The one place that knows Microsoft SEAL through `tenseal.sealapi`: parameters, keys and byte streams of BFV.

The library saves and loads by path only; a memfd is a path without a file system. Its objects do not pickle, so keys
arrive as bytes and are loaded once per process.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from typing import Any

import numpy.typing as npt

from training.privacy.matrix_cipher import CipherError, ProtocolError

SLOTS = 8192
COEFFICIENT_BITS = (60, 60, 60, 38)  # 218 bits: the most that 128-bit security allows at this degree
PLAIN_BITS = 50
# The first prime below 2^50 that allows batching; `context` checks that the library agrees.
PLAIN_MODULUS = 1_125_899_906_826_241


def sealapi() -> Any:
    """The library; the import is slow, so it waits until something is encrypted."""
    import tenseal.sealapi as library  # noqa: PLC0415

    return library


@cache
def context() -> Any:
    """The BFV context of this process. Raises CipherError when the library refuses the parameters at 128 bits."""
    seal = sealapi()
    parameters = seal.EncryptionParameters(seal.SCHEME_TYPE.BFV)
    parameters.set_poly_modulus_degree(SLOTS)
    parameters.set_coeff_modulus(seal.CoeffModulus.Create(SLOTS, list(COEFFICIENT_BITS)))
    parameters.set_plain_modulus(PLAIN_MODULUS)
    made = seal.SEALContext(parameters, True, seal.SEC_LEVEL_TYPE.TC128)
    if not made.parameters_set():
        raise CipherError(f"SEAL refuses the BFV parameters: {made.parameters_error_message()}")
    return made


@cache
def evaluator() -> Any:
    return sealapi().Evaluator(context())


@cache
def encoder() -> Any:
    return sealapi().BatchEncoder(context())


@cache
def stream_version() -> bytes:
    """The first bytes of every stream: magic, header size, version."""
    return dump(sealapi().Plaintext())[:5]


def query_level() -> list[int]:
    """Identifies the full data modulus, three primes."""
    return list(context().first_parms_id())


def reply_level() -> list[int]:
    """Identifies the data modulus with its last prime switched off."""
    return list(context().first_context_data().next_context_data().parms_id())


@cache
def primes() -> tuple[int, ...]:
    """The primes of the data modulus, in the order of the residues."""
    parameters = context().first_context_data().parms()
    return tuple(prime.value() for prime in parameters.coeff_modulus())


@lru_cache(maxsize=2)
def public_encryptor(public: bytes) -> Any:
    seal = sealapi()
    return seal.Encryptor(context(), load(seal.PublicKey(), public, "public key"))


@lru_cache(maxsize=2)
def secret_encryptor(secret: bytes) -> Any:
    return sealapi().Encryptor(context(), secret_key(secret))


@lru_cache(maxsize=2)
def decryptor(secret: bytes) -> Any:
    return sealapi().Decryptor(context(), secret_key(secret))


def secret_key(secret: bytes) -> Any:
    return load(sealapi().SecretKey(), secret, "secret key")


def dump(thing: Any) -> bytes:
    """The library's own stream of `thing`."""
    with _memory_file() as (descriptor, path):
        thing.save(path)
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0)


def load(empty: Any, stream: bytes, what: str) -> Any:
    """Fill `empty` from the library's stream. Raises ProtocolError when it is not one of this context."""
    with _memory_file() as (descriptor, path):
        os.pwrite(descriptor, stream, 0)
        try:
            empty.load(context(), path)
        except (RuntimeError, ValueError, IndexError, MemoryError) as error:
            raise ProtocolError(f"the {what} is damaged or of other parameters ({error})") from error
    return empty


def load_ciphertext(stream: bytes, level: Sequence[int], what: str) -> Any:
    """A ciphertext of two polynomials at `level`. Raises ProtocolError for anything else."""
    ciphertext = load(sealapi().Ciphertext(), stream, what)
    if ciphertext.size() != 2 or ciphertext.is_ntt_form() or tuple(ciphertext.parms_id()) != tuple(level):
        raise ProtocolError(f"the {what} is a ciphertext of another shape than the protocol's")
    return ciphertext


def plaintext(slots: npt.NDArray[Any]) -> Any:
    """Slots of non-negative residues, encoded."""
    encoded = sealapi().Plaintext()
    encoder().encode(slots.tolist(), encoded)
    return encoded


@contextmanager
def _memory_file() -> Iterator[tuple[int, str]]:
    descriptor = os.memfd_create("seal", os.MFD_CLOEXEC)
    try:
        yield descriptor, f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
