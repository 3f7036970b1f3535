//! From a row of a provider's report or a bank's statement to a line of a payout.
//!
//! A line is named after provider, payout and line, as the provider's own connector names it: what comes
//! both ways is told once. The row of the payout itself is what its lines must sum to; how many they are
//! is known when the file has ended, unless the row says so, or they stand in another report.

use super::map::{Fact, Fields, empty};
use super::settings::FieldName;
use crate::connectors::mapping::bad;
use crate::contract::event::{SettlementEvent, SettlementKind, Text};
use crate::contract::topic;
use crate::domain::{Date, Decimal, Timestamp, compound_key, event_id};
use crate::pipeline::{Fault, SourceRecord};
use serde::{Deserialize, Serialize};

/// What a provider says of a payout as a whole.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Control {
    psp: String,
    currency: String,
    /// What its lines sum to.
    net: Decimal,
    at: i64,
    value_day: i32,
}

impl Fields<'_> {
    /// The line that a row is.
    ///
    /// # Errors
    /// A reject that names field and value.
    pub fn settlement(&self, sequence: i64) -> Result<Fact, Fault> {
        let psp = self.needed(FieldName::Psp)?;
        let payout = self.needed(FieldName::Payout)?;
        let currency = self.needed(FieldName::Currency)?.to_uppercase();
        let word = self.needed(FieldName::Kind)?;
        let kind = kind_of(&word)?;
        let (gross, fee, net) = self.amounts()?;
        let at = self.time()?;
        let value_day = match self.optional(FieldName::ValueDate) {
            Some(text) => day(self.time_of("value_date", &text)?),
            None => day(at),
        };
        if kind == SettlementKind::PayoutControl {
            let control = Control {
                psp,
                currency,
                net: -net,
                at: at.0,
                value_day,
            };
            let count = self.quantity(FieldName::Count)?;
            return Ok(Fact::Payout {
                payout,
                control,
                count: count.map(|c| c.units() / Decimal::ONE.units()),
            });
        }
        let line = match self.optional(FieldName::Line) {
            Some(line) => line,
            None => self.record_id()?,
        };
        let mut event = SettlementEvent {
            kind,
            line_id: line.as_str().into(),
            gross,
            fee,
            net,
            value_date: Date(value_day),
            psp_reference: self
                .text(FieldName::Reference)
                .filter(|_| is_of_order(kind)),
            ..settlement(&psp, &payout, &currency)
        };
        let record_id = compound_key(&[&payout, &line]);
        event.meta = self.meta(
            "SettlementEvent",
            &record_id,
            payout.as_str().into(),
            sequence,
        )?;
        event.meta.event_id = event_id(&psp, 0, &record_id, "", "SettlementEvent");
        let record = match &event.psp_reference {
            Some(reference) => SourceRecord {
                topic: topic::SETTLEMENT_EVENT,
                key: compound_key(&[&psp, reference]),
                event: event.into(),
            },
            None => of_payout(event),
        };
        Ok(match kind {
            SettlementKind::BankCredit => Fact::Record(record),
            _ => Fact::Line { payout, record },
        })
    }

    /// Gross, fee and net, of which a report has two at least, or one where there is no fee.
    fn amounts(&self) -> Result<(Decimal, Decimal, Decimal), Fault> {
        let both = |credit, debit| -> Result<Option<Decimal>, Fault> {
            Ok(match (self.quantity(credit)?, self.quantity(debit)?) {
                (None, None) => None,
                (credit, debit) => Some(credit.unwrap_or_default() - debit.unwrap_or_default()),
            })
        };
        let gross = both(FieldName::Gross, FieldName::GrossDebit)?;
        let net = both(FieldName::Net, FieldName::NetDebit)?;
        let fee = self.quantity(FieldName::Fee)?;
        Ok(match (gross, fee, net) {
            // Whether they agree is judged by whoever takes the line in.
            (Some(gross), Some(fee), Some(net)) => (gross, fee, net),
            (Some(gross), None, Some(net)) => (gross, gross - net, net),
            (Some(gross), fee, None) => {
                let fee = fee.unwrap_or_default();
                (gross, fee, gross - fee)
            }
            (None, fee, Some(net)) => {
                let fee = fee.unwrap_or_default();
                (net + fee, fee, net)
            }
            (None, Some(fee), None) => (Decimal::ZERO, fee, -fee),
            (None, None, None) => return Err(empty(FieldName::Net)),
        })
    }

    /// The control row of a payout.
    pub fn control(
        &self,
        payout: &str,
        control: &Control,
        count: Option<i64>,
        sequence: i64,
    ) -> SourceRecord {
        let record_id = compound_key(&[payout, "control"]);
        let mut event = SettlementEvent {
            kind: SettlementKind::PayoutControl,
            line_id: Text::const_new("control"),
            value_date: Date(control.value_day),
            control_count: count,
            control_net: Some(control.net),
            ..settlement(&control.psp, payout, &control.currency)
        };
        event.meta = self.meta_at(
            "SettlementEvent",
            &record_id,
            payout.into(),
            (Timestamp(control.at), sequence),
        );
        // A file that is another one later may have another number of lines.
        let leg = count.map_or_else(String::new, |count| count.to_string());
        event.meta.event_id = event_id(&control.psp, 0, &record_id, &leg, "SettlementEvent");
        of_payout(event)
    }
}

fn settlement(psp: &str, payout: &str, currency: &str) -> SettlementEvent {
    SettlementEvent {
        psp: psp.into(),
        payout_id: payout.into(),
        currency: currency.into(),
        ..SettlementEvent::default()
    }
}

fn of_payout(event: SettlementEvent) -> SourceRecord {
    SourceRecord {
        topic: topic::SETTLEMENT_PAYOUT,
        key: event.payout_id.clone(),
        event: event.into(),
    }
}

fn is_of_order(kind: SettlementKind) -> bool {
    matches!(
        kind,
        SettlementKind::Capture
            | SettlementKind::Refund
            | SettlementKind::RefundReversed
            | SettlementKind::Chargeback
            | SettlementKind::ChargebackReversed
    )
}

fn day(at: Timestamp) -> i32 {
    at.0.div_euclid(86_400_000_000) as i32
}

fn kind_of(word: &str) -> Result<SettlementKind, Fault> {
    Ok(match word {
        "capture" => SettlementKind::Capture,
        "refund" => SettlementKind::Refund,
        "refund_reversed" => SettlementKind::RefundReversed,
        "chargeback" => SettlementKind::Chargeback,
        "chargeback_reversed" => SettlementKind::ChargebackReversed,
        "fee" => SettlementKind::Fee,
        "adjustment" => SettlementKind::Adjustment,
        "reserve" => SettlementKind::Reserve,
        "payout" => SettlementKind::PayoutControl,
        "bank_credit" => SettlementKind::BankCredit,
        _ => {
            return Err(bad(format!(
                "kind {word:?} is none of capture, refund, refund_reversed, chargeback, chargeback_reversed, fee, adjustment, reserve, payout and bank_credit; name it in the map of the field kind"
            )));
        }
    })
}
