"""13: at rest a storefront shows what is published for its channel."""
from world import ZERO, key_of

ATS = "retail.stock.ats.v1"
OPEN = {"INTENT", "OUTCOME_UNKNOWN"}
SHOWN = {"ACKED", "DUPLICATE_ACKED", "STALE_SKIPPED"}


def judge(world, out):
    if not world.has(ATS):
        return out.lacks("no availability in the log")
    published = world.latest(ATS)
    fronts = {name.removeprefix("storefront-"): entries for name, entries in world.ledgers.items() if name.startswith("storefront-")}
    if not any(entry.kind == "shown" for entries in fronts.values() for entry in entries):
        fronts = {}
        out.lacks("no ledger of what storefronts show")
    for channel, entries in sorted(fronts.items()):
        shown = {entry["sku"]: entry for entry in entries if entry.kind == "shown"}
        for event in published.values():
            if event["channelId"] != channel:
                continue
            entry = shown.get(event["sku"])
            quantity = entry.amount("quantity") if entry else ZERO
            if quantity != event["ats"]:
                out.broken(f"{channel} shows {quantity} of {event['sku']}, {event['ats']} is published", event.record, entry)
            out.saw("quantities in storefronts")
        for sku, entry in shown.items():
            if entry.amount("quantity") and key_of(sku, channel) not in published:
                out.broken(f"{channel} shows {entry.amount('quantity')} of {sku}, of which nothing is published", entry)
    _receipts(world, out, published)


def _receipts(world, out, published):
    """What the sinks were told: each has the last version of every key, and no call is in doubt."""
    for topic in sorted(world.by_topic):
        if not (topic.startswith("retail.rt.") and topic.endswith(".receipt.v1")):
            continue
        for event in world.latest(topic).values():
            last = published.get(event["entityKey"])
            if event["sourceEvent"]["topic"] != ATS or last is None:
                continue
            out.saw("receipts of storefronts")
            if event["outcome"] in OPEN:
                out.broken(f"{event['sink']} does not know at rest whether {event['entityKey']} was set", event.record)
            elif event["outcome"] in SHOWN and event["sentVersion"] != last["atsVersion"]:
                out.broken(f"{event['sink']} was sent version {event['sentVersion']} of {event['entityKey']}, {last['atsVersion']} is published", event.record, last.record)
