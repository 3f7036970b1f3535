"""Writes stock_merge.json: schedules of facts and commands, and what a reference model makes of them.

The model is as plain as can be, keeps everything and shares nothing with the ledger: integer
quantities, one epoch, strict holds. Schedules are shuffled and partly repeated; commands keep the
order of their partition. Run it again only to add cases:

    python3 tests/vectors/stock_merge.py > tests/vectors/stock_merge.json
"""
import json
import random


class Model:
    def __init__(self):
        self.base = None  # (position, quantity)
        self.deltas = {}  # (position, id) -> quantity
        self.seen = set()
        self.claims = {}
        self.decisions = []

    def sellable(self):
        position, quantity = self.base or (-1, 0)
        return quantity + sum(d for (p, _), d in self.deltas.items() if p > position)

    def reserved(self):
        return sum(c["held"] - c["consumed"] for c in self.claims.values() if c["status"] == "HELD")

    def ats(self):
        return max(0, self.sellable() - self.reserved())

    def delta(self, position, id, quantity, claim):
        if id in self.seen:
            return
        self.seen.add(id)
        if not (self.base and position <= self.base[0]):
            self.deltas[(position, id)] = quantity
        # The claim is consumed even where a snapshot includes the goods.
        if claim is not None:
            known = self.claims.setdefault(claim, dict(status="UNSEEN", held=0, consumed=0, early=0))
            if known["status"] == "HELD":
                known["consumed"] = min(known["held"], known["consumed"] - quantity)
                if known["consumed"] >= known["held"]:
                    known["status"] = "CONSUMED"
            elif known["status"] == "UNSEEN":
                known["early"] -= quantity

    def snapshot(self, position, quantity):
        if self.base and position <= self.base[0]:
            return
        self.base = (position, quantity)
        self.deltas = {k: v for k, v in self.deltas.items() if k[0] > position}

    def command(self, claim, action, quantity):
        known = self.claims.get(claim)
        if action == "HOLD":
            if known and known["status"] != "UNSEEN":
                return
            wanted = max(0, quantity - (known["early"] if known else 0))
            before = self.ats()
            if wanted == 0:
                status = "CONSUMED"
            else:
                status = "HELD" if before >= wanted else "REJECTED"
            self.claims[claim] = dict(status=status, held=wanted if status == "HELD" else 0, consumed=0, early=0)
            self.decisions.append([claim, status, before, quantity])
        elif known is None or known["status"] == "UNSEEN":
            self.claims[claim] = dict(status="RELEASED", held=0, consumed=0, early=0)
        elif known["status"] == "HELD":
            known["status"] = "RELEASED"


def schedule(seed):
    """The true history at the source, then the disorder in which it is heard of."""
    r = random.Random(seed)
    truth = r.randint(5, 60)
    position = 0
    facts = [["s", 0, "s0", truth]]
    commands, open_claims = [], []
    for i in range(r.randint(5, 40)):
        k = r.random()
        if k < 0.35:
            position += 1
            quantity = -r.randint(1, 3) if truth > 3 else r.randint(3, 9)
            truth += quantity
            facts.append(["d", position, f"m{position}", quantity, None])
        elif k < 0.6:
            quantity = r.randint(1, 3)
            commands.append(["c", f"r{i}", "HOLD", quantity])
            open_claims.append((f"r{i}", quantity))
        elif k < 0.75 and open_claims:
            claim, quantity = open_claims.pop(r.randrange(len(open_claims)))
            if truth >= quantity:
                position += 1
                truth -= quantity
                facts.append(["d", position, f"m{position}", -quantity, claim])
        elif k < 0.85 and open_claims:
            claim, quantity = open_claims.pop(r.randrange(len(open_claims)))
            commands.append(["c", claim, "RELEASE", 0])
        else:
            facts.append(["s", position, f"s{i + 1}", truth])
    heard = facts + [r.choice(facts) for _ in range(len(facts) // 2)]
    r.shuffle(heard)
    asked = commands + ([r.choice(commands) for _ in range(len(commands) // 2)] if commands else [])
    if r.random() < 0.5:
        heard = asked + heard
    else:
        for command in asked:
            heard.insert(r.randrange(len(heard) + 1), command)
    return [facts[0]] + heard, truth


def case(seed):
    steps, truth = schedule(seed)
    model = Model()
    for step in steps:
        if step[0] == "s":
            model.snapshot(step[1], step[3])
        elif step[0] == "d":
            model.delta(*step[1:])
        else:
            model.command(*step[1:])
    assert model.sellable() == truth
    held = {c: k["held"] - k["consumed"] for c, k in model.claims.items() if k["status"] == "HELD"}
    return dict(seed=seed, steps=steps, sellable=truth, active=held, decisions=model.decisions)


if __name__ == "__main__":
    print("[" + ",\n".join(json.dumps(case(seed), separators=(",", ":")) for seed in range(150)) + "]")
