//! What must be so, in sentences.

use super::phrase::{Gaps, Phrase};
use super::stage::{Act, Stage};
use crate::contract::event::{
    ExceptionStatus, LedgerAccount, LedgerSide, LineState, MilestoneKind, OrderStatus, Text,
};
use crate::demo::systems::{Entry, System, open};
use crate::domain::{Decimal, compound_key};
use std::collections::BTreeMap;

macro_rules! phrase {
    ($form:literal, $means:literal, $make:expr) => {
        Phrase {
            form: $form,
            means: $means,
            make: $make,
        }
    };
}

/// Reads a bucket of an order line.
type Bucket = fn(&LineState) -> Decimal;

/// Buckets of an order line, by the words for them.
const BUCKETS: [(&str, Bucket); 10] = [
    ("open", |l| l.open),
    ("reserved", |l| l.reserved),
    ("backordered", |l| l.backordered),
    ("released", |l| l.released),
    ("picked", |l| l.picked),
    ("shipped", |l| l.shipped),
    ("delivered", |l| l.delivered),
    ("cancelled", |l| l.cancelled),
    ("returned", |l| l.returned),
    ("refunded", |l| l.refunded_qty),
];

/// Accounts, and the side on which they grow.
const ACCOUNTS: [(&str, LedgerAccount, LedgerSide); 11] = {
    use LedgerAccount::*;
    use LedgerSide::{Credit, Debit};
    [
        ("PSPClearing", PspClearing, Debit),
        ("CustomerDeposits", CustomerDeposits, Credit),
        ("Revenue", Revenue, Credit),
        ("TaxPayable", TaxPayable, Credit),
        ("RefundLiability", RefundLiability, Credit),
        ("Returns", Returns, Debit),
        ("Appeasements", Appeasements, Debit),
        ("Disputes", Disputes, Debit),
        ("Fees", Fees, Debit),
        ("Bank", Bank, Debit),
        ("Adjustments", Adjustments, Debit),
    ]
};

