"""14: what was done wrong on purpose is one case each, and nothing else is; what puts it right comes to an end and never
touches the authority."""
from collections import defaultdict
from datetime import datetime, timedelta, timezone

import facts
from world import GRACE, HORIZON, key_of

CORRECTION = "retail.recon.correction.v1"
TRIES_MAX = 3
CLOSED = {"RESOLVED", "COMPENSATED", "ACCEPTED"}


def judge(world, out):
    _single(world, out)
    _corrections(world, out)
    faults = [e for e in world.ledgers.get("faults", ()) if e.kind == "fault"]
    if not world.ledgers:
        return out.lacks("no ledger of what was done wrong on purpose")
    expected = defaultdict(list)
    for fault in faults:
        if fault["expects"]:
            expected[fault["expects"], fault["order"], fault["sku"], fault["location"]].append(fault)
    for (code, order, sku, location), entries in sorted(expected.items(), key=str):
        found = [e for e in world.exceptions.values() if e["code"] == code
                 and (order is None or e["orderId"] == order) and (sku is None or e["sku"] in (sku, None))
                 and (location is None or e["locationId"] in (location, None))]
        if not found and _micros(entries[0]["time"]) + HORIZON + GRACE > world.now:
            out.lacks("faults that may still be borne")
            continue
        about = " ".join(str(each) for each in (order, sku, location) if each)
        if len(found) != 1 and not (order is None and sku is None and found):
            out.broken(f"{code} was to be told of {about or 'a fault'} once, {len(found)} cases were opened", entries[0], *(e.record for e in found))
        out.saw("faults that are to be told")
    harmless = {f["order"] for f in faults if not f["expects"] and f["order"]} - {f["order"] for f in faults if f["expects"]}
    for event in world.exceptions.values():
        if event["orderId"] in harmless and event["status"] not in CLOSED:
            fault = next(f for f in faults if f["order"] == event["orderId"])
            out.broken(f"{event['code']} is open for order {event['orderId']}, whose fault was to be borne", event.record, fault)
    out.saw("faults that are to be borne", len(harmless))


def _micros(time):
    return (datetime.fromisoformat(time) - datetime(1970, 1, 1, tzinfo=timezone.utc)) // timedelta(microseconds=1)


def _single(world, out):
    """What recurs updates one case: no two cases have one code, entity and cause."""
    found = {}
    for identity, event in sorted(world.exceptions.items()):
        entity = tuple(event[name] for name in ("orderId", "sku", "locationId", "channelId"))
        if not any(entity):
            continue
        name = (event["code"], event["processor"], entity, event["causeKey"])
        if name in found:
            out.broken(f"{event['code']} of {' '.join(e for e in entity if e)} has two cases, {found[name]['exceptionId']} and {identity}", found[name].record, event.record)
        found.setdefault(name, event)
    out.saw("cases", len(world.exceptions))


def _corrections(world, out):
    """A mirror is put right, never who is right; and not for ever."""
    corrections = world.events(CORRECTION)
    positions = facts.positions(world) if corrections else {}
    tries, seen = defaultdict(list), {}
    for event in corrections:
        if event["correctionId"] in seen:
            out.broken(f"correction {event['correctionId']} was asked for twice", seen[event["correctionId"]].record, event.record)
        seen[event["correctionId"]] = event
        if event["attempt"]:
            tries[event["exceptionId"]].append(event)
        position = positions.get(key_of(event["sku"] or "", event["locationId"] or ""))
        if event["kind"] == "SET_STOCK" and position and event["target"] == position.source:
            out.broken(f"{event['target']} is to be corrected to {event['should']} of {event['sku']} at {event['locationId']}, and it is the authority there",
                       event.record, position.changes[0].record if position.changes else position.snapshots[0].record)
    for case, events in tries.items():
        if len(events) > TRIES_MAX:
            out.broken(f"case {case} was tried to be put right {len(events)} times", *(e.record for e in events))
    out.saw("corrections", len(corrections))
