"""Claims on a position as their events tell them, replayed along the ledger's sequence (DOMAIN.md §0:
decisions are data), and what the policy of a position leaves to sell (§5)."""
from collections import defaultdict
from dataclasses import dataclass
from decimal import Decimal

from world import ZERO, key_of

COMMAND, EVENT, DECISION = "retail.reservation.command.v1", "retail.reservation.event.v1", "retail.reservation.decision.v1"
ACTIVE = {"HELD", "CONFIRMED", "PARTIALLY_CONSUMED", "BACKORDERED"}

# DOMAIN.md §4. A state may be told again with other quantities; what has left the shelf has left it, so a
# claim that was over can still be told to be consumed.
MOVES = {
    None: {"HELD", "CONFIRMED", "REJECTED", "BACKORDERED", "RELEASED", "CONSUMED", "PARTIALLY_CONSUMED"},
    "HELD": {"HELD", "CONFIRMED", "RELEASED", "EXPIRED", "PARTIALLY_CONSUMED", "CONSUMED"},
    "CONFIRMED": {"CONFIRMED", "RELEASED", "PARTIALLY_CONSUMED", "CONSUMED"},
    "PARTIALLY_CONSUMED": {"PARTIALLY_CONSUMED", "CONSUMED", "RELEASED", "EXPIRED"},
    "BACKORDERED": {"BACKORDERED", "HELD", "CONFIRMED", "RELEASED", "EXPIRED", "PARTIALLY_CONSUMED", "CONSUMED"},
    "REJECTED": {"REJECTED"},
    "RELEASED": {"RELEASED"},
    "EXPIRED": {"EXPIRED"},
    "CONSUMED": {"CONSUMED"},
}


def active(event):
    """Units that a claim keeps from others after this event."""
    return event["qtyHeld"] - event["qtyConsumed"] if event["status"] in ACTIVE else ZERO


def backordered(event):
    return event["qtyBackordered"] if event["status"] in ACTIVE else ZERO


def position_of(event):
    return key_of(event["sku"], event["locationId"])


def by_position(world):
    """Events of the claims of each position, in the order in which its ledger made them."""
    found = defaultdict(list)
    for event in world.events(EVENT):
        found[position_of(event)].append(event)
    for events in found.values():
        events.sort(key=lambda e: e["ledgerSequence"])
    return found


def by_reservation(world):
    found = defaultdict(list)
    for event in world.events(EVENT):
        found[event["reservationId"], position_of(event)].append(event)
    return found


@dataclass
class Policy:
    safety: Decimal
    allocations: dict
    oversell: str
    event: object = None

    @classmethod
    def of(cls, event):
        return cls(event["safetyStock"], {a["channelId"]: a for a in event["allocations"]}, event["oversell"], event)


NO_POLICY = Policy(ZERO, {}, "BLOCK")


def ats(policy, channel, sellable, claimed):
    """ATS_c = max(0, min(pool + unusedHard_c, share_c × (sellable − safety) − active_c)), where
    pool = sellable − active − safety − Σ unused hard quotas. `claimed` holds active units by channel."""
    def unused(name, allocation):
        hard = allocation["hardQty"]
        return max(ZERO, hard - claimed.get(name, ZERO)) if hard is not None else ZERO

    kept = sum((unused(name, a) for name, a in policy.allocations.items()), ZERO)
    pool = sellable - sum(claimed.values(), ZERO) - policy.safety - kept
    own = policy.allocations.get(channel)
    if own is None:
        return max(ZERO, pool)
    most = pool + unused(channel, own)
    if own["sharePct"] is not None:
        share = max(ZERO, sellable - policy.safety) * Decimal(repr(own["sharePct"])) / 100
        # Quantities have four places; what is less than one of them is nobody's.
        most = min(most, share.quantize(Decimal("0.0001"), rounding="ROUND_FLOOR") - claimed.get(channel, ZERO))
    return max(ZERO, most)
