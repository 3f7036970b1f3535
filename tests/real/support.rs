//! The storefronts as their customers and their operators see them: over the storefronts' own APIs,
//! without Crossdock.

use crate::systems::{Systems, url};
use crossdock::log::{Isolation, Log, Offset, TopicPartition};
use crossdock::pipeline::Record;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A storefront.
pub struct Shop {
    pub kind: &'static str,
    pub url: String,
    pub http: reqwest::blocking::Client,
    password: tempfile::NamedTempFile,
    pub secret_key: PathBuf,
    pub publishable_key: String,
    pub token: RefCell<Option<String>>,
}

impl Shop {
    fn new(kind: &'static str, systems: &Systems) -> Shop {
        let password = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(password.path(), "superadmin\n").expect("written");
        Shop {
            kind,
            url: url(kind),
            // A call on a connection that the shop has just given up would be lost.
            http: reqwest::blocking::Client::builder()
                .pool_max_idle_per_host(0)
                .build()
                .expect("a client"),
            password,
            secret_key: systems.file("medusa/secret.key"),
            publishable_key: std::fs::read_to_string(systems.file("medusa/publishable.key"))
                .expect("the shop's key"),
            token: RefCell::new(None),
        }
    }

    pub fn all(systems: &Systems) -> [Shop; 2] {
        ["vendure", "medusa"].map(|kind| Shop::new(kind, systems))
    }

    /// Settings of a connector that shows this channel's availability in the shop at `url`.
    pub fn settings(&self, url: &str, channel: &str) -> Value {
        let mut settings = json!({"url": url, "channel": channel, "location": "Warehouse", "empty_locations": ["Store"]});
        let own = match self.kind {
            "vendure" => {
                json!({"username": "superadmin", "password": format!("${{file:{}}}", self.password.path().display())})
            }
            _ => json!({"api_key": format!("${{file:{}}}", self.secret_key.display())}),
        };
        let own = own.as_object().expect("settings").clone();
        settings.as_object_mut().expect("settings").extend(own);
        settings
    }

    /// How many units customers of the shop can buy, as its own shop API says.
    pub fn shown(&self, skus: &[String]) -> BTreeMap<String, i64> {
        let shown: BTreeMap<String, i64> =
            skus.chunks(50).flat_map(|some| self.ask(some)).collect();
        assert_eq!(
            shown.len(),
            skus.len(),
            "{}: products are missing",
            self.kind
        );
        shown
    }

    fn ask(&self, skus: &[String]) -> Vec<(String, i64)> {
        if self.kind == "vendure" {
            let product = |(i, sku): (usize, &String)| {
                format!(
                    "p{i}:product(slug:\"{}\"){{variants{{sku stockLevel}}}} ",
                    sku.to_lowercase()
                )
            };
            let products: String = skus.iter().enumerate().map(product).collect();
            let answer = self.graphql("shop-api", &format!("{{{products}}}"), json!({}));
            let found = answer.as_object().expect("products").values();
            let variants = found.map(|product| &product["variants"][0]);
            return variants
                .map(|v| {
                    let level = v["stockLevel"].as_str().and_then(|l| l.parse().ok());
                    (text(&v["sku"]), level.expect("a number of units"))
                })
                .collect();
        }
        let mut query: Vec<(&str, String)> = skus
            .iter()
            .map(|sku| ("handle[]", sku.to_lowercase()))
            .collect();
        query.push(("fields", "id,*variants,+variants.inventory_quantity".into()));
        query.push(("limit", "1000".into()));
        let request = self.http.get(format!("{}/store/products", self.url));
        let request = request.header("x-publishable-api-key", self.publishable_key.trim());
        let answer = json_of(request.query(&query));
        let products = answer["products"].as_array().expect("products");
        let variants = products.iter().map(|product| &product["variants"][0]);
        variants
            .map(|v| {
                (
                    text(&v["sku"]),
                    v["inventory_quantity"].as_i64().expect("a number of units"),
                )
            })
            .collect()
    }

    /// An order of the shop's own that takes or holds `quantity` units.
    pub fn order(&self, sku: &str, quantity: i64) {
        if self.kind == "vendure" {
            self.buy(&[(sku, quantity)]);
            return;
        }
        let key = std::fs::read_to_string(&self.secret_key).expect("the secret key");
        let get = |path: &str, query: &[(&str, &str)]| {
            let request = self.http.get(format!("{}{path}", self.url));
            json_of(request.basic_auth(key.trim(), Some("")).query(query))
        };
        let items = get("/admin/inventory-items", &[("sku", sku), ("fields", "id")]);
        let locations = get("/admin/stock-locations", &[("name", "Warehouse")]);
        let body = json!({
            "inventory_item_id": items["inventory_items"][0]["id"],
            "location_id": locations["stock_locations"][0]["id"],
            "quantity": quantity,
        });
        let request = self.http.post(format!("{}/admin/reservations", self.url));
        json_of(request.basic_auth(key.trim(), Some("")).json(&body));
    }

    /// How many units the shop says it has when a customer asks for far too many.
    pub fn refuses_beyond(&self, sku: &str) -> i64 {
        self.token.take();
        let product = self.graphql(
            "shop-api",
            "query($slug:String!){product(slug:$slug){variants{id}}}",
            json!({"slug": sku.to_lowercase()}),
        );
        let query = "mutation($id:ID!){addItemToOrder(productVariantId:$id,quantity:500){__typename ... on InsufficientStockError{quantityAvailable}}}";
        let answer = self.graphql(
            "shop-api",
            query,
            json!({"id": product["product"]["variants"][0]["id"]}),
        );
        let refusal = &answer["addItemToOrder"];
        refusal["quantityAvailable"]
            .as_i64()
            .unwrap_or_else(|| panic!("{refusal}"))
    }

    /// Ends the session that this `authorization` header belongs to.
    pub fn log_out(&self, authorization: &str) {
        let request = self.http.post(format!("{}/admin-api", self.url));
        let request = request.header("authorization", authorization);
        let answer = json_of(request.json(&json!({"query": "mutation{logout{success}}"})));
        assert_eq!(answer["data"]["logout"]["success"], true, "{answer}");
    }

    pub fn graphql(&self, api: &str, query: &str, variables: Value) -> Value {
        let request = self.http.post(format!("{}/{api}", self.url));
        let request = match &*self.token.borrow() {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        let answer = request
            .json(&json!({"query": query, "variables": variables}))
            .send()
            .expect("the shop answers");
        if let Some(token) = answer.headers().get("vendure-auth-token") {
            self.token.replace(token.to_str().ok().map(str::to_owned));
        }
        let answer: Value = answer.json().expect("JSON");
        assert!(answer["errors"].is_null(), "{query}: {answer}");
        answer["data"].clone()
    }
}

pub fn json_of(request: reqwest::blocking::RequestBuilder) -> Value {
    let answer = request.send().expect("the shop answers");
    let status = answer.status();
    let text = answer.text().expect("a body");
    assert!(status.is_success(), "{status}: {text}");
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

pub fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

/// SKUs of the catalogue that all systems are seeded with.
pub fn skus(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|i| format!("SKU-{i:04}")).collect()
}

/// Everything that a partition holds and that was committed.
pub fn records(log: &Arc<dyn Log>, partition: &TopicPartition) -> Vec<Record> {
    let from = [(partition.clone(), Offset::Beginning)];
    let mut reader = log
        .reader(&from, Isolation::ReadCommitted)
        .expect("a reader");
    let mut records = Vec::new();
    while !reader.caught_up() {
        reader
            .poll(1_000, Duration::from_millis(100), &mut records)
            .expect("read");
    }
    records
}
