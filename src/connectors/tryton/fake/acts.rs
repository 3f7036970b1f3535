//! What people do in the ERP: each act is one transaction, or part of one that is kept open.

use super::super::rows;
use super::counts::INVENTORY;
use super::store::{Store, Stored};
use crate::domain::Timestamp;
use crate::pipeline::FakeOptions;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const SUPPLIER: i64 = 1;
pub(super) const CUSTOMER: i64 = 2;
pub(super) const LOST_FOUND: i64 = 3;
const TRANSIT: i64 = 4;
pub(super) const MOVE: &str = "stock.move";

/// The shop's books and those who write them.
pub(super) struct Shop {
    pub store: Store,
    now: Timestamp,
    /// Last id given out, by model: also by transactions that came to nothing.
    last_ids: BTreeMap<&'static str, i64>,
    open: BTreeMap<String, Transaction>,
    /// Warehouses by code.
    warehouses: BTreeMap<String, Warehouse>,
}

#[derive(Clone, Copy)]
pub(super) struct Warehouse {
    row: i64,
    pub input: i64,
    pub storage: i64,
    pub output: i64,
}

/// Rows that others cannot see yet.
pub(super) struct Transaction {
    started_at: Timestamp,
    /// The tables as they are for the transaction.
    pub store: Store,
    written: BTreeSet<(&'static str, i64)>,
}

/// A move to be written.
pub(super) struct Goods<'a> {
    pub product: i64,
    pub from: i64,
    pub to: i64,
    pub quantity: f64,
    pub state: &'a str,
    pub origin: Value,
    pub shipment: Value,
}

impl Shop {
    pub fn open(options: &FakeOptions) -> Shop {
        let mut shop = Shop {
            store: Store::default(),
            now: Timestamp(1_790_000_000_000_000),
            last_ids: BTreeMap::new(),
            open: BTreeMap::new(),
            warehouses: BTreeMap::new(),
        };
        let mut t = shop.transaction();
        shop.create(
            &mut t,
            "currency.currency",
            json!({"code": "EUR", "active": true}),
        );
        shop.create(
            &mut t,
            "company.company",
            json!({"name": "Stand-in", "currency": 1}),
        );
        let rate = json!({"__class__": "Decimal", "decimal": "0.20"});
        let tax = json!({"name": "VAT 20%", "rate": rate, "company": 1});
        let tax = shop.create(&mut t, "account.tax", tax);
        shop.create(&mut t, "account.journal", json!({"code": "PSP"}));
        for code in ["CLEARING", "RECEIVABLE"] {
            shop.create(&mut t, "account.account", json!({"code": code}));
        }
        let category = json!({"name": "Goods", "customer_taxes_used": [tax]});
        shop.create(&mut t, "product.category", category);
        shop.create(
            &mut t,
            "product.uom",
            json!({"name": "Unit", "symbol": "u"}),
        );
        for (name, kind) in [
            ("Supplier", "supplier"),
            ("Customer", "customer"),
            ("Lost and Found", "lost_found"),
            ("Transit", "storage"),
        ] {
            shop.create_location(&mut t, name, None, kind, None);
        }
        let mut codes: Vec<&str> = options.locations.iter().map(String::as_str).collect();
        if codes.is_empty() {
            codes = vec!["Warehouse", "Store"];
        }
        for code in codes {
            let row = shop.create_location(&mut t, code, Some(code), "warehouse", None);
            let mut zone = |zone: &str| {
                let name = format!("{code} {zone}");
                shop.create_location(&mut t, &name, Some(&name), "storage", Some(row))
            };
            let warehouse = Warehouse {
                row,
                input: zone("IN"),
                storage: zone("STO"),
                output: zone("OUT"),
            };
            let storage = json!({"storage_location": warehouse.storage});
            shop.set(&mut t, "stock.location", row, storage);
            shop.warehouses.insert(code.to_owned(), warehouse);
        }
        let first = shop.warehouses.values().map(|w| w.row).min();
        let warehouses: Vec<i64> = first.into_iter().collect();
        let web = json!({"name": "web", "company": 1, "warehouses": warehouses});
        shop.create(&mut t, "web.shop", web);
        for sku in options.skus.iter().map(String::as_str).chain(["DELIVERY"]) {
            let template = json!({"name": format!("Product {sku}"), "active": true, "type": "goods", "consumable": false});
            let template = shop.create(&mut t, "product.template", template);
            let product = json!({"template": template, "code": sku, "active": true, "default_uom": 1, "account_category": 1, "list_price_used": {"__class__": "Decimal", "decimal": "10"}});
            shop.create(&mut t, "product.product", product);
        }
        shop.commit(t);
        shop
    }

