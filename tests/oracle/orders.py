"""What is said of orders: the newest version of each object that belongs to one. Judges of orders and of
money share it."""
from collections import defaultdict

from world import ZERO

LIFECYCLE, STATE = "retail.order.lifecycle.v1", "retail.order.state.v1"
PAYMENT, REFUND, INVOICE = "retail.payment.event.v1", "retail.refund.event.v1", "retail.invoice.event.v1"
SHIPMENT, RETURN = "retail.shipment.event.v1", "retail.return.event.v1"


def newest(events, identity, version):
    """The event of the highest version of each object; of two with one version the first."""
    found = {}
    for event in events:
        name = identity(event)
        if name not in found or event[version] > found[name][version]:
            found[name] = event
    return found


def of_orders(world, topic, identity, version):
    """Order → its objects, each in its newest version."""
    events = [e for e in world.events(topic) if e.contract == world.contracts[topic] and e.key == e["orderId"]]
    found = defaultdict(list)
    for (order, *_), event in newest(events, lambda e: (e["orderId"], *(e[name] for name in identity)), version).items():
        found[order].append(event)
    return found


def payments(world):
    """Each movement of money once, as the provider told it last."""
    return of_orders(world, PAYMENT, ("psp", "pspReference", "kind"), "paymentVersion")


def refunds(world):
    return of_orders(world, REFUND, ("refundId",), "refundVersion")


def invoices(world):
    return of_orders(world, INVOICE, ("invoiceId",), "invoiceVersion")


def shipments(world):
    return of_orders(world, SHIPMENT, ("shipmentId",), "shipmentVersion")


def returns(world):
    return of_orders(world, RETURN, ("returnId",), "returnVersion")


def lifecycles(world):
    found = defaultdict(list)
    for event in world.events(LIFECYCLE):
        if event.contract == world.contracts[LIFECYCLE] and event.key == event["orderId"]:
            found[event["orderId"]].append(event)
    return found


def total(events, kind, currency):
    """Sum of the movements of one kind in one currency."""
    return sum((e["amount"]["amount"] for e in events if e["kind"] == kind and e["amount"]["currency"] == currency), ZERO)


def terms(events):
    """The order as it counts: the channel's until the ERP has accepted it otherwise, then the ERP's."""
    def last(types):
        told = [e for e in events if e["type"] in types and e["order"]]
        return max(told, key=lambda e: e["entityVersion"], default=None)

    accepted = last({"ACCEPTED"})
    return accepted or last({"PLACED", "AMENDED"})


def gone(shipment, line):
    """Units of a fulfilment's line that have left for the customer: what was collected or delivered has."""
    left = max(line["shipped"], line["delivered"])
    if shipment["status"] == "COLLECTED":
        left = max(left, line["picked"] - line["cancelled"])
    return left
