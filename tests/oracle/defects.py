"""Shows that the oracle can fail: takes a deployment in which every invariant holds, spoils what came out of it in
one way after another, and asks for each that the invariant which must catch it does."""
from collections import defaultdict
from dataclasses import dataclass
from decimal import Decimal

import invariants
import orders
from ledgers import Entry
from log import Record
from world import World, natural_id

ONE = Decimal(1)
CANARY = "erika.mustermann@example.org"
LEVEL, ATS, CHANGE = "retail.stock.level.v1", "retail.stock.ats.v1", "retail.stock.change.v1"
CLAIM, DECISION = "retail.reservation.event.v1", "retail.reservation.decision.v1"
DISPOSITION, CASE, POSTING = "retail.ops.disposition.v1", "retail.ops.exception.v1", "retail.ledger.posting.v1"


class Spoiler:
    """A copy of a world's records and ledgers, to be changed."""

    def __init__(self, world):
        self.world = world
        self.records = {(r.topic, r.partition, r.offset): r for r in world.records}
        self.ledgers = {system: list(entries) for system, entries in world.ledgers.items()}

    def events(self, topic, rule=lambda event: True):
        found = [event for event in self.world.events(topic) if rule(event)]
        if not found:
            raise LookupError(f"nothing in {topic} to spoil")
        return found

    def last(self, topic, rule=lambda event: True):
        return self.events(topic, rule)[-1]

    def last_of_key(self, topic, rule=lambda event: True):
        """The last event of a key, of the first key whose last event is so."""
        for event in self.world.latest(topic).values():
            if rule(event):
                return event
        raise LookupError(f"no key of {topic} ends so")

    def drop(self, *events):
        for event in events:
            del self.records[event.record.topic, event.record.partition, event.record.offset]

    def change(self, event, **fields):
        """The same record with other content."""
        self._put(event.record.copy(value=self._encode(event, event.value | fields)))

    def add(self, event, key=None, **fields):
        """One more record at the end of the partition, made after this one."""
        record = event.record
        offset = 1 + max(o for t, p, o in self.records if (t, p) == (record.topic, record.partition))
        value = event.value | fields
        if "meta" not in fields and fields:
            value["meta"] = event.meta | {"eventId": natural_id("defect", event.id)}
        self._put(record.copy(offset=offset, value=self._encode(event, value), key=key or record.key))

    def put(self, topic, key, contract, event, like):
        """A record that was never there, with the meta of another event."""
        number = self.world.schemas.id_of(contract)
        offset = 1 + max((o for t, p, o in self.records if (t, p) == (topic, 0)), default=-1)
        value = self.world.schemas.encode(number, {"meta": like.meta, **event})
        self._put(Record(topic, 0, offset, key.encode(), value))

    def _encode(self, event, value):
        number = int.from_bytes(event.record.value[1:5], "big")
        return self.world.schemas.encode(number, value)

    def _put(self, record):
        self.records[record.topic, record.partition, record.offset] = record

    def spoilt(self):
        w = self.world
        records = [self.records[place] for place in sorted(self.records)]
        return World(records, w.catalogue_path, ledgers=self.ledgers, readers=w.named_readers, sent=w.sent, canaries=[CANARY])


def line_of(event, **fields):
    """An order's or a fulfilment's lines with the first one changed by what is given."""
    first = {name: event["lines"][0][name] + by for name, by in fields.items()}
    return [event["lines"][0] | first, *event["lines"][1:]]


# --- the defects: what a broken Crossdock, or a broken neighbour, would leave behind

def a_disposition_is_missing(s):
    s.drop(s.last(DISPOSITION, lambda e: e["count"] > 0))


def a_record_is_settled_twice(s):
    s.add(s.last(DISPOSITION, lambda e: e["count"] > 0))


def a_record_is_dropped(s):
    s.drop(s.last(CHANGE, lambda e: e["reason"] == "SHIPMENT"))


def a_record_waits_for_ever(s):
    event = s.last(DISPOSITION, lambda e: e["count"] > 0 and e["applied"] > 0 and not e["others"])
    waits = {"offset": event["lastOffset"], "effect": "", "outcome": "BUFFERED", "reason": None}
    s.change(event, others=[waits], applied=event["applied"] - 1)


