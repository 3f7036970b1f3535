//! Invariants 9, 11, 14, 15 and 16: money at the provider, returns and what answers to them, payouts,
//! exceptions, and what must not be told.

use super::books::{At, Books};
use super::{Around, Judged};
use crate::contract::event::{
    BusinessException, Disposition, ExceptionStatus, RefundEvent, RefundStatus, RefundType,
    ReturnEvent, SettlementEvent, SettlementKind, Text,
};
use crate::domain::{Decimal, Timestamp};
use crate::pipeline::Origin;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use uuid::Uuid;

/// A return is judged so long after it was taken in: facts may be late by three days.
const HORIZON: Duration = Duration::from_secs(72 * 3_600 + 3_600);
/// Codes of cases about a return or a refund.
const OF_RETURNS: [&str; 7] = [
    "DUPLICATE_REFUND",
    "REFUND_WITHOUT_RETURN",
    "RETURN_WITHOUT_REFUND",
    "NOT_RESTOCKED",
    "CREDIT_NOTE_MISSING",
    "TAX_MISMATCH",
    "ORPHAN",
];

/// What was read of money.
#[derive(Default)]
pub(super) struct MoneyBooks {
    refunds: BTreeMap<Uuid, At<RefundEvent>>,
    returns: BTreeMap<Text, At<ReturnEvent>>,
    /// Lines by payout and line.
    lines: BTreeMap<(Text, Text), At<SettlementEvent>>,
    pub cases: BTreeMap<Uuid, At<BusinessException>>,
    /// The first case whose versions do not follow each other.
    gap: Option<String>,
}

impl MoneyBooks {
    pub fn refund(&mut self, e: RefundEvent, origin: Origin) {
        let known = self
            .refunds
            .get(&e.refund_id)
            .map(|r| r.event.refund_version);
        if known.is_none_or(|v| v < e.refund_version) {
            self.refunds.insert(e.refund_id, At { origin, event: e });
        }
    }
    pub fn returned(&mut self, e: ReturnEvent, origin: Origin) {
        let known = self
            .returns
            .get(&e.return_id)
            .map(|r| r.event.return_version);
        if known.is_none_or(|v| v < e.return_version) {
            self.returns
                .insert(e.return_id.clone(), At { origin, event: e });
        }
    }
    pub fn settled(&mut self, e: SettlementEvent, origin: Origin) {
        let of = (e.payout_id.clone(), e.line_id.clone());
        self.lines.insert(of, At { origin, event: e });
    }
    pub fn case(&mut self, e: BusinessException, origin: Origin) {
        // Of stock only the newest word on a case is written.
        let of_stock = e.sku.is_some();
        let before = self
            .cases
            .get(&e.exception_id)
            .map_or(0, |c| c.event.exception_version);
        if e.exception_version != before + 1 && !of_stock {
            self.gap.get_or_insert_with(|| {
                format!(
                    "exception {} {}: version {} where {} was due: {origin}",
                    e.code,
                    e.exception_id,
                    e.exception_version,
                    before + 1
                )
            });
        }
        self.cases.insert(e.exception_id, At { origin, event: e });
    }
    fn open(&self) -> impl Iterator<Item = &At<BusinessException>> {
        let all = self.cases.values();
        all.filter(|c| c.event.status != ExceptionStatus::Resolved)
    }
}

fn number(text: &str) -> Decimal {
    text.parse().unwrap_or_default()
}

