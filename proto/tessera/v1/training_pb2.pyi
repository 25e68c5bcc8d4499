from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class MeetRequest(_message.Message):
    __slots__ = ("job", "party", "spec_digest", "attempt")
    JOB_FIELD_NUMBER: _ClassVar[int]
    PARTY_FIELD_NUMBER: _ClassVar[int]
    SPEC_DIGEST_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    job: str
    party: str
    spec_digest: str
    attempt: int
    def __init__(self, job: _Optional[str] = ..., party: _Optional[str] = ..., spec_digest: _Optional[str] = ..., attempt: _Optional[int] = ...) -> None: ...

class MeetReply(_message.Message):
    __slots__ = ("spec_digest", "attempt")
    SPEC_DIGEST_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    spec_digest: str
    attempt: int
    def __init__(self, spec_digest: _Optional[str] = ..., attempt: _Optional[int] = ...) -> None: ...

class Envelope(_message.Message):
    __slots__ = ("job", "task", "attempt", "name", "round", "seq", "last", "sha256", "payload", "position", "party")
    JOB_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    PARTY_FIELD_NUMBER: _ClassVar[int]
    job: str
    task: str
    attempt: int
    name: str
    round: int
    seq: int
    last: bool
    sha256: bytes
    payload: bytes
    position: int
    party: str
    def __init__(self, job: _Optional[str] = ..., task: _Optional[str] = ..., attempt: _Optional[int] = ..., name: _Optional[str] = ..., round: _Optional[int] = ..., seq: _Optional[int] = ..., last: _Optional[bool] = ..., sha256: _Optional[bytes] = ..., payload: _Optional[bytes] = ..., position: _Optional[int] = ..., party: _Optional[str] = ...) -> None: ...

class Acknowledgement(_message.Message):
    __slots__ = ("next_position", "credit_until")
    NEXT_POSITION_FIELD_NUMBER: _ClassVar[int]
    CREDIT_UNTIL_FIELD_NUMBER: _ClassVar[int]
    next_position: int
    credit_until: int
    def __init__(self, next_position: _Optional[int] = ..., credit_until: _Optional[int] = ...) -> None: ...