def _dead_letters(s):
    return next(t for t in sorted(s.world.by_topic) if t.endswith(".dlq.v1") and s.world.events(t))


def a_dead_letter_is_lost(s):
    s.drop(s.last(_dead_letters(s)))


def a_dead_letter_is_not_the_record(s):
    event = s.last(_dead_letters(s))
    s.change(event, value=event["value"][:-1])


def a_repeated_delta_counts_twice(s):
    seen, twice = set(), None
    for event in s.events(CHANGE, lambda e: "SELLABLE" in (e["fromState"], e["toState"])):
        if event.id in seen:
            twice = event
        seen.add(event.id)
    level = s.world.latest(LEVEL)[twice.key]
    sign = 1 if twice["toState"] == "SELLABLE" else -1
    s.change(level, sellable=level["sellable"] + sign * twice["qty"])


def a_repeated_delta_is_said_to_be_applied(s):
    for event in s.events(DISPOSITION, lambda e: e["reader"] == "stock-ledger" and e["topic"] == CHANGE):
        other = next((o for o in event["others"] if o["outcome"] == "DUPLICATE" and not o["effect"]), None)
        if other:
            return s.change(event, others=[o for o in event["others"] if o is not other], applied=event["applied"] + 1)
    raise LookupError("no duplicates")


def a_level_is_stale(s):
    s.drop(s.last_of_key(LEVEL, lambda e: e["levelVersion"] > 2))


def more_arrives_than_was_sent(s):
    event = s.last(CHANGE, lambda e: e["fromState"] == "IN_TRANSIT")
    s.change(event, qty=event["qty"] + ONE)


def a_strict_claim_is_oversold(s):
    event = s.last(DECISION, lambda e: e["mode"] == "STRICT" and e["action"] == "HOLD" and e["status"] == "HELD")
    s.change(event, qtyHeld=event["atsBefore"] + ONE)


def a_decision_goes_by_stale_stock(s):
    event = s.last(DECISION, lambda e: e["action"] == "HOLD")
    s.change(event, sellableBefore=event["sellableBefore"] + Decimal("0.5"), atsBefore=event["atsBefore"] + Decimal("0.5"))


def a_claim_before_is_forgotten(s):
    event = s.last(DECISION, lambda e: e["action"] == "HOLD" and e["reservedBefore"] > 0)
    s.change(event, reservedBefore=event["reservedBefore"] - ONE, atsBefore=event["atsBefore"] + ONE)


def a_release_is_lost(s):
    event = s.last(CLAIM, lambda e: e["status"] == "RELEASED" and e["qtyHeld"] > e["qtyConsumed"])
    s.drop(event)


def the_claim_of_a_superseded_delta_is_kept(s):
    """The parcel is in a count already: its goods are not to be taken off again, its claim is."""
    counts = {e.key: e for e in s.events("retail.stock.snapshot.v1")}
    parcels = {e["reservationId"] for e in s.events(CHANGE, lambda e: e["reservationId"] and e.key in counts
                                                    and e.meta["sourcePosition"] <= counts[e.key]["asOfPosition"])}
    s.drop(s.last(CLAIM, lambda e: e["status"] == "CONSUMED" and e["reservationId"] in parcels))


def a_bucket_loses_a_unit(s):
    event = s.last_of_key(orders.STATE, lambda e: e["lines"][0]["delivered"] > 0)
    s.change(event, lines=line_of(event, delivered=-ONE))


def more_is_shipped_than_ordered(s):
    event = s.last_of_key(orders.SHIPMENT, lambda e: e["status"] == "DELIVERED" and not _cases_of(s, e["orderId"]))
    s.change(event, lines=line_of(event, shipped=ONE, delivered=ONE))


def _cases_of(s, order):
    return [e for e in s.world.exceptions.values() if e["orderId"] == order]


def an_order_goes_back(s):
    last = s.last_of_key(orders.STATE, lambda e: e["stateVersion"] > 2)
    s.add(next(e for e in s.events(orders.STATE) if e.key == last.key and e["stateVersion"] == last["stateVersion"] - 1))


