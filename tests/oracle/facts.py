"""Stock facts by position, and what can be folded of them (DOMAIN.md §4: deltas after the as-of of the
newest snapshot). Judges of stock, claims and rebuilding share it; it knows nothing of how levels are made."""
from collections import defaultdict
from dataclasses import dataclass, field
from decimal import Decimal

from world import ZERO, MINUTE, key_of

CHANGE, SNAPSHOT, POLICY = "retail.stock.change.v1", "retail.stock.snapshot.v1", "retail.stock.policy.v1"
AUTHORITY = "retail.stock.authority.v1"
BUCKETS = {"SELLABLE": "sellable", "DAMAGED": "damaged", "QUALITY_HOLD": "qualityHold", "IN_TRANSIT": "inTransitIn"}
SKEW = 5 * MINUTE


def key_is_right(event):
    return event.key == key_of(event["sku"], event["locationId"])


def times_are_right(event):
    meta = event.meta
    return meta["recordedAt"] == 0 or meta["occurredAt"] <= meta["recordedAt"] + SKEW


def gs1(code, lengths):
    """Whether a GTIN or GLN ends in its check digit: weights 3 and 1 from the right."""
    if code is None:
        return True
    if len(code) not in lengths or not code.isascii() or not code.isdigit():
        return False
    return sum(int(digit) * (3 if index % 2 else 1) for index, digit in enumerate(reversed(code))) % 10 == 0


def change_is_good(event):
    """DOMAIN.md §2, data quality: anything else has no effect and is dead-lettered."""
    return (
        event.contract == "retail.stock.v1.StockChanged" and key_is_right(event) and times_are_right(event)
        and event["qty"] > 0 and event["fromState"] != event["toState"]
        and "UNKNOWN" not in (event["fromState"], event["toState"], event["reason"])
        and gs1(event["gtin"], (8, 12, 13, 14)) and gs1(event["gln"], (13,))
    )


def snapshot_is_good(event):
    return (
        event.contract == "retail.stock.v1.StockSnapshot" and key_is_right(event) and times_are_right(event)
        and event["basis"] != "UNKNOWN"
    )


@dataclass
class Position:
    """The facts of one (sku, location) that count, in the order of the log."""
    changes: list = field(default_factory=list)
    snapshots: list = field(default_factory=list)
    source: str | None = None


def effect(event, bucket):
    """What a movement does to a bucket. At the origin of a transfer goods leave SELLABLE; they are on
    their way to the destination, which alone counts them as such: when the announcement raises them
    and the arrival takes them out again."""
    change = ZERO
    for state, sign in ((event["fromState"], -1), (event["toState"], 1)):
        if BUCKETS.get(state) == bucket:
            change += sign * event["qty"]
    if bucket == "inTransitIn" and event["reason"] == "TRANSFER_OUT":
        return ZERO
    return change


def place(event):
    return (event.meta["sourceEpoch"], event.meta["sourcePosition"])


def as_of(event):
    return (event["asOfEpoch"], event["asOfPosition"])


def base_of(snapshot, bucket):
    """What a snapshot states of a bucket; None where it says nothing."""
    value = snapshot[bucket]
    if bucket == "sellable" and snapshot["basis"] == "AVAILABLE_NET":
        # What the source had promised is added back.
        return value + snapshot["sourceReserved"]
    return value


def rebases(event):
    """Whether a snapshot is more than something to compare with."""
    known = event["basis"] != "AVAILABLE_NET" or event["sourceReserved"] is not None
    return event.meta["origin"] != "RECONCILIATION" and known


def declared(world):
    """The one system whose facts count, of each location for which that is declared."""
    newest = {}
    for event in world.events(AUTHORITY):
        known = newest.get(event["locationId"])
        if known is None or event["authorityVersion"] > known["authorityVersion"]:
            newest[event["locationId"]] = event
    return {location: event["source"] for location, event in newest.items() if event["source"]}


def positions(world):
    """Facts of each position, those of its authority alone: the declared one, else the source of its first fact."""
    found, authorities = defaultdict(Position), declared(world)
    for event in sorted(world.events(CHANGE), key=lambda e: e.at):
        if change_is_good(event):
            at = found[event.key]
            at.source = at.source or authorities.get(event["locationId"]) or event.meta["source"]
            at.changes.append(event)
    for event in sorted(world.events(SNAPSHOT), key=lambda e: e.at):
        if snapshot_is_good(event) and rebases(event):
            at = found[event.key]
            at.source = at.source or authorities.get(event["locationId"]) or event.meta["source"]
            at.snapshots.append(event)
    for position in found.values():
        position.changes = [e for e in position.changes if e.meta["source"] == position.source]
        position.snapshots = [e for e in position.snapshots if e.meta["source"] == position.source]
    return found


def newest(snapshots, bucket):
    stated = [s for s in snapshots if base_of(s, bucket) is not None]
    return max(stated, key=as_of, default=None)


def trusted_epoch(position):
    """Epoch whose movements count: that of the newest snapshot, else the earliest heard of."""
    if position.snapshots:
        return max(as_of(s)[0] for s in position.snapshots)
    return min((place(c)[0] for c in position.changes), default=0)


def distinct(changes):
    return list({event.id: event for event in reversed(changes)}.values())


def fold(position, bucket):
    """The quantity of a bucket, and the facts that make it."""
    base = newest(position.snapshots, bucket)
    total, since = (ZERO, None) if base is None else (base_of(base, bucket), as_of(base))
    epoch = trusted_epoch(position)
    counted = []
    for event in distinct(position.changes):
        if place(event)[0] <= epoch and (since is None or place(event) > since):
            change = effect(event, bucket)
            total += change
            if change:
                counted.append(event)
    return Decimal(total), ([base] if base else []) + counted