    /// Stock by SKU and warehouse.
    pub fn books(&self) -> Value {
        let mut books: BTreeMap<String, BTreeMap<String, f64>> = BTreeMap::new();
        let moves = self
            .store
            .tables
            .get(MOVE)
            .into_iter()
            .flat_map(BTreeMap::values);
        for row in moves.filter(|r| r.values["state"] == "done") {
            let product = row.values["product"].as_i64().unwrap_or_default();
            let code = |row: &Stored| row.values["code"].as_str().unwrap_or_default().to_owned();
            let sku = self
                .store
                .get("product.product", product)
                .map(code)
                .unwrap_or_default();
            let quantity = row.values["internal_quantity"].as_f64().unwrap_or_default();
            for (field, sign) in [("from_location", -1.0), ("to_location", 1.0)] {
                let zone = row.values[field].as_i64().unwrap_or_default();
                let parent = self
                    .store
                    .get("stock.location", zone)
                    .and_then(|z| z.values["parent"].as_i64());
                let warehouse = self.warehouses.iter().find(|(_, w)| Some(w.row) == parent);
                if let Some((warehouse, _)) = warehouse {
                    let held = books.entry(sku.clone()).or_default();
                    *held.entry(warehouse.clone()).or_default() += sign * quantity;
                }
            }
        }
        json!(books)
    }

    pub fn act(&mut self, action: &Value) -> Result<Value, String> {
        if let Some(at) = action["at"].as_i64() {
            self.now = Timestamp(at);
        }
        let text = |field: &str| action[field].as_str().map(str::to_owned);
        if let Some(name) = text("begin") {
            let transaction = self.transaction();
            self.open.insert(name, transaction);
            return Ok(Value::Null);
        }
        let missing = |name: &str| format!("no transaction {name} is open");
        if let Some(name) = text("commit") {
            let transaction = self.open.remove(&name).ok_or_else(|| missing(&name))?;
            self.commit(transaction);
            return Ok(Value::Null);
        }
        if let Some(name) = text("rollback") {
            self.open.remove(&name).ok_or_else(|| missing(&name))?;
            return Ok(Value::Null);
        }
        if let Some(name) = text("in") {
            let mut transaction = self.open.remove(&name).ok_or_else(|| missing(&name))?;
            let done = self.act_in(&mut transaction, action);
            self.open.insert(name, transaction);
            return done;
        }
        let mut transaction = self.at_once();
        let done = self.act_in(&mut transaction, action);
        self.store = transaction.store;
        done
    }

    /// What is over at once needs no copy of the books: it takes them, and whoever begins it puts them
    /// back. Nothing is written before all is checked.
    pub fn at_once(&mut self) -> Transaction {
        self.now = self.now.plus(Duration::from_secs(1));
        Transaction {
            started_at: self.now,
            store: std::mem::take(&mut self.store),
            written: BTreeSet::new(),
        }
    }

    /// The zones of the warehouse with this row.
    pub fn zones(&self, row: i64) -> Warehouse {
        let mut found = self.warehouses.values().copied();
        found.find(|w| w.row == row).unwrap_or(Warehouse {
            row,
            input: row,
            storage: row,
            output: row,
        })
    }

    fn act_in(&mut self, t: &mut Transaction, action: &Value) -> Result<Value, String> {
        let known = [
            "receive",
            "sell",
            "ship",
            "return",
            "scrap",
            "count",
            "transfer",
            "arrive",
            "plan",
            "do",
            "cancel",
            "delete",
            "touch",
            "write",
            "create",
            "sales",
            "press",
            "fulfil",
            "take_back",
            "bill",
            "credit",
            "return_of",
            "entries",
            "credited",
        ];
        let verb = known
            .iter()
            .find(|v| action.get(**v).is_some())
            .ok_or_else(|| format!("one of {} is needed", known.join(", ")))?;
        let id = || {
            action["id"]
                .as_i64()
                .or(action[*verb].as_i64())
                .ok_or("id is missing")
        };
        match *verb {
            "do" => {
                let today = self.today();
                self.change_row(
                    t,
                    MOVE,
                    id()?,
                    json!({"state": "done", "effective_date": today}),
                )
            }
            "cancel" => self.change_row(t, MOVE, id()?, json!({"state": "cancelled"})),
            "delete" => {
                let id = id()?;
                let row = t
                    .store
                    .get(MOVE, id)
                    .ok_or_else(|| format!("no move {id}"))?;
                if row.values["state"] == "done" {
                    return Err("a done move cannot be deleted".into());
                }
                t.store
                    .tables
                    .get_mut(MOVE)
                    .and_then(|table| table.remove(&id));
                t.written.insert((MOVE, id));
                Ok(json!([id]))
            }
            "arrive" => self.arrive(t, id()?),
            "touch" => self.change_row(t, model(&action["touch"])?, id()?, json!({})),
            "write" => {
                self.change_row(t, model(&action["write"])?, id()?, action["values"].clone())
            }
            "create" => {
                let id = self.create(t, model(&action["create"])?, action["values"].clone());
                Ok(json!([id]))
            }
            "entries" => Ok(entries(t)),
            "sales" | "credited" | "press" | "fulfil" | "take_back" | "bill" | "credit"
            | "return_of" => self.act_on_sale(t, verb, action),
            _ => self.trade(t, verb, action),
        }
    }

