"""Facts of a small retailer, as its systems would tell them: goods come in, orders are placed, paid, accepted,
sent or collected, returned, paid back and settled. Only facts: what Crossdock makes of them is its own affair.

They come in waves, each after the one before has been dealt with, an hour of business apart; within a wave some
come twice and all of them shuffled.
"""
import json
import random
from dataclasses import dataclass, field
from datetime import datetime, timezone
from decimal import Decimal

from world import HOUR, key_of, natural_id

BEGIN = 1_700_000_000_000_000
LAST = 160
TENANT, PSP, CURRENCY, TAX = "default", "payco", "EUR", Decimal("0.19")
WAREHOUSE, STORE, DEPOT = "dc", "store-1", "depot"


def q(number):
    return Decimal(number).quantize(Decimal("0.0001"))


@dataclass
class Fact:
    wave: int
    topic: str
    key: str
    contract: str
    event: dict


@dataclass
class Line:
    name: str
    sku: str
    qty: int
    price: Decimal

    @property
    def gross(self):
        return self.qty * self.price

    def tax(self, qty):
        """What of the price of so many units is tax, in whole cents."""
        whole = qty * self.price
        return (whole - whole / (1 + TAX)).quantize(Decimal("0.01"))


@dataclass
class Order:
    number: str
    channel: str
    lines: list
    pickup: bool = False
    placed: dict = field(default_factory=dict)

    @property
    def id(self):
        return natural_id(TENANT, self.channel, self.number)

    @property
    def location(self):
        return STORE if self.pickup else WAREHOUSE

    @property
    def total(self):
        return sum((line.gross for line in self.lines), Decimal(0))

    @property
    def capture(self):
        return f"cap-{self.number}"

    @property
    def payment(self):
        return natural_id("payment", self.id, PSP, f"pay-{self.number}")

    def reservation(self, line):
        return natural_id(self.id, line.name, self.location, "1")


