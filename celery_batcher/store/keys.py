"""Every key of the Redis store is built here.

All keys of a resource and its batchers carry the tag ``{resource}``, so that a script may touch
them together in a cluster. With ``B = <prefix>{resource}:<batcher>:``

=========================== ====== ====================================================
key                         type   what it holds, and who writes it
=========================== ====== ====================================================
<prefix>{resource}:res      hash   limits, held, open and its shares, credit and refunds, debt,
                                   head in need
<prefix>{resource}:ends     zset   a row per millisecond in which holds end: claim, renew
<prefix>{resource}:costs    hash   the cost of each of these rows
... :ends#n, :costs#n              the same of the n-th limit
<prefix>{resource}:leases   zset   leased partitions by the end of their lease
B meta                      hash   counters, turn, pause, sequence, virtual time, a step of a purge
B ring                      zset   watchers that may release, by virtual time
B back                      zset   the same for their back-fills
B parked                    zset   watchers too dear for now, by the time to ask them again
B key_ends                  zset   keys that hold or wait at their caps, by when to look at them
B costs:<watcher>           hash   what its operations cost, learned, by cost key
B open                      zset   unclaimed batches by time of their release, then publication
B claimed                   zset   claimed batches by deadline
B offers                    zset   unclaimed batches by time of their next publication
B settled                   zset   claims of the last minute that settled (a repeat succeeds) or
                                   were refused (``/late``: a repeat is not counted)
B admitted                  hash   messages in the books: ``operations:cost:ms:audited:watcher``
B lanes                     set    lanes that may have messages: admit adds, idle removes
B ids                       set    ids of live operations that are registered
B deduped                   zset   ids whose duplicates are dropped, by the end of that
B noted                     zset   messages staged whose acknowledgement is not known
B repeated                  zset   messages published again: the second to arrive is dropped
B aside                     list   set-aside messages, with time, lane and reason
B flushes                   hash   how many flushes ended with which result, and the newest
B recent                    list   a line for each batch of those that ended last: the newest first
B meters:<watcher>          string counters of its operations and batches, for ever
B watchers                  set    names of all watchers ever seen
B w:<watcher>               hash   options, counters, virtual times of its keys
B k:<watcher>:<prio>        zset   its keys by virtual time
B q:<watcher>:<prio>:<key>  list   blocks in sequence
B r:<watcher>:<prio>:<key>  zset   blocks that came back, by sequence
B n:<watcher>:<prio>        zset   its keys that have operations, by name: the audit's order
B t:<watcher>:<prio>        hash   keys whose first block in q: is taken in part: how much of it
B s:<watcher>               zset   groups that stay together, by the sequence of their first
B h:<watcher>:<key>         zset   of a capped key: its holds by end; unclaimed ones at infinity
B f:<watcher>:<key>         set    its batches in flight
B g:<watcher>:<key>         zset   its groups that wait, which are in s: behind all others
B x:<watcher>               hash   by key: sums of its holds (e, o), whether it waits (w), or its
                                   back-fills alone do (b)
B later                     zset   what is delayed, by the time at which it waits again
B batch:<id>                hash   an open or claimed batch
B blocks:<id>               list   its blocks
B dead:<watcher>            zset   dead letters by number: number, time, reason, entry
B backfills                 set    names of all back-fills: take_backfill and hold_backfill add,
                                   reset_backfill removes
B backfill:<name>           hash   a back-fill: its run, checkpoint, rows and lease
B walk                      hash   how far the audit is, and the answer to its last step
B sums                      hash   what it has counted so far
B left                      list   watchers that it has not come to in this pass
B drift                     hash   differences it saw: by how much, how often, in which pass
=========================== ====== ====================================================

None of them expires: what they hold is somebody's data, or is removed with it.
"""

from __future__ import annotations

SHARED = ("res", "ends", "costs", "leases")
OWN = (
    "meta",
    "ring",
    "back",
    "open",
    "claimed",
    "offers",
    "settled",
    "admitted",
    "lanes",
    "ids",
    "noted",
    "aside",
    "watchers",
    "repeated",
    "later",
    "parked",
    "key_ends",
    "flushes",
    "recent",
)


class Keys:
    """The keys of one batcher on one resource."""

    def __init__(self, prefix: str, resource: str, batcher: str) -> None:
        shared = f"{prefix}{{{resource}}}:"
        self.base = f"{shared}{batcher}:"
        self.fixed = [shared + name for name in SHARED] + [self.base + name for name in OWN]

    def __getitem__(self, name: str) -> str:
        """The key of this name in the batcher's own part of the table."""
        return self.base + name
