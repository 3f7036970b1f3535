"""7: versions that count what was written rise by exactly one, in the order of the log; what a state knows of
its sources never falls."""
from collections import defaultdict

# Topic, the fields that name what is counted (the key where there are none), the version.
COUNTED = [
    ("retail.stock.level.v1", (), "levelVersion"),
    ("retail.stock.ats.v1", (), "atsVersion"),
    ("retail.reservation.event.v1", ("reservationId",), "reservationVersion"),
    ("retail.order.state.v1", (), "stateVersion"),
    ("retail.shipment.state.v1", (), "stateVersion"),
    ("retail.refund.event.v1", ("refundId",), "refundVersion"),
]
# As above, where versions may leave some out but never return.
RISING = [
    ("retail.reservation.decision.v1", (), "ledgerSequence"),
    ("retail.rt.stock-ledger.channel-level.v1", ("locationId",), "offerVersion"),
    ("retail.ops.exception.v1", ("exceptionId",), "exceptionVersion"),
]
STATE = "retail.order.state.v1"


def judge(world, out):
    for topic, names, version in COUNTED:
        _scan(world, out, topic, names, version, exactly=True)
    for topic, names, version in RISING:
        _scan(world, out, topic, names, version, exactly=False)
    known = {}
    for event in world.events(STATE):
        before = known.get(event.key)
        for name, value in (before["sourceVersions"] if before else {}).items():
            now = event["sourceVersions"].get(name)
            if now is None or now < value:
                out.broken(f"order {event.key} knew version {value} of {name}, then {now}", before.record, event.record)
        known[event.key] = event


def _scan(world, out, topic, names, version, exactly):
    last = defaultdict(lambda: None)
    events = world.events(topic)
    for event in events:
        what = (event.key, *(event[name] for name in names))
        before, now = last[what], event[version]
        if before is None:
            if exactly and now != 1:
                out.broken(f"the first {version} of {'|'.join(what)} is {now}", event.record)
        elif (now != before[version] + 1) if exactly else now <= before[version]:
            out.broken(f"{version} of {'|'.join(what)} is {now} after {before[version]}", before.record, event.record)
        last[what] = event
    out.saw(f"of {topic}", len(events))