pub(super) const PHRASES: &[Phrase] = &[
    phrase!(
        "expect <order> is <status>",
        "The status of the order: PLACED, ACCEPTED, ON_HOLD, REJECTED, BACKORDERED, IN_FULFILMENT, PARTIALLY_SHIPPED, SHIPPED, READY_FOR_PICKUP, COMPLETED, CANCELLED, PARTIALLY_RETURNED, RETURNED or CONFLICT.",
        status
    ),
    phrase!(
        "expect nothing is known of <order>",
        "Crossdock has no state of the order.",
        |g| {
            let order = g.order()?;
            g.alone()?;
            must(move |stage| match stage.state(&stage.order(&order)?.1) {
                Err(_) => Ok(()),
                Ok(state) => Err(format!("{order} is {}", state.status)),
            })
        }
    ),
    phrase!(
        "expect <units> of <order> are <bucket>",
        "Where units of the order are: open, reserved, backordered, released, picked, shipped, delivered, cancelled; or returned, refunded.",
        bucket
    ),
    phrase!(
        "expect <quantity> of <sku> to sell in <channel>",
        "What the storefront shows.",
        |g| {
            let (channel, sku) = (g.channel()?, g.sku()?);
            let quantity = whole(g, "quantity")?;
            g.alone()?;
            must(move |stage| {
                let front = stage.front(&channel)?;
                let is = open(&*front).shown().get(&sku).copied().unwrap_or_default();
                equal(is, quantity)
            })
        }
    ),
    phrase!(
        "expect <quantity> of <sku> on the shelf in <location>",
        "What Crossdock says is sellable there, claims included.",
        |g| level(g, |l| l.sellable)
    ),
    phrase!(
        "expect <quantity> of <sku> claimed in <location>",
        "What of it orders have claimed.",
        |g| level(g, |l| l.reserved)
    ),
    phrase!(
        "expect customer of <order> was told <milestone>",
        "What the storefront was told for its customer: ready for pickup, shipped, delivered, cancelled.",
        milestone
    ),
    phrase!(
        "expect customer of <order> is refunded <money>",
        "What the provider has paid back in all, in one refund; `in <number> refunds` may follow after a comma.",
        refunded
    ),
    phrase!(
        "expect customer of <order> is refunded nothing",
        "The provider has paid nothing back.",
        |g| {
            let order = g.order()?;
            g.alone()?;
            must(move |stage| {
                let (_, id) = stage.order(&order)?;
                let (is, _) = open(&stage.estate.psp).refunded(&id);
                equal(is, Decimal::ZERO)
            })
        }
    ),
    phrase!(
        "expect ERP has <order> once",
        "There is one live sale for it.",
        |g| {
            let order = g.order()?;
            g.alone()?;
            must(move |stage| {
                let count = of_erp(stage, &order, &["order"], |_| Decimal::ONE)?;
                let lost = of_erp(stage, &order, &["order-lost"], |_| Decimal::ONE)?;
                equal(count - lost, Decimal::ONE)
            })
        }
    ),
    phrase!(
        "expect ERP refuses <order> as <code>",
        "UNKNOWN_SKU, UNKNOWN_CURRENCY, UNKNOWN_LOCATION or TOTAL_MISMATCH.",
        |g| {
            let (order, code) = (g.order()?, Text::from(g.text("code")));
            g.alone()?;
            must(move |stage| {
                let (_, id) = stage.order(&order)?;
                let erp = open(&stage.estate.erp);
                let of = |e: &&Entry| e.kind == "order-rejected" && e.text("order") == id;
                let refused = erp.desk().ledger().iter().find(of);
                let reason = refused.map_or("", |e| e.text("reason"));
                match reason.starts_with(code.as_str()) {
                    true => Ok(()),
                    false => Err(format!("the ERP says \"{reason}\"")),
                }
            })
        }
    ),
    phrase!(
        "expect ERP invoices <money> for <order>",
        "The sum of its invoices.",
        |g| documents(g, "invoice")
    ),
    phrase!(
        "expect ERP credits <money> for <order>",
        "The sum of its credit notes.",
        |g| documents(g, "credit-note")
    ),
    phrase!(
        "expect <account> of <order> is <money>",
        "What the books of the order hold: PSPClearing, CustomerDeposits, Revenue, TaxPayable, RefundLiability, Returns, Appeasements, Disputes, Fees, Bank, Adjustments; more than 0 on the side on which the account grows.",
        account
    ),
    phrase!(
        "expect books of <order> are even",
        "Nothing is left in CustomerDeposits and RefundLiability.",
        |g| {
            let order = g.order()?;
            g.alone()?;
            must(move |stage| {
                let (_, id) = stage.order(&order)?;
                for name in ["CustomerDeposits", "RefundLiability"] {
                    let is = balance(stage, Some(&id), name, None)?;
                    equal(is, Decimal::ZERO).map_err(|why| format!("{name}: {why}"))?;
                }
                Ok(())
            })
        }
    ),
    phrase!(
        "expect every payout is cleared",
        "PSPClearing is 0 in each order's and each payout's books.",
        |g| {
            g.alone()?;
            must(|stage| {
                let is = balance(stage, None, "PSPClearing", None)?;
                equal(is, Decimal::ZERO)
            })
        }
    ),
    phrase!("expect exception <code> for <order>", "It is open.", |g| {
        exception(g, g.order()?)
    }),
    phrase!(
        "expect exception <code> for <sku> in <location>",
        "It is open.",
        |g| {
            let about = compact_str::format_compact!("{} in {}", g.sku()?, g.location()?);
            exception(g, about)
        }
    ),
    phrase!("expect exception <code> for a payout", "It is open.", |g| {
        exception(g, "payout".into())
    }),
    phrase!(
        "expect exception <code> for <order> is resolved",
        "It was open, and has gone away by itself.",
        |g| {
            let (code, order) = (Text::from(g.text("code")), g.order()?);
            g.alone()?;
            must(move |stage| match case(stage, &code, &order) {
                Some(true) => Err("it is open".into()),
                Some(false) => Ok(()),
                None => Err("it never was".into()),
            })
        }
    ),
    phrase!("expect no exception for <order>", "None is open.", |g| {
        let order = g.order()?;
        g.alone()?;
        must(move |stage| {
            let cases = open(&stage.said).cases.clone();
            let open_case = |c: &&crate::contract::event::BusinessException| {
                c.status != ExceptionStatus::Resolved && stage.about(c) == order
            };
            match cases.values().find(open_case) {
                None => Ok(()),
                Some(c) => Err(format!(
                    "{} is open: {}",
                    c.code,
                    c.actual.clone().unwrap_or_default()
                )),
            }
        })
    }),
    phrase!(
        "expect <reader> refuses a record of <order> as <code>",
        "A dead letter of that processor, such as `DATA_QUALITY` or `UNKNOWN_REFERENCE`.",
        |g| {
            let (reader, code, order) = (
                Text::from(g.text("reader")),
                Text::from(g.text("code")),
                g.order()?,
            );
            g.alone()?;
            must(move |stage| {
                let (_, id) = stage.order(&order)?;
                let dead = stage.dead()?;
                let found = dead
                    .iter()
                    .any(|(r, c, key, _)| *r == reader && *c == code && *key == id);
                if !found {
                    let all: Vec<String> = dead
                        .iter()
                        .map(|(r, c, key, m)| format!("{r} {c} {}: {m}", stage.name_of(key)))
                        .collect();
                    return Err(format!("refused are: {}", all.join("; ")));
                }
                let expected = (reader.clone(), code.clone(), order.clone());
                stage.expected_dead.insert(expected);
                Ok(())
            })
        }
    ),
];

