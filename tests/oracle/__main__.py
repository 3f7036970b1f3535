"""The oracle: judges a deployment of Crossdock by the invariants of DOMAIN.md §6, from the topics of its log
and the books of the systems around it. It knows the contracts and the domain, and nothing of the program.

    python tests/oracle judge --bootstrap 127.0.0.1:9092 [--prefix shop-de.] [--registry URL] [--ledgers DIR]
    python tests/oracle judge --dump FILE      what was saved with --save, or made by others
    python tests/oracle facts --schemas FILE   a small retailer's facts, wave by wave, to feed a deployment
    python tests/oracle defects --dump FILE    shows that it can fail: puts defects in, one at a time

`judge` says of each invariant that it held (and what was judged), that it held in part (some of what would show
it is absent), the smallest counter-example with topic, partition and offset, or why it could not be judged.
Exit code 1 when one is violated; of `defects` when one was not caught by the invariant that must.
"""
import argparse
import json
import sys
from pathlib import Path

import defects
import invariants
import ledgers
import log
import retail
from wire import Schemas
from world import HOUR, World

CATALOGUE = Path(__file__).resolve().parents[2] / "topics.yaml"


def arguments():
    parser = argparse.ArgumentParser(prog="oracle", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    judge = commands.add_parser("judge", help="judge a deployment")
    where = judge.add_mutually_exclusive_group(required=True)
    where.add_argument("--bootstrap", help="read the topics of this Kafka")
    where.add_argument("--dump", help="read records from a dump instead")
    judge.add_argument("--prefix", default="", help="what the deployment's topics begin with")
    judge.add_argument("--registry", help="base URL of a registry with Confluent's API; else schemas are read from the registry's topic")
    judge.add_argument("--ledgers", metavar="DIR", help="books of the systems around it (LEDGERS.md)")
    judge.add_argument("--save", metavar="FILE", help="write what was read as a dump")
    judge.add_argument("--reader", action="append", default=[], help="a reader that must have settled its inputs, even if it settled nothing")
    judge.add_argument("--sent", action="append", default=[], metavar="TOPIC=N", help="how many different events were sent to a topic")
    judge.add_argument("--canary", action="append", default=[], metavar="TEXT", help="a personal datum that was put in, to be found nowhere")
    judge.add_argument("--log", action="append", default=[], metavar="FILE", help="what the program wrote to its log, searched for canaries")
    judge.add_argument("--json", action="store_true", help="print one JSON object")
    facts = commands.add_parser("facts", help="a small retailer's facts")
    facts.add_argument("--schemas", required=True, metavar="FILE", help="records of a registry's topic, a line each")
    facts.add_argument("--ledgers", metavar="DIR", help="write the books of the retailer's systems there")
    facts.add_argument("--orders", type=int, default=24)
    facts.add_argument("--seed", type=int, default=1)
    facts.add_argument("--begin", type=int, default=retail.BEGIN, help="when the first wave is, in microseconds")
    facts.add_argument("--step", type=int, default=HOUR, help="time between two waves, in microseconds")
    broken = commands.add_parser("defects", help="show that the oracle can fail")
    broken.add_argument("--dump", required=True, help="a deployment in which every invariant holds")
    broken.add_argument("--ledgers", metavar="DIR")
    return parser.parse_args()


def judge(asked):
    records = log.from_kafka(asked.bootstrap, asked.prefix) if asked.bootstrap else log.from_dump(asked.dump)
    if asked.save:
        log.save(records, asked.save)
    world = World(
        records, CATALOGUE, ledgers=asked.ledgers and ledgers.load(asked.ledgers), registry=asked.registry,
        readers=asked.reader, sent=dict(each.split("=") for each in asked.sent), canaries=asked.canary, logs=asked.log,
    )
    made = invariants.judge(world)
    if asked.json:
        print(json.dumps({"records": len(records), "invariants": [each.json() for each in made]}))
    else:
        print(f"{len(records)} records")
        for each in made:
            print(each.line())
    return 1 if any(each.verdict == "violated" for each in made) else 0


def facts(asked):
    schemas = Schemas()
    with open(asked.schemas, encoding="utf-8") as lines:
        for line in lines:
            schemas.take(line)
    retailer = retail.Retailer(asked.orders, asked.seed, asked.begin, asked.step)
    for at, wave in retailer.waves():
        print(json.dumps({"at": at}))
        for fact in wave:
            value = schemas.encode(schemas.id_of(fact.contract), fact.event)
            print(json.dumps({"topic": fact.topic, "key": fact.key, "value": value.hex()}))
    if asked.ledgers:
        retailer.write_ledgers(Path(asked.ledgers))
    return 0


def show_defects(asked):
    world = World(log.from_dump(asked.dump), CATALOGUE, ledgers=asked.ledgers and ledgers.load(asked.ledgers))
    return defects.show(world)


if __name__ == "__main__":
    asked = arguments()
    sys.exit({"judge": judge, "facts": facts, "defects": show_defects}[asked.command](asked))