/// Invariant 9: the provider's own books, and what the log says of each refund that it has paid.
pub(super) fn refunds(books: &Books, around: &Around<'_>) -> Judged {
    let mut left: BTreeMap<&str, Decimal> = BTreeMap::new();
    let (mut keys, mut ids): (BTreeSet<&str>, BTreeSet<&str>) = Default::default();
    let paid: BTreeSet<&str> = books
        .money
        .refunds
        .values()
        .filter(|r| {
            matches!(
                r.event.status,
                RefundStatus::Completed | RefundStatus::Reversed
            )
        })
        .filter_map(|r| r.event.psp_reference.as_deref())
        .collect();
    for entry in around.all_of("psp") {
        let (order, amount) = (entry.text("order"), number(entry.text("amount")));
        match entry.kind {
            "capture" => *left.entry(order).or_default() += amount,
            "refund" => {
                let rest = left.entry(order).or_default();
                *rest -= amount;
                if rest.is_negative() {
                    return Err(format!(
                        "order {order}: {amount} was paid back, {rest} too much"
                    ));
                }
                let reference = entry.text("reference");
                if !paid.contains(reference) {
                    return Err(format!(
                        "order {order}: the provider paid {reference} back, and no refund says so"
                    ));
                }
                let key = entry.text("key");
                if key.is_empty() {
                    continue;
                }
                let id = key.split('|').next().unwrap_or_default();
                if !keys.insert(key) || !ids.insert(id) {
                    return Err(format!(
                        "order {order}: refund {id} was paid twice, last as {reference}"
                    ));
                }
            }
            _ => {}
        }
    }
    let known = |reference: &str| {
        around
            .of("psp", "refund")
            .any(|e| e.text("reference") == reference)
    };
    for At { origin, event: e } in books.money.refunds.values() {
        if e.status == RefundStatus::Completed
            && let Some(reference) = &e.psp_reference
            && !known(reference)
        {
            return Err(format!(
                "refund {} is completed, the provider knows no {reference}: {origin}",
                e.refund_id
            ));
        }
    }
    Ok(())
}

