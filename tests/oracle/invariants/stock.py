"""2 and 3: stock is what the facts say, and what is on its way between two places is not lost."""
from collections import defaultdict

import facts
from world import ZERO

LEVEL = "retail.stock.level.v1"


def conservation(world, out):
    """2. An independent fold of the facts gives the last level of every position."""
    positions = facts.positions(world)
    if not positions:
        return out.lacks("no stock facts in the log")
    if not world.has(LEVEL):
        return out.lacks("no stock levels in the log")
    levels = world.latest(LEVEL)
    for key in sorted(positions.keys() | levels.keys()):
        position, level = positions.get(key, facts.Position()), levels.get(key)
        for bucket in facts.BUCKETS.values():
            total, why = facts.fold(position, bucket)
            if bucket == "inTransitIn":
                total = max(ZERO, total)  # an arrival may be heard of before its announcement
            told = level[bucket] if level else ZERO
            if told != total:
                out.broken(f"{bucket} of {key} is {told}, its facts give {total}", level and level.record, *(e.record for e in why))
    out.saw("positions", len(positions.keys() | levels.keys()))
    out.saw("facts", sum(len(p.changes) + len(p.snapshots) for p in positions.values()))


def transfers(world, out):
    """3. Of each transfer: out = in + on the way + lost."""
    legs = defaultdict(list)
    for event in world.events(facts.CHANGE):
        if facts.change_is_good(event) and "IN_TRANSIT" in (event["fromState"], event["toState"]):
            legs[event["movementId"], event["sku"]].append(event)
    for (movement, sku), events in sorted(legs.items()):
        events = facts.distinct(events)
        left = [e for e in events if e["toState"] == "IN_TRANSIT" and e["reason"] == "TRANSFER_OUT"]
        announced = [e for e in events if e["toState"] == "IN_TRANSIT" and e["reason"] != "TRANSFER_OUT"]
        came = [e for e in events if e["fromState"] == "IN_TRANSIT"]
        if not left:
            continue  # a purchase that is on its way has no origin here
        amount = {name: sum((e["qty"] for e in legs_of), ZERO) for name, legs_of in (("left", left), ("announced", announced), ("came", came))}
        named = [e.record for e in left + announced + came]
        if amount["came"] > amount["left"]:
            out.broken(f"of transfer {movement} of {sku} {amount['left']} left, {amount['came']} arrived or were lost", *named)
        elif announced and amount["announced"] != amount["left"]:
            out.broken(f"of transfer {movement} of {sku} {amount['left']} left, {amount['announced']} were announced", *named)
        elif came and announced and {e["locationId"] for e in came} - {e["locationId"] for e in announced}:
            out.broken(f"transfer {movement} of {sku} arrived where it was not announced", *named)
        out.saw("transfers")
    if not legs:
        out.lacks("no transfers in the log")
