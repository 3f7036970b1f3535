//! A stand-in for Medusa's admin API: stock locations, inventory items, location levels, orders,
//! payments.

mod orders;

use crate::connectors::fake::{FakeAnswer, FakeApi, FakeRequest, FakeServer};
use crate::pipeline::{Fake, FakeCall, FakeFault, FakeOptions};
use base64::Engine as _;
use orders::Book;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io;

const KEY: &str = "sk_stand_in";

struct Api {
    locations: Vec<String>,
    /// By item id.
    items: BTreeMap<String, Item>,
    book: Book,
    /// Whether faults are shown on reads of orders too.
    reads_fail: bool,
    /// As the API shows them.
    customers: Vec<Value>,
}

#[derive(Clone, Default)]
struct Item {
    sku: String,
    /// By location id.
    stocked: BTreeMap<String, i64>,
    /// Held for open orders, at the first location.
    reserved: i64,
    unmanaged: bool,
    /// Each with its id; without tax.
    prices: Vec<Value>,
    title: String,
    withdrawn: bool,
}

pub(super) struct MedusaFake(FakeServer<Api>);

pub(super) fn start(options: &FakeOptions) -> io::Result<Box<dyn Fake>> {
    let locations = if options.locations.is_empty() {
        vec!["Warehouse".to_owned()]
    } else {
        options.locations.clone()
    };
    let items = options.skus.iter().enumerate().map(|(i, sku)| {
        let amount = json!((503 + i) as f64 / 100.0);
        let price = json!({"id": format!("price_{i}"), "currency_code": "eur", "amount": amount, "min_quantity": null, "max_quantity": null, "rules": {}});
        // Somebody else's, to be left alone.
        let other = json!({"id": format!("price_{i}usd"), "currency_code": "usd", "amount": 6, "min_quantity": null, "max_quantity": null, "rules": {}});
        let item = Item {
            sku: sku.clone(),
            prices: vec![price, other],
            title: format!("Product {sku}"),
            ..Item::default()
        };
        (format!("iitem_{i:05}"), item)
    });
    let api = Api {
        locations,
        items: items.collect(),
        book: Book::default(),
        reads_fail: false,
        customers: Vec::new(),
    };
    Ok(Box::new(MedusaFake(FakeServer::start(api)?)))
}

impl FakeApi for Api {
    fn changes(&self, request: &FakeRequest) -> bool {
        request.method != "GET"
    }

    fn fails(&self, request: &FakeRequest) -> bool {
        let of_orders = ["/admin/orders", "/admin/payments", "/admin/customers"];
        let reads = of_orders.iter().any(|path| request.path.starts_with(path));
        self.changes(request) || self.reads_fail && reads
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
            ("GET", "/admin/stores") => FakeAnswer::new(
                200,
                json!({"stores": [{"default_sales_channel_id": "sc_1"}]}),
            ),
            ("GET", "/admin/stock-locations") => {
                let named = self.locations.iter().enumerate();
                let found: Vec<Value> = named
                    .map(|(i, name)| {
                        json!({"id": format!("sloc_{}", i + 1), "name": name, "sales_channels": [{"id": "sc_1"}]})
                    })
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
                    .filter(|(_, item)| wanted.contains(&item.sku.as_str()));
                let items: Vec<Value> = found.map(|(id, item)| show(id, item)).collect();
                FakeAnswer::new(200, json!({"inventory_items": items}))
            }
            ("POST", "/admin/inventory-items/location-levels/batch") => self.batch(&request.body),
            ("GET", "/admin/customers") => {
                let of = |name: &str| {
                    let named = request.query.iter().filter(|(n, _)| n == name);
                    named.map(|(_, v)| v.as_str()).collect::<Vec<_>>()
                };
                let (ids, from) = (of("id[]"), of("updated_at[$gte]"));
                let wanted = |c: &&Value| match from.first() {
                    Some(from) => time(c["updated_at"].as_str()) >= time(Some(from)),
                    None => ids.iter().any(|id| c["id"] == *id),
                };
                let mut found: Vec<&Value> = self.customers.iter().filter(wanted).collect();
                found.sort_by_key(|c| c["updated_at"].as_str());
                let number = |name: &str| of(name).first().and_then(|v| v.parse().ok());
                let skip = number("offset").unwrap_or(0);
                let found = found.into_iter().skip(skip);
                let found: Vec<&Value> = found.take(number("limit").unwrap_or(50)).collect();
                FakeAnswer::new(200, json!({"customers": found}))
            }
            ("GET", "/admin/price-preferences") => FakeAnswer::new(
                200,
                json!({"price_preferences": [{"attribute": "currency_code", "value": "eur", "is_tax_inclusive": false}]}),
            ),
            ("GET", "/admin/product-variants") => {
                let wanted = request.query.iter().filter(|(n, _)| n == "sku[]");
                let wanted: Vec<&str> = wanted.map(|(_, v)| v.as_str()).collect();
                let items = self.items.iter();
                let found = items.filter(|(_, item)| wanted.contains(&item.sku.as_str()));
                let variants: Vec<Value> = found.map(|(id, item)| variant(id, item)).collect();
                FakeAnswer::new(200, json!({"variants": variants}))
            }
            ("POST", path) if path.starts_with("/admin/products/") => {
                let id = path.rsplit('/').next().unwrap_or_default().to_owned();
                self.write_product(&id, &request.body)
            }
            _ => {
                let answer = self.book.answer(request);
                answer.unwrap_or_else(|| FakeAnswer::new(404, json!({"message": "not found"})))
            }
        }
    }
}