fn must(deed: impl Fn(&mut Stage) -> Result<(), String> + 'static) -> Result<Act, String> {
    Ok(Act::Expect(Box::new(deed)))
}

fn equal(is: Decimal, should: Decimal) -> Result<(), String> {
    match is == should {
        true => Ok(()),
        false => Err(format!("it is {is}, not {should}")),
    }
}

/// A quantity, `no` being none.
fn whole(g: &Gaps<'_>, gap: &str) -> Result<Decimal, String> {
    match g.text(gap) {
        "no" | "none" | "0" => Ok(Decimal::ZERO),
        _ => g.quantity(gap),
    }
}

fn status(g: &Gaps<'_>) -> Result<Act, String> {
    let (order, wanted) = (g.order()?, g.text("status"));
    g.alone()?;
    let status = OrderStatus::from_symbol(wanted).ok_or_else(|| {
        let all: Vec<&str> = OrderStatus::ALL
            .iter()
            .map(|s| s.symbol())
            .skip(1)
            .collect();
        format!("there is no status {wanted}; there is {}", all.join(", "))
    })?;
    must(move |stage| {
        let (_, id) = stage.order(&order)?;
        let state = stage.state(&id)?;
        match state.status == status {
            true => Ok(()),
            false => Err(format!(
                "{order} is {}: {}",
                state.status,
                buckets(&state.lines)
            )),
        }
    })
}

fn buckets(lines: &[LineState]) -> String {
    let line = |l: &LineState| {
        let filled = BUCKETS.iter().filter(|(_, of)| !of(l).is_zero());
        let filled: Vec<String> = filled
            .map(|(name, of)| format!("{} {name}", of(l)))
            .collect();
        format!("{} of {} ({})", l.ordered, l.sku, filled.join(", "))
    };
    lines.iter().map(line).collect::<Vec<_>>().join("; ")
}

fn bucket(g: &Gaps<'_>) -> Result<Act, String> {
    let (order, units, name) = (g.order()?, g.units()?, g.text("bucket"));
    g.alone()?;
    let Some((_, of)) = BUCKETS.iter().find(|(known, _)| *known == name) else {
        let all = BUCKETS.map(|(name, _)| name);
        return Err(format!(
            "units cannot be {name}; they can be {}",
            all.join(", ")
        ));
    };
    must(move |stage| {
        let (_, id) = stage.order(&order)?;
        let state = stage.state(&id)?;
        for (sku, quantity) in &units {
            let is: Decimal = state.lines.iter().filter(|l| l.sku == *sku).map(of).sum();
            equal(is, *quantity)
                .map_err(|why| format!("{sku}: {why}; {}", buckets(&state.lines)))?;
        }
        Ok(())
    })
}

fn level(
    g: &Gaps<'_>,
    of: fn(&crate::contract::event::StockLevel) -> Decimal,
) -> Result<Act, String> {
    let (sku, location, quantity) = (g.sku()?, g.location()?, whole(g, "quantity")?);
    g.alone()?;
    must(move |stage| {
        let key = compound_key(&[&sku, &location]);
        let said = open(&stage.said);
        let level = said.levels.get(&key).ok_or("nothing is known of it")?;
        equal(of(level), quantity)
    })
}

fn milestone(g: &Gaps<'_>) -> Result<Act, String> {
    let (order, words) = (g.order()?, g.text("milestone"));
    g.alone()?;
    let kind = MilestoneKind::from_symbol(&words.to_uppercase().replace(' ', "_"));
    let kind = kind.ok_or_else(|| {
        format!("customers are not told {words}; they are told ready for pickup, shipped, delivered or cancelled")
    })?;
    must(move |stage| {
        let (sold, id) = stage.order(&order)?;
        let front = stage.front(&sold.channel_id)?;
        match open(&*front).was_told(&id, kind) {
            true => Ok(()),
            false => Err("nobody told".into()),
        }
    })
}

