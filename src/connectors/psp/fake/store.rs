//! The books of the stand-in: payments, refunds, disputes, the balance and its payouts.

use super::super::map::money;
use crate::domain::{Timestamp, order_id};
use crate::pipeline::{Clock, SystemClock};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Fee of a charge: this share of it in thousandths, and so many minor units.
const FEE: (i64, i64) = (14, 25);
/// Fee of a dispute, in minor units.
const DISPUTE_FEE: i64 = 1_500;
/// Channel whose orders are paid here.
pub const CHANNEL: &str = "web";

/// Why something is refused, as the API says it.
#[derive(Clone, Debug)]
pub struct Refused {
    pub status: u16,
    pub code: &'static str,
    pub message: String,
}

/// A refusal with this code.
pub fn refused(code: &'static str, message: impl Into<String>) -> Refused {
    Refused {
        status: 400,
        code,
        message: message.into(),
    }
}

/// An account. Objects are kept as the API shows them, in order of creation.
pub struct Store {
    now: i64,
    next: u64,
    pub charges: BTreeMap<String, Value>,
    pub refunds: BTreeMap<String, Value>,
    pub disputes: BTreeMap<String, Value>,
    pub payouts: BTreeMap<String, Value>,
    pub transactions: BTreeMap<String, Value>,
    pub events: BTreeMap<String, Value>,
    /// Events that were not sent to a webhook yet.
    pub undelivered: Vec<String>,
    /// Whether time is that of the machine; else a second passes with each act.
    pub is_live: bool,
    /// Whether refunds stay pending until they are settled.
    pub is_slow: bool,
    /// What happened here, as an outside judge reads it.
    pub ledger: Vec<Value>,
}

impl Store {
    /// An account whose time begins at `now`, in seconds.
    pub fn new(now: i64) -> Self {
        Store {
            now,
            next: 0,
            charges: BTreeMap::new(),
            refunds: BTreeMap::new(),
            disputes: BTreeMap::new(),
            payouts: BTreeMap::new(),
            transactions: BTreeMap::new(),
            events: BTreeMap::new(),
            undelivered: Vec::new(),
            is_live: false,
            is_slow: false,
            ledger: Vec::new(),
        }
    }

    /// Ids grow, so that objects are in order of creation.
    fn id(&mut self, prefix: &str) -> String {
        self.next += 1;
        format!("{prefix}_{:08}", self.next)
    }

    /// A second passes; or, live, as much as did.
    fn tick(&mut self) {
        self.now = match self.is_live {
            true => self.now.max(SystemClock.now().0 / 1_000_000),
            false => self.now + 1,
        };
    }

    /// Writes a line of the ledger about a payment.
    fn tell(&mut self, kind: &str, charge: &Value, reference: &str, amount: i64, more: Value) {
        let number = charge["metadata"]["order_id"].as_str().unwrap_or_default();
        let mut line = json!({
            "time": self.time(), "system": "psp", "kind": kind,
            "order": order_id("default", CHANNEL, number).to_string(),
            "payment": charge["payment_intent"], "reference": reference,
            "amount": shown(amount, &charge["currency"]), "currency": upper(&charge["currency"]),
        });
        merge(&mut line, more);
        self.ledger.push(line);
    }

    /// Writes that a call was refused, or changed nothing because it was made before.
    pub fn note(&mut self, kind: &str, of: &str, more: Value) {
        let mut line = json!({"time": self.time(), "system": "psp", "kind": kind, "of": of});
        merge(&mut line, more);
        self.ledger.push(line);
    }

    fn time(&self) -> String {
        Timestamp(self.now * 1_000_000).to_string()
    }

    fn event(&mut self, kind: &str, object: &Value) {
        let id = self.id("evt");
        let event = json!({
            "id": id, "object": "event", "api_version": "2026-08-26.dahlia", "created": self.now,
            "type": kind, "livemode": false, "pending_webhooks": 1, "data": {"object": object},
        });
        self.events.insert(id.clone(), event);
        self.undelivered.push(id);
    }

    /// A movement of the balance, which the next payout pays.
    fn transact(
        &mut self,
        kind: (&str, &str),
        source: Value,
        (amount, fee): (i64, i64),
        currency: &Value,
    ) -> String {
        let id = self.id("txn");
        let transaction = json!({
            "id": id, "object": "balance_transaction", "type": kind.0, "reporting_category": kind.1,
            "amount": amount, "fee": fee, "net": amount - fee, "currency": currency, "source": source,
            "created": self.now, "available_on": self.now, "status": "available",
            "balance_type": "payments", "fee_details": [], "payout": null,
        });
        self.transactions.insert(id.clone(), transaction);
        id
    }

