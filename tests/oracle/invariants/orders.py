"""6, 8 and 10: every order is whole, is in the ERP once, and is known."""
from collections import defaultdict

import orders
from world import ZERO, natural_id

BUCKETS = ("open", "reserved", "backordered", "released", "picked", "shipped", "delivered", "cancelled")


def buckets(world, out):
    """6. ordered = Σ buckets of each line in every version, and what left is what was told to leave."""
    states = world.events(orders.STATE)
    if not states:
        return out.lacks("no order states in the log")
    for state in states:
        for line in state["lines"]:
            of = f"line {line['lineId']} of order {state['orderId']}"
            total = sum((line[bucket] for bucket in BUCKETS), ZERO)
            if total != line["ordered"]:
                out.broken(f"{of} has {line['ordered']} ordered, its buckets hold {total}", state.record)
            for bucket in (*BUCKETS, "returned", "refundedQty"):
                if line[bucket] < 0:
                    out.broken(f"{of} has {line[bucket]} {bucket}", state.record)
            out.saw("lines")
    out.saw("states", len(states))
    _last(world, out)


def _last(world, out):
    """The last state against the facts. What cannot be true must be an open case."""
    life, shipped = orders.lifecycles(world), orders.shipments(world)
    returned, refunded = orders.returns(world), orders.refunds(world)
    for order, state in world.latest(orders.STATE).items():
        terms = orders.terms(life.get(order, []))
        quantities = {line["lineId"]: line["qty"] for line in terms["order"]["lines"]} if terms else {}
        excused = bool(state["openExceptions"])
        for line in state["lines"]:
            name, of = line["lineId"], f"line {line['lineId']} of order {order}"
            parcels = [s for s in shipped.get(order, ()) if any(l["lineId"] == name for l in s["lines"])]
            left = sum((orders.gone(s, l) for s in parcels for l in s["lines"] if l["lineId"] == name), ZERO)
            told = line["shipped"] + line["delivered"]
            named = [s.record for s in parcels]
            if left > quantities.get(name, line["ordered"]) and not excused:
                out.broken(f"of {of} {left} were sent, {quantities.get(name, line['ordered'])} ordered, and nobody is told", state.record, *named)
            elif told != min(left, line["ordered"]) and not excused:
                out.broken(f"of {of} {told} are told to have left, its fulfilments give {left}", state.record, *named)
            if terms and name not in quantities:
                out.broken(f"{of} is not in the order", state.record, terms.record)
            elif terms and line["ordered"] != quantities[name]:
                out.broken(f"of {of} {line['ordered']} are told to be ordered, {quantities[name]} are", state.record, terms.record)
            _back(out, order, line, state, returned.get(order, ()), refunded.get(order, ()), excused)
        missing = quantities.keys() - {line["lineId"] for line in state["lines"]}
        if missing:
            out.broken(f"line {min(missing)} of order {order} is in no bucket", state.record, terms.record)


def _back(out, order, line, state, returned, refunded, excused):
    name, of = line["lineId"], f"line {line['lineId']} of order {order}"
    if excused:
        return
    if line["returned"] > line["shipped"] + line["delivered"]:
        out.broken(f"of {of} more came back than had left", state.record, *(r.record for r in returned))
    goodwill = sum((a["qty"] for r in refunded for a in r["allocations"]
                    if a["orderLineId"] == name and a["type"] == "APPEASEMENT"), ZERO)
    if line["refundedQty"] > line["returned"] + line["cancelled"] + goodwill:
        out.broken(f"of {of} {line['refundedQty']} are paid back, {line['returned']} came back and {line['cancelled']} were cancelled",
                   state.record, *(r.record for r in refunded))


def erp(world, out):
    """8. One live ERP order for each accepted order, none orphaned."""
    states = world.latest(orders.STATE)
    accepted = {}
    for order, events in orders.lifecycles(world).items():
        for event in events:
            if event["type"] == "ACCEPTED":
                accepted.setdefault(order, []).append(event)
    ledger = world.ledgers.get("erp")
    if ledger is None:
        out.lacks("no ledger of an ERP")
    else:
        _ledger(out, ledger, states, accepted)
    duplicates = {e["orderId"] for e in world.exceptions.values() if e["code"] == "DUPLICATE_IN_ERP"}
    lost = {entry["id"] for entry in ledger or () if entry.kind == "order-lost"}
    for order, events in sorted(accepted.items()):
        named = {e["erpOrderId"] for e in events if e["erpOrderId"]}
        live = named - lost
        state = states.get(order)
        if len(live) > 1 and order not in duplicates:
            out.broken(f"order {order} was accepted as {len(live)} ERP orders: {', '.join(sorted(live))}", *(e.record for e in events))
        if state is not None and set(state["erpOrderIds"]) != named:
            out.broken(f"order {order} is told to be {state['erpOrderIds']} in the ERP, which accepted {sorted(named)}", state.record, *(e.record for e in events))
        out.saw("accepted orders")


def _ledger(out, ledger, states, accepted):
    live, said = defaultdict(dict), {}
    for entry in ledger:
        if entry.kind == "order":
            live[entry["order"]][entry["id"]] = entry
            said[entry["order"]] = entry
        elif entry.kind in ("order-cancelled", "order-lost"):
            live[entry["order"]].pop(entry["id"], None)
    for order, entries in sorted(live.items()):
        if len(entries) > 1:
            out.broken(f"order {order} is in the ERP {len(entries)} times", *entries.values())
        if order not in states:
            out.broken(f"the ERP has an order {order} that nobody placed", *entries.values())
        out.saw("orders in the ERP")
    for order, events in sorted(accepted.items()):
        if order not in said:
            out.broken(f"order {order} is accepted, and the ERP has none", events[0].record)


def known(world, out):
    """10. Every order of a storefront is in state, under the one id that it can have, or openly refused."""
    states = world.latest(orders.STATE)
    for event in world.events(orders.LIFECYCLE):
        if event.contract != world.contracts[orders.LIFECYCLE] or event["type"] != "PLACED" or not event["order"]:
            continue
        placed = event["order"]
        own = natural_id(event.meta["tenantId"], placed["channelId"], placed["channelOrderId"])
        if event["orderId"] != own:
            out.broken(f"order {placed['channelOrderId']} of {placed['channelId']} has the id {event['orderId']}, its own is {own}", event.record)
        elif states and own not in states and own not in world.refused:
            out.broken(f"order {own} was placed and has no state", event.record)
        out.saw("placed orders")
    if not states and world.has(orders.LIFECYCLE):
        out.lacks("no order states in the log")
    for state in states.values():
        placed = [e for e in orders.lifecycles(world).get(state["orderId"], ()) if e["order"]]
        if placed and (state["channelId"], state["channelOrderId"]) != (placed[0]["order"]["channelId"], placed[0]["order"]["channelOrderId"]):
            out.broken(f"the state of order {state['orderId']} is of {state['channelId']} {state['channelOrderId']}", state.record, placed[0].record)
    fronts = {n: e for n, e in world.ledgers.items() if n.startswith("storefront-")}
    if not fronts:
        out.lacks("no storefront's ledger")
    for name, entries in fronts.items():
        for entry in entries:
            if entry.kind == "order":
                if entry["order"] not in states and not {entry["order"], entry["number"]} & world.refused:
                    out.broken(f"{name} has taken order {entry['number']}, which has no state", entry)
                out.saw("orders in storefronts")
