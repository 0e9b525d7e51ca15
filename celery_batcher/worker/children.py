"""Lost children are noticed soon.

Celery learns that a child has ended before the system lets it be collected, and then looks again
only after five seconds; the operations of a killed child would wait for that.
"""

from __future__ import annotations

from typing import Any

_EVERY = 0.5


def look_after_children(sender: Any, **_: Any) -> None:
    """Let the pool of a worker that is ready look for children that ended, twice a second."""
    hub, pool = getattr(sender, "hub", None), getattr(sender, "pool", None)
    if hub is not None and pool is not None and pool.uses_semaphore:  # processes, an event loop
        known = getattr(sender, "_celery_batcher_children", None)
        if known is not None:  # from before a connection was lost
            known.cancel()
        entry = hub.call_repeatedly(_EVERY, pool.maintain_pool)
        sender._celery_batcher_children = entry