    /// A customer pays; the money is taken at once, or only promised.
    pub fn pay(&mut self, number: &str, amount: i64, currency: &str, is_captured: bool) -> Value {
        self.tick();
        let (intent, charge) = (self.id("pi"), self.id("ch"));
        let mut object = json!({
            "id": charge, "object": "charge", "amount": amount, "amount_captured": 0,
            "amount_refunded": 0, "billing_details": {}, "captured": false, "created": self.now,
            "currency": currency, "disputed": false, "livemode": false,
            "metadata": {"order_id": number}, "paid": true, "refunded": false, "status": "succeeded",
            "payment_intent": intent, "balance_transaction": null,
            "payment_method_details": {"type": "card", "card": {"last4": "4242"}},
        });
        self.tell("authorisation", &object, &charge, amount, json!({}));
        if is_captured {
            self.take(&mut object, amount);
        }
        self.event("charge.succeeded", &object);
        self.charges.insert(charge, object.clone());
        object
    }

    /// A payment that the customer's bank declines.
    pub fn decline(&mut self, number: &str, amount: i64, currency: &str) {
        self.tick();
        let (intent, charge) = (self.id("pi"), self.id("ch"));
        let object = json!({
            "id": charge, "object": "charge", "amount": amount, "amount_captured": 0,
            "amount_refunded": 0, "billing_details": {}, "captured": false, "created": self.now,
            "currency": currency, "disputed": false, "livemode": false,
            "metadata": {"order_id": number}, "paid": false, "refunded": false, "status": "failed",
            "payment_intent": intent, "failure_code": "card_declined",
        });
        self.event("charge.failed", &object);
        self.charges.insert(charge, object);
    }

    fn take(&mut self, charge: &mut Value, amount: i64) {
        let id = charge["id"].as_str().unwrap_or_default().to_owned();
        let fee = amount * FEE.0 / 1_000 + FEE.1;
        let transaction = self.transact(
            ("charge", "charge"),
            json!(id),
            (amount, fee),
            &charge["currency"],
        );
        charge["captured"] = true.into();
        charge["amount_captured"] = amount.into();
        charge["balance_transaction"] = transaction.into();
        self.tell("capture", charge, &id, amount, json!({}));
    }

    /// Takes promised money, once and at most all of it.
    pub fn capture(&mut self, charge: &str, amount: Option<i64>) -> Result<Value, Refused> {
        let mut object = self.charge(charge)?;
        let promised = object["amount"].as_i64().unwrap_or_default();
        let amount = amount.unwrap_or(promised);
        if object["captured"] == true {
            return Err(refused(
                "charge_already_captured",
                format!("Charge {charge} has already been captured."),
            ));
        }
        if object["status"] != "succeeded" || object["paid"] != true {
            return Err(refused("charge_invalid", "The charge cannot be captured."));
        }
        if amount <= 0 || amount > promised {
            return Err(refused(
                "amount_too_large",
                "The amount to capture is more than the charge's.",
            ));
        }
        self.tick();
        self.take(&mut object, amount);
        self.event("charge.captured", &object);
        self.charges.insert(charge.to_owned(), object.clone());
        Ok(object)
    }

    /// A promise runs out.
    pub fn expire(&mut self, charge: &str) -> Result<(), Refused> {
        let mut object = self.charge(charge)?;
        if object["captured"] == true {
            return Err(refused("charge_already_captured", "It is captured."));
        }
        self.tick();
        object["paid"] = false.into();
        object["status"] = "failed".into();
        self.event("charge.expired", &object);
        self.charges.insert(charge.to_owned(), object);
        Ok(())
    }

    fn charge(&self, id: &str) -> Result<Value, Refused> {
        self.charges.get(id).cloned().ok_or_else(|| Refused {
            status: 404,
            code: "resource_missing",
            message: format!("No such charge: '{id}'"),
        })
    }

