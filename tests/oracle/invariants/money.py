"""9 and 15: no money moves twice, and the books balance."""
from collections import defaultdict

import orders
from world import GRACE, HORIZON, ZERO, natural_id

SETTLEMENT, PAYOUT, POSTING = "retail.settlement.event.v1", "retail.settlement.payout.v1", "retail.ledger.posting.v1"
WILL_PAY = {"APPROVED", "SUBMITTED", "OUTCOME_UNKNOWN", "COMPLETED"}
MOVES = {
    None: {"REQUESTED", "APPROVED", "REJECTED", "SUBMITTED", "COMPLETED", "FAILED", "OUTCOME_UNKNOWN"},
    "REQUESTED": {"APPROVED", "REJECTED", "COMPLETED"},
    "APPROVED": {"SUBMITTED", "COMPLETED", "FAILED", "OUTCOME_UNKNOWN"},
    "SUBMITTED": {"SUBMITTED", "COMPLETED", "FAILED", "OUTCOME_UNKNOWN"},
    "OUTCOME_UNKNOWN": {"SUBMITTED", "COMPLETED", "FAILED", "OUTCOME_UNKNOWN"},
    "FAILED": {"APPROVED", "SUBMITTED", "COMPLETED", "REJECTED"},
    "COMPLETED": {"COMPLETED", "REVERSED"},
    "REJECTED": {"REJECTED", "COMPLETED"},  # paid by others all the same
    "REVERSED": {"REVERSED", "COMPLETED", "APPROVED"},
}


def cases(world, order, *codes):
    """Open cases of an order with one of these codes."""
    closed = {"RESOLVED", "COMPENSATED", "ACCEPTED"}
    return [e for e in world.exceptions.values() if e["orderId"] == order and e["status"] not in closed and (not codes or e["code"] in codes)]


def refunds(world, out):
    """9. Σ refunds ≤ captured; one effect at the provider for each refund and for each cause."""
    paid, refunded, returned = orders.payments(world), orders.refunds(world), orders.returns(world)
    states = world.latest(orders.STATE)
    for order in sorted(paid.keys() | refunded.keys()):
        _within(world, out, order, paid.get(order, []), refunded.get(order, []))
        _causes(world, out, order, refunded.get(order, []), returned.get(order, []), states.get(order))
        _at_provider(out, order, paid.get(order, []), refunded.get(order, []))
        out.saw("orders with money")
    _attempts(world, out)
    ledger = world.ledgers.get("psp")
    if ledger is None:
        out.lacks("no payment provider's ledger")
    else:
        _ledger(world, out, ledger, refunded)


def _within(world, out, order, paid, refunded):
    for currency in sorted({e["amount"]["currency"] for e in paid + refunded}):
        captures = [e for e in paid if e["kind"] == "CAPTURED" and e["amount"]["currency"] == currency]
        captured = orders.total(paid, "CAPTURED", currency)
        back = orders.total(paid, "REFUNDED", currency) - orders.total(paid, "REFUND_REVERSED", currency)
        told = cases(world, order, "REFUND_EXCEEDS_CAPTURE", "DUPLICATE_REFUND", "REFUND_WITHOUT_RETURN")
        if back > captured and not told:
            named = [e.record for e in paid if e["kind"] == "REFUNDED"]
            out.broken(f"of order {order} {back} {currency} were paid back, {captured} captured, and nobody is told", *named, *(c.record for c in captures))
        owed = [e for e in refunded if e["status"] in WILL_PAY and e["amount"]["currency"] == currency]
        promised = sum((e["amount"]["amount"] for e in owed if not e["issuedElsewhere"]), ZERO)
        if promised > captured:
            out.broken(f"of order {order} {promised} {currency} of refunds are granted, {captured} captured", *(e.record for e in owed), *(c.record for c in captures))
    for event in refunded:
        parts = sum((a["net"] + a["tax"] for a in event["allocations"]), ZERO)
        if event["allocations"] and parts != event["amount"]["amount"]:
            out.broken(f"refund {event['refundId']} is of {event['amount']['amount']}, its allocations of {parts}", event.record)


def _causes(world, out, order, refunded, returned, state):
    """What is paid back for a line came back, was cancelled, or was never sent."""
    lines = defaultdict(lambda: [ZERO, ZERO, []])
    for event in refunded:
        if event["status"] not in WILL_PAY or event["issuedElsewhere"]:
            continue
        for part in event["allocations"]:
            if part["type"] in ("ITEM", "CANCELLATION"):
                of = lines[part["orderLineId"]]
                of[part["type"] == "CANCELLATION"] += part["qty"]
                of[2].append(event.record)
    for line, (item, cancelled, records) in lines.items():
        accepted = sum((l["accepted"] for r in returned for l in r["lines"] if l["orderLineId"] == line), ZERO)
        gone = next((l["cancelled"] for l in state["lines"] if l["lineId"] == line), ZERO) if state else cancelled
        if item + cancelled > accepted + gone:
            out.broken(f"of line {line} of order {order} {item + cancelled} units are paid back, {accepted} came back and {gone} were cancelled",
                       *records, *(r.record for r in returned))