    fn trade(&mut self, t: &mut Transaction, verb: &str, action: &Value) -> Result<Value, String> {
        let product = self.product(t, &action[verb])?;
        let quantity = action["quantity"].as_f64().ok_or("quantity is missing")?;
        let warehouse = |shop: &Shop, field: &str| {
            let code = action[field].as_str().unwrap_or_default();
            let found = shop.warehouses.get(code).copied();
            found.ok_or_else(|| format!("{field} {code:?} is no warehouse"))
        };
        let mut steps: Vec<(i64, i64, &str, String, String)> = Vec::new();
        match verb {
            "receive" => {
                let w = warehouse(self, "location")?;
                let shipment = format!("stock.shipment.in,{}", self.next_id("stock.shipment.in"));
                steps.push((SUPPLIER, w.input, "done", String::new(), shipment.clone()));
                steps.push((w.input, w.storage, "done", String::new(), shipment));
            }
            "ship" => {
                let w = warehouse(self, "location")?;
                let shipment = format!("stock.shipment.out,{}", self.next_id("stock.shipment.out"));
                steps.push((w.storage, w.output, "done", String::new(), shipment.clone()));
                steps.push((w.output, CUSTOMER, "done", String::new(), shipment));
            }
            "sell" => {
                let w = warehouse(self, "location")?;
                let line = format!(
                    "sale.point.sale.line,{}",
                    self.next_id("sale.point.sale.line")
                );
                steps.push((w.storage, CUSTOMER, "done", line, String::new()));
            }
            "return" => {
                let w = warehouse(self, "location")?;
                let line = format!(
                    "sale.point.sale.line,{}",
                    self.next_id("sale.point.sale.line")
                );
                steps.push((CUSTOMER, w.storage, "done", line, String::new()));
            }
            "scrap" => {
                let w = warehouse(self, "location")?;
                steps.push((w.storage, LOST_FOUND, "done", String::new(), String::new()));
            }
            "plan" => {
                let w = warehouse(self, "location")?;
                steps.push((w.storage, CUSTOMER, "draft", String::new(), String::new()));
            }
            "transfer" => {
                let (from, to) = (warehouse(self, "from")?, warehouse(self, "to")?);
                let shipment = json!({"state": "done", "from_location": from.storage, "to_location": to.storage});
                let id = self.create(t, "stock.shipment.internal", shipment);
                let shipment = format!("stock.shipment.internal,{id}");
                if action["in_transit"] == true {
                    steps.push((
                        from.storage,
                        TRANSIT,
                        "done",
                        String::new(),
                        shipment.clone(),
                    ));
                    steps.push((TRANSIT, to.storage, "draft", String::new(), shipment));
                } else {
                    steps.push((from.storage, to.storage, "done", String::new(), shipment));
                }
            }
            _ => {
                let w = warehouse(self, "location")?;
                return Ok(self.count(t, product, w, quantity));
            }
        }
        let reference = |text: String| {
            if text.is_empty() {
                Value::Null
            } else {
                json!(text)
            }
        };
        let mut ids = Vec::new();
        for (from, to, state, origin, shipment) in steps {
            let goods = Goods {
                product,
                from,
                to,
                quantity,
                state,
                origin: reference(origin),
                shipment: reference(shipment),
            };
            ids.push(self.write_move(t, goods));
        }
        Ok(json!(ids))
    }

    fn count(&mut self, t: &mut Transaction, product: i64, w: Warehouse, counted: f64) -> Value {
        let lines = json!([["create", [{"product": product, "quantity": counted}]]]);
        let count = json!({"location": w.storage, "empty_quantity": "keep", "lines": lines});
        let inventory = self.draft_count(t, &count);
        self.set(t, INVENTORY, inventory, json!({"state": "done"}));
        let lines = self.book_count(t, inventory);
        json!([inventory, lines[0]])
    }