fn time(text: Option<&str>) -> Option<jiff::Timestamp> {
    text?.parse().ok()
}

/// A variant, which has a product and an item of its own, all under one id.
fn variant(id: &str, item: &Item) -> Value {
    let status = if item.withdrawn { "draft" } else { "published" };
    json!({
        "id": id, "sku": item.sku, "title": "one", "prices": item.prices,
        "product": {"id": id, "title": item.title, "status": status, "variants": [{"id": id}]},
    })
}

impl Api {
    fn write_product(&mut self, id: &str, body: &Value) -> FakeAnswer {
        let Some(item) = self.items.get_mut(id) else {
            let what = json!({"type": "not_found", "message": format!("Product with id: {id} was not found")});
            return FakeAnswer::new(404, what);
        };
        if let Some(title) = body["title"].as_str() {
            item.title = title.to_owned();
        }
        if let Some(status) = body["status"].as_str() {
            item.withdrawn = status != "published";
        }
        // Prices that are sent replace all there are.
        if let Some(prices) = body["prices"].as_array() {
            let mut told = Vec::new();
            for (i, price) in prices.iter().enumerate() {
                let known = item.prices.iter().find(|p| p["id"] == price["id"]);
                let new = json!({"id": format!("{id}_{i}_{}", item.prices.len()), "min_quantity": null, "max_quantity": null, "rules": {}});
                let mut row = known.unwrap_or(&new).clone();
                for field in ["currency_code", "amount"] {
                    row[field] = price[field].clone();
                }
                told.push(row);
            }
            item.prices = told;
        }
        FakeAnswer::new(200, json!({"product": {"id": id}}))
    }

    /// One transaction: all levels or none.
    fn batch(&mut self, body: &Value) -> FakeAnswer {
        let mut changed = self.items.clone();
        for (kind, create) in [("create", true), ("update", false)] {
            for level in body[kind].as_array().into_iter().flatten() {
                let (item, location) = (
                    level["inventory_item_id"].as_str().unwrap_or_default(),
                    &level["location_id"],
                );
                let location = location.as_str().unwrap_or_default();
                let known = (1..=self.locations.len()).any(|n| location == format!("sloc_{n}"));
                let entry = changed.get_mut(item).filter(|_| known);
                let Some(entry) = entry.filter(|e| create || e.stocked.contains_key(location))
                else {
                    return FakeAnswer::new(
                        404,
                        json!({"type": "not_found", "message": format!("Item {item} is not stocked at location {location}")}),
                    );
                };
                if create && entry.stocked.contains_key(location) {
                    return FakeAnswer::new(
                        400,
                        json!({"type": "invalid_data", "message": format!("Inventory level with inventory_item_id: {item}, already exists.")}),
                    );
                }
                match level["stocked_quantity"].as_i64().filter(|q| *q >= 0) {
                    Some(quantity) => entry.stocked.insert(location.to_owned(), quantity),
                    None => {
                        return FakeAnswer::new(
                            400,
                            json!({"type": "invalid_data", "message": "Invalid request: Value for field 'stocked_quantity' too small"}),
                        );
                    }
                };
            }
        }
        self.items = changed;
        FakeAnswer::new(
            200,
            json!({"created": body["create"], "updated": body["update"]}),
        )
    }
}

fn show(id: &str, item: &Item) -> Value {
    let levels = item.stocked.iter().map(|(location, q)| {
        let reserved = if location == "sloc_1" {
            item.reserved
        } else {
            0
        };
        json!({"location_id": location, "stocked_quantity": q, "reserved_quantity": reserved})
    });
    json!({"id": id, "sku": item.sku, "variants": [{"manage_inventory": !item.unmanaged}], "location_levels": levels.collect::<Vec<_>>()})
}

