"""Judges stock levels from outside: reads the topics of a Kafka as a committed reader, folds the
facts by the merge rules of its own, and compares with the last level of every position.

Shares nothing with Crossdock but the schemas, which it reads from the registry's topic.
Usage: levels.py BOOTSTRAP EXPECTED_DISTINCT_FACTS
Prints one line of JSON; exits with 1 when anything differs.
"""
import json
import io
import struct
import sys
from decimal import Decimal

import fastavro
from confluent_kafka import Consumer, TopicPartition, OFFSET_BEGINNING

BOOTSTRAP, EXPECTED = sys.argv[1], int(sys.argv[2])


def read(topic):
    """Every committed record of a topic: partition, offset, key, value."""
    consumer = Consumer({
        "bootstrap.servers": BOOTSTRAP, "group.id": "oracle", "enable.auto.commit": False,
        "isolation.level": "read_committed", "enable.partition.eof": True,
    })
    partitions = sorted(consumer.list_topics(topic, timeout=30).topics[topic].partitions)
    consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in partitions])
    open_partitions = set(partitions)
    while open_partitions:
        message = consumer.poll(30)
        if message is None:
            raise SystemExit(f"{topic}: partitions {sorted(open_partitions)} were not read to their end")
        if message.error():
            open_partitions.discard(message.partition())
            continue
        yield message.partition(), message.offset(), message.key(), message.value()
    consumer.close()


schemas = {}
for _, _, key, value in read("retail.rt.registry.v1"):
    if value:
        record = json.loads(value)
        if "schema" in record and "id" in record:
            schemas[record["id"]] = fastavro.parse_schema(json.loads(record["schema"]), named_schemas={})


def decode(value):
    magic, schema = struct.unpack(">bI", value[:5])
    assert magic == 0, "not framed"
    return fastavro.schemaless_reader(io.BytesIO(value[5:]), schemas[schema])


faults = []
facts, snapshots, seen = {}, {}, 0
for _, _, key, value in read("retail.stock.change.v1"):
    event = decode(value)
    seen += 1
    change = Decimal(0)
    if event["fromState"] == "SELLABLE":
        change -= event["qty"]
    if event["toState"] == "SELLABLE":
        change += event["qty"]
    position = (event["meta"]["sourceEpoch"], event["meta"]["sourcePosition"])
    facts.setdefault(key, {})[event["meta"]["eventId"]] = (position, change)
for _, _, key, value in read("retail.stock.snapshot.v1"):
    event = decode(value)
    position = (event["asOfEpoch"], event["asOfPosition"])
    if key not in snapshots or position > snapshots[key][0]:
        snapshots[key] = (position, event["sellable"])

distinct = sum(len(f) for f in facts.values())
if distinct != EXPECTED:
    faults.append(f"{distinct} distinct facts in the log, {EXPECTED} were sent")

levels, versions = {}, {}
for partition, offset, key, value in read("retail.stock.level.v1"):
    event = decode(value)
    if key in versions and event["levelVersion"] != versions[key] + 1:
        faults.append(f"level of {key} at {partition}@{offset}: version {event['levelVersion']} after {versions[key]}")
    versions[key] = event["levelVersion"]
    levels[key] = event["sellable"]

for key in set(facts) | set(snapshots):
    as_of, base = snapshots.get(key, ((-1, -1), Decimal(0)))
    expected = base + sum((c for p, c in facts.get(key, {}).values() if p > as_of), Decimal(0))
    if levels.get(key, Decimal(0)) != expected:
        faults.append(f"level of {key}: {levels.get(key)}, the facts give {expected}")

settled, ranges = 0, {}
for partition, offset, key, value in read("retail.ops.disposition.v1"):
    event = decode(value)
    if event["reader"] == "stock-ledger" and event["count"]:
        if event["topic"] == "retail.stock.change.v1":
            settled += event["count"]
        ranges.setdefault((event["topic"], event["partition"]), []).append((event["firstOffset"], event["lastOffset"]))
if settled != seen:
    faults.append(f"{seen} changes in the log, {settled} settled")
for where, spans in ranges.items():
    spans.sort()
    for before, after in zip(spans, spans[1:]):
        if after[0] <= before[1]:
            faults.append(f"{where}: offsets {after[0]} to {before[1]} settled twice")

print(json.dumps({"changes": seen, "distinct": distinct, "positions": len(levels), "faults": faults[:10]}))
sys.exit(1 if faults else 0)