    /// The open half of a transfer, by the id of its move.
    fn arrive(&mut self, t: &mut Transaction, id: i64) -> Result<Value, String> {
        let row = t
            .store
            .get(MOVE, id)
            .ok_or_else(|| format!("no move {id}"))?;
        if row.values["from_location"] != TRANSIT || row.values["state"] != "draft" {
            return Err(format!("move {id} is not on the way"));
        }
        let today = self.today();
        self.change_row(
            t,
            MOVE,
            id,
            json!({"state": "done", "effective_date": today}),
        )
    }

    fn product(&self, t: &Transaction, sku: &Value) -> Result<i64, String> {
        let products = t.store.tables.get("product.product").into_iter().flatten();
        let mut found = products.filter(|(_, row)| row.values["code"] == *sku);
        found
            .next()
            .map(|(id, _)| *id)
            .ok_or_else(|| format!("no SKU {sku}"))
    }

    pub fn write_move(&mut self, t: &mut Transaction, goods: Goods<'_>) -> i64 {
        let done = goods.state == "done";
        let today = self.today();
        let values = json!({
            "product": goods.product, "unit": 1, "from_location": goods.from, "to_location": goods.to,
            "quantity": goods.quantity, "internal_quantity": goods.quantity, "state": goods.state,
            "effective_date": if done { today.clone() } else { Value::Null }, "planned_date": today,
            "company": 1, "origin": goods.origin, "shipment": goods.shipment,
        });
        self.create(t, MOVE, values)
    }

    fn create_location(
        &mut self,
        t: &mut Transaction,
        name: &str,
        code: Option<&str>,
        kind: &str,
        parent: Option<i64>,
    ) -> i64 {
        let values = json!({"name": name, "code": code, "type": kind, "parent": parent, "active": true, "storage_location": null});
        self.create(t, "stock.location", values)
    }

    fn transaction(&mut self) -> Transaction {
        self.now = self.now.plus(Duration::from_secs(1));
        Transaction {
            started_at: self.now,
            store: self.store.clone(),
            written: BTreeSet::new(),
        }
    }

    fn commit(&mut self, t: Transaction) {
        let mut store = t.store;
        for (model, id) in t.written {
            let row = store
                .tables
                .get_mut(model)
                .and_then(|table| table.remove(&id));
            let table = self.store.tables.entry(model).or_default();
            match row {
                Some(row) => table.insert(id, row),
                None => table.remove(&id),
            };
        }
    }

    pub fn next_id(&mut self, model: &'static str) -> i64 {
        let last = self.last_ids.entry(model).or_default();
        *last += 1;
        *last
    }

    pub fn create(&mut self, t: &mut Transaction, model: &'static str, values: Value) -> i64 {
        let id = self.next_id(model);
        let row = Stored {
            created_at: t.started_at,
            written_at: None,
            values: values.as_object().cloned().unwrap_or_default(),
        };
        t.store.tables.entry(model).or_default().insert(id, row);
        t.written.insert((model, id));
        id
    }

    pub fn change_row(
        &mut self,
        t: &mut Transaction,
        model: &'static str,
        id: i64,
        values: Value,
    ) -> Result<Value, String> {
        let row = t
            .store
            .tables
            .get_mut(model)
            .and_then(|table| table.get_mut(&id));
        let row = row.ok_or_else(|| format!("{model} has no row {id}"))?;
        row.written_at = Some(t.started_at);
        row.values
            .extend(values.as_object().cloned().unwrap_or_default());
        t.written.insert((model, id));
        Ok(json!([id]))
    }

    pub fn today(&self) -> Value {
        let mut today: Map<String, Value> = Map::new();
        let now = rows::stamp_value(self.now);
        for part in ["year", "month", "day"] {
            today.insert(part.into(), now[part].clone());
        }
        today.insert("__class__".into(), json!("date"));
        Value::Object(today)
    }
}

/// The moves of the ledger.
fn entries(t: &Transaction) -> Value {
    let table = t.store.tables.get("account.move");
    let rows = table.into_iter().flat_map(BTreeMap::values);
    rows.map(|row| Value::Object(row.values.clone())).collect()
}

pub(super) fn model(name: &Value) -> Result<&'static str, String> {
    let found = super::store::MODELS.iter().find(|(model, _)| name == model);
    found
        .map(|(model, _)| *model)
        .ok_or_else(|| format!("no model {name}"))
}
