//! What Crossdock does to products in Vendure: what variants cost and are called, and whether they are
//! sold. All of it is absolute, and set only where it differs.

use super::client::Client;
use super::orders::{Places, list, text};
use crate::connectors::storefront::{Done, not_one, other_tax};
use crate::contract::event::{PriceChanged, ProductChanged};
use crate::pipeline::{Code, Fault, Stage};
use serde_json::{Value, json};

const VARIANT: &str = "query($sku:String!){activeChannel{pricesIncludeTax} productVariants(options:{filter:{sku:{eq:$sku}},take:10}){items{id enabled prices{price currencyCode} translations{languageCode name}}}}";
const UPDATE: &str =
    "mutation($input:[UpdateProductVariantInput!]!){updateProductVariants(input:$input){id}}";

impl Client {
    pub(super) async fn price(&self, e: &PriceChanged) -> Result<Done, Fault> {
        let (variant, with_tax) = self.variant(&e.sku).await?;
        if with_tax != e.tax_inclusive {
            return Err(other_tax(e));
        }
        let units = Places(self.settings.money_places).units(e.price.amount);
        let units = units.ok_or_else(|| {
            let message = format!(
                "the price of {}, {} {}, has more than the shop's {} decimal places; round it where it is made",
                e.sku, e.price.amount, e.price.currency, self.settings.money_places
            );
            Fault::reject(Stage::Write, Code::DataQuality, message)
        })?;
        let is_shown = |p: &Value| p["currencyCode"] == *e.price.currency && p["price"] == units;
        let price = json!([{"currencyCode": e.price.currency, "price": units}]);
        let shown = list(&variant["prices"]).iter().any(is_shown);
        self.set(&variant, shown, json!({"prices": price})).await
    }

    pub(super) async fn product(&self, e: &ProductChanged, for_sale: bool) -> Result<Done, Fault> {
        let (variant, _) = self.variant(&e.sku).await?;
        let is_called = |language: &str, name: &str| {
            let mut names = list(&variant["translations"]).iter();
            names.any(|t| t["languageCode"] == language && t["name"] == name)
        };
        let names = e.title.iter().filter(|(_, name)| !name.is_empty());
        let names: Vec<Value> = names
            .filter(|(language, name)| !is_called(language, name))
            .map(|(language, name)| json!({"languageCode": language, "name": name}))
            .collect();
        let shown = names.is_empty() && variant["enabled"] == for_sale;
        let values = json!({"enabled": for_sale, "translations": names});
        self.set(&variant, shown, values).await
    }

    /// The variant of a SKU, and whether prices are with tax.
    async fn variant(&self, sku: &str) -> Result<(Value, bool), Fault> {
        let mut data = self.call(VARIANT, json!({"sku": sku})).await?;
        let with_tax = data["activeChannel"]["pricesIncludeTax"] == true;
        match data["productVariants"]["items"].take() {
            Value::Array(mut found) if found.len() == 1 => Ok((found.remove(0), with_tax)),
            found => Err(not_one(sku, list(&found).len())),
        }
    }

    async fn set(&self, variant: &Value, shown: bool, mut values: Value) -> Result<Done, Fault> {
        let id = Some(text(&variant["id"]));
        if shown {
            return Ok(Done::found(id));
        }
        values["id"] = variant["id"].clone();
        self.call(UPDATE, json!({"input": [values]})).await?;
        Ok(Done::now(id))
    }
}
