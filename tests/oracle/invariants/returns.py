"""11: each accepted return is matched by a refund, by goods on the shelf and by a credit note, or has one open
case; judged once the horizon for what is late is over."""
from collections import defaultdict
from decimal import Decimal

import facts
import orders
from world import GRACE, HORIZON, ZERO

from .money import cases

CODES = ("RETURN_WITHOUT_REFUND", "REFUND_WITHOUT_RETURN", "NOT_RESTOCKED", "CREDIT_NOTE_MISSING", "TAX_MISMATCH", "DUPLICATE_REFUND")
MINOR = {"JPY": Decimal(1), "KRW": Decimal(1), "KWD": Decimal("0.001"), "BHD": Decimal("0.001")}  # else a hundredth


def judge(world, out):
    returned, refunded, notes = orders.returns(world), orders.refunds(world), orders.invoices(world)
    life, restocked = orders.lifecycles(world), _restocked(world)
    accepted = {order: [r for r in events if any(l["accepted"] > 0 for l in r["lines"])] for order, events in returned.items()}
    if not any(accepted.values()):
        return out.lacks("no accepted returns in the log")
    for order, events in sorted(accepted.items()):
        terms = orders.terms(life.get(order, []))
        gaps = []
        paid_back = _paid_back(events, terms, refunded.get(order, []))
        for event in events:
            if max(event.meta["occurredAt"], event.meta["recordedAt"]) + HORIZON + GRACE > world.now:
                out.lacks("returns whose horizon is not over yet")
                continue
            gap = _gap(event, terms, paid_back[event["returnId"]], notes.get(order, []), restocked)
            if gap:
                gaps.append((event, gap))
            out.saw("accepted returns")
        told = cases(world, order, *CODES)
        if len(gaps) > len(told):
            event, gap = gaps[0]
            out.broken(f"return {event['returnId']} of order {order} {gap}, and {len(told)} cases are open", event.record, *(c.record for c in told))
        elif not gaps and told and all(e.meta["occurredAt"] + HORIZON + GRACE <= world.now for e in events):
            out.broken(f"case {told[0]['code']} of order {order} is open, and its returns are matched", told[0].record, *(e.record for e in events))
        elif len(told) > max(len(gaps), len(events)):
            out.broken(f"order {order} has {len(told)} open cases for {len(gaps)} returns that do not match", *(c.record for c in told))


def _restocked(world):
    """Units put back on the shelf, by return."""
    found = defaultdict(lambda: ZERO)
    seen = set()
    for topic in (facts.CHANGE, "retail.stock.by-order.v1"):
        for event in world.events(topic):
            if event.contract != "retail.stock.v1.StockChanged" or not event["returnId"] or event.id in seen:
                continue
            seen.add(event.id)
            if event["toState"] == "SELLABLE":
                found[event["returnId"], event["sku"]] += event["qty"]
    return found


def _paid_back(events, terms, refunded):
    """The completed refunds of each return. Who paid back before anybody asked (a storefront's own refund) says
    neither for which return nor for which lines: it answers to a return that is worth its amount, to one that nothing
    else answers to if there is any."""
    done = [r for r in refunded if r["status"] == "COMPLETED"]
    of = {event["returnId"]: [r for r in done if r["returnId"] == event["returnId"]] for event in events}
    for refund in (r for r in done if r["issuedElsewhere"] and r["returnId"] is None and not r["allocations"]):
        worth = [(event, _owed(event, terms)) for event in events]
        fits = [event["returnId"] for event, owed in worth
                if owed is not None and abs(refund["amount"]["amount"] - owed) <= _minor(refund, event)]
        if fits:
            of[next((r for r in fits if not of[r]), fits[0])].append(refund)
    return of


def _minor(refund, event):
    """What may be lost to rounding: a minor unit for each line."""
    return MINOR.get(refund["amount"]["currency"], Decimal("0.01")) * len(event["lines"])


def _goods(refund):
    """What a refund pays for goods, with tax: all of it where it names no lines."""
    if not refund["allocations"]:
        return refund["amount"]["amount"]
    return sum((a["net"] + a["tax"] for a in refund["allocations"] if a["type"] == "ITEM"), ZERO)


def _gap(event, terms, back, notes, restocked):
    """What a return lacks; None when everything answers to it."""
    kept = all(line["disposition"] == "KEEP" for line in event["lines"])
    if not back and not kept:
        return "is not paid back"
    owed = _owed(event, terms)
    if owed is not None and back:
        paid = sum(map(_goods, back), ZERO)
        minor = _minor(back[0], event)
        if paid < owed - minor:
            return f"is worth {owed}, {paid} were paid back"
        if paid > owed + minor:
            return f"is worth {owed}, {paid} were paid back for it"
    wanted = defaultdict(lambda: ZERO)
    for line in event["lines"]:
        if line["disposition"] == "RESTOCK":
            wanted[line["sku"]] += line["accepted"]
    for sku, quantity in wanted.items():
        if restocked[event["returnId"], sku] < quantity:
            return f"accepted {quantity} of {sku}, {restocked[event['returnId'], sku]} are back on the shelf"
    refunds = {r["refundId"] for r in back}
    own = [n for n in notes if n["kind"] == "CREDIT_NOTE" and n["status"] != "CANCELLED"
           and (n["returnId"] == event["returnId"] or (n["refundId"] and n["refundId"] in refunds))]
    if not own and not kept:
        return "has no credit note"
    return None


def _owed(event, terms):
    """Σ accepted × price paid, with tax."""
    if terms is None:
        return None
    of = {line["lineId"]: line for line in terms["order"]["lines"]}
    owed = ZERO
    for line in event["lines"]:
        sold = of.get(line["orderLineId"])
        if sold is None or not sold["qty"]:
            return None
        gross = sold["lineTotal"] + (ZERO if terms["order"]["pricesIncludeTax"] else sold["tax"])
        owed += line["accepted"] * gross / sold["qty"]
    return owed