    /// Sends money back, within what was taken.
    pub fn refund(
        &mut self,
        charge: &str,
        amount: Option<i64>,
        metadata: Value,
    ) -> Result<Value, Refused> {
        let mut paid = self.charge(charge)?;
        let number = |field: &str| paid[field].as_i64().unwrap_or_default();
        let left = number("amount_captured") - number("amount_refunded");
        let refunded = number("amount_refunded");
        let amount = amount.unwrap_or(left);
        if paid["disputed"] == true {
            return Err(refused(
                "charge_disputed",
                format!("Charge {charge} has been charged back."),
            ));
        }
        if left == 0 {
            return Err(refused(
                "charge_already_refunded",
                format!("Charge {charge} has nothing left to be refunded."),
            ));
        }
        if amount <= 0 || amount > left {
            return Err(refused(
                "amount_too_large",
                format!(
                    "Refund amount is greater than the unrefunded amount {left} on the charge."
                ),
            ));
        }
        self.tick();
        let id = self.id("re");
        let transaction = self.transact(
            ("refund", "refund"),
            json!(id),
            (-amount, 0),
            &paid["currency"],
        );
        let object = json!({
            "id": id, "object": "refund", "amount": amount, "charge": charge, "created": self.now,
            "currency": paid["currency"], "metadata": metadata, "payment_intent": paid["payment_intent"],
            "balance_transaction": transaction, "status": if self.is_slow { "pending" } else { "succeeded" },
        });
        paid["amount_refunded"] = (refunded + amount).into();
        paid["refunded"] = (left == amount).into();
        let key = object["metadata"]["crossdock_refund_key"].clone();
        self.tell("refund", &paid, &id, amount, json!({"key": key}));
        self.charges.insert(charge.to_owned(), paid);
        self.event("refund.created", &object);
        self.refunds.insert(id, object.clone());
        Ok(object)
    }

    /// A refund ends well, or comes back after all.
    pub fn end_refund(&mut self, id: &str, is_good: bool) -> Result<Value, Refused> {
        let Some(mut object) = self.refunds.get(id).cloned() else {
            return Err(refused(
                "resource_missing",
                format!("No such refund: '{id}'"),
            ));
        };
        self.tick();
        if is_good {
            object["status"] = "succeeded".into();
            self.event("refund.updated", &object);
        } else {
            let amount = object["amount"].as_i64().unwrap_or_default();
            let back = self.transact(
                ("refund_failure", "refund_failure"),
                json!(id),
                (amount, 0),
                &object["currency"],
            );
            object["status"] = "failed".into();
            object["failure_balance_transaction"] = back.into();
            let charge = object["charge"].as_str().unwrap_or_default().to_owned();
            if let Some(paid) = self.charges.get_mut(&charge) {
                let refunded = paid["amount_refunded"].as_i64().unwrap_or_default() - amount;
                paid["amount_refunded"] = refunded.into();
                paid["refunded"] = false.into();
            }
            self.event("refund.failed", &object);
            self.note("refund-reversed", "refund", json!({"reference": id}));
        }
        self.refunds.insert(id.to_owned(), object.clone());
        Ok(object)
    }

    /// The customer's bank takes the money back.
    pub fn dispute(&mut self, charge: &str) -> Result<Value, Refused> {
        let mut paid = self.charge(charge)?;
        let amount = paid["amount_captured"].as_i64().unwrap_or_default();
        self.tick();
        let id = self.id("dp");
        let object = json!({
            "id": id, "object": "dispute", "amount": amount, "charge": charge, "created": self.now,
            "currency": paid["currency"], "status": "needs_response", "reason": "fraudulent",
            "payment_intent": paid["payment_intent"], "metadata": {}, "livemode": false,
            "balance_transactions": [], "evidence": {}, "evidence_details": {},
            "enhanced_eligibility_types": [], "is_charge_refundable": false,
        });
        self.transact(
            ("adjustment", "dispute"),
            json!(id),
            (-amount, DISPUTE_FEE),
            &paid["currency"],
        );
        paid["disputed"] = true.into();
        self.tell("chargeback", &paid, &id, amount, json!({}));
        self.charges.insert(charge.to_owned(), paid);
        self.event("charge.dispute.funds_withdrawn", &object);
        self.disputes.insert(id, object.clone());
        Ok(object)
    }

    /// The merchant gets it back.
    pub fn win(&mut self, id: &str) -> Result<(), Refused> {
        let Some(mut object) = self.disputes.get(id).cloned() else {
            return Err(refused(
                "resource_missing",
                format!("No such dispute: '{id}'"),
            ));
        };
        self.tick();
        let amount = object["amount"].as_i64().unwrap_or_default();
        self.transact(
            ("adjustment", "dispute_reversal"),
            json!(id),
            (amount, 0),
            &object["currency"],
        );
        object["status"] = "won".into();
        let charge = object["charge"].as_str().unwrap_or_default();
        let paid = self.charge(charge)?;
        self.tell("chargeback-reversed", &paid, id, amount, json!({}));
        self.event("charge.dispute.funds_reinstated", &object);
        self.disputes.insert(id.to_owned(), object);
        Ok(())
    }

