"""What is said of an invariant: held, held in part (some of what would show it was absent), the smallest
counter-example, or why it could not be judged."""
from dataclasses import dataclass, field


@dataclass
class CounterExample:
    text: str
    records: tuple

    @property
    def size(self):
        places = tuple((r.topic, r.partition, r.offset) for r in self.records)
        return len(places) == 0, len(places), places, self.text

    def __str__(self):
        shown = self.records[:4]
        more = len(self.records) - len(shown)
        places = ", ".join(str(r) for r in shown) + (f" and {more} more" if more else "")
        return f"{self.text} [{places}]" if places else self.text


@dataclass
class Judgement:
    """One invariant's judgement while it is being made."""
    number: int
    title: str
    found: list = field(default_factory=list)
    counted: dict = field(default_factory=dict)
    missing: list = field(default_factory=list)
    notes: list = field(default_factory=list)

    def saw(self, what, count=1):
        """Something was judged, whether it held or not."""
        if count:
            self.counted[what] = self.counted.get(what, 0) + count

    def lacks(self, why):
        """An input that would let more be judged is absent."""
        if why not in self.missing:
            self.missing.append(why)

    def broken(self, text, *records):
        once = {str(record): record for record in records if record is not None}
        self.found.append(CounterExample(text, tuple(once.values())))

    @property
    def verdict(self):
        if self.found:
            return "violated"
        if not self.counted:
            return "not judged"
        return "in part" if self.missing else "held"

    @property
    def smallest(self):
        return min(self.found, key=lambda each: each.size) if self.found else None

    @property
    def evidence(self):
        return ", ".join(f"{count} {what}" for what, count in self.counted.items())

    def line(self):
        head = f"{self.number:>2}  {self.verdict:<10}  {self.title}"
        if self.found:
            others = f" ({len(self.found)} found)" if len(self.found) > 1 else ""
            return f"{head}{others}\n        {self.smallest}"
        if not self.counted:
            return f"{head}\n        why: {'; '.join(self.missing) or 'nothing of it is in the log'}"
        rest = "".join(f"; {note}" for note in self.notes)
        rest += f"; not judged: {'; '.join(self.missing)}" if self.missing else ""
        return f"{head}\n        {self.evidence}{rest}"

    def json(self):
        smallest = self.smallest
        places = [{"topic": r.topic, "partition": r.partition, "offset": r.offset} for r in smallest.records] if smallest else []
        return {
            "invariant": self.number, "title": self.title, "verdict": self.verdict, "found": len(self.found),
            "counterExample": smallest and {"text": smallest.text, "records": places},
            "judged": self.counted, "notJudged": self.missing,
        }
