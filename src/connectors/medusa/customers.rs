//! Medusa's customers, guests included.
//!
//! An address moves no stamp of its customer: it is told when the customer changes next.

use super::client::{Client, rows};
use super::orders::{text, time};
use crate::connectors::storefront::{ShopCustomer, said};
use crate::pipeline::{Address, Fault, Person};
use serde_json::Value;

const FIELDS: &str = "id,updated_at,email,first_name,last_name,phone,*addresses";

impl Client {
    pub(super) async fn customers(&self, ids: &[&str]) -> Result<Vec<Value>, Fault> {
        let mut query: Vec<(&str, &str)> = ids.iter().map(|id| ("id[]", *id)).collect();
        query.extend([("limit", "1000"), ("fields", FIELDS)]);
        let mut body = self.get("/admin/customers", &query).await?;
        Ok(rows(&mut body["customers"]))
    }
}

/// What a customer is; `None` without a readable stamp.
pub(super) fn read(row: &Value) -> Option<ShopCustomer> {
    let addresses = row["addresses"].as_array().map_or(&[][..], Vec::as_slice);
    let chosen = |flag: &str| addresses.iter().find(|a| a[flag] == true);
    let address = chosen("is_default_billing").or_else(|| chosen("is_default_shipping"));
    let address = address.or(addresses.first());
    let lines = |a: &Value| {
        let lines = [said(&a["address_1"]), said(&a["address_2"])];
        lines.into_iter().flatten().collect::<Vec<_>>().join("\n")
    };
    Some(ShopCustomer {
        id: text(&row["id"]),
        changed_at: time(&row["updated_at"])?,
        person: Person {
            email: said(&row["email"]),
            phone: said(&row["phone"]).or_else(|| said(&address?["phone"])),
            given_name: said(&row["first_name"]),
            family_name: said(&row["last_name"]),
            address: address.map(|a| Address {
                street: lines(a),
                postal_code: text(&a["postal_code"]),
                city: text(&a["city"]),
                region: text(&a["province"]),
                country: text(&a["country_code"]).to_uppercase(),
            }),
            tax_id: None,
        },
    })
}
