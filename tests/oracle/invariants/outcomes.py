"""1: every input has exactly one terminal outcome for each reader and effect; nothing still waits at rest;
what is dead-lettered or parked is there with its original bytes."""
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict

DISPOSITION = "retail.ops.disposition.v1"
TERMINAL = {"APPLIED", "DUPLICATE", "SUPERSEDED", "DEAD_LETTERED", "COMPENSATED"}
OPEN = {"BUFFERED", "PARKED"}
# Other readers have no use for some of the facts on their topics, and settle those as applied each time they
# come; that nothing takes effect twice there is judged by what they write.
JOINS_ALL = {"stock-ledger", "order-lifecycle"}


def judge(world, out):
    for topic, count in world.sent.items():
        found = len({(event.key, event.id) for event in world.events(topic)})
        if found != int(count):
            out.broken(f"{found} different events are in {topic}, {count} were sent")
    if not world.has(DISPOSITION):
        return out.lacks("no dispositions in the log")
    said, events = defaultdict(list), world.events(DISPOSITION)
    for event in events:
        said[event["reader"], event["topic"], event["partition"]].append(event)
    readers = {reader for reader, _, _ in said} | world.named_readers
    must = set()
    for reader in sorted(readers):
        topics = world.inputs.get(reader)
        if topics is None:  # a sink's instance: what it reads is known from what it settles
            topics = {topic for who, topic, _ in said if who == reader}
        must |= {(reader, topic) for topic in topics}
    idle = sorted(set(world.inputs) - readers - {"sinks"})
    if idle:
        out.notes.append(f"{', '.join(idle)} settled nothing, so they did not run")
    for reader, topic in sorted(must):
        partitions = defaultdict(list)
        for record in world.by_topic.get(topic, ()):
            partitions[record.partition].append(record)
        for partition in sorted(partitions.keys() | {p for r, t, p in said if (r, t) == (reader, topic)}):
            _partition(world, out, reader, partitions.get(partition, []), said.get((reader, topic, partition), []))
    out.saw("dispositions", len(events))


def _partition(world, out, reader, records, said):
    by_offset = {record.offset: record for record in records}
    offsets = sorted(by_offset)
    main = defaultdict(list)  # outcomes of a record's main effect, in the order in which they were booked
    effects = defaultdict(list)
    covered = Counter()
    for event in said:
        first, last, count = event["firstOffset"], event["lastOffset"], event["count"]
        named = defaultdict(list)  # what waited may have ended within the same transaction
        for settled in event["others"]:
            if settled["effect"]:
                effects[settled["offset"], settled["effect"]].append((settled["outcome"], event))
            else:
                named[settled["offset"]].append(settled["outcome"])
            if settled["offset"] not in by_offset:
                out.broken(f"{reader} books an outcome of {event['topic']} {event['partition']}@{settled['offset']}, where no record is", event.record)
        inside = offsets[bisect_left(offsets, first):bisect_right(offsets, last)] if count else []
        if len(inside) != count:
            out.broken(f"{reader} books {count} outcomes for {event['topic']} {event['partition']}@{first} to {last}, where {len(inside)} records are", event.record)
        applied = len(inside) - sum(1 for offset in inside if named.get(offset, ["APPLIED"])[0] != "APPLIED")
        if count and len(inside) == count and event["applied"] != applied:
            out.broken(f"{reader} counts {event['applied']} records as applied, {applied} are", event.record)
        for offset in inside:
            covered[offset] += 1
            main[offset] += [(outcome, event) for outcome in named.pop(offset, ["APPLIED"])]
        for offset, outcomes in named.items():  # a later word on a record that waited
            main[offset] += [(outcome, event) for outcome in outcomes]
    for offset, record in by_offset.items():
        _record(out, reader, record, covered[offset], main[offset])
    for (offset, effect), outcomes in effects.items():
        terminal = [event for outcome, event in outcomes if outcome in TERMINAL]
        if len(terminal) > 1:
            out.broken(f"{reader} ended the effect {effect} of a record {len(terminal)} times", by_offset.get(offset), *(e.record for e in terminal))
        if outcomes[-1][0] in OPEN:
            out.broken(f"{reader} has the effect {effect} of a record still {outcomes[-1][0]} at rest", by_offset.get(offset), outcomes[-1][1].record)
    _letters(world, out, reader, by_offset, main)
    _duplicates(world, out, reader, by_offset, main)
    out.saw("records against their outcomes", len(records))


