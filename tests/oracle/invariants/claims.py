"""4 and 5: nothing is promised twice, and every claim comes to its end."""
from bisect import bisect_left
from collections import defaultdict

import claims
import facts
from world import MINUTE, ZERO, key_of

STATE = "retail.order.state.v1"
LEVEL = "retail.stock.level.v1"


def grants(world, out):
    """4. No STRICT grant beyond what was available; each decision was made on what could be known."""
    decisions = defaultdict(list)
    for event in world.events(claims.DECISION):
        decisions[claims.position_of(event)].append(event)
    if not decisions:
        return out.lacks("no decisions on reservations in the log")
    events, positions = claims.by_position(world), facts.positions(world)
    policies = defaultdict(list)
    for event in world.events(facts.POLICY):
        if event.key == key_of(event["sku"], event["locationId"]):
            policies[event.key].append(event)
    for key, made in sorted(decisions.items()):
        made.sort(key=lambda e: e["ledgerSequence"])
        _position(out, key, made, events.get(key, []), positions.get(key, facts.Position()), policies.get(key, []))
        out.saw("decisions", len(made))


def _position(out, key, made, events, position, policies):
    by_sequence = {event["ledgerSequence"]: event for event in events}
    claimed, held = defaultdict(lambda: ZERO), {}
    walk, rules, promise = Walk(position), _rules(policies), 0
    for decision in made:
        told = by_sequence.get(decision["ledgerSequence"])
        reserved = sum(claimed.values(), ZERO)
        strict_grant = decision["mode"] == "STRICT" and decision["action"] == "HOLD"
        if strict_grant and decision["qtyHeld"] > decision["atsBefore"]:
            out.broken(f"reservation {decision['reservationId']} was granted {decision['qtyHeld']} of {key}, {decision['atsBefore']} were available", decision.record)
        if decision["reservedBefore"] != reserved:
            out.broken(f"decision {decision['ledgerSequence']} on {key} went by {decision['reservedBefore']} claimed units, the claims before it give {reserved}", decision.record)
        if not walk.reaches(decision["sellableBefore"]):
            out.broken(f"decision {decision['ledgerSequence']} on {key} went by {decision['sellableBefore']} sellable units, which no facts heard by then give", decision.record)
        fits = [n for n in range(promise, len(rules))
                if claims.ats(rules[n], decision["channelId"], decision["sellableBefore"], {**claimed}) == decision["atsBefore"]]
        if not fits:
            now = claims.ats(rules[-1], decision["channelId"], decision["sellableBefore"], {**claimed})
            out.broken(f"decision {decision['ledgerSequence']} on {key} went by {decision['atsBefore']} available units, sellable stock, claims and policy give {now}", decision.record)
        else:
            promise = fits[0]
        if strict_grant and decision["status"] == "REJECTED" and decision["qtyRequested"] <= decision["atsBefore"]:
            out.broken(f"reservation {decision['reservationId']} of {decision['qtyRequested']} was refused, {decision['atsBefore']} were available", decision.record)
        if told is None:
            out.broken(f"decision {decision['ledgerSequence']} on {key} was told to nobody", decision.record)
            continue
        if (told["reservationId"], told["status"], told["atsBefore"]) != (decision["reservationId"], decision["status"], decision["atsBefore"]):
            out.broken(f"decision {decision['ledgerSequence']} on {key} was told otherwise than it was made", decision.record, told.record)
        before = held.get(told["reservationId"], ZERO)
        held[told["reservationId"]] = claims.active(told)
        claimed[told["channelId"]] += claims.active(told) - before
    for event in events:
        if event["ledgerSequence"] not in {d["ledgerSequence"] for d in made}:
            out.broken(f"reservation {event['reservationId']} changed without a recorded decision", event.record)


def _rules(policies):
    """Policies in the order in which they can have come to count: none, then each that is newer."""
    rules, version = [claims.NO_POLICY], None
    for event in policies:
        if version is None or event["policyVersion"] > version:
            version = event["policyVersion"]
            rules.append(claims.Policy.of(event))
    return rules


class Walk:
    """How far the facts of a position can have been heard, given what was said of its sellable stock.

    The order between the topics of movements and of snapshots is unknown, that within each is not. So the
    state is how many of each were heard; `front` holds for each number of snapshots the fewest movements."""

    def __init__(self, position):
        self.position = position
        self.columns = {}
        self.front = {heard: 0 for heard in range(len(position.snapshots) + 1)}

    def reaches(self, sellable):
        fewest, reached = None, {}
        for heard in sorted(self.front):
            at = self.front[heard]
            fewest = at if fewest is None else min(fewest, at)
            where = self._column(heard).get(sellable, ())
            index = bisect_left(where, fewest)
            if index < len(where):
                reached[heard] = where[index]
        if not reached:
            return False
        self.front = reached | {h: min(n for r, n in reached.items() if r <= h)
                                for h in range(min(reached), len(self.position.snapshots) + 1) if h not in reached}
        return True

    def _column(self, heard):
        """Sellable stock → after how many movements it is that, once `heard` snapshots are known."""
        if heard not in self.columns:
            snapshots = self.position.snapshots[:heard]
            base = max(snapshots, key=facts.as_of, default=None)
            total, since = (ZERO, None) if base is None else (facts.base_of(base, "sellable"), facts.as_of(base))
            column, seen, waiting = defaultdict(list), set(), defaultdict(lambda: ZERO)
            trusted = facts.as_of(base)[0] if base else None
            column[total].append(0)
            for count, event in enumerate(self.position.changes, 1):
                epoch = facts.place(event)[0]
                if event.id not in seen and (since is None or facts.place(event) > since):
                    if base is None and (trusted is None or epoch < trusted):
                        # The earliest epoch heard of opens at nothing.
                        trusted, total = epoch, total + waiting.pop(epoch, ZERO)
                    change = facts.effect(event, "sellable")
                    if epoch <= trusted:
                        total += change
                    else:
                        waiting[epoch] += change
                seen.add(event.id)
                column[total].append(count)
            self.columns[heard] = column
        return self.columns[heard]


