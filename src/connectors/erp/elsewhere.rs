//! What happened to an order in other systems, as quantities of its lines: pure.

use super::orders::reject;
use crate::contract::event::{Disposition, ReturnEvent, ShipmentEvent, ShipmentStatus};
use crate::domain::Decimal;
use crate::pipeline::{Code, Fault};
use std::collections::BTreeMap;

/// Quantities by the channel's names of lines.
pub type ByLine<'a> = BTreeMap<&'a str, Decimal>;

/// Whether goods of a shipment have left.
pub fn has_left(event: &ShipmentEvent) -> bool {
    use ShipmentStatus as S;
    matches!(
        event.status,
        S::Shipped
            | S::InTransit
            | S::OutForDelivery
            | S::Delivered
            | S::DeliveryFailed
            | S::Collected
    )
}

/// What has left with a shipment.
pub fn left(event: &ShipmentEvent) -> ByLine<'_> {
    let mut left = ByLine::new();
    for line in &event.lines {
        *left.entry(&line.line_id).or_default() += line.shipped.max(line.delivered);
    }
    left
}

/// What was accepted of a return.
pub fn accepted(event: &ReturnEvent) -> ByLine<'_> {
    accepted_where(event, |_| true)
}

/// What was accepted of a return and came back: the customer keeps the rest.
pub fn came_back(event: &ReturnEvent) -> ByLine<'_> {
    accepted_where(event, |disposition| disposition != Disposition::Keep)
}

fn accepted_where(event: &ReturnEvent, counts: impl Fn(Disposition) -> bool) -> ByLine<'_> {
    let mut accepted = ByLine::new();
    let lines = event.lines.iter();
    for line in lines.filter(|l| l.accepted.is_positive() && counts(l.disposition)) {
        *accepted.entry(&line.order_line_id).or_default() += line.accepted;
    }
    accepted
}

/// What of these quantities an ERP has not taken yet.
///
/// # Errors
/// A reject where it has taken more.
pub fn not_taken<'a>(
    system: &str,
    mut accepted: ByLine<'a>,
    taken: &BTreeMap<String, Decimal>,
    who: &str,
) -> Result<ByLine<'a>, Fault> {
    for (line, rest) in &mut accepted {
        *rest -= taken.get(*line).copied().unwrap_or_default();
        if rest.is_negative() {
            let message = format!(
                "{who}, line {line}: {system} has taken back {} more than is accepted; correct it there by hand",
                -*rest
            );
            return Err(reject(Code::IllegalTransition, message));
        }
    }
    accepted.retain(|_, rest| rest.is_positive());
    Ok(accepted)
}

/// Shares quantities of lines out over the rows that stand for them, in their order: `rows` has for each the
/// name of its line and the most that it can take. Gives the share of each row, and what is left over.
pub fn share_out<'a, 'r>(
    mut wanted: ByLine<'a>,
    rows: impl IntoIterator<Item = (Option<&'r str>, Decimal)>,
) -> (Vec<Decimal>, ByLine<'a>) {
    let share = |(name, most): (Option<&str>, Decimal)| {
        let rest = name.and_then(|name| wanted.get_mut(name));
        rest.map_or(Decimal::ZERO, |rest| {
            let share = (*rest).min(most).or_zero();
            *rest -= share;
            share
        })
    };
    let shares = rows.into_iter().map(share).collect();
    wanted.retain(|_, rest| rest.is_positive());
    (shares, wanted)
}

/// That more came back than the ERP has sold.
pub fn never_sold(system: &str, asked: &ByLine<'_>, over: &ByLine<'_>, who: &str) -> Option<Fault> {
    let (line, rest) = over.first_key_value()?;
    let quantity = asked.get(line).copied().unwrap_or_default();
    let message = format!(
        "{who}, line {line}: {quantity} came back, and {system} has sold {}",
        quantity - *rest
    );
    Some(reject(Code::UnknownReference, message))
}
