//! The payment provider: takes money, gives it back once for each key and never more than it took,
//! and settles what it did in payouts.

use super::desk::{Desk, System};
use super::{PSP, amount};
use crate::contract::event::{
    Event, PaymentEvent, PaymentKind, RefundEvent, RefundStatus, SettlementEvent, SettlementKind,
    Text,
};
use crate::contract::topic;
use crate::domain::money::{Currency, Money, Rounding};
use crate::domain::{Date, Decimal, compound_key, natural_id, payment_id};
use serde_json::json;
use std::collections::BTreeMap;

/// What the provider takes of a capture: 1.4 %.
const FEE_PERCENT: f64 = 1.4;
/// Microseconds of a day.
const DAY: i64 = 86_400_000_000;

/// The payment of an order.
#[derive(Clone, Debug, Default)]
struct Payment {
    currency: Text,
    captured: Decimal,
    refunded: Decimal,
    charged_back: Decimal,
}

/// A refund that was asked for under a key.
#[derive(Clone, Debug)]
struct Paid {
    order: Text,
    reference: Text,
    amount: Decimal,
    currency: Text,
    paid: bool,
    /// What was told of it, and in which version.
    told: (PaymentKind, i64),
}

/// Something to be settled.
#[derive(Clone, Debug)]
struct Movement {
    kind: SettlementKind,
    order: Text,
    reference: Text,
    gross: Decimal,
    fee: Decimal,
}

/// The provider.
pub(crate) struct Psp {
    desk: Desk,
    payments: BTreeMap<Text, Payment>,
    keys: BTreeMap<Text, Paid>,
    /// By currency.
    unsettled: BTreeMap<Text, Vec<Movement>>,
    numbers: i64,
    /// Refunds to refuse, from now on.
    refusals: u32,
    /// Refunds to leave in doubt after they were paid, from now on.
    doubts: u32,
}

impl Psp {
    pub fn new(desk: Desk) -> Self {
        Psp {
            desk,
            payments: BTreeMap::new(),
            keys: BTreeMap::new(),
            unsettled: BTreeMap::new(),
            numbers: 0,
            refusals: 0,
            doubts: 0,
        }
    }

    /// Refuses the next refunds.
    pub fn refuse(&mut self, refunds: u32) {
        self.refusals += refunds;
    }
    /// Pays the next refunds and does not know so at first.
    pub fn doubt(&mut self, refunds: u32) {
        self.doubts += refunds;
    }
    /// Paid back on an order so far, and how often.
    pub fn refunded(&self, order: &str) -> (Decimal, usize) {
        let of_order = |e: &&super::Entry| e.kind == "refund" && e.text("order") == order;
        let refunds = self.desk.ledger().iter().filter(of_order).count();
        let payment = self.payments.get(order);
        (payment.map(|p| p.refunded).unwrap_or_default(), refunds)
    }

    /// Money is promised for an order.
    pub fn authorise(&mut self, order: &str, sum: Decimal, currency: &str) {
        self.payments.entry(order.into()).or_default().currency = currency.into();
        self.moved("authorisation", PaymentKind::Authorised, order, sum, None);
    }

    /// Money is taken.
    pub fn capture(&mut self, order: &str, sum: Decimal, currency: &str) -> Text {
        let payment = self.payments.entry(order.into()).or_default();
        payment.currency = currency.into();
        payment.captured += sum;
        let reference = self.moved("capture", PaymentKind::Captured, order, sum, None);
        let fee = Currency::parse(currency).and_then(|currency| {
            Money::round(sum.percent(FEE_PERCENT), currency, Rounding::HalfUp)
        });
        let fee = fee.map(Money::amount).unwrap_or_default();
        self.settle(order, SettlementKind::Capture, &reference, sum, fee);
        reference
    }

    /// The customer's bank takes money back.
    pub fn charge_back(&mut self, order: &str, sum: Decimal) {
        self.payments.entry(order.into()).or_default().charged_back += sum;
        let reference = self.moved("chargeback", PaymentKind::Chargeback, order, sum, None);
        self.settle(
            order,
            SettlementKind::Chargeback,
            &reference,
            -sum,
            Decimal::ZERO,
        );
    }

    /// The dispute was won: the money comes back.
    pub fn reverse_charge_back(&mut self, order: &str, sum: Decimal) {
        self.payments.entry(order.into()).or_default().charged_back -= sum;
        let kind = PaymentKind::ChargebackReversed;
        let reference = self.moved("chargeback-reversed", kind, order, sum, None);
        let kind = SettlementKind::ChargebackReversed;
        self.settle(order, kind, &reference, sum, Decimal::ZERO);
    }

