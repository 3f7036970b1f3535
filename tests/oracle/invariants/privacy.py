"""16: nothing that names a person stands readable outside of customer.change, dead letters and logs included."""
CUSTOMER = "retail.customer.change.v1"


def judge(world, out):
    tagged = {}
    for topic in world.contracts:
        for event in world.events(topic) if topic != CUSTOMER else ():
            if event.contract not in tagged:
                schema = next(s for s in world.schemas.by_id.values() if s.name == event.contract)
                tagged[event.contract] = [f["name"] for f in schema.fields if f.get("pii") == "DIRECT"]
            for name in tagged[event.contract]:
                if event[name] is not None:
                    out.broken(f"{name} of {event.contract} names a person outside of {CUSTOMER}", event.record)
    out.saw("contracts without a field that names a person", len(tagged))
    known(world, out)
    if not world.canaries:
        return out.lacks("no canaries were given (--canary)")
    for canary in world.canaries:
        data = canary.encode()
        for record in world.records:
            parts = [record.key, record.value, *(value for _, value in record.headers)]
            if any(part is not None and data in part for part in parts):
                out.broken("a canary stands readable in the log", record)
        for path in world.logs:
            with open(path, "rb") as lines:
                for number, line in enumerate(lines, 1):
                    if data in line:
                        out.broken(f"a canary stands readable in {path}:{number}")
        out.saw("canaries")
    out.saw("records", len(world.records))


def known(world, out):
    """Who has ordered is told, sealed, to the ERP: else nothing stands readable because nothing is told."""
    parties = {entry["customer"] for entry in world.ledgers.get("erp", ()) if entry.kind == "customer"}
    for name, entries in world.ledgers.items():
        for entry in entries if name.startswith("storefront-") else ():
            if entry.kind == "customer":
                if entry["customer"] not in parties:
                    out.broken(f"the ERP does not know customer {entry['number']}", entry)
                out.saw("customers")
