"""A deployment as the oracle sees it: decoded records by topic, the catalogue, the books of the systems."""
import uuid
from collections import defaultdict
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property

import yaml

from log import REGISTRY, Record
from wire import Schemas

# The one constant from which every derived id is made (DOMAIN.md §0).
NAMESPACE = uuid.UUID("6f1d3c52-0b7e-5a44-9c1e-7d20c055d0c8")
MINUTE = 60_000_000
HOUR = 60 * MINUTE
# Facts may be late by so much; what they would contradict is judged then, and its readers wait a little longer.
HORIZON = 72 * HOUR
GRACE = 30 * MINUTE
ZERO = Decimal(0)


def part(text):
    """A part of a key: `|` and `%` are percent-encoded."""
    return text.replace("%", "%25").replace("|", "%7C")


def key_of(*parts):
    return "|".join(part(each) for each in parts)


def natural_id(*parts):
    return str(uuid.uuid5(NAMESPACE, key_of(*parts)))


@dataclass(frozen=True)
class Event:
    """A record and what it says; `value` is None for a tombstone, or where it cannot be read."""
    record: Record
    contract: str | None
    value: dict | None
    error: str | None = None

    def __getitem__(self, name):
        return self.value[name]

    @property
    def meta(self):
        return self.value["meta"]

    @property
    def key(self):
        return self.record.key.decode("utf-8", "replace") if self.record.key is not None else None

    @property
    def id(self):
        return self.meta["eventId"]

    @property
    def at(self):
        return (self.record.partition, self.record.offset)


class World:
    def __init__(self, records, catalogue_path, ledgers=None, registry=None, readers=None, sent=None, canaries=(), logs=()):
        self.records, self.ledgers, self.sent = records, ledgers or {}, sent or {}
        self.canaries, self.logs = list(canaries), list(logs)
        self.schemas = Schemas(registry)
        self.named_readers = set(readers or ())
        self.by_topic = defaultdict(list)
        for record in records:
            self.by_topic[record.topic].append(record)
            if record.topic == REGISTRY and record.value:
                self.schemas.take(record.value)
        self.catalogue_path = catalogue_path
        with open(catalogue_path, encoding="utf-8") as text:
            self.catalogue = yaml.safe_load(text)
        self._events = {}

    def all(self, topic):
        """Every record of a topic, decoded where it can be."""
        if topic not in self._events:
            self._events[topic] = [self._decode(record) for record in self.by_topic.get(topic, ())]
        return self._events[topic]

    def events(self, topic):
        """Those that say something."""
        return [event for event in self.all(topic) if event.value is not None]

    def latest(self, topic):
        """The last event of each key, in the order of the log."""
        last = {}
        for event in self.events(topic):
            last[event.key] = event
        return last

    def has(self, topic):
        return bool(self.by_topic.get(topic))

    def _decode(self, record):
        if record.value is None:
            return Event(record, None, None)
        try:
            contract, value = self.schemas.decode(record.value)
            return Event(record, contract, value)
        except Exception as why:  # whatever a hostile value makes the reader do
            return Event(record, None, None, f"{type(why).__name__}: {why}")

    @cached_property
    def contracts(self):
        """The contract that each topic of the catalogue carries."""
        return {topic["name"]: topic["contract"] for topic in self.catalogue["topics"]}

    @cached_property
    def inputs(self):
        """The topics that each reader of the catalogue must settle."""
        inputs = defaultdict(set)
        for topic in self.catalogue["topics"]:
            for reader in topic["readers"]:
                inputs[reader["reader"]].add(topic["name"])
        return inputs

    @cached_property
    def now(self):
        """The latest time at which anything was recorded, in microseconds."""
        latest = 0
        for topic in self.contracts:
            for event in self.events(topic):
                latest = max(latest, event.meta["recordedAt"])
        return latest

    @cached_property
    def refused(self):
        """Keys of what was dead-lettered, and the names under which sources had it."""
        names = set()
        for topic in self.by_topic:
            if topic.startswith("retail.rt.") and topic.endswith(".dlq.v1"):
                for event in self.events(topic):
                    if event["key"] is not None:
                        names.add(event["key"].decode("utf-8", "replace"))
                    if event["sourceOrigin"]:
                        names.add(event["sourceOrigin"]["item"])
        return names

    @cached_property
    def exceptions(self):
        """Cases as they are now."""
        cases = {}
        for event in self.events("retail.ops.exception.v1"):
            known = cases.get(event["exceptionId"])
            if known is None or event["exceptionVersion"] >= known["exceptionVersion"]:
                cases[event["exceptionId"]] = event
        return cases