class Retailer:
    def __init__(self, orders=24, seed=1, begin=BEGIN, step=HOUR):
        self.random, self.begin, self.step = random.Random(seed), begin, step
        self.count_of_orders = orders
        self.facts, self.positions, self.unpaid_orders = [], {}, []
        self.skus = [f"SKU-{n}" for n in range(1, 7)]
        self._opening()
        self.orders = [self._order(n) for n in range(orders)]
        for index, order in enumerate(self.orders):
            self._story(index, order)
        self._payouts()
        # What the warehouse counted before the parcels of a SKU were told holds them already; and
        # a week later somebody counts again, so that nothing is late any more.
        self.count(4, self.skus[3], WAREHOUSE)
        self.count(LAST, self.skus[0], STORE)
        # A movement from nowhere to nowhere: it can never count.
        self.move(3, "nonsense", self.skus[2], STORE, ("SELLABLE", "SELLABLE"), 3, "SHRINK")

    def waves(self):
        """Each wave's time and facts, shuffled, a tenth of them twice."""
        found = []
        for wave in sorted({f.wave for f in self.facts}):
            facts = [f for f in self.facts if f.wave == wave]
            facts += self.random.sample(facts, len(facts) // 10)
            self.random.shuffle(facts)
            found.append((self.begin + wave * self.step, facts))
        return found

    def distinct(self, topic):
        return len({(f.key, f.event["meta"]["eventId"]) for f in self.facts if f.topic == topic})

    # --- how a fact is told

    def tell(self, wave, topic, key, contract, source, record, event):
        """Position counts what a source told of a key."""
        position = self.positions[source] = self.positions.get(source, 0) + 1
        at = self.begin + wave * self.step
        kind = contract.rsplit(".", 1)[1]
        event["meta"] = {
            "eventId": natural_id(source, "0", record, "", kind), "eventType": kind, "source": source, "sourceEpoch": 0,
            "sourcePosition": position, "positionKind": "SEQUENCE", "occurredAt": at, "recordedAt": at,
            "businessDate": None, "tenantId": TENANT, "correlationId": record, "causationId": None,
            "correctsEventId": None, "origin": "SOURCE", "ext": {},
        }
        self.facts.append(Fact(wave, topic, key, contract, event))
        return event

    def move(self, wave, movement, sku, location, states, qty, reason, leg="", **more):
        self.tell(wave, "retail.stock.change.v1", key_of(sku, location), "retail.stock.v1.StockChanged", "wms", f"{movement}/{leg}{sku}", {
            "movementId": movement, "sku": sku, "locationId": location, "fromState": states[0], "toState": states[1],
            "qty": q(qty), "uom": "EA", "reason": reason, "serials": [], **more,
        })

    # --- what there is

    def _opening(self):
        for location, kind in ((WAREHOUSE, "DC"), (DEPOT, "DC"), (STORE, "STORE")):
            self.tell(0, "retail.location.change.v1", location, "retail.master.v1.Location", "config", f"location/{location}", {
                "locationId": location, "locationVersion": 1, "name": location, "kind": kind, "stockTracked": True})
        for channel in ("web", "app"):
            self.tell(0, "retail.channel.change.v1", channel, "retail.master.v1.Channel", "config", f"channel/{channel}", {
                "channelId": channel, "channelVersion": 1, "name": channel, "status": "ACTIVE",
                "eligibleLocations": [WAREHOUSE, STORE], "unit": None, "defaultBuffer": q(1 if channel == "app" else 0)})
        for n, sku in enumerate(self.skus):
            for location in (WAREHOUSE, STORE):
                self.move(1, f"in-{sku}-{location}", sku, location, ("SUPPLIER", "SELLABLE"), 20 + 7 * n + 2 * self.count_of_orders, "RECEIPT")
            policy = {"sku": sku, "locationId": WAREHOUSE, "policyVersion": 1, "safetyStock": q(2), "oversell": "BLOCK",
                      "allocations": [{"channelId": "app", "hardQty": q(5), "sharePct": None, "buffer": None}] if n % 2 else [],
                      "backorderLimit": None}
            self.tell(0, "retail.stock.policy.v1", key_of(sku, WAREHOUSE), "retail.stock.v1.StockPolicy", "config", f"policy/{sku}", policy)
        # A transfer that arrives, and one that is on its way at the end.
        for n, sku in enumerate(self.skus[:3]):
            movement, qty = f"transfer-{n}", 4 + n
            self.move(1, movement, sku, WAREHOUSE, ("SELLABLE", "IN_TRANSIT"), qty, "TRANSFER_OUT", "out/")
            self.move(1, movement, sku, DEPOT, ("SUPPLIER", "IN_TRANSIT"), qty, "TRANSFER_IN", "announced/")
            if n != 2:
                self.move(3, movement, sku, DEPOT, ("IN_TRANSIT", "SELLABLE"), qty, "TRANSFER_IN", "in/")
        # Damaged goods, a quality hold, and a count that finds less and takes in all that moved before.
        self.move(1, "damage", self.skus[0], STORE, ("SELLABLE", "DAMAGED"), 1, "DAMAGE")
        self.move(1, "hold", self.skus[1], STORE, ("SELLABLE", "QUALITY_HOLD"), 2, "QC_HOLD")

    def count(self, wave, sku, location):
        """What is there by all movements so far, those too that are told later."""
        key, as_of = key_of(sku, location), self.positions["wms"]
        sellable = sum((f.event["qty"] * ((f.event["toState"] == "SELLABLE") - (f.event["fromState"] == "SELLABLE"))
                        for f in self.facts if f.topic == "retail.stock.change.v1" and f.key == key), Decimal(0))
        self.tell(wave, "retail.stock.snapshot.v1", key, "retail.stock.v1.StockSnapshot", "wms", f"count/{key}", {
            "snapshotId": f"count-{key}", "sku": sku, "locationId": location, "basis": "ON_HAND", "sellable": q(sellable),
            "damaged": None, "qualityHold": None, "inTransitIn": None, "sourceReserved": None,
            "asOfEpoch": 0, "asOfPosition": as_of, "asOf": self.begin + wave * self.step})

    def _order(self, n):
        lines = [Line(str(i + 1), self.skus[(n + 2 * i) % len(self.skus)], 1 + (n + i) % 3, Decimal(f"{5 + (3 * n + i) % 17}.95"))
                 for i in range(1 + n % 3)]
        return Order(f"{1000 + n}", "app" if n % 3 == 1 else "web", lines, pickup=n % 6 == 4)

    # --- what happens to an order

    def _story(self, n, order):
        self.place(order)
        stories = [self.sent, self.returned, self.cancelled, self.part_returned, self.sent, self.goodwill, self.in_two_parcels, self.disputed, self.unpaid]
        stories[n % len(stories)](order)

    def of_order(self, wave, topic, contract, source, record, order, event):
        return self.tell(wave, topic, order.id, contract, source, f"{order.number}/{record}", {"orderId": order.id, **event})

    def place(self, order):
        group = {"groupId": "1", "method": "PICKUP_IN_STORE" if order.pickup else "SHIP_TO_HOME",
                 "pickupLocationId": STORE if order.pickup else None, "addressToken": None if order.pickup else f"tok-{order.number}",
                 "promiseBy": self.begin + 72 * HOUR}
        lines = [{"lineId": l.name, "sku": l.sku, "qty": q(l.qty), "uom": "EA", "unitPrice": q(l.price), "discount": q(0),
                  "tax": q(l.tax(l.qty)), "taxCode": "S", "lineTotal": q(l.gross), "deliveryGroupId": "1", "backorderAllowed": False}
                 for l in order.lines]
        order.placed = {
            "channelId": order.channel, "channelType": "WEB", "channelOrderId": order.number, "channelOrderVersion": 1,
            "placedAt": self.begin + 2 * self.step, "customerId": None, "currency": CURRENCY, "pricesIncludeTax": True, "shipComplete": False,
            "lines": lines, "charges": [], "deliveryGroups": [group], "subtotal": q(order.total), "discountTotal": q(0),
            "chargeTotal": q(0), "taxTotal": q(sum((l.tax(l.qty) for l in order.lines), Decimal(0))), "grandTotal": q(order.total)}
        self.said(2, order, "PLACED", 1, "shop", snapshot=order.placed)
        self.paid(2, order, "AUTHORISED", f"auth-{order.number}", order.total)
        self.said(3, order, "ACCEPTED", 1, "erp", erpOrderId=f"SO{order.number}")

    def said(self, wave, order, kind, version, source, snapshot=None, **more):
        event = {"type": kind, "entityVersion": version, "erpOrderId": None, "order": snapshot, "affected": [], "requestId": None,
                 "reason": None, "actor": None, **more}
        return self.of_order(wave, "retail.order.lifecycle.v1", "retail.order.v1.OrderEvent", source, f"{kind}/{version}", order, event)

    def paid(self, wave, order, kind, reference, amount, key=None):
        self.of_order(wave, "retail.payment.event.v1", "retail.finance.v1.PaymentEvent", PSP, f"{kind}/{reference}", order, {
            "paymentId": order.payment, "paymentVersion": 1, "kind": kind, "amount": {"amount": q(amount), "currency": CURRENCY},
            "tender": "CARD", "psp": PSP, "pspReference": reference, "refundKey": key, "panLast4": None})

    def parcel(self, wave, order, name, lines, status, version, **counts):
        told = [{"lineId": l.name, "sku": l.sku, **{each: q(0) for each in ("allocated", "picked", "short", "shipped", "delivered", "cancelled")},
                 **{each: q(qty if of is True else of) for each, of in counts.items()}, "reservationId": order.reservation(l)} for l, qty in lines]
        self.of_order(wave, "retail.shipment.event.v1", "retail.shipment.v1.ShipmentEvent", "wms", f"{name}/{version}", order, {
            "shipmentId": name, "shipmentVersion": version, "nodeId": order.location, "nodeType": "STORE" if order.pickup else "DC",
            "status": status, "lines": told, "packages": [], "estimatedAt": None, "reason": None})

    def leave(self, wave, order, lines, name):
        for line, qty in lines:
            self.move(wave, f"out-{order.number}-{name}-{line.name}", line.sku, order.location, ("SELLABLE", "CUSTOMER"), qty, "SHIPMENT",
                      orderId=order.id, orderLineId=line.name, reservationId=order.reservation(line))

    def send(self, order, lines, name="p1"):
        """Picked, packed, gone and delivered; or collected in the store."""
        shipment = f"{order.number}-{name}"
        self.parcel(3, order, shipment, lines, "RELEASED", 1, allocated=True)
        self.parcel(4, order, shipment, lines, "PICKED", 2, allocated=True, picked=True)
        self.leave(4, order, lines, name)
        if order.pickup:
            self.parcel(4, order, shipment, lines, "READY_FOR_PICKUP", 3, allocated=True, picked=True)
            self.parcel(5, order, shipment, lines, "COLLECTED", 4, allocated=True, picked=True, shipped=True, delivered=True)
        else:
            self.parcel(4, order, shipment, lines, "SHIPPED", 3, allocated=True, picked=True, shipped=True)
            self.parcel(5, order, shipment, lines, "DELIVERED", 4, allocated=True, picked=True, shipped=True, delivered=True)

    def bill(self, wave, order, kind, name, lines, **more):
        items = [{"orderLineId": l.name, "qty": q(qty), "net": q(qty * l.price - l.tax(qty)), "tax": q(l.tax(qty)), "taxCode": "S", "description": None} for l, qty in lines]
        net, tax = (sum((i[part] for i in items), Decimal(0)) for part in ("net", "tax"))
        self.of_order(wave, "retail.invoice.event.v1", "retail.finance.v1.InvoiceEvent", "erp", f"{kind}/{name}", order, {
            "invoiceId": name, "invoiceVersion": 1, "kind": kind, "status": "POSTED", "originalInvoiceId": None, "refundId": None,
            "returnId": None, "lines": items, "net": {"amount": q(net), "currency": CURRENCY}, "tax": q(tax), "gross": q(net + tax), "taxDate": 19_675, **more})

    def sale(self, order, lines=None):
        lines = lines or [(l, l.qty) for l in order.lines]
        self.paid(4, order, "CAPTURED", order.capture, sum((qty * l.price for l, qty in lines), Decimal(0)))
        self.bill(4, order, "INVOICE", f"INV{order.number}", lines)

    def sent(self, order):
        self.send(order, [(l, l.qty) for l in order.lines])
        self.sale(order)
        self.said(9, order, "CLOSED", 2, "erp")

    def in_two_parcels(self, order):
        self.send(order, [(order.lines[0], order.lines[0].qty)], "p1")
        if order.lines[1:]:
            self.send(order, [(l, l.qty) for l in order.lines[1:]], "p2")
        self.sale(order)
        self.said(9, order, "CLOSED", 2, "erp")

    def returned(self, order):
        self.give_back(order, [(l, l.qty) for l in order.lines])

    def part_returned(self, order):
        self.give_back(order, [(order.lines[0], 1)])

    def unpaid(self, order):
        """What came back is never paid back: somebody has to be told."""
        self.give_back(order, [(order.lines[0], 1)], paid=False)
        self.unpaid_orders.append(order)

    def give_back(self, order, lines, paid=True):
        self.send(order, [(l, l.qty) for l in order.lines])
        self.sale(order)
        name = f"RMA{order.number}"
        for wave, version, status, of in ((6, 1, "REQUESTED", "requested"), (7, 2, "RECEIVED", "received"), (7, 3, "INSPECTED", "accepted")):
            reached = ("requested", "received", "accepted").index(of)
            told = [{"returnLineId": l.name, "orderLineId": l.name, "sku": l.sku, "requested": q(qty), "received": q(qty if reached else 0),
                     "accepted": q(qty if reached == 2 else 0), "rejected": q(0), "disposition": "RESTOCK", "reasonCode": None} for l, qty in lines]
            self.of_order(wave, "retail.return.event.v1", "retail.returns.v1.ReturnEvent", "service", f"{name}/{version}", order, {
                "returnId": name, "returnVersion": version, "status": status, "method": "MAIL", "returnLocationId": WAREHOUSE,
                "originChannelId": order.channel, "lines": told, "exchangeOrderId": None})
        for line, qty in lines:
            self.move(7, f"back-{order.number}-{line.name}", line.sku, WAREHOUSE, ("CUSTOMER", "SELLABLE"), qty, "RETURN",
                      orderId=order.id, orderLineId=line.name, returnId=name)
        if paid:
            self.pay_back(order, "return", name, lines, "ITEM", returnId=name)
        self.bill(8, order, "CREDIT_NOTE", f"CN{order.number}", lines, returnId=name, originalInvoiceId=f"INV{order.number}")
        self.said(9, order, "CLOSED", 2, "erp")

    def pay_back(self, order, cause, name, lines, kind, **more):
        parts = [{"orderLineId": l.name, "qty": q(qty), "net": q(qty * l.price - l.tax(qty)), "tax": q(l.tax(qty)), "type": kind} for l, qty in lines]
        self.ask_back(order, cause, name, parts, **more)

    def ask_back(self, order, cause, name, parts, reason=None, **more):
        refund = natural_id("refund", order.id, cause, name, "0")
        amount = sum((p["net"] + p["tax"] for p in parts), Decimal(0))
        self.of_order(7, "retail.refund.request.v1", "retail.finance.v1.RefundRequest", "service", f"refund/{name}", order, {
            "requestId": natural_id("request", refund), "refundId": refund, "returnId": None, "paymentId": order.payment,
            "amount": {"amount": q(amount), "currency": CURRENCY}, "allocations": parts, "psp": PSP, "pspReference": None,
            "requestedBy": "service", "reason": reason, "alreadyIssued": False, **more})
        self.paid(8, order, "REFUNDED", f"ref-{order.number}-{name}", amount, key=f"{refund}|1")

    def goodwill(self, order):
        self.sent(order)
        part = {"orderLineId": order.lines[0].name, "qty": q(0), "net": q("2.00"), "tax": q(0), "type": "APPEASEMENT"}
        self.ask_back(order, "appeasement", f"gw{order.number}", [part], reason="GOODWILL")

    def cancelled(self, order):
        """Before anything was sent; what was taken goes back."""
        self.paid(3, order, "CAPTURED", order.capture, order.total)
        self.said(4, order, "CANCEL_REQUESTED", 2, "shop", reason="CUSTOMER")
        self.pay_back(order, "cancellation", f"c{order.number}", [(l, l.qty) for l in order.lines], "CANCELLATION")
        self.said(9, order, "CLOSED", 2, "erp")

    def disputed(self, order):
        """The customer's bank takes the money back, and loses."""
        self.sent(order)
        self.paid(6, order, "CHARGEBACK", f"cb-{order.number}", order.total)
        self.paid(8, order, "CHARGEBACK_REVERSED", f"cbr-{order.number}", order.total)

    # --- what the provider settles

    def _payouts(self):
        kinds = {"CAPTURED": ("CAPTURE", 1), "REFUNDED": ("REFUND", -1), "CHARGEBACK": ("CHARGEBACK", -1), "CHARGEBACK_REVERSED": ("CHARGEBACK_REVERSED", 1)}
        moves = [f for f in self.facts if f.topic == "retail.payment.event.v1" and f.event["kind"] in kinds]
        for number, wave in ((1, 10), (2, 11)):
            payout, net = f"po-{number}", Decimal(0)
            mine = [f.event for f in moves if (f.event["kind"] == "CAPTURED") == (number == 1)]
            for n, event in enumerate(mine):
                kind, sign = kinds[event["kind"]]
                gross = sign * event["amount"]["amount"]
                fee = q("0.25") if kind == "CAPTURE" else q(0)
                net += gross - fee
                self.settled(wave, f"{PSP}|{event['pspReference']}", payout, f"{n + 1}", kind, gross, fee, pspReference=event["pspReference"], orderId=event["orderId"])
            self.settled(wave, payout, payout, "fee", "FEE", q(0), q("1.50"))
            net -= q("1.50")
            self.settled(wave, payout, payout, "control", "PAYOUT_CONTROL", q(0), q(0), controlCount=len(mine) + 1, controlNet=q(net))
            self.settled(wave, payout, payout, "bank", "BANK_CREDIT", q(net), q(0))

    def settled(self, wave, key, payout, line, kind, gross, fee, **more):
        topic = "retail.settlement.event.v1" if more.get("pspReference") else "retail.settlement.payout.v1"
        self.tell(wave, topic, key, "retail.finance.v1.SettlementEvent", PSP, f"{payout}/{line}", {
            "psp": PSP, "payoutId": payout, "lineId": line, "kind": kind, "orderId": None, "pspReference": None, "gross": q(gross),
            "fee": q(fee), "net": q(gross - fee), "currency": CURRENCY, "original": None, "fxRate": None, "valueDate": 19_680,
            "controlCount": None, "controlNet": None, **more})

    # --- what its systems have in their books

    def write_ledgers(self, folder):
        """As LEDGERS.md says; what sinks tell the systems is not part of it."""
        folder.mkdir(parents=True, exist_ok=True)
        books, time = {}, datetime.fromtimestamp(self.begin / 1_000_000, timezone.utc).isoformat(timespec="microseconds")

        def note(system, kind, **fields):
            books.setdefault(system, []).append({"time": time, "system": system, "kind": kind, **fields})

        for order in self.orders:
            lines = [{"line": l.name, "sku": l.sku, "quantity": str(l.qty), "price": str(l.price), "total": str(l.gross)} for l in order.lines]
            note(f"storefront-{order.channel}", "order", order=order.id, number=order.number, currency=CURRENCY, total=str(order.total), lines=lines)
            note("erp", "order", order=order.id, id=f"SO{order.number}", number=order.number, channel=order.channel, currency=CURRENCY, total=str(order.total))
        kinds = {"AUTHORISED": "authorisation", "CAPTURED": "capture", "REFUNDED": "refund", "CHARGEBACK": "chargeback", "CHARGEBACK_REVERSED": "chargeback-reversed"}
        for fact in self.facts:
            if fact.topic == "retail.payment.event.v1":
                e = fact.event
                note("psp", kinds[e["kind"]], order=e["orderId"], payment=e["paymentId"], reference=e["pspReference"],
                     amount=str(e["amount"]["amount"]), currency=CURRENCY, **({"key": e["refundKey"]} if e["refundKey"] else {}))
        for order in self.unpaid_orders:
            note("faults", "fault", fault="lost", of="service", order=order.id, expects="RETURN_WITHOUT_REFUND")
        for system, entries in books.items():
            (folder / f"{system}.jsonl").write_text("".join(json.dumps(e) + "\n" for e in entries), encoding="utf-8")
