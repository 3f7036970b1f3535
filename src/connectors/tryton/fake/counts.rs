//! Counts: what one expects stands in its lines from when they are made, and confirming it moves the
//! difference from or to Lost and Found.

use super::acts::{Goods, LOST_FOUND, Shop, Transaction};
use super::store::Stored;
use serde_json::{Value, json};

pub(super) const INVENTORY: &str = "stock.inventory";
const LINE: &str = "stock.inventory.line";

impl Shop {
    /// What is known of a party; nothing where there is none.
    pub fn party(&self, code: &str) -> Value {
        let rows = |model: &str| self.store.tables.get(model).into_iter().flatten();
        let mut parties = rows("party.party");
        let Some((id, party)) = parties.find(|(_, row)| row.values["code"] == code) else {
            return Value::Null;
        };
        let of = |row: &&Stored| row.values["party"] == *id;
        let place = rows("party.address").map(|(_, row)| row).find(of);
        let field = |name: &str| place.map(|row| row.values[name].clone());
        let contacts = rows("party.contact_mechanism").map(|(_, row)| row);
        let contacts = contacts.filter(of).map(|row| row.values["value"].clone());
        json!({
            "name": party.values["name"], "street": field("street_unstructured"),
            "city": field("city"), "contacts": contacts.collect::<Vec<_>>(),
        })
    }

    /// A draft of a count with these values, among them `create` of its lines; gives its id.
    pub fn draft_count(&mut self, t: &mut Transaction, values: &Value) -> i64 {
        let place = values["location"].clone();
        let inventory = json!({
            "state": "draft", "date": self.today(), "location": place, "company": 1,
            "empty_quantity": values["empty_quantity"],
        });
        let inventory = self.create(t, INVENTORY, inventory);
        let lines = values["lines"][0][1]
            .as_array()
            .cloned()
            .unwrap_or_default();
        for line in lines {
            let product = line["product"].as_i64().unwrap_or_default();
            let context = json!({"locations": [place]});
            let fields = json!(["quantity"]);
            let read = t
                .store
                .read("product.product", &[product], &fields, &context);
            let expected = read.ok().and_then(|rows| rows[0]["quantity"].as_f64());
            let line = json!({
                "inventory": inventory, "product": product, "quantity": line["quantity"],
                "expected_quantity": expected.unwrap_or_default(),
            });
            self.create(t, LINE, line);
        }
        inventory
    }

    /// Moves what a count has found to differ; gives the ids of its lines.
    pub fn book_count(&mut self, t: &mut Transaction, inventory: i64) -> Vec<i64> {
        let place = t.store.get(INVENTORY, inventory).cloned();
        let place = place.and_then(|row| row.values["location"].as_i64());
        let place = place.unwrap_or_default();
        let table = t.store.tables.get(LINE).into_iter().flatten();
        let lines = table.filter(|(_, row)| row.values["inventory"] == inventory);
        let lines: Vec<(i64, Stored)> = lines.map(|(id, row)| (*id, row.clone())).collect();
        for (line, row) in &lines {
            let number = |field: &str| row.values[field].as_f64().unwrap_or_default();
            let difference = number("quantity") - number("expected_quantity");
            if difference == 0.0 {
                continue;
            }
            let (from, to) = match difference > 0.0 {
                true => (LOST_FOUND, place),
                false => (place, LOST_FOUND),
            };
            let goods = Goods {
                product: row.values["product"].as_i64().unwrap_or_default(),
                from,
                to,
                quantity: difference.abs(),
                state: "done",
                origin: json!(format!("{LINE},{line}")),
                shipment: Value::Null,
            };
            self.write_move(t, goods);
        }
        lines.into_iter().map(|(id, _)| id).collect()
    }
}
