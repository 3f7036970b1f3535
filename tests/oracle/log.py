"""What is in the log: records as a committed reader sees them, from a Kafka or from a dump.

A dump is JSON lines, one record each: topic, partition, offset, timestamp, and key, value and headers
in hexadecimal. Names are those of topics.yaml; the prefix of a deployment is left out.
"""
import json
import time
from dataclasses import dataclass, field, replace

REGISTRY = "retail.rt.registry.v1"
SILENCE_SECONDS_MAX = 60


@dataclass
class Record:
    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: list = field(default_factory=list)
    timestamp: int = 0

    def __str__(self):
        return f"{self.topic} {self.partition}@{self.offset}"

    def copy(self, **changes):
        return replace(self, **changes)


def from_kafka(bootstrap, prefix=""):
    """Every committed record of every topic of a deployment, in the order of topic, partition, offset."""
    from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

    consumer = Consumer({
        "bootstrap.servers": bootstrap, "group.id": "oracle", "enable.auto.commit": False,
        "isolation.level": "read_committed", "enable.partition.eof": True,
    })
    topics = consumer.list_topics(timeout=30).topics
    mine = sorted(name for name in topics if name.startswith(f"{prefix}retail."))
    if not mine:
        consumer.close()
        raise SystemExit(f"{bootstrap} has no topics that begin with {prefix}retail.; check --bootstrap and --prefix")
    records = []
    open_partitions = {(name, partition) for name in mine for partition in topics[name].partitions}
    consumer.assign([TopicPartition(name, partition, OFFSET_BEGINNING) for name, partition in sorted(open_partitions)])
    silent_since = time.monotonic()
    while open_partitions:
        # It waits until it has so many or the time is over.
        messages = consumer.consume(10_000, 0.1)
        if messages:
            silent_since = time.monotonic()
        elif time.monotonic() - silent_since > SILENCE_SECONDS_MAX:
            raise SystemExit(f"{sorted(open_partitions)} were not read to their end: is a broker down, or a transaction open?")
        for message in messages:
            if message.error():
                if message.error().code() != KafkaError._PARTITION_EOF:
                    raise SystemExit(f"{message.topic()}: {message.error()}")
                open_partitions.discard((message.topic(), message.partition()))
                continue
            records.append(Record(
                message.topic()[len(prefix):], message.partition(), message.offset(), message.key(), message.value(),
                message.headers() or [], message.timestamp()[1],
            ))
    consumer.close()
    records.sort(key=lambda r: (r.topic, r.partition, r.offset))
    return records


def _text(data):
    return None if data is None else data.hex()


def _bytes(text):
    return None if text is None else bytes.fromhex(text)


def save(records, path):
    with open(path, "w", encoding="utf-8") as out:
        for r in records:
            headers = [[name, _text(value)] for name, value in r.headers]
            line = {"topic": r.topic, "partition": r.partition, "offset": r.offset, "timestamp": r.timestamp,
                    "key": _text(r.key), "value": _text(r.value), "headers": headers}
            out.write(json.dumps(line) + "\n")


def from_dump(path):
    records = []
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                d = json.loads(line)
                headers = [(name, _bytes(value)) for name, value in d.get("headers", [])]
                records.append(Record(d["topic"], d["partition"], d["offset"], _bytes(d["key"]), _bytes(d["value"]),
                                      headers, d.get("timestamp", 0)))
            except (ValueError, KeyError, TypeError) as why:
                raise SystemExit(f"{path}:{number}: not a record of a dump: {why!r}") from why
    records.sort(key=lambda r: (r.topic, r.partition, r.offset))
    return records
