"""The invariants of DOMAIN.md §6 that can be judged from outside, in its order."""
from verdict import Judgement

from . import cases, claims, money, orders, outcomes, privacy, rebuild, returns, stock, storefronts, versions

ALL = [
    (1, "every record has exactly one outcome", outcomes.judge),
    (2, "stock is what its facts say", stock.conservation),
    (3, "transferred = arrived + on the way + lost", stock.transfers),
    (4, "no strict grant beyond what was available", claims.grants),
    (5, "held = consumed + released + expired + active", claims.balance),
    (6, "ordered = the sum of its buckets", orders.buckets),
    (7, "versions rise by exactly one", versions.judge),
    (8, "an accepted order is in the ERP once", orders.erp),
    (9, "refunds stay within captures, each paid once", money.refunds),
    (10, "every order of a storefront is known", orders.known),
    (11, "a return is matched, or one case is open", returns.judge),
    (12, "a rebuild from the log gives the live state", rebuild.judge),
    (13, "storefronts show what is published", storefronts.judge),
    (14, "one case for each fault", cases.judge),
    (15, "payouts are the sum of their lines, and the books balance", money.books),
    (16, "no person is named in plain text", privacy.judge),
]


def judge(world):
    """All of them."""
    made = []
    for number, title, rule in ALL:
        judgement = Judgement(number, title)
        rule(world, judgement)
        made.append(judgement)
    return made