def _record(out, reader, record, times, outcomes):
    if times == 0:
        return out.broken(f"{reader} never settled a record", record)
    if times > 1:
        return out.broken(f"{reader} settled a record {times} times", record, *(event.record for _, event in outcomes))
    ended = [event for outcome, event in outcomes if outcome in TERMINAL]
    last, event = outcomes[-1]
    if last == "UNKNOWN":
        out.broken(f"{reader} books an outcome that nobody knows", record, event.record)
    elif last == "BUFFERED":
        out.broken(f"{reader} still has a record BUFFERED at rest", record, event.record)
    elif len(ended) > 1:
        out.broken(f"{reader} ended a record {len(ended)} times", record, *(e.record for e in ended))


def _letters(world, out, reader, by_offset, main):
    """What is dead-lettered or parked is there, whole, and nothing else is."""
    if not by_offset:
        return
    topic, partition = next(iter((r.topic, r.partition) for r in by_offset.values()))
    letters = defaultdict(list)
    for event in world.events(f"retail.rt.{reader}.dlq.v1"):
        origin = event["original"]
        if origin and (origin["topic"], origin["partition"]) == (topic, partition):
            letters[origin["offset"]].append(event)
    for offset, events in letters.items():
        record = by_offset.get(offset)
        if len(events) > 1:
            out.broken(f"{reader} dead-lettered a record {len(events)} times", record, *(e.record for e in events))
        if record is None:
            out.broken(f"{reader} has a dead letter of {topic} {partition}@{offset}, where no record is", events[0].record)
        elif (events[0]["key"], events[0]["value"]) != (record.key, record.value):
            out.broken(f"{reader}'s dead letter has not the bytes of its record", record, events[0].record)
        elif main[offset] and main[offset][-1][0] != "DEAD_LETTERED":
            out.broken(f"{reader} books {main[offset][-1][0]} for a record that it dead-lettered", record, events[0].record)
    parked = set()
    for event in world.latest(f"retail.rt.{reader}.park.v1").values():
        origin = event["original"]
        if origin and (origin["topic"], origin["partition"]) == (topic, partition):
            parked.add(origin["offset"])
    for offset, outcomes in main.items():
        if outcomes and outcomes[-1][0] == "DEAD_LETTERED":
            out.saw("dead letters")
            if offset not in letters:
                out.broken(f"{reader} says a record is dead-lettered, and no dead letter is there", by_offset.get(offset), outcomes[-1][1].record)
        if outcomes and outcomes[-1][0] == "PARKED" and offset not in parked:
            out.broken(f"{reader} says a record is parked, and it is not on its park topic", by_offset.get(offset), outcomes[-1][1].record)


def _duplicates(world, out, reader, by_offset, main):
    """A fact that is in the log twice is applied once by whoever joins all that it reads."""
    if not by_offset or reader not in JOINS_ALL:
        return
    topic = next(iter(by_offset.values())).topic
    seen = defaultdict(list)
    for event in world.events(topic):
        if event.record.offset in by_offset and event.record.partition == by_offset[event.record.offset].partition:
            seen[event.key, event.id].append(event)
    for (_, identity), events in seen.items():
        took = [e for e in events if main[e.record.offset] and main[e.record.offset][-1][0] == "APPLIED"]
        if len(took) > 1:
            out.broken(f"{reader} applied the event {identity} {len(took)} times", *(e.record for e in took))
        if len(events) > 1:
            out.saw("repeated events")