/// Invariant 11.
pub(super) fn returns(books: &Books, around: &Around<'_>, end: Timestamp) -> Judged {
    for (id, At { origin, event: e }) in &books.money.returns {
        let accepted: Decimal = e.lines.iter().map(|l| l.accepted).sum();
        if !accepted.is_positive() || e.meta.recorded_at.plus(HORIZON) > end {
            continue;
        }
        let cause = format!("return:{id}");
        let open = books.money.open().filter(|c| {
            let same = c.event.order_id.as_ref() == Some(&e.order_id);
            let own = *c.event.cause_key == *cause || c.event.code == "DUPLICATE_REFUND";
            same && own && OF_RETURNS.contains(&c.event.code.as_str())
        });
        let open = open.count();
        match answered(books, around, e) {
            Ok(()) if open > 0 && own_case(books, &cause) => {
                return Err(format!(
                    "return {id} is answered in all, and an exception is open: {origin}"
                ));
            }
            Err(why) if open == 0 => {
                return Err(format!(
                    "return {id}: {why}, and no exception is open: {origin}"
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

fn own_case(books: &Books, cause: &str) -> bool {
    let mut open = books.money.open();
    open.any(|c| c.event.cause_key == cause && OF_RETURNS.contains(&c.event.code.as_str()))
}

/// Whether the goods of a return were paid back, put back and credited.
fn answered(books: &Books, around: &Around<'_>, e: &ReturnEvent) -> Judged {
    let order = books.orders.placed.get(&e.order_id);
    let Some(At { event: order, .. }) = order else {
        return Err("nobody has placed its order".into());
    };
    let (mut due, mut tolerance, mut shelf) = (Decimal::ZERO, Decimal::ZERO, Decimal::ZERO);
    for line in e.lines.iter().filter(|l| l.accepted.is_positive()) {
        let Some(sold) = order.lines.iter().find(|l| l.line_id == line.order_line_id) else {
            return Err(format!("its order has no line {}", line.order_line_id));
        };
        // What was paid for the units; whole minor units are compared, a hundredth for each line.
        let units = i128::from(sold.line_total.units()) * i128::from(line.accepted.units());
        let share = units / i128::from(sold.qty.units().max(1));
        due += Decimal::from_units(i64::try_from(share).unwrap_or(i64::MAX));
        tolerance += Decimal::from_units(100);
        if line.disposition == Disposition::Restock {
            shelf += line.accepted;
        }
    }
    let apart = |is: Decimal, should: Decimal| (is - should).units().abs() > tolerance.units();
    let refunds = books.money.refunds.values().map(|r| &r.event);
    let refunds = refunds.filter(|r| {
        let granted = matches!(
            r.status,
            RefundStatus::Approved
                | RefundStatus::Submitted
                | RefundStatus::OutcomeUnknown
                | RefundStatus::Completed
        );
        granted && r.order_id == e.order_id
    });
    let mut paid = Decimal::ZERO;
    for r in refunds {
        if r.return_id.as_ref() == Some(&e.return_id) {
            let goods = r.allocations.iter();
            let goods =
                goods.filter(|a| matches!(a.r#type, RefundType::Item | RefundType::TaxAdjustment));
            paid += goods.map(|a| a.net + a.tax).sum();
        } else if r.return_id.is_none() && r.allocations.is_empty() && !apart(r.amount.amount, due)
        {
            paid += r.amount.amount;
        }
    }
    if apart(paid, due) {
        return Err(format!("{due} was due for what came back, {paid} was paid"));
    }
    let of_return = |entry: &&super::Entry| entry.text("return") == e.return_id;
    let back: Decimal = around
        .everywhere("movement")
        .map(|(_, entry)| entry)
        .filter(of_return)
        .filter(|entry| ["SELLABLE", "QUALITY_HOLD"].contains(&entry.text("to")))
        .map(|entry| number(entry.text("quantity")))
        .sum();
    if back < shelf {
        return Err(format!("{shelf} were to be put on the shelf, {back} were"));
    }
    let notes = around.of("erp", "credit-note").filter(of_return);
    let credited: Decimal = notes.map(|note| number(note.text("gross"))).sum();
    match apart(credited, due) {
        true => Err(format!("{due} was to be credited, {credited} was")),
        false => Ok(()),
    }
}

/// Invariant 14: of orders and payouts, every case that is open was to be expected and every expected
/// one is there, once; each case's story has no gaps.
pub(super) fn exceptions(books: &Books, around: &Around<'_>) -> Judged {
    if let Some(gap) = &books.money.gap {
        return Err(gap.clone());
    }
    // Baskets whose stock is held and that nobody orders are nobody's orders.
    let ordered: BTreeSet<&str> = around
        .everywhere("order")
        .map(|(_, e)| e.text("order"))
        .collect();
    let about = |e: &BusinessException| match &e.order_id {
        Some(order) if ordered.contains(order.as_str()) => Some(order.clone()),
        None if e.sku.is_none() => Some(Text::default()),
        _ => None,
    };
    for At { origin, event } in books.money.open() {
        let Some(order) = about(event) else { continue };
        let expected = around
            .faults
            .iter()
            .any(|f| f.code == event.code && f.order == order);
        if !expected {
            return Err(format!(
                "{} of order {order}, which nothing was done to that should lead to it ({}): {origin}",
                event.code,
                event.actual.as_deref().unwrap_or_default()
            ));
        }
    }
    for fault in around.faults {
        let cases = books.money.cases.values();
        let found = cases.filter(|c| {
            c.event.code == fault.code && about(&c.event).as_ref() == Some(&fault.order)
        });
        if found.count() == 0 {
            return Err(format!(
                "{} of order {} was to be expected, and never was",
                fault.code, fault.order
            ));
        }
    }
    Ok(())
}

/// Invariant 15.
pub(super) fn payouts(books: &Books) -> Judged {
    let mut sums: BTreeMap<&Text, (Decimal, i64)> = BTreeMap::new();
    for ((payout, _), At { event, .. }) in &books.money.lines {
        if !matches!(
            event.kind,
            SettlementKind::PayoutControl | SettlementKind::BankCredit
        ) {
            let (net, count) = sums.entry(payout).or_default();
            *net += event.net;
            *count += 1;
        }
    }
    for ((payout, _), At { origin, event }) in &books.money.lines {
        if event.kind != SettlementKind::PayoutControl {
            continue;
        }
        let (net, count) = sums.get(payout).copied().unwrap_or_default();
        if event.control_net != Some(net) || event.control_count.is_some_and(|c| c != count) {
            return Err(format!(
                "payout {payout}: {count} lines make {net}, its control row says {:?} in {:?}: {origin}",
                event.control_net, event.control_count
            ));
        }
    }
    Ok(())
}

/// Invariant 16: nothing that the storefronts know of their customers in plain text stands anywhere in
/// the log; and yet the ERP knows who has ordered.
pub(super) fn secrets(around: &Around<'_>) -> Judged {
    if let Some(leak) = &around.leak {
        return Err(leak.clone());
    }
    let known: BTreeSet<&str> = around
        .of("erp", "customer")
        .map(|e| e.text("customer"))
        .collect();
    let told = around.everywhere("customer");
    let mut told = told.filter(|(system, _)| system.starts_with("storefront-"));
    let unknown = told.find(|(_, e)| !known.contains(e.text("customer")));
    unknown.map_or(Ok(()), |(shop, customer)| {
        Err(format!(
            "the ERP does not know customer {} of {shop}",
            customer.text("number")
        ))
    })
}