    /// Somebody pays back in the provider's own console, or a storefront does. Gives the reference.
    pub fn refund_by_hand(&mut self, order: &str, sum: Decimal) -> Result<Text, String> {
        self.check(order, sum)?;
        self.payments.entry(order.into()).or_default().refunded += sum;
        let reference = self.moved("refund", PaymentKind::Refunded, order, sum, None);
        self.settle(
            order,
            SettlementKind::Refund,
            &reference,
            -sum,
            Decimal::ZERO,
        );
        Ok(reference)
    }

    fn check(&self, order: &str, sum: Decimal) -> Result<(), String> {
        let left = self
            .payments
            .get(order)
            .map_or(Decimal::ZERO, |p| p.captured - p.refunded - p.charged_back);
        match sum <= left {
            true => Ok(()),
            false => Err(format!(
                "{sum} is more than the {left} that is left of the payment"
            )),
        }
    }

    /// Settles everything since the last time: a payout for each currency, and the bank's credit,
    /// which is `short` by this much.
    pub fn pay_out(&mut self, short: Decimal) -> Vec<Text> {
        let due = std::mem::take(&mut self.unsettled);
        let payouts = due.into_iter().map(|(currency, movements)| {
            self.numbers += 1;
            let payout = compact_str::format_compact!("po_{}", self.numbers);
            self.pay(&payout, &currency, &movements, short);
            payout
        });
        payouts.collect()
    }

    fn pay(&mut self, payout: &Text, currency: &Text, movements: &[Movement], short: Decimal) {
        let mut net = Decimal::ZERO;
        for (n, m) in movements.iter().enumerate() {
            let line = format!("{}", n + 1);
            net += m.gross - m.fee;
            let (gross, fee) = (m.gross, m.fee);
            let event = SettlementEvent {
                order_id: None,
                psp_reference: Some(m.reference.clone()),
                gross,
                fee,
                net: gross - fee,
                ..self.row(payout, &line, m.kind, currency)
            };
            self.desk.write(
                "payout-line",
                json!({"payout": payout, "line": line, "of": m.kind.symbol(), "order": m.order,
                    "reference": m.reference, "gross": gross, "fee": fee, "net": gross - fee, "currency": currency}),
            );
            let key = compound_key(&[PSP, &m.reference]);
            self.desk.tell(topic::SETTLEMENT_EVENT, key, event);
        }
        let count = movements.len() as i64;
        let control = SettlementEvent {
            control_count: Some(count),
            control_net: Some(net),
            ..self.row(payout, "control", SettlementKind::PayoutControl, currency)
        };
        self.desk.write(
            "payout",
            json!({"payout": payout, "count": count, "net": net, "currency": currency}),
        );
        self.desk
            .tell(topic::SETTLEMENT_PAYOUT, payout.clone(), control);
        let credit = SettlementEvent {
            gross: net - short,
            net: net - short,
            ..self.row(payout, "bank", SettlementKind::BankCredit, currency)
        };
        self.desk.write(
            "bank-credit",
            json!({"payout": payout, "amount": net - short, "currency": currency}),
        );
        self.desk
            .tell(topic::SETTLEMENT_PAYOUT, payout.clone(), credit);
    }

    fn row(
        &self,
        payout: &str,
        line: &str,
        kind: SettlementKind,
        currency: &str,
    ) -> SettlementEvent {
        let day = self.desk.now().0.div_euclid(DAY);
        SettlementEvent {
            meta: self
                .desk
                .meta("SettlementEvent", &format!("{payout}/{line}"), 1),
            psp: PSP.into(),
            payout_id: payout.into(),
            line_id: line.into(),
            kind,
            currency: currency.into(),
            value_date: Date(i32::try_from(day).unwrap_or_default()),
            ..SettlementEvent::default()
        }
    }

    fn settle(
        &mut self,
        order: &str,
        kind: SettlementKind,
        reference: &str,
        gross: Decimal,
        fee: Decimal,
    ) {
        let currency = self.payments.get(order).map(|p| p.currency.clone());
        let due = self
            .unsettled
            .entry(currency.unwrap_or_default())
            .or_default();
        due.push(Movement {
            kind,
            order: order.into(),
            reference: reference.into(),
            gross,
            fee,
        });
    }

    /// Something moved: written down and told. Gives its reference.
    fn moved(
        &mut self,
        wrote: &'static str,
        kind: PaymentKind,
        order: &str,
        sum: Decimal,
        key: Option<&str>,
    ) -> Text {
        self.numbers += 1;
        let reference = compact_str::format_compact!("tx_{}", self.numbers);
        self.note(wrote, order, &reference, sum, key);
        self.tell(kind, order, &reference, sum, key, 1);
        reference
    }