fn refunded(g: &Gaps<'_>) -> Result<Act, String> {
    let (order, (sum, _)) = (g.order()?, g.money()?);
    let times = match g.further.as_slice() {
        [] => 1,
        [more] => {
            let count = more
                .strip_prefix("in ")
                .and_then(|m| m.strip_suffix(" refunds"));
            let count = count.and_then(|c| c.parse().ok());
            count.ok_or_else(|| format!("\"{more}\" is not of the form \"in 2 refunds\""))?
        }
        _ => return Err("too much is said".into()),
    };
    must(move |stage| {
        let (_, id) = stage.order(&order)?;
        let (is, count) = open(&stage.estate.psp).refunded(&id);
        equal(is, sum)?;
        match count == times {
            true => Ok(()),
            false => Err(format!("it was paid in {count} refunds")),
        }
    })
}

fn of_erp(
    stage: &Stage,
    order: &str,
    kinds: &[&str],
    of: fn(&Entry) -> Decimal,
) -> Result<Decimal, String> {
    let (_, id) = stage.order(order)?;
    let erp = open(&stage.estate.erp);
    let entries = erp.desk().ledger().iter();
    let found = entries.filter(|e| kinds.contains(&e.kind) && e.text("order") == id);
    Ok(found.map(of).sum())
}

fn documents(g: &Gaps<'_>, kind: &'static str) -> Result<Act, String> {
    let (order, (sum, _)) = (g.order()?, g.money()?);
    g.alone()?;
    must(move |stage| {
        let gross = |e: &Entry| e.text("gross").parse().unwrap_or_default();
        equal(of_erp(stage, &order, &[kind], gross)?, sum)
    })
}

fn account(g: &Gaps<'_>) -> Result<Act, String> {
    let (order, name) = (g.order()?, Text::from(g.text("account")));
    g.alone()?;
    let (sum, currency) = g.money()?;
    if !ACCOUNTS.iter().any(|(known, ..)| *known == name) {
        let all = ACCOUNTS.map(|(name, ..)| name);
        return Err(format!(
            "there is no account {name}; there is {}",
            all.join(", ")
        ));
    }
    must(move |stage| {
        let (_, id) = stage.order(&order)?;
        equal(balance(stage, Some(&id), &name, Some(&currency))?, sum)
    })
}

/// What an account holds in the books of an order, or in those of everything where one is not zero.
fn balance(
    stage: &Stage,
    order: Option<&str>,
    account: &str,
    currency: Option<&str>,
) -> Result<Decimal, String> {
    let known = ACCOUNTS.iter().find(|(name, ..)| *name == account);
    let (_, account, grows) = known.ok_or("no such account")?;
    let mut sums: BTreeMap<Text, Decimal> = BTreeMap::new();
    for p in &open(&stage.said).postings {
        let own = p.order_id.as_ref().or(p.payout_id.as_ref());
        for e in p.entries.iter().filter(|e| e.account == *account) {
            if currency.is_some_and(|c| c != p.currency) {
                continue;
            }
            let books = e.order_id.as_ref().or(own).cloned().unwrap_or_default();
            let sum = sums.entry(books).or_default();
            match e.side == *grows {
                true => *sum += e.amount,
                false => *sum -= e.amount,
            }
        }
    }
    Ok(match order {
        Some(order) => sums.get(order).copied().unwrap_or_default(),
        None => sums
            .values()
            .copied()
            .find(|s| !s.is_zero())
            .unwrap_or_default(),
    })
}

/// Whether an exception is open; none when it never was.
fn case(stage: &Stage, code: &str, about: &str) -> Option<bool> {
    let cases = open(&stage.said).cases.clone();
    let of = cases
        .values()
        .filter(|c| c.code == code && stage.about(c) == about);
    let open_now =
        |c: &crate::contract::event::BusinessException| c.status != ExceptionStatus::Resolved;
    of.map(open_now).reduce(|a, b| a || b)
}

fn exception(g: &Gaps<'_>, about: Text) -> Result<Act, String> {
    let code = Text::from(g.text("code"));
    g.alone()?;
    must(move |stage| match case(stage, &code, &about) {
        Some(true) => {
            stage.expected.insert((code.clone(), about.clone()));
            Ok(())
        }
        Some(false) => Err("it was resolved".into()),
        None => {
            let cases = open(&stage.said).cases.clone();
            let cases: Vec<String> = cases
                .values()
                .filter(|c| c.status != ExceptionStatus::Resolved)
                .map(|c| format!("{} for {}", c.code, stage.about(c)))
                .collect();
            Err(format!("open are: {}", cases.join("; ")))
        }
    })
}
