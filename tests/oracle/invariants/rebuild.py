"""12: what the facts and the recorded decisions give is what is live, in every field but versions, times of
recording and causes."""
from collections import defaultdict
from decimal import ROUND_FLOOR

import claims
import facts
import orders
from world import ZERO, key_of

LEVEL, ATS = "retail.stock.level.v1", "retail.stock.ats.v1"
CHANNEL, FEED = "retail.channel.change.v1", "retail.ops.feed.v1"


def judge(world, out):
    if world.has(LEVEL):
        levels(world, out)
    if world.has(ATS):
        availability(world, out)
    if world.has(orders.STATE):
        order_states(world, out)


def _newest(events, identity, version):
    found = {}
    for event in events:
        known = found.get(event[identity])
        if known is None or event[version] > known[version]:
            found[event[identity]] = event
    return found


def channels(world):
    return {i: c for i, c in _newest(world.events(CHANNEL), "channelId", "channelVersion").items() if c["status"] == "ACTIVE"}


def policies(world):
    found = {}
    for event in world.events(facts.POLICY):
        known = found.get(event.key)
        if facts.key_is_right(event) and (known is None or event["policyVersion"] > known["policyVersion"]):
            found[event.key] = event
    return found


def floor(quantity, unit):
    return quantity if not unit else (quantity / unit).to_integral_value(ROUND_FLOOR) * unit


def levels(world, out):
    """The last level of each position and what each channel may have of it."""
    rules, selling, positions = policies(world), channels(world), facts.positions(world)
    silent = {event["feedSource"] for event in world.latest(FEED).values() if event["status"] == "STALE"}
    claimed = defaultdict(lambda: defaultdict(lambda: ZERO))
    for key, events in claims.by_position(world).items():
        last = {event["reservationId"]: event for event in events}
        for event in last.values():
            claimed[key][event["channelId"]] += claims.active(event)
    for key, level in sorted(world.latest(LEVEL).items()):
        policy = claims.Policy.of(rules[key]) if key in rules else claims.NO_POLICY
        sellable = facts.fold(positions[key], "sellable")[0] if key in positions else ZERO
        of = claimed[key]
        reserved = sum(of.values(), ZERO)
        expected = {
            "safetyStock": policy.safety, "reserved": reserved, "ats": max(ZERO, sellable - reserved - policy.safety),
            "overcommitted": max(ZERO, reserved - max(ZERO, sellable)),
        }
        for name, value in expected.items():
            if level[name] != value:
                out.broken(f"{name} of {key} is {level[name]}, facts and decisions give {value}", level.record)
        serving = {i: c for i, c in selling.items() if level["locationId"] in c["eligibleLocations"]}
        shares = {i: floor(claims.ats(policy, i, sellable, of), c["unit"]) for i, c in serving.items()}
        if level["atsByChannel"] != shares:
            wrong = next(i for i in sorted(shares.keys() | level["atsByChannel"].keys()) if shares.get(i) != level["atsByChannel"].get(i))
            out.broken(f"{wrong} may have {level['atsByChannel'].get(wrong)} of {key}, facts and decisions give {shares.get(wrong)}", level.record)
        waits = key in positions and any(facts.place(c)[0] > facts.trusted_epoch(positions[key]) for c in positions[key].changes)
        mute = key in positions and positions[key].source in silent
        if (level["confidence"] == "HIGH") == (waits or mute):
            why = "its source is silent" if mute else f"{'some' if waits else 'none'} of its facts wait for a snapshot"
            out.broken(f"{key} is told with confidence {level['confidence']}, and {why}", level.record)
        out.saw("levels")


def availability(world, out):
    """What is published is the sum of what the locations offer, less the channel's buffer once."""
    selling, rules, stock = channels(world), policies(world), world.latest(LEVEL)
    published = world.latest(ATS)
    by_offer = defaultdict(dict)
    for level in stock.values():
        for channel, quantity in level["atsByChannel"].items():
            by_offer[key_of(level["sku"], channel)][level["locationId"]] = (quantity, level)
    for key, event in sorted(published.items()):
        channel = selling.get(event["channelId"])
        offers = by_offer.get(key, {})
        buffers = [ZERO]
        for _, level in offers.values():
            rule = rules.get(key_of(level["sku"], level["locationId"]))
            own = next((a["buffer"] for a in rule["allocations"] if a["channelId"] == event["channelId"]), None) if rule else None
            buffers.append(own if own is not None else channel["defaultBuffer"] if channel else ZERO)
        total = max(ZERO, sum((quantity for quantity, _ in offers.values()), ZERO) - max(buffers))
        total = floor(total, channel["unit"] if channel else None)
        if event["ats"] != total:
            out.broken(f"{event['ats']} of {key} are published, the locations offer {total}", event.record, *(level.record for _, level in offers.values()))
        out.saw("availabilities")
    for key, offers in sorted(by_offer.items()):
        if key not in published:
            out.broken(f"what can be had of {key} was never published", *(level.record for _, level in offers.values()))


