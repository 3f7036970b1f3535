//! A stand-in for Medusa's admin API: stock locations, inventory items, location levels.

use crate::connectors::fake::{FakeAnswer, FakeApi, FakeRequest, FakeServer};
use crate::pipeline::{Fake, FakeCall, FakeFault, FakeOptions};
use base64::Engine as _;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io;

const KEY: &str = "sk_stand_in";

struct Api {
    location: String,
    /// By item id: SKU, stocked quantity where there is a level, reserved.
    items: BTreeMap<String, (String, Option<i64>, i64)>,
}

pub(super) struct MedusaFake(FakeServer<Api>);

pub(super) fn start(options: &FakeOptions) -> io::Result<Box<dyn Fake>> {
    let location = options
        .locations
        .first()
        .cloned()
        .unwrap_or_else(|| "Warehouse".to_owned());
    let items = options
        .skus
        .iter()
        .enumerate()
        .map(|(i, sku)| (format!("iitem_{i:05}"), (sku.clone(), None, 0)));
    let api = Api {
        location,
        items: items.collect(),
    };
    Ok(Box::new(MedusaFake(FakeServer::start(api)?)))
}

impl FakeApi for Api {
    fn changes(&self, request: &FakeRequest) -> bool {
        request.method == "POST"
    }

    fn answer(&mut self, request: &FakeRequest) -> FakeAnswer {
        let expected = format!(
            "Basic {}",
            base64::engine::general_purpose::STANDARD.encode(format!("{KEY}:"))
        );
        if request.headers.get("authorization") != Some(&expected) {
            return self.unauthorised();
        }
        match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/admin/stock-locations") => {
                let named = request
                    .query
                    .iter()
                    .find(|(n, _)| n == "name")
                    .is_none_or(|(_, v)| *v == self.location);
                let found: Vec<Value> = named
                    .then(|| json!({"id": "sloc_1", "name": self.location}))
                    .into_iter()
                    .collect();
                FakeAnswer::new(200, json!({"stock_locations": found}))
            }
            ("GET", "/admin/inventory-items") => {
                let wanted: Vec<&str> = request
                    .query
                    .iter()
                    .filter(|(n, _)| n == "sku[]")
                    .map(|(_, v)| v.as_str())
                    .collect();
                let found = self
                    .items
                    .iter()
                    .filter(|(_, (sku, _, _))| wanted.contains(&sku.as_str()));
                let items: Vec<Value> = found.map(|(id, (sku, stocked, reserved))| {
                    let levels: Vec<Value> = stocked.iter().map(|q| json!({"location_id": "sloc_1", "stocked_quantity": q, "reserved_quantity": reserved})).collect();
                    json!({"id": id, "sku": sku, "location_levels": levels})
                }).collect();
                FakeAnswer::new(200, json!({"inventory_items": items}))
            }
            ("POST", "/admin/inventory-items/location-levels/batch") => self.batch(&request.body),
            _ => FakeAnswer::new(404, json!({"message": "not found"})),
        }
    }
}

impl Api {
    /// One transaction: all levels or none.
    fn batch(&mut self, body: &Value) -> FakeAnswer {
        let mut changed = self.items.clone();
        for (kind, create) in [("create", true), ("update", false)] {
            for level in body[kind].as_array().into_iter().flatten() {
                let (item, location) = (
                    level["inventory_item_id"].as_str().unwrap_or_default(),
                    &level["location_id"],
                );
                let Some(entry) = changed.get_mut(item).filter(|(_, stocked, _)| {
                    *location == "sloc_1" && (create || stocked.is_some())
                }) else {
                    return FakeAnswer::new(
                        404,
                        json!({"type": "not_found", "message": format!("Item {item} is not stocked at location {location}")}),
                    );
                };
                if create && entry.1.is_some() {
                    return FakeAnswer::new(
                        400,
                        json!({"type": "invalid_data", "message": format!("Inventory level with inventory_item_id: {item}, already exists.")}),
                    );
                }
                match level["stocked_quantity"].as_i64().filter(|q| *q >= 0) {
                    Some(quantity) => entry.1 = Some(quantity),
                    None => {
                        return FakeAnswer::new(
                            400,
                            json!({"type": "invalid_data", "message": "Invalid request: Value for field 'stocked_quantity' too small"}),
                        );
                    }
                }
            }
        }
        self.items = changed;
        FakeAnswer::new(
            200,
            json!({"created": body["create"], "updated": body["update"]}),
        )
    }
}

impl Fake for MedusaFake {
    fn url(&self) -> String {
        self.0.url()
    }
    fn settings(&self) -> Value {
        let location = self.0.api().location.clone();
        json!({"url": self.0.url(), "api_key": self.0.secret_reference(KEY), "channel": "web", "location": location, "timeout_ms": 2_000})
    }
    fn inject(&self, faults: Vec<FakeFault>) {
        self.0.inject(faults);
    }
    fn set_down(&self, down: bool) {
        self.0.set_down(down);
    }
    fn calls(&self) -> Vec<FakeCall> {
        self.0.calls()
    }
    /// What customers can buy, by SKU.
    fn books(&self) -> Value {
        let api = self.0.api();
        api.items
            .values()
            .filter_map(|(sku, stocked, reserved)| {
                Some((sku.clone(), json!((*stocked)? - reserved)))
            })
            .collect()
    }
    /// `{"reserve": SKU, "quantity": N}`: an open order of the shop holds N units.
    fn act(&self, action: &Value) -> Result<Value, String> {
        let sku = action["reserve"]
            .as_str()
            .ok_or("only \"reserve\" is known")?;
        let quantity = action["quantity"].as_i64().ok_or("quantity is missing")?;
        let mut api = self.0.api();
        let item = api
            .items
            .values_mut()
            .find(|(s, _, _)| s == sku)
            .ok_or_else(|| format!("no SKU {sku}"))?;
        item.2 += quantity;
        Ok(json!({"reserved": item.2}))
    }
}