def a_state_is_left_out(s):
    last = s.last_of_key(orders.STATE, lambda e: e["stateVersion"] > 2)
    s.drop(next(e for e in s.events(orders.STATE) if e.key == last.key and e["stateVersion"] == 2))


def a_state_forgets_what_it_knew(s):
    """Of an object that it has known for longer."""
    before = {}
    for event in s.events(orders.STATE):
        known = before.get(event.key, {})
        name = next((n for n, version in known.items() if event["sourceVersions"].get(n) == version), None)
        if name:
            return s.change(event, sourceVersions=event["sourceVersions"] | {name: known[name] - 1})
        before[event.key] = event["sourceVersions"]
    raise LookupError("no state has a version of before")


def an_order_is_in_the_erp_twice(s):
    entry = next(e for e in s.ledgers["erp"] if e.kind == "order")
    s.ledgers["erp"].append(Entry(entry.topic, len(s.ledgers["erp"]) + 1, entry.value | {"id": f"{entry['id']}-again"}))


def an_order_is_accepted_twice(s):
    event = s.last(orders.LIFECYCLE, lambda e: e["type"] == "ACCEPTED")
    s.add(event, erpOrderId=f"{event['erpOrderId']}-again", entityVersion=event["entityVersion"] + 1)


def an_order_has_another_id(s):
    event = s.last(orders.LIFECYCLE, lambda e: e["type"] == "PLACED")
    wrong = natural_id("default", event["order"]["channelId"], event["order"]["channelOrderId"] + "x")
    s.change(event, orderId=wrong)


def an_order_is_lost(s):
    order = s.last(orders.STATE).key
    s.drop(*s.events(orders.STATE, lambda e: e.key == order))


def _paid(s):
    return s.last(orders.REFUND, lambda e: e["status"] == "COMPLETED" and e["returnId"] and e["attempt"] > 0)


def a_return_is_paid_back_twice(s):
    """Under another name, for the same cause, and the provider has paid it."""
    event = _paid(s)
    again = natural_id("refund", event["orderId"], "return", event["returnId"], "1")
    s.add(event, refundId=again, refundVersion=1)
    s.add(_payment_of(s, event), refundKey=f"{again}|{event['attempt']}", pspReference="paid-again")


def _payment_of(s, refund):
    return next(e for e in s.events(orders.PAYMENT) if e["kind"] == "REFUNDED" and (e["refundKey"] or "").startswith(refund["refundId"]))


def a_refund_is_sent_again_after_a_timeout(s):
    """The first call had its effect; the second goes out under a new key."""
    last = _paid(s)
    mine = [e for e in s.events(orders.REFUND) if e["refundId"] == last["refundId"]]
    asked = next(e for e in mine if e["status"] == "SUBMITTED")
    version = last["refundVersion"]
    s.change(last, status="OUTCOME_UNKNOWN", pspReference=None)
    s.add(asked, attempt=asked["attempt"] + 1, refundVersion=version + 1)
    paid = _payment_of(s, last)
    s.add(paid, refundKey=f"{last['refundId']}|{asked['attempt'] + 1}", pspReference=f"{paid['pspReference']}-again")


def a_provider_pays_a_refund_twice(s):
    entry = next(e for e in s.ledgers["psp"] if e.kind == "refund" and e["key"])
    s.ledgers["psp"].append(Entry(entry.topic, len(s.ledgers["psp"]) + 1, entry.value | {"reference": f"{entry['reference']}-again"}))


def a_refund_exceeds_what_was_captured(s):
    event = s.last(orders.REFUND, lambda e: e["status"] == "COMPLETED")
    more = [a | {"net": a["net"] * 100} for a in event["allocations"]]
    s.change(event, allocations=more, amount=event["amount"] | {"amount": sum(a["net"] + a["tax"] for a in more)})


def a_refund_is_not_its_parts(s):
    event = s.last(orders.REFUND, lambda e: e["status"] == "COMPLETED")
    s.change(event, amount=event["amount"] | {"amount": event["amount"]["amount"] - Decimal("0.01")})


