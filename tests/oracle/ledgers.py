"""The books of the systems around a deployment, as LEDGERS.md describes them: what they were told and did."""
import json
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path


@dataclass(frozen=True)
class Entry:
    """One line of one system's ledger. It can stand in a counter-example as a record of a topic does."""
    topic: str
    offset: int
    value: dict
    partition: int = 0

    def __getitem__(self, name):
        return self.value.get(name)

    def amount(self, name):
        return Decimal(str(self.value.get(name) or 0))

    @property
    def kind(self):
        return self.value["kind"]

    def __str__(self):
        return f"{self.topic}:{self.offset}"


def load(folder):
    """System → its entries, in order."""
    systems = {}
    for path in sorted(Path(folder).glob("*.jsonl")):
        with open(path, encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    value = json.loads(line)
                    systems.setdefault(value["system"], []).append(Entry(path.name, number, value))
                    value["kind"]
                except (ValueError, KeyError, TypeError) as why:
                    raise SystemExit(f"{path}:{number}: not a line of a ledger: {why!r}") from why
    if not systems:
        raise SystemExit(f"{folder} holds no ledgers (*.jsonl)")
    return systems
