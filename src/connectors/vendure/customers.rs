//! Vendure's customers, those without an account included.
//!
//! An address moves no stamp of its customer: it is told when the customer changes next.

use super::client::Client;
use super::orders::{list, text, time};
use crate::connectors::storefront::{ShopCustomer, said};
use crate::domain::Timestamp;
use crate::pipeline::{Address, Code, Fault, Person, Stage};
use serde_json::{Value, json};

const HEADS: &str =
    "query($options:CustomerListOptions!){customers(options:$options){items{id updatedAt}}}";
const CUSTOMERS: &str = "query($options:CustomerListOptions!){customers(options:$options){items{id updatedAt firstName lastName emailAddress phoneNumber addresses{streetLine1 streetLine2 city province postalCode country{code} phoneNumber defaultBillingAddress defaultShippingAddress}}}}";

impl Client {
    /// Id and stamp of customers, from a stamp on, by stamp and id.
    pub(super) async fn customer_heads(
        &self,
        from: Timestamp,
        skip: usize,
        take: usize,
    ) -> Result<Vec<Value>, Fault> {
        // `after` leaves out the time itself.
        let after = Timestamp(from.0.max(0) - 1_000).to_string();
        let options = json!({
            "filter": {"updatedAt": {"after": after}},
            "sort": {"updatedAt": "ASC", "id": "ASC"}, "skip": skip, "take": take,
        });
        self.list_customers(HEADS, options).await
    }

    pub(super) async fn customers(&self, ids: &[&str]) -> Result<Vec<Value>, Fault> {
        let options = json!({"filter": {"id": {"in": ids}}, "take": 100});
        self.list_customers(CUSTOMERS, options).await
    }

    async fn list_customers(&self, query: &str, options: Value) -> Result<Vec<Value>, Fault> {
        let mut data = self.call(query, json!({"options": options})).await?;
        match data["customers"]["items"].take() {
            Value::Array(items) => Ok(items),
            _ => {
                let message = self.says("answered without customers");
                Err(Fault::retry(Stage::Read, Code::Unavailable, message))
            }
        }
    }
}

/// What a customer is; `None` without a readable stamp.
pub(super) fn read(row: &Value) -> Option<ShopCustomer> {
    let addresses = list(&row["addresses"]);
    let chosen = |flag: &str| addresses.iter().find(|a| a[flag] == true);
    let address = chosen("defaultBillingAddress").or_else(|| chosen("defaultShippingAddress"));
    let address = address.or(addresses.first());
    let lines = |a: &Value| {
        let lines = [said(&a["streetLine1"]), said(&a["streetLine2"])];
        lines.into_iter().flatten().collect::<Vec<_>>().join("\n")
    };
    Some(ShopCustomer {
        id: text(&row["id"]),
        changed_at: time(&row["updatedAt"])?,
        person: Person {
            email: said(&row["emailAddress"]),
            phone: said(&row["phoneNumber"]).or_else(|| said(&address?["phoneNumber"])),
            given_name: said(&row["firstName"]),
            family_name: said(&row["lastName"]),
            address: address.map(|a| Address {
                street: lines(a),
                postal_code: text(&a["postalCode"]),
                city: text(&a["city"]),
                region: text(&a["province"]),
                country: text(&a["country"]["code"]).to_uppercase(),
            }),
            tax_id: None,
        },
    })
}