def a_credit_note_is_missing(s):
    returns = {e["returnId"] for e in s.events(orders.REFUND, lambda e: e["status"] == "COMPLETED")}
    note = s.last(orders.INVOICE, lambda e: e["kind"] == "CREDIT_NOTE" and e["returnId"] in returns)
    s.drop(*s.events(orders.INVOICE, lambda e: e["invoiceId"] == note["invoiceId"]))


def a_return_is_not_back_on_the_shelf(s):
    for topic in (CHANGE, "retail.stock.by-order.v1"):
        back = s.last(CHANGE, lambda e: e["returnId"] and e["toState"] == "SELLABLE" and not _cases_of(s, e["orderId"]))
        s.drop(*s.events(topic, lambda e: e["returnId"] == back["returnId"]))


def the_case_of_a_return_is_lost(s):
    event = s.last(CASE, lambda e: e["code"] == "RETURN_WITHOUT_REFUND")
    s.drop(*s.events(CASE, lambda e: e["exceptionId"] == event["exceptionId"]))


def a_channel_is_promised_too_much(s):
    event = s.last_of_key(LEVEL, lambda e: e["atsByChannel"])
    channel = min(event["atsByChannel"])
    s.change(event, atsByChannel=event["atsByChannel"] | {channel: event["atsByChannel"][channel] + ONE})


def a_publication_is_stale(s):
    last = s.last_of_key(ATS, lambda e: e["atsVersion"] > 1 and e["previousAts"] != e["ats"])
    s.drop(last)


def an_order_shows_money_that_never_came(s):
    event = s.last_of_key(orders.STATE, lambda e: e["captured"] > 0)
    s.change(event, captured=event["captured"] + ONE)


def an_order_shows_another_status(s):
    event = s.last_of_key(orders.STATE, lambda e: e["status"] == "COMPLETED")
    s.change(event, status="SHIPPED")


def a_storefront_shows_what_was(s):
    for system, entries in s.ledgers.items():
        for index, entry in enumerate(entries):
            if system.startswith("storefront-") and entry.kind == "shown" and entry.amount("quantity") > 0:
                entries[index] = Entry(entry.topic, entry.offset, entry.value | {"quantity": str(entry.amount("quantity") + 1)})
                return
    raise LookupError("nothing is shown")


def one_fault_makes_two_cases(s):
    event = s.last(CASE, lambda e: e["orderId"])
    s.add(event, exceptionId=natural_id(event["code"], event["orderId"], "another"), key=b"another")


def a_correction_touches_the_authority(s):
    fact = s.last(CHANGE, lambda e: e["reason"] == "RECEIPT")
    case = natural_id("STOCK_DRIFT", fact.key, "")
    s.put("retail.recon.correction.v1", fact.key, "retail.ops.v1.Correction", {
        "correctionId": natural_id(case, "1"), "kind": "SET_STOCK", "target": fact.meta["source"], "entityKey": fact.key, "orderId": None,
        "sku": fact["sku"], "locationId": fact["locationId"], "externalId": None, "shows": fact["qty"], "should": ONE, "attempt": 1,
        "exceptionId": case, "reason": None}, like=fact)


def a_payout_line_is_booked_twice(s):
    event = s.last(POSTING, lambda e: e["payoutId"] and any(x["account"] == "PSP_CLEARING" for x in e["entries"]))
    s.add(event, postingId=natural_id("again", event["postingId"]), sequence=event["sequence"] + 1)


def a_posting_does_not_balance(s):
    event = s.last(POSTING)
    first = event["entries"][0]
    s.change(event, entries=[first | {"amount": first["amount"] + Decimal("0.01")}, *event["entries"][1:]])


def a_payout_lacks_a_line(s):
    line = s.last("retail.settlement.event.v1")
    for topic in ("retail.settlement.event.v1", "retail.settlement.payout.v1"):
        s.drop(*(e for e in s.world.events(topic) if (e["payoutId"], e["lineId"]) == (line["payoutId"], line["lineId"])))


def a_capture_is_not_booked(s):
    s.drop(s.last(POSTING, lambda e: e["reason"] == "CAPTURED"))


def a_person_is_named_in_an_order(s):
    event = s.last(orders.LIFECYCLE, lambda e: e["type"] == "PLACED")
    s.change(event, order=event["order"] | {"customerId": CANARY})


