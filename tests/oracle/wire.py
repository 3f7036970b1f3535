"""Confluent framing and Avro, as a stranger reads them: with fastavro and the writer's schema alone.

Logical types are dropped but for decimals, which become exact numbers: times stay microseconds and
dates days, so that no value is out of a Python type's range.
"""
import io
import json
import struct
import urllib.request

import fastavro


def _plain(schema):
    if isinstance(schema, list):
        return [_plain(each) for each in schema]
    if isinstance(schema, dict):
        kept = {name: value if name == "default" else _plain(value) for name, value in schema.items()}
        if kept.get("logicalType") not in (None, "decimal"):
            del kept["logicalType"]
        return kept
    return schema


class Schema:
    """One writer's schema."""

    def __init__(self, text):
        raw = json.loads(text)
        self.name = f"{raw['namespace']}.{raw['name']}" if raw.get("namespace") else raw["name"]
        self.fields = raw.get("fields", [])
        self.parsed = fastavro.parse_schema(_plain(raw), named_schemas={})

    def read(self, data):
        stream = io.BytesIO(data)
        value = fastavro.schemaless_reader(stream, self.parsed)
        if stream.tell() != len(data):
            raise ValueError(f"{len(data) - stream.tell()} bytes are left over")
        return value

    def write(self, value):
        stream = io.BytesIO()
        fastavro.schemaless_writer(stream, self.parsed, value)
        return stream.getvalue()


class Schemas:
    """Schemas by id: from the records of the registry's topic, or from a registry over HTTP."""

    def __init__(self, url=None):
        self.url, self.by_id = url, {}

    def take(self, value):
        """A record of the registry's topic; those that hold no schema are passed over."""
        try:
            record = json.loads(value)
        except ValueError:
            return
        if isinstance(record, dict) and "schema" in record and "id" in record:
            self.by_id[record["id"]] = Schema(record["schema"])

    def get(self, number):
        if number not in self.by_id:
            if self.url is None:
                raise KeyError(f"schema {number} is not in the registry's topic")
            with urllib.request.urlopen(f"{self.url.rstrip('/')}/schemas/ids/{number}", timeout=30) as answer:
                self.by_id[number] = Schema(json.load(answer)["schema"])
        return self.by_id[number]

    def id_of(self, name):
        """The newest id of a contract that is known."""
        known = [number for number, schema in self.by_id.items() if schema.name == name]
        if not known:
            raise KeyError(f"no schema of {name} is registered")
        return max(known)

    def decode(self, value):
        """The contract's name and the event."""
        if len(value) < 5 or value[0] != 0:
            raise ValueError("not framed")
        schema = self.get(struct.unpack(">I", value[1:5])[0])
        return schema.name, schema.read(value[5:])

    def encode(self, number, event):
        return b"\0" + struct.pack(">I", number) + self.get(number).write(event)