def _at_provider(out, order, paid, refunded):
    by_refund = defaultdict(list)
    for event in paid:
        if event["kind"] == "REFUNDED" and event["refundKey"]:
            by_refund[event["refundKey"].split("|")[0]].append(event)
    reversed_ = {e["refundKey"].split("|")[0] for e in paid if e["kind"] == "REFUND_REVERSED" and e["refundKey"]}
    for refund, events in by_refund.items():
        if len(events) > 1 and refund not in reversed_:
            out.broken(f"the provider paid refund {refund} {len(events)} times", *(e.record for e in events))
    for event in refunded:
        if event["status"] != "COMPLETED" or event["issuedElsewhere"] or event["attempt"] == 0:
            continue
        if event["refundId"] not in by_refund:
            out.broken(f"refund {event['refundId']} is told to be paid, and the provider has not said so", event.record)


def _attempts(world, out):
    """A refund moves as it may, and a provider is asked under a new key only after a definite refusal."""
    last, refused = {}, {}
    for event in world.events(orders.REFUND):
        before = last.get(event["refundId"])
        if event["status"] not in MOVES[before and before["status"]]:
            out.broken(f"refund {event['refundId']} went from {before and before['status']} to {event['status']}", before and before.record, event.record)
        if event["status"] in ("FAILED", "REVERSED"):
            refused[event["refundId"]] = event["attempt"]
        if before and event["attempt"] > before["attempt"] > 0 and refused.get(event["refundId"]) != before["attempt"]:
            out.broken(f"refund {event['refundId']} is asked for a second time while the first was {before['status']}", before.record, event.record)
        last[event["refundId"]] = event
        out.saw("refund events")


def _ledger(world, out, ledger, refunded):
    captured, back, by_refund = defaultdict(lambda: ZERO), defaultdict(list), defaultdict(list)
    known = {e["refundId"]: e for events in refunded.values() for e in events}
    for entry in ledger:
        of = entry["order"], entry["currency"]
        if entry.kind == "capture":
            captured[of] += entry.amount("amount")
        elif entry.kind == "refund":
            back[of].append(entry)
            if entry["key"]:
                by_refund[entry["key"].split("|")[0]].append(entry)
            out.saw("refunds at the provider")
    for (order, currency), entries in sorted(back.items()):
        paid = sum((e.amount("amount") for e in entries), ZERO)
        if paid > captured[order, currency]:
            out.broken(f"the provider paid {paid} {currency} back of order {order}, it had taken {captured[order, currency]}", *entries)
    for refund, entries in sorted(by_refund.items()):
        if len(entries) > 1:
            out.broken(f"the provider paid refund {refund} {len(entries)} times", *entries)
        event = known.get(refund)
        if event is None:
            out.broken(f"the provider paid refund {refund}, of which nobody decided", *entries)
        elif event["status"] not in ("COMPLETED", "REVERSED"):
            out.broken(f"the provider has paid refund {refund}, which is told to be {event['status']}", entries[0], event.record)


def books(world, out):
    """15. The net of a payout is the sum of its lines, the control row and what the bank got; every posting
    balances and is made once; at the end nothing is left where nothing may be."""
    _payouts(world, out)
    if world.has(POSTING):
        _postings(world, out)
    else:
        out.lacks("no postings in the log")


def _is_late(world, events):
    return max(e.meta["recordedAt"] for e in events) + HORIZON + GRACE > world.now


def _lines(world):
    found = {}
    for topic in (SETTLEMENT, PAYOUT):
        for event in world.events(topic):
            if event.contract != "retail.finance.v1.SettlementEvent":
                continue
            name = (event["psp"], event["payoutId"], event["lineId"])
            if name not in found or event.meta["sourcePosition"] > found[name].meta["sourcePosition"]:
                found[name] = event
    payouts = defaultdict(list)
    for (psp, payout, _), event in found.items():
        payouts[psp, payout].append(event)
    return payouts


def _case_of(world, *names):
    """Whether a case is open whose entity or cause is one of these."""
    closed = {"RESOLVED", "COMPENSATED", "ACCEPTED"}
    for event in world.exceptions.values():
        if event["status"] in closed:
            continue
        if any(event["exceptionId"] == natural_id(event["code"], name, event["causeKey"]) or name == event["causeKey"] for name in names):
            return True
    return False