def order_states(world, out):
    """The money of each order, and the status that its lines project."""
    paid, refunded, notes = orders.payments(world), orders.refunds(world), orders.invoices(world)
    life, shipped = orders.lifecycles(world), orders.shipments(world)
    for order, state in sorted(world.latest(orders.STATE).items()):
        currency, money = state["currency"], paid.get(order, [])
        mine = [r for r in refunded.get(order, []) if r["amount"]["currency"] == currency]
        bills = [n for n in notes.get(order, []) if n["net"]["currency"] == currency and n["status"] != "CANCELLED"]
        expected = {
            "captured": orders.total(money, "CAPTURED", currency),
            "chargedBack": orders.total(money, "CHARGEBACK", currency) - orders.total(money, "CHARGEBACK_REVERSED", currency),
            "refunded": sum((r["amount"]["amount"] for r in mine if r["status"] == "COMPLETED"), ZERO),
            "refundInFlight": sum((r["amount"]["amount"] for r in mine if r["status"] in ("APPROVED", "SUBMITTED", "OUTCOME_UNKNOWN")), ZERO),
            "invoiced": sum((n["gross"] for n in bills if n["kind"] in ("INVOICE", "DEBIT_NOTE")), ZERO),
            "credited": sum((n["gross"] for n in bills if n["kind"] == "CREDIT_NOTE"), ZERO),
        }
        facts_of = [e.record for e in money + mine + bills]
        for name, value in expected.items():
            if state[name] != value:
                out.broken(f"{name} of order {order} is {state[name]}, its facts give {value}", state.record, *facts_of)
        status = _status(world, state, life.get(order, []), shipped.get(order, []))
        if state["status"] != status:
            out.broken(f"order {order} is told to be {state['status']}, its lines and facts make it {status}", state.record)
        terms = orders.terms(life.get(order, []))
        if terms and state["grandTotal"] != terms["order"]["grandTotal"]:
            out.broken(f"order {order} is told to cost {state['grandTotal']}, it costs {terms['order']['grandTotal']}", state.record, terms.record)
        out.saw("orders")


def _status(world, state, life, shipped):
    """The first that fits (DOMAIN.md §4; closed is a flag beside it)."""
    def every(rule):
        return bool(state["lines"]) and all(map(rule, state["lines"]))

    def some(*buckets):
        return any(line[bucket] > 0 for line in state["lines"] for bucket in buckets)

    def newest(*types):
        return max((e for e in life if e["type"] in types), key=lambda e: e["entityVersion"], default=None)

    critical = [e for e in world.exceptions.values() if e["exceptionId"] in state["openExceptions"] and e["severity"] == "CRITICAL"]
    held, verdict = newest("HELD", "HOLD_RELEASED"), newest("ACCEPTED", "REJECTED")
    left = some("shipped", "delivered")
    groups = {g["groupId"] for e in life if e["order"] for g in e["order"]["deliveryGroups"]
              if g["method"] in ("PICKUP_IN_STORE", "CURBSIDE", "SHIP_TO_STORE")}
    waiting = [s for s in shipped if s["status"] not in ("COLLECTED", "CANCELLED", "DELIVERED")]
    ready = bool(groups and waiting) and all(s["status"] == "READY_FOR_PICKUP" for s in waiting)
    rules = [
        ("CONFLICT", bool(critical)),
        ("REJECTED", verdict is not None and verdict["type"] == "REJECTED" and not left),
        ("ON_HOLD", held is not None and held["type"] == "HELD"),
        ("CANCELLED", every(lambda l: l["cancelled"] == l["ordered"])),
        ("RETURNED", some("returned") and every(lambda l: l["returned"] == l["ordered"] - l["cancelled"])),
        ("PARTIALLY_RETURNED", some("returned")),
        ("COMPLETED", every(lambda l: l["delivered"] == l["ordered"] - l["cancelled"])),
        ("READY_FOR_PICKUP", ready),
        ("SHIPPED", left and every(lambda l: l["shipped"] + l["delivered"] == l["ordered"] - l["cancelled"])),
        ("PARTIALLY_SHIPPED", left),
        ("IN_FULFILMENT", some("released", "picked")),
        ("BACKORDERED", some("backordered")),
        ("ACCEPTED", verdict is not None and verdict["type"] == "ACCEPTED"),
        ("PLACED", True),
    ]
    return next(status for status, fits in rules if fits)