impl Fake for MedusaFake {
    fn url(&self) -> String {
        self.0.url()
    }
    fn settings(&self) -> Value {
        let locations = self.0.api().locations.clone();
        json!({"url": self.0.url(), "api_key": self.0.secret_reference(KEY), "channel": "web", "location": locations[0], "empty_locations": locations[1..], "catalogue": {"price_list": "list", "products": true}, "timeout_ms": 2_000})
    }
    fn inject(&self, faults: Vec<FakeFault>) {
        self.0.inject(faults);
    }
    fn set_down(&self, down: bool) {
        self.0.set_down(down);
    }
    fn heal(&self) {
        self.0.heal();
    }
    fn calls(&self) -> Vec<FakeCall> {
        self.0.calls()
    }
    fn calls_taken(&self) -> u64 {
        self.0.calls_taken()
    }
    /// What customers can buy, by SKU.
    fn books(&self) -> Value {
        let api = self.0.api();
        let shown = api.items.values().filter(|i| !i.stocked.is_empty());
        shown
            .map(|i| {
                let stocked: i64 = i.stocked.values().sum();
                (i.sku.clone(), json!(stocked - i.reserved))
            })
            .collect()
    }
    /// `{"hold": SKU, "quantity": N}`: an open order of the shop holds N units. `{"stock": SKU,
    /// "location": NAME, "quantity": N}`: somebody sets the stock there. `{"untrack": SKU}`: its stock
    /// is no longer counted. `{"product": SKU}` tells what it costs and is called, and whether it is
    /// sold. `{"end_sessions": true}`: nothing, as a key knows no sessions.
    ///
    /// `{"customer": ID, "given": NAME, "family": NAME, "email": …, "phone": …, "street": …, "city": …}`:
    /// a customer registers or changes.
    ///
    /// Of orders, as of every stand-in of a storefront: `{"place": {SKU: N, …}, "captured": BOOL}` gives
    /// the order's number; `{"capture": NUMBER}`, `{"refund": NUMBER, "amount": "1.25"}`, `{"take_out":
    /// NUMBER, "sku": SKU, "quantity": N}` and `{"cancel_order": NUMBER}` are done by people;
    /// `{"show": NUMBER}` tells how it stands. `{"freeze": BOOL}`: what happens shares a stamp.
    /// `{"reads_fail": BOOL}`: faults are shown on reads of orders too.
    fn act(&self, action: &Value) -> Result<Value, String> {
        if action["end_sessions"] == true {
            return Ok(Value::Null);
        }
        if let Some(id) = action["customer"].as_str() {
            let mut api = self.0.api();
            let text = |field: &str| action[field].clone();
            let at = api.book.now();
            let customer = json!({
                "id": id, "updated_at": at, "first_name": text("given"), "last_name": text("family"),
                "email": text("email"), "phone": text("phone"), "addresses": [{
                    "address_1": text("street"), "address_2": null, "city": text("city"), "province": null,
                    "postal_code": "1", "country_code": "de", "phone": null,
                    "is_default_billing": true, "is_default_shipping": false,
                }],
            });
            api.customers.retain(|c| c["id"] != id);
            api.customers.push(customer);
            return Ok(Value::Null);
        }
        {
            let mut api = self.0.api();
            if let Some(fail) = action["reads_fail"].as_bool() {
                api.reads_fail = fail;
                return Ok(Value::Null);
            }
            let skus: Vec<String> = api.items.values().map(|i| i.sku.clone()).collect();
            if let Some(done) = api.book.act(action, &skus) {
                return done.ok_or_else(|| format!("no such order, line or amount: {action}"));
            }
        }
        let names = ["hold", "stock", "untrack", "product"];
        let (what, sku) = names
            .into_iter()
            .find_map(|n| Some((n, action[n].as_str()?)))
            .ok_or_else(|| format!("one of {names:?} is wanted"))?;
        let mut api = self.0.api();
        let location = api
            .locations
            .iter()
            .position(|name| action["location"] == **name);
        let item = api
            .items
            .values_mut()
            .find(|i| i.sku == sku)
            .ok_or_else(|| format!("no SKU {sku}"))?;
        if what == "product" {
            let others = item.prices.iter().filter(|p| p["currency_code"] != "eur");
            let shown = item.prices.iter().find(|p| p["currency_code"] == "eur");
            let amount = shown.and_then(|p| p["amount"].as_f64()).unwrap_or_default();
            let left = others.filter(|p| p["amount"] == 6).count();
            if left != 1 {
                return Err(format!("{sku} has lost its price in another currency"));
            }
            return Ok(
                json!({"price": format!("{amount:.2}"), "title": item.title, "for_sale": !item.withdrawn}),
            );
        }
        if what == "untrack" {
            item.unmanaged = true;
            return Ok(Value::Null);
        }
        let quantity = action["quantity"].as_i64().ok_or("quantity is missing")?;
        if what == "hold" {
            item.reserved += quantity;
        } else {
            let location = location.ok_or("no such location")? + 1;
            item.stocked.insert(format!("sloc_{location}"), quantity);
        }
        Ok(Value::Null)
    }
}