def balance(world, out):
    """5. held = consumed + released + expired + active, for each claim; none is active for a closed order."""
    reservations = claims.by_reservation(world)
    if not reservations:
        return out.lacks("no reservations in the log")
    parcels = _parcels(world, reservations)
    for (identity, key), events in sorted(reservations.items()):
        _life(world, out, identity, key, events, parcels[identity, key], parcels[None, key])
    out.saw("reservations", len(reservations))
    _commands(world, out, reservations)
    _levels(world, out)
    closed = {e["orderId"]: e for e in world.latest(STATE).values() if e["closed"]}
    for (identity, _), events in sorted(reservations.items()):
        order = closed.get(events[-1]["orderId"])
        if order and claims.active(events[-1]) > 0:
            out.broken(f"reservation {identity} keeps {claims.active(events[-1])} units for order {order.key}, which is closed", events[-1].record, order.record)
    out.saw("closed orders", len(closed))


def _parcels(world, reservations):
    """What left the shelf for each claim, by the facts. Goods that name their order and no claim leave for
    the claim of its line there; where a line has several, nobody outside knows for which."""
    lines = defaultdict(list)
    for (identity, key), events in reservations.items():
        lines[events[0]["orderId"], events[0]["orderLineId"], key].append(identity)
    lines = {line: identities[0] for line, identities in lines.items() if len(identities) == 1}
    parcels = defaultdict(list)
    for key, position in facts.positions(world).items():
        trusted = facts.trusted_epoch(position)
        for event in facts.distinct(position.changes):
            if event["fromState"] != "SELLABLE" or facts.place(event)[0] > trusted:
                continue
            if event["reservationId"]:
                parcels[event["reservationId"], key].append(event)
            elif event["toState"] == "CUSTOMER":
                identity = lines.get((event["orderId"], event["orderLineId"], key))
                parcels[identity, key].append(event)
    return parcels


def _life(world, out, identity, key, events, parcels, unnamed):
    shipped = sum((parcel["qty"] for parcel in parcels), ZERO)
    parcels = [parcel.record for parcel in parcels]
    before = None
    for event in events:
        status = before["status"] if before else None
        records = (before and before.record, event.record)
        if event["status"] not in claims.MOVES[status]:
            out.broken(f"reservation {identity} went from {status or 'nothing'} to {event['status']}", *records)
        if before and event["qtyConsumed"] < before["qtyConsumed"]:
            out.broken(f"reservation {identity} had consumed {before['qtyConsumed']}, then {event['qtyConsumed']}", *records)
        if event["status"] in claims.ACTIVE and claims.active(event) < 0:
            out.broken(f"reservation {identity} has consumed more than it held", event.record)
        if event["status"] == "CONSUMED" and event["qtyHeld"] > event["qtyConsumed"]:
            out.broken(f"reservation {identity} is consumed and still holds {event['qtyHeld'] - event['qtyConsumed']}", event.record)
        if min(event["qtyHeld"], event["qtyConsumed"], event["qtyBackordered"]) < 0:
            out.broken(f"reservation {identity} has a quantity below nothing", event.record)
        before = event
    last = events[-1]
    due = min(shipped, last["qtyRequested"])
    if last["qtyConsumed"] > shipped and not unnamed:
        out.broken(f"reservation {identity} consumed {last['qtyConsumed']} of {key}, {shipped} left the shelf for it", last.record, *parcels)
    elif last["status"] in claims.ACTIVE | {"CONSUMED"} and last["qtyConsumed"] < due:
        out.broken(f"reservation {identity} consumed {last['qtyConsumed']} of {key}, {shipped} left the shelf for it", last.record, *parcels)
    late = last["expiresAt"] is not None and last["status"] == "HELD" and last["expiresAt"] + MINUTE < world.now
    if late:
        out.broken(f"reservation {identity} is held after its time", last.record)


def _commands(world, out, reservations):
    """What was asked for was answered, and what was given back is not kept."""
    for event in world.events(claims.COMMAND):
        if event.contract != "retail.stock.v1.ReservationCommand" or event.key != claims.position_of(event) or event["qty"] <= 0:
            continue
        answered = reservations.get((event["reservationId"], event.key))
        if event["action"] == "HOLD" and not answered:
            out.broken(f"reservation {event['reservationId']} was asked for and never answered", event.record)
        if event["action"] in ("RELEASE", "REASSIGN") and answered and answered[-1]["status"] in claims.ACTIVE:
            out.broken(f"reservation {event['reservationId']} was given back and is still {answered[-1]['status']}", event.record, answered[-1].record)
        out.saw("commands")


def _levels(world, out):
    """What a position keeps is the sum of its active claims."""
    events, levels = claims.by_position(world), world.latest(LEVEL)
    for key in sorted(events.keys() | levels.keys()):
        last = {}
        for event in events.get(key, ()):
            last[event["reservationId"]] = event
        reserved = sum(map(claims.active, last.values()), ZERO)
        missing = sum(map(claims.backordered, last.values()), ZERO)
        level = levels.get(key)
        told = (level["reserved"], level["backordered"]) if level else (ZERO, ZERO)
        if told != (reserved, missing):
            of = [e.record for e in last.values() if claims.active(e) or claims.backordered(e)]
            out.broken(f"{key} has {told[0]} reserved and {told[1]} backordered, its claims give {reserved} and {missing}", level and level.record, *of)
    out.saw("positions", len(levels))
