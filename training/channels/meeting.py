"""What two parties say to each other before round 0 of a job, and what may come of it."""

from __future__ import annotations

from dataclasses import dataclass

from training.channel import ChannelError, PeerLostError, SpecMismatchError, Tag


@dataclass(frozen=True, slots=True)
class Meeting:
    """One end of a channel: the channel from `party` to `peer` in one attempt of a job."""

    job: str
    party: str
    peer: str
    attempt: int = 1

    def check(self, tag: Tag) -> None:
        """Raises ChannelError if the tag cannot travel on this channel."""
        if tag.job != self.job or not tag.name or tag.round < 0 or tag.attempt < 0:
            raise ChannelError(f"{tag} does not fit the channel to party {self.peer} in job {self.job}")

    def compare(self, ours: str, theirs: str) -> None:
        """Raises SpecMismatchError if the peer's digest is not ours."""
        if ours != theirs:
            raise SpecMismatchError(
                f"party {self.peer} runs another specification of job {self.job}: its digest is {theirs[:12]}, ours is "
                f"{ours[:12]}; submit the same file to both"
            )

    def superseded(self, attempt: int) -> ChannelError:
        return ChannelError(f"attempt {attempt} of job {self.job} has begun; attempt {self.attempt} is over")

    def absent(self, timeout_s: float) -> PeerLostError:
        return PeerLostError(
            f"party {self.peer} did not join job {self.job} within {timeout_s:g} s; is its node running with this job?"
        )

    def ended(self) -> ChannelError:
        return ChannelError(f"the channel to party {self.peer} in job {self.job} is closed")

    def closed(self) -> PeerLostError:
        return PeerLostError(f"party {self.peer} has closed its channel of job {self.job}")