def a_person_is_named_in_a_dead_letter(s):
    event = s.last(_dead_letters(s))
    s.change(event, message=f"{event['message']}: {CANARY}")


@dataclass
class Defect:
    rule: object
    invariant: int

    @property
    def name(self):
        return self.rule.__name__.replace("_", " ")


ALL = [Defect(rule, number) for number, rules in {
    1: [a_disposition_is_missing, a_record_is_settled_twice, a_record_is_dropped, a_record_waits_for_ever, a_dead_letter_is_lost,
        a_dead_letter_is_not_the_record, a_repeated_delta_is_said_to_be_applied],
    2: [a_repeated_delta_counts_twice, a_level_is_stale],
    3: [more_arrives_than_was_sent],
    4: [a_strict_claim_is_oversold, a_decision_goes_by_stale_stock, a_claim_before_is_forgotten],
    5: [a_release_is_lost, the_claim_of_a_superseded_delta_is_kept],
    6: [a_bucket_loses_a_unit, more_is_shipped_than_ordered],
    7: [an_order_goes_back, a_state_is_left_out, a_state_forgets_what_it_knew],
    8: [an_order_is_in_the_erp_twice, an_order_is_accepted_twice],
    9: [a_return_is_paid_back_twice, a_refund_is_sent_again_after_a_timeout, a_provider_pays_a_refund_twice,
        a_refund_exceeds_what_was_captured, a_refund_is_not_its_parts],
    10: [an_order_has_another_id, an_order_is_lost],
    11: [a_credit_note_is_missing, a_return_is_not_back_on_the_shelf, the_case_of_a_return_is_lost],
    12: [a_channel_is_promised_too_much, a_publication_is_stale, an_order_shows_money_that_never_came, an_order_shows_another_status],
    13: [a_storefront_shows_what_was],
    14: [the_case_of_a_return_is_lost, one_fault_makes_two_cases, a_correction_touches_the_authority],
    15: [a_payout_line_is_booked_twice, a_posting_does_not_balance, a_payout_lacks_a_line, a_capture_is_not_booked],
    16: [a_person_is_named_in_an_order, a_person_is_named_in_a_dead_letter],
}.items() for rule in rules]


def show(world):
    """Prints each defect, the invariant that must catch it and its counter-example. 1 when one was not caught."""
    _storefronts(world)
    before = invariants.judge(world)
    broken = [each for each in before if each.verdict == "violated"]
    for each in broken:
        print(f"spoilt from the beginning: {each.line()}")
    missed = []
    for defect in ALL:
        spoiler = Spoiler(world)
        try:
            defect.rule(spoiler)
        except (LookupError, StopIteration) as why:
            missed.append(f"{defect.name}: cannot be put in: {why}")
            continue
        made = {each.number: each for each in invariants.judge(spoiler.spoilt())}
        caught = made[defect.invariant]
        also = ", ".join(str(n) for n, each in made.items() if each.found and n != defect.invariant)
        if not caught.found:
            missed.append(f"{defect.name}: not caught by {defect.invariant}, only by {also or 'nobody'}")
            continue
        print(f"{defect.invariant:>2}  {defect.name}{f' (also {also})' if also else ''}\n        {caught.smallest}")
    for each in missed:
        print(f"MISSED  {each}")
    print(f"{len(ALL) - len(missed)} of {len(ALL)} defects caught by the invariant that must")
    return 1 if missed or broken else 0


def _storefronts(world):
    """Storefronts that were told everything, where the deployment had none."""
    fronts = defaultdict(list)
    for event in world.latest(ATS).values():
        fronts[f"storefront-{event['channelId']}"].append({"sku": event["sku"], "quantity": str(event["ats"])})
    if any(e.kind == "shown" for s, entries in world.ledgers.items() if s.startswith("storefront-") for e in entries):
        return
    for system, shown in fronts.items():
        entries = world.ledgers.setdefault(system, [])
        entries += [Entry(f"{system}.jsonl", len(entries) + n, {"system": system, "kind": "shown", **each}) for n, each in enumerate(shown, 1)]
