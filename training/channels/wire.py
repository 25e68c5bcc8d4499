"""The one codec between chunks and the messages of tessera/v1/training.proto."""

from __future__ import annotations

from tessera.v1 import training_pb2 as pb
from training.channel import Tag
from training.channels.chunk import Chunk
from training.channels.meeting import Meeting


def hello(meeting: Meeting) -> pb.Envelope:
    """The first envelope of every stream: it says whose stream it is and carries nothing. Later ones ask for a sign of
    life: the receiver acknowledges at once, also without news."""
    return pb.Envelope(job=meeting.job, attempt=meeting.attempt, party=meeting.party)


def is_hello(envelope: pb.Envelope) -> bool:
    return not envelope.name


def envelope(chunk: Chunk, party: str) -> pb.Envelope:
    tag = chunk.tag
    return pb.Envelope(
        job=tag.job,
        task=tag.task,
        attempt=tag.attempt,
        name=tag.name,
        round=tag.round,
        seq=chunk.seq,
        last=chunk.last,
        sha256=chunk.sha256,
        payload=chunk.payload,
        position=chunk.position,
        party=party,
    )


def chunk(envelope: pb.Envelope) -> Chunk:
    tag = Tag(envelope.job, envelope.task, envelope.attempt, envelope.name, envelope.round)
    return Chunk(envelope.position, tag, envelope.seq, envelope.last, envelope.sha256, envelope.payload)
