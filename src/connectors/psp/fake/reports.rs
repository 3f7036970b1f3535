//! What the provider and the bank give out as files: reports and a statement as CSV.
//!
//! Columns are those of the provider's reports `payout_reconciliation.itemized` and `payouts.itemized`, as
//! far as they are needed; amounts there are in major units. The statement is a bank's, in German form.

use super::store::{Store, shown, upper};
use serde_json::{Value, json};

/// The lines of all payouts.
pub fn lines(store: &Store) -> String {
    let mut csv = String::from(
        "automatic_payout_id,balance_transaction_id,created_utc,available_on_utc,currency,gross,fee,net,reporting_category,source_id\n",
    );
    let transactions = store.transactions.values();
    for t in transactions.filter(|t| t["payout"].is_string() && t["type"] != "payout") {
        csv += &row(&[
            text(&t["payout"]),
            text(&t["id"]),
            time(&t["created"]),
            time(&t["available_on"]),
            text(&t["currency"]),
            amount(t, "amount"),
            amount(t, "fee"),
            amount(t, "net"),
            text(&t["reporting_category"]),
            text(&t["source"]),
        ]);
    }
    csv
}

/// The payouts themselves, as they leave the balance.
pub fn payouts(store: &Store) -> String {
    let mut csv = String::from(
        "payout_id,effective_at_utc,balance_transaction_id,currency,gross,fee,net,reporting_category\n",
    );
    let transactions = store.transactions.values();
    for t in transactions.filter(|t| t["type"] == "payout") {
        csv += &row(&[
            text(&t["payout"]),
            time(&t["created"]),
            text(&t["id"]),
            text(&t["currency"]),
            amount(t, "amount"),
            amount(t, "fee"),
            amount(t, "net"),
            text(&t["reporting_category"]),
        ]);
    }
    csv
}

/// What the bank booked: payouts that arrived, among other things.
pub fn statement(store: &Store) -> String {
    let mut csv = String::from("Buchungstag;Referenz;Verwendungszweck;Betrag;Währung\n");
    csv += "25.11.2026;B1;MIETE LAGER NOVEMBER;-1.250,00;EUR\n";
    let credits = store.ledger.iter().filter(|l| l["kind"] == "bank-credit");
    for (at, credit) in credits.enumerate() {
        let amount = text(&credit["amount"]).replace('.', ",");
        let payout = text(&credit["payout"]);
        let code = text(&credit["currency"]);
        let reference = at + 2;
        csv += &format!("26.11.2026;B{reference};STRIPE {payout} SEPA;{amount};{code}\n");
    }
    csv
}

fn amount(transaction: &Value, field: &str) -> String {
    let minor = transaction[field].as_i64().unwrap_or_default();
    shown(minor, &json!(upper(&transaction["currency"])))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn time(seconds: &Value) -> String {
    let at = jiff::Timestamp::from_second(seconds.as_i64().unwrap_or_default());
    at.map_or_else(
        |_| String::new(),
        |at| at.strftime("%Y-%m-%d %H:%M:%S").to_string(),
    )
}

fn row(fields: &[String]) -> String {
    fields.join(",") + "\n"
}