    /// The provider charges for something.
    pub fn charge_fee(&mut self, amount: i64, currency: &str) {
        self.transact(
            ("stripe_fee", "fee"),
            Value::Null,
            (-amount, 0),
            &json!(currency),
        );
    }

    /// Pays out everything in a currency that was not paid out yet.
    pub fn payout(&mut self, currency: &str, is_reconciled: bool) -> Value {
        self.tick();
        let id = self.id("po");
        let mut net = 0;
        let mut lines = Vec::new();
        for transaction in self.transactions.values_mut() {
            if transaction["payout"].is_null() && transaction["currency"] == currency {
                transaction["payout"] = id.clone().into();
                net += transaction["net"].as_i64().unwrap_or_default();
                lines.push(transaction.clone());
            }
        }
        let code = json!(currency);
        let own = self.transact(("payout", "payout"), json!(id), (-net, 0), &code);
        if let Some(own) = self.transactions.get_mut(&own) {
            own["payout"] = id.clone().into();
        }
        let state = if is_reconciled {
            "completed"
        } else {
            "in_progress"
        };
        let object = json!({
            "id": id, "object": "payout", "amount": net, "arrival_date": self.now, "automatic": true,
            "created": self.now, "currency": currency, "livemode": false, "method": "standard",
            "reconciliation_status": state, "source_type": "card", "status": "paid", "type": "bank_account",
            "balance_transaction": own,
        });
        for line in &lines {
            self.tell_line(&id, line);
        }
        self.ledger.push(json!({
            "time": self.time(), "system": "psp", "kind": "payout", "payout": id, "count": lines.len(),
            "net": shown(net, &code), "currency": upper(&code),
        }));
        self.payouts.insert(id, object.clone());
        object
    }

    fn tell_line(&mut self, payout: &str, line: &Value) {
        let source = line["source"].as_str().unwrap_or_default();
        let charge = match (self.refunds.get(source), self.disputes.get(source)) {
            (Some(object), _) | (_, Some(object)) => object["charge"].as_str().unwrap_or_default(),
            _ => source,
        };
        let number = self
            .charges
            .get(charge)
            .map(|c| c["metadata"]["order_id"].clone());
        let order = number
            .as_ref()
            .and_then(Value::as_str)
            .map(|n| order_id("default", CHANNEL, n).to_string());
        let of = match line["reporting_category"].as_str().unwrap_or_default() {
            "charge" => "CAPTURE",
            "refund" => "REFUND",
            "refund_failure" => "REFUND_REVERSED",
            "dispute" => "CHARGEBACK",
            "dispute_reversal" => "CHARGEBACK_REVERSED",
            _ => "FEE",
        };
        let sum = |field: &str| shown(line[field].as_i64().unwrap_or_default(), &line["currency"]);
        self.ledger.push(json!({
            "time": self.time(), "system": "psp", "kind": "payout-line", "payout": payout,
            "line": line["id"], "of": of, "order": order, "reference": line["source"],
            "gross": sum("amount"), "fee": sum("fee"), "net": sum("net"), "currency": upper(&line["currency"]),
        }));
    }

    /// The payout arrives at the bank.
    pub fn arrive(&mut self, payout: &str) -> Result<Value, Refused> {
        let found = self.payouts.get(payout).cloned();
        let object = found
            .ok_or_else(|| refused("resource_missing", format!("No such payout: '{payout}'")))?;
        let amount = shown(
            object["amount"].as_i64().unwrap_or_default(),
            &object["currency"],
        );
        let line = json!({
            "time": self.time(), "system": "psp", "kind": "bank-credit", "payout": payout,
            "amount": amount, "currency": upper(&object["currency"]),
        });
        self.ledger.push(line.clone());
        Ok(line)
    }
}

/// An amount as people write it.
pub fn shown(minor: i64, currency: &Value) -> String {
    let money = money(minor, currency.as_str().unwrap_or_default());
    money.map_or_else(|_| minor.to_string(), |m| m.amount.to_string())
}

pub fn upper(currency: &Value) -> String {
    currency.as_str().unwrap_or_default().to_ascii_uppercase()
}

fn merge(into: &mut Value, more: Value) {
    if let (Value::Object(into), Value::Object(more)) = (into, more) {
        into.extend(more.into_iter().filter(|(_, v)| !v.is_null()));
    }
}