    fn note(
        &mut self,
        wrote: &'static str,
        order: &str,
        reference: &str,
        sum: Decimal,
        key: Option<&str>,
    ) {
        let currency = self.payments.get(order).map(|p| p.currency.clone());
        let payment = payment_id(order, PSP, order);
        self.desk.write(
            wrote,
            json!({"order": order, "payment": payment, "reference": reference, "key": key,
                "amount": sum, "currency": currency}),
        );
    }

    fn tell(
        &mut self,
        kind: PaymentKind,
        order: &str,
        reference: &str,
        sum: Decimal,
        key: Option<&str>,
        version: i64,
    ) {
        let currency = self.payments.get(order).map(|p| p.currency.clone());
        let event = PaymentEvent {
            meta: self
                .desk
                .meta("PaymentEvent", &format!("{reference}/{kind}"), version),
            order_id: order.into(),
            payment_id: payment_id(order, PSP, order).to_string().into(),
            payment_version: version,
            kind,
            amount: amount(sum, &currency.unwrap_or_default()),
            psp: PSP.into(),
            psp_reference: reference.into(),
            refund_key: key.map(Text::from),
            ..PaymentEvent::default()
        };
        self.desk.tell(topic::PAYMENT_EVENT, order, event);
    }

    /// A refund is asked for under its key: paid, or refused, once.
    fn asked(&mut self, e: &RefundEvent) {
        let key = compact_str::format_compact!("{}|{}", e.refund_id, e.attempt);
        let (order, sum) = (e.order_id.clone(), e.amount.amount);
        if let Some(known) = self.keys.get_mut(&key) {
            let kind = match known.paid {
                true => PaymentKind::Refunded,
                false => PaymentKind::RefundFailed,
            };
            if known.told.0 != kind {
                known.told = (kind, known.told.1 + 1);
            }
            let known = known.clone();
            self.desk.write(
                "repeated",
                json!({"of": "refund", "order": order, "reference": known.reference, "key": key,
                    "amount": known.amount, "currency": known.currency}),
            );
            // The stored answer: what was told already is the same fact again.
            let (kind, version) = known.told;
            self.tell(
                kind,
                &known.order,
                &known.reference,
                known.amount,
                Some(&key),
                version,
            );
            return;
        }
        let reference = compact_str::format_compact!("re_{}", natural_id(&[PSP, &key]).simple());
        let refused = match self.refusals {
            0 => self.check(&order, sum),
            _ => {
                self.refusals -= 1;
                Err("the card's bank refuses it".to_owned())
            }
        };
        let kind = match (&refused, self.doubts) {
            (Err(_), _) => PaymentKind::RefundFailed,
            (Ok(()), 0) => PaymentKind::Refunded,
            (Ok(()), _) => {
                self.doubts -= 1;
                PaymentKind::RefundUnknown
            }
        };
        let paid = Paid {
            order: order.clone(),
            reference: reference.clone(),
            amount: sum,
            currency: e.amount.currency.clone(),
            paid: refused.is_ok(),
            told: (kind, 1),
        };
        self.keys.insert(key.clone(), paid);
        if let Err(reason) = refused {
            self.desk.write(
                "refused",
                json!({"of": "refund", "order": order, "key": key, "amount": sum,
                    "currency": e.amount.currency, "reason": reason}),
            );
        } else {
            self.payments.entry(order.clone()).or_default().refunded += sum;
            self.note("refund", &order, &reference, sum, Some(&key));
            self.settle(
                &order,
                SettlementKind::Refund,
                &reference,
                -sum,
                Decimal::ZERO,
            );
        }
        self.tell(kind, &order, &reference, sum, Some(&key), 1);
    }
}

impl System for Psp {
    fn desk(&self) -> &Desk {
        &self.desk
    }
    fn desk_mut(&mut self) -> &mut Desk {
        &mut self.desk
    }
    fn listens(&self) -> &'static [&'static str] {
        &[topic::REFUND_EVENT]
    }
    fn cares(&self, event: &Event) -> bool {
        match event {
            Event::RefundEvent(e) => {
                !e.issued_elsewhere
                    && matches!(
                        e.status,
                        RefundStatus::Submitted | RefundStatus::OutcomeUnknown
                    )
            }
            _ => false,
        }
    }
    fn hear(&mut self, event: &Event) {
        if let Event::RefundEvent(e) = event {
            self.asked(e);
        }
    }
}
