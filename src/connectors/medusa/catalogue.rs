//! What Crossdock does to products in Medusa: what variants cost and are called, and whether they are
//! sold. All of it is absolute, and set only where it differs.

use super::client::{Client, rows};
use super::orders::text;
use crate::connectors::storefront::{Done, not_one, other_tax};
use crate::contract::event::{PriceChanged, ProductChanged};
use crate::domain::Decimal;
use crate::pipeline::{Code, Fault, Stage};
use serde_json::{Number, Value, json};

const FIELDS: &str =
    "id,sku,title,product.id,product.title,product.status,product.variants.id,*prices";

/// Whether a price is what everybody pays for a piece.
fn is_base(price: &Value) -> bool {
    let ruled = price["rules"].as_object().is_some_and(|r| !r.is_empty());
    price["min_quantity"].is_null() && price["max_quantity"].is_null() && !ruled
}

/// An amount as JSON writes it, without a detour through floating point.
fn number(amount: Decimal) -> Value {
    let number: Option<Number> = serde_json::from_str(&amount.to_string()).ok();
    number.map_or(Value::Null, Value::Number)
}

impl Client {
    pub(super) async fn price(&self, e: &PriceChanged) -> Result<Done, Fault> {
        let variant = self.variant(&e.sku).await?;
        let currency = e.price.currency.to_lowercase();
        if self.prices_include_tax(&currency).await? != e.tax_inclusive {
            return Err(other_tax(e));
        }
        let mut prices = rows(&mut variant["prices"].clone());
        let is_it = |p: &Value| p["currency_code"] == *currency && is_base(p);
        let at = prices.iter().position(is_it);
        let amount = at.map(|at| prices[at]["amount"].to_string());
        let amount = amount.and_then(|a| super::orders::decimal(&a, Decimal::SCALE));
        let id = Some(text(&variant["id"]));
        if amount == Some(e.price.amount) {
            return Ok(Done::found(id));
        }
        match at {
            Some(at) => prices[at]["amount"] = number(e.price.amount),
            None => {
                prices.push(json!({"currency_code": currency, "amount": number(e.price.amount)}))
            }
        }
        let kept = [
            "id",
            "currency_code",
            "amount",
            "min_quantity",
            "max_quantity",
            "rules",
        ];
        let told = prices.iter().map(|price| {
            let fields = kept.iter().filter(|f| !price[**f].is_null());
            fields
                .map(|f| ((*f).to_owned(), price[*f].clone()))
                .collect()
        });
        let told: Vec<Value> = told.collect();
        self.set_variant(&variant, json!({"prices": told})).await?;
        Ok(Done::now(id))
    }

    pub(super) async fn product(&self, e: &ProductChanged, for_sale: bool) -> Result<Done, Fault> {
        let variant = self.variant(&e.sku).await?;
        let product = &variant["product"];
        let title = self.settings.catalogue.title(e);
        let differs = |shown: &Value| title.is_some_and(|t| shown != t);
        let alone = product["variants"].as_array().is_none_or(|v| v.len() <= 1);
        let mut done = Done::found(Some(text(&variant["id"])));
        if !alone {
            // One of several is told apart by its name, and cannot be withdrawn without the others.
            if !for_sale {
                let message = self.says(&format!(
                    "can only withdraw a whole product, and {} is one of several variants; take it out there by hand, then redrive",
                    e.sku
                ));
                return Err(Fault::reject(Stage::Write, Code::Refused, message));
            }
            if differs(&variant["title"]) {
                self.set_variant(&variant, json!({"title": title})).await?;
                done.changed = true;
            }
            return Ok(done);
        }
        let mut values = json!({});
        if differs(&product["title"]) {
            values["title"] = json!(title);
        }
        let status = if for_sale { "published" } else { "draft" };
        if product["status"] != status {
            values["status"] = json!(status);
        }
        if values != json!({}) {
            let path = format!("/admin/products/{}", text(&product["id"]));
            self.post(&path, &values).await?;
            done.changed = true;
        }
        Ok(done)
    }

    /// The variant of a SKU.
    async fn variant(&self, sku: &str) -> Result<Value, Fault> {
        let query = [("sku[]", sku), ("fields", FIELDS), ("limit", "10")];
        let mut body = self.get("/admin/product-variants", &query).await?;
        let mut found = rows(&mut body["variants"]);
        match found.len() {
            1 => Ok(found.remove(0)),
            many => Err(not_one(sku, many)),
        }
    }

    async fn set_variant(&self, variant: &Value, values: Value) -> Result<(), Fault> {
        let (product, id) = (text(&variant["product"]["id"]), text(&variant["id"]));
        let path = format!("/admin/products/{product}/variants/{id}");
        self.post(&path, &values).await.map(|_| ())
    }

    async fn prices_include_tax(&self, currency: &str) -> Result<bool, Fault> {
        let query = [("attribute", "currency_code"), ("value", currency)];
        let body = self.get("/admin/price-preferences", &query).await?;
        Ok(body["price_preferences"][0]["is_tax_inclusive"] == true)
    }
}
