"""What can be limited by name."""

from __future__ import annotations

from enum import Enum


class LimitKind(Enum):
    """What a name is the name of. RESOURCE: an interface (`I_...`, in calls) or a model (`M_...`, in rows) as FATE's
    flow rules name them, for callers of its protocols."""

    SERVICE = "service"
    MODEL = "model"
    CALLER = "caller"
    PARTY = "party"
    RESOURCE = "resource"