def _payouts(world, out):
    for (psp, payout), events in sorted(_lines(world).items()):
        lines = [e for e in events if e["kind"] not in ("PAYOUT_CONTROL", "BANK_CREDIT")]
        control = [e for e in events if e["kind"] == "PAYOUT_CONTROL"]
        bank = [e for e in events if e["kind"] == "BANK_CREDIT"]
        told = _case_of(world, payout, f"{psp}|{payout}")
        if _is_late(world, events):
            out.lacks("payouts of which facts may still come")
            told = True
        net = sum((e["net"] for e in lines), ZERO)
        for event in lines:
            if event["net"] != event["gross"] - event["fee"] and not told:
                out.broken(f"line {event['lineId']} of payout {payout} nets {event['net']}, it is {event['gross']} less {event['fee']}", event.record)
        named = [e.record for e in control + bank + lines]
        if control and not told:
            if control[0]["controlNet"] is not None and control[0]["controlNet"] != net:
                out.broken(f"payout {payout} is of {control[0]['controlNet']}, its {len(lines)} lines sum to {net}, and nobody is told", *named)
            if control[0]["controlCount"] is not None and control[0]["controlCount"] != len(lines):
                out.broken(f"payout {payout} has {control[0]['controlCount']} lines by its control row, {len(lines)} came, and nobody is told", *named)
        if control and bank and not told and control[0]["controlNet"] != sum((e["net"] for e in bank), ZERO):
            out.broken(f"payout {payout} is of {control[0]['controlNet']}, the bank got {sum((e['net'] for e in bank), ZERO)}, and nobody is told", *named)
        out.saw("payouts")
        out.saw("settled lines", len(lines))


def _postings(world, out):
    sequences, balances, made = defaultdict(int), defaultdict(lambda: ZERO), defaultdict(list)
    seen = {}
    for event in world.events(POSTING):
        sides = {side: sum((e["amount"] for e in event["entries"] if e["side"] == side), ZERO) for side in ("DEBIT", "CREDIT")}
        if sides["DEBIT"] != sides["CREDIT"]:
            out.broken(f"posting {event['postingId']} ({event['reason']}) has {sides['DEBIT']} of debits and {sides['CREDIT']} of credits", event.record)
        if any(e["amount"] <= 0 or "UNKNOWN" in (e["account"], e["side"]) for e in event["entries"]):
            out.broken(f"posting {event['postingId']} has an entry that books nothing", event.record)
        whose = ("order", event["orderId"]) if event["orderId"] else ("payout", event["payoutId"])
        name = (whose, event["cause"], event["currency"])
        if event["postingId"] in seen:
            out.broken(f"posting {event['postingId']} was made twice", seen[event["postingId"]].record, event.record)
        elif event["sequence"] != sequences[name]:
            out.broken(f"{event['cause']} of {whose[0]} {whose[1]} is booked with number {event['sequence']}, {sequences[name]} postings were made of it", event.record)
        seen[event["postingId"]] = event
        sequences[name] += 1
        for entry in event["entries"]:
            owner = ("order", entry["orderId"]) if entry["orderId"] else whose
            amount = entry["amount"] if entry["side"] == "DEBIT" else -entry["amount"]
            balances[owner, entry["account"], event["currency"]] += amount
            made[owner].append(event)
        out.saw("postings")
    _residuals(world, out, balances, made)
    _payments(world, out, made)


def _residuals(world, out, balances, made):
    closed = {e["orderId"]: e for e in world.latest(orders.STATE).values() if e["closed"]}
    young = {order for order, e in closed.items() if e.meta["recordedAt"] + GRACE > world.now}
    closed = closed.keys() - young
    if young:
        out.lacks("orders that have just been closed")
    settled = {payout for (_, payout), events in _lines(world).items()
               if {"PAYOUT_CONTROL", "BANK_CREDIT"} <= {e["kind"] for e in events} and not _is_late(world, events)}
    for ((kind, name), account, currency), amount in sorted(balances.items()):
        if amount == 0:
            continue
        records = [e.record for e in made[kind, name]]
        if kind == "order" and name in closed and account in ("CUSTOMER_DEPOSITS", "REFUND_LIABILITY") and not cases(world, name):
            out.broken(f"order {name} is closed with {amount} {currency} in {account}, and nobody is told", *records)
        if kind == "payout" and name in settled and account == "PSP_CLEARING" and not _case_of(world, name):
            out.broken(f"payout {name} is settled with {amount} {currency} in {account}, and nobody is told", *records)
    out.saw("closed orders", len(closed))


def _payments(world, out, made):
    """What came in from customers is what the provider captured."""
    for order, paid in sorted(orders.payments(world).items()):
        for currency in sorted({e["amount"]["currency"] for e in paid if e["kind"] == "CAPTURED"}):
            captured = orders.total(paid, "CAPTURED", currency)
            booked = ZERO
            for event in {e.id: e for e in made.get(("order", order), ())}.values():
                if event["reason"] != "CAPTURED" or event["currency"] != currency:
                    continue
                booked += sum((e["amount"] if e["side"] == "DEBIT" else -e["amount"] for e in event["entries"] if e["account"] == "PSP_CLEARING"), ZERO)
            if booked != captured:
                named = [e.record for e in made.get(("order", order), ()) if e["reason"] == "CAPTURED"]
                out.broken(f"of order {order} {captured} {currency} were captured, {booked} are booked", *(e.record for e in paid if e["kind"] == "CAPTURED"), *named)
            out.saw("captures against the books")
