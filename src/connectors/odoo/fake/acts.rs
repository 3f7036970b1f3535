//! What people do in the ERP: each act is one transaction, or part of one that is kept open.

use super::super::rows;
use super::pickings::usage_of;
use super::store;
use crate::connectors::erp::{Books, Transaction};
use crate::domain::Timestamp;
use crate::pipeline::FakeOptions;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

pub(super) const LINE: &str = "stock.move.line";
pub(super) const MOVE: &str = "stock.move";
pub(super) const PICKING: &str = "stock.picking";
const SUPPLIER: i64 = 1;
pub(super) const CUSTOMER: i64 = 2;
const LOSS: i64 = 3;
const TRANSIT: i64 = 4;

/// The shop's books.
pub(super) struct Shop {
    pub books: Books,
    /// Warehouses by code.
    pub warehouses: BTreeMap<String, Warehouse>,
}

#[derive(Clone, Copy)]
pub(super) struct Warehouse {
    pub row: i64,
    pub stock: i64,
    pub deliveries: i64,
    pub receipts: i64,
}

/// Goods that move.
pub(super) struct Goods {
    pub product: i64,
    pub from: i64,
    pub to: i64,
    pub quantity: f64,
    pub done: bool,
    pub picking: Option<i64>,
    /// Further values of the move.
    pub more: Value,
}

impl Shop {
    pub fn open(options: &FakeOptions) -> Shop {
        let now = Timestamp(1_790_000_000_000_000);
        let mut shop = Shop {
            // Several transactions have one second.
            books: Books::new(now, Duration::from_millis(300)),
            warehouses: BTreeMap::new(),
        };
        let mut t = shop.books.at_once();
        let mut make = |model, values| shop.books.create(&mut t, model, values);
        make("res.currency", json!({"name": "EUR", "active": true}));
        make("res.company", json!({"name": "Stand-in", "currency_id": 1}));
        make("res.users", json!({"name": "Crossdock", "company_id": 1}));
        let partner = json!({"name": "Stand-in", "country_code": "DE", "active": true});
        make("res.partner", partner);
        make(
            "res.partner",
            json!({"name": "Walk-in", "ref": "WALK-IN", "active": true}),
        );
        make("res.country", json!({"name": "Germany", "code": "DE"}));
        let state = json!({"name": "Bayern", "code": "BY", "country_id": 1});
        make("res.country.state", state);
        make(
            "decimal.precision",
            json!({"name": "Product Price", "digits": 4}),
        );
        make("uom.uom", json!({"name": "Units"}));
        make(
            "account.journal",
            json!({"name": "Miscellaneous", "code": "MISC", "company_id": 1}),
        );
        for (name, code, kind) in [
            ("Outstanding Receipts", "101403", "asset_current"),
            ("Account Receivable", "121000", "asset_receivable"),
        ] {
            make(
                "account.account",
                json!({"name": name, "code": code, "account_type": kind, "company_ids": [1]}),
            );
        }
        for (name, kind) in [
            ("Cash", "cash"),
            ("Card", "bank"),
            ("Customer Account", "pay_later"),
        ] {
            make("pos.payment.method", json!({"name": name, "type": kind}));
        }
        make(
            "account.tax",
            json!({"name": "VAT 20%", "active": true, "amount": 20.0, "type_tax_use": "sale", "price_include": false, "company_id": 1}),
        );
        for (name, usage) in [
            ("Vendors", "supplier"),
            ("Customers", "customer"),
            ("Inventory adjustment", "inventory"),
            ("Inter-warehouse transit", "transit"),
        ] {
            make(
                "stock.location",
                json!({"name": name, "complete_name": name, "usage": usage, "active": true}),
            );
        }
        let mut codes: Vec<&str> = options.locations.iter().map(String::as_str).collect();
        if codes.is_empty() {
            codes = vec!["Warehouse", "Store"];
        }
        for code in codes {
            let view = make(
                "stock.location",
                json!({"name": code, "complete_name": code, "usage": "view", "active": true}),
            );
            let name = format!("{code}/Stock");
            let stock = make(
                "stock.location",
                json!({"name": "Stock", "complete_name": name, "usage": "internal", "active": true, "location_id": view}),
            );
            let mut operations = |name: &str, kind: &str| {
                make("stock.picking.type", json!({"name": name, "code": kind}))
            };
            let (deliveries, receipts) = (
                operations("Delivery Orders", "outgoing"),
                operations("Receipts", "incoming"),
            );
            let row = make(
                "stock.warehouse",
                json!({
                    "name": code, "code": code, "active": true, "view_location_id": view, "lot_stock_id": stock,
                    "out_type_id": deliveries, "in_type_id": receipts, "partner_id": 1, "company_id": 1,
                }),
            );
            let warehouse = Warehouse {
                row,
                stock,
                deliveries,
                receipts,
            };
            shop.warehouses.insert(code.to_owned(), warehouse);
        }
        let names: Vec<String> = shop.warehouses.keys().cloned().collect();
        let mut make = |model, values| shop.books.create(&mut t, model, values);
        for name in names {
            make("pos.config", json!({"name": name}));
        }
        let goods = options.skus.iter().map(|sku| (sku.as_str(), true));
        for (n, (sku, storable)) in goods.chain([("DELIVERY", false)]).enumerate() {
            let template = make(
                "product.template",
                json!({"name": format!("Product {sku}"), "active": true}),
            );
            make(
                "product.product",
                json!({
                    "default_code": sku, "name": format!("Product {sku}"), "active": true, "is_storable": storable,
                    "type": if storable { "consu" } else { "service" }, "uom_id": 1, "barcode": null,
                    "lst_price": 5.0 + n as f64 / 100.0, "taxes_id": [1], "product_tmpl_id": template,
                }),
            );
        }
        for warehouse in shop.warehouses.values() {
            for kind in [warehouse.deliveries, warehouse.receipts] {
                let _ = t.write(
                    "stock.picking.type",
                    kind,
                    json!({"warehouse_id": warehouse.row, "default_location_src_id": warehouse.stock}),
                );
            }
        }
        shop.books.put_back(t);
        shop
    }

    /// Stock by SKU and warehouse, as the ERP has it.
    pub fn stock(&self) -> Value {
        let tables = &self.books.tables;
        let quants = store::quants(tables);
        let mut books: Map<String, Value> = Map::new();
        for row in tables["product.product"].values() {
            books.insert(row.text("default_code").to_owned(), json!({}));
        }
        for quant in quants.values() {
            let product = &tables["product.product"][&quant.id("product_id")];
            let at = quant.id("location_id");
            let mut here = self.warehouses.iter().filter(|(_, w)| w.stock == at);
            if let (Some((code, _)), Some(held)) =
                (here.next(), books.get_mut(product.text("default_code")))
            {
                held[code.as_str()] = quant.values["quantity"].clone();
            }
        }
        Value::Object(books)
    }

    /// What is known of a contact; nothing where there is none.
    pub fn party(&self, code: &str) -> Value {
        let mut contacts = self.books.tables["res.partner"].values();
        let Some(row) = contacts.find(|row| row.text("ref") == code) else {
            return Value::Null;
        };
        let text = |name: &str| row.text(name).to_owned();
        let street = [text("street"), text("street2")].join("\n");
        let contacts = [text("email"), text("phone")];
        let contacts: Vec<String> = contacts.into_iter().filter(|c| !c.is_empty()).collect();
        json!({
            "name": text("name"), "street": street.trim_end(), "city": text("city"), "contacts": contacts,
        })
    }

    pub fn act(&mut self, action: &Value) -> Result<Value, String> {
        if let Some(done) = self.books.control(action) {
            return done;
        }
        let mut t = self.books.part(action)?;
        let done = self.act_in(&mut t, action);
        self.books.end(action, t);
        done
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
            "bill",
            "credit",
            "credited",
            "entries",
            "return_of",
            "take_back",
            "ring_up",
        ];
        let verb = known.iter().find(|v| action.get(**v).is_some());
        let verb = *verb.ok_or_else(|| format!("one of {} is needed", known.join(", ")))?;
        let id = || {
            let id = action["id"].as_i64().or(action[verb].as_i64());
            id.ok_or("id is missing")
        };
        let named = |name: &Value| {
            let name = name.as_str().unwrap_or_default();
            store::model(name).map_err(|r| r.2)
        };
        match verb {
            "do" | "arrive" => self.finish(t, id()?, "done"),
            "cancel" => self.finish(t, id()?, "cancel"),
            "delete" => {
                let line = id()?;
                let row = t.get(LINE, line).ok_or_else(|| format!("no line {line}"))?;
                if row.text("state") == "done" {
                    return Err("a done line cannot be deleted".into());
                }
                t.delete(LINE, line);
                Ok(json!([line]))
            }
            "touch" => {
                t.write(named(&action["touch"])?, id()?, json!({}))?;
                Ok(Value::Null)
            }
            "write" => {
                t.write(named(&action["write"])?, id()?, action["values"].clone())?;
                Ok(Value::Null)
            }
            "create" => {
                let model = named(&action["create"])?;
                Ok(json!([self.books.create(
                    t,
                    model,
                    action["values"].clone()
                )]))
            }
            "sales" | "press" | "fulfil" | "bill" | "credit" | "credited" | "entries"
            | "return_of" | "take_back" => self.act_on_sale(t, verb, action),
            "ring_up" => self.ring_up(t, action),
            _ => self.trade(t, verb, action),
        }
    }

    /// Ends an open line and its move.
    fn finish(&mut self, t: &mut Transaction, line: i64, state: &str) -> Result<Value, String> {
        let row = t.get(LINE, line).ok_or_else(|| format!("no line {line}"))?;
        if matches!(row.text("state"), "done" | "cancel") {
            return Err(format!("line {line} is {}", row.text("state")));
        }
        let of = row.id("move_id");
        let date = rows::stamp_text(t.started_at.0);
        t.write(LINE, line, json!({"state": state, "date": date}))?;
        t.write(MOVE, of, json!({"state": state}))?;
        Ok(json!([line]))
    }

    fn trade(&mut self, t: &mut Transaction, verb: &str, action: &Value) -> Result<Value, String> {
        let sku = &action[verb];
        let mut products = t
            .rows("product.product")
            .filter(|(_, row)| row.values["default_code"] == *sku);
        let product = products
            .next()
            .map(|(id, _)| id)
            .ok_or_else(|| format!("no SKU {sku}"))?;
        drop(products);
        let quantity = action["quantity"].as_f64().ok_or("quantity is missing")?;
        let at = |shop: &Shop, field: &str| {
            let code = action[field].as_str().unwrap_or_default();
            let found = shop.warehouses.get(code).copied();
            found.ok_or_else(|| format!("{field} {code:?} is no warehouse"))
        };
        let goods = |from, to, done, picking| Goods {
            product,
            from,
            to,
            quantity,
            done,
            picking,
            more: json!({}),
        };
        let mut lines = Vec::new();
        match verb {
            "receive" => {
                let w = at(self, "location")?;
                let picking = self.picking(t, w.receipts, "done");
                lines.push(self.moved(t, goods(SUPPLIER, w.stock, true, Some(picking))));
            }
            "ship" => {
                let w = at(self, "location")?;
                let picking = self.picking(t, w.deliveries, "done");
                lines.push(self.moved(t, goods(w.stock, CUSTOMER, true, Some(picking))));
            }
            "sell" | "return" => {
                let w = at(self, "location")?;
                let picking = self.picking(t, w.deliveries, "done");
                t.write(PICKING, picking, json!({"pos_session_id": 1}))?;
                let (from, to) = match verb {
                    "sell" => (w.stock, CUSTOMER),
                    _ => (CUSTOMER, w.stock),
                };
                lines.push(self.moved(t, goods(from, to, true, Some(picking))));
            }
            "scrap" => {
                let w = at(self, "location")?;
                lines.push(self.moved(t, goods(w.stock, LOSS, true, None)));
            }
            "plan" => {
                let w = at(self, "location")?;
                lines.push(self.moved(t, goods(w.stock, CUSTOMER, false, None)));
            }
            "transfer" => {
                let (from, to) = (at(self, "from")?, at(self, "to")?);
                if action["in_transit"] == true {
                    let more = json!({"location_final_id": to.stock});
                    let out = Goods {
                        more,
                        ..goods(from.stock, TRANSIT, true, None)
                    };
                    let out = self.moved(t, out);
                    let sent = t.get(LINE, out).map_or(0, |row| row.id("move_id"));
                    let more = json!({"location_final_id": to.stock, "move_orig_ids": [sent]});
                    let into = Goods {
                        more,
                        ..goods(TRANSIT, to.stock, false, None)
                    };
                    lines.extend([out, self.moved(t, into)]);
                } else {
                    lines.push(self.moved(t, goods(from.stock, to.stock, true, None)));
                }
            }
            _ => {
                let w = at(self, "location")?;
                lines.push(self.count(t, product, w.stock, quantity));
            }
        }
        Ok(json!(lines))
    }

    /// A count of a place: the line of its move, also of nothing where it found what was expected.
    pub fn count(&mut self, t: &mut Transaction, product: i64, place: i64, quantity: f64) -> i64 {
        let held = store::quants(&t.tables);
        let mut held = held
            .values()
            .filter(|q| q.id("product_id") == product && q.id("location_id") == place);
        let difference = quantity - held.next().map_or(0.0, |q| q.number("quantity"));
        let (from, to) = if difference < 0.0 {
            (place, LOSS)
        } else {
            (LOSS, place)
        };
        let count = Goods {
            product,
            from,
            to,
            quantity: difference.abs(),
            done: true,
            picking: None,
            more: json!({"is_inventory": true}),
        };
        self.moved(t, count)
    }

    /// A picking of this type.
    pub fn picking(&mut self, t: &mut Transaction, kind: i64, state: &str) -> i64 {
        let code = t
            .get("stock.picking.type", kind)
            .map(|k| k.text("code").to_owned());
        let id = self.books.next_id("number of a picking");
        self.books.create(t, PICKING, json!({
            "name": format!("PICK/{id:05}"), "state": state, "picking_type_id": kind, "picking_type_code": code, "company_id": 1,
        }))
    }

    /// A move and its line; gives the line.
    pub fn moved(&mut self, t: &mut Transaction, goods: Goods) -> i64 {
        let state = if goods.done { "done" } else { "assigned" };
        let code = goods
            .picking
            .and_then(|p| t.get(PICKING, p))
            .map(|p| p.values["picking_type_code"].clone());
        let mut values = json!({
            "product_id": goods.product, "product_uom": 1, "product_uom_qty": goods.quantity, "product_qty": goods.quantity,
            "quantity": goods.quantity, "picked": goods.done, "state": state, "location_id": goods.from,
            "location_dest_id": goods.to, "picking_id": goods.picking, "picking_code": code, "company_id": 1,
            "is_inventory": false, "location_usage": usage_of(t, goods.from),
        });
        if let (Some(values), Some(more)) = (values.as_object_mut(), goods.more.as_object()) {
            values.extend(more.clone());
        }
        let of = self.books.create(t, MOVE, values);
        self.line(t, of, &goods)
    }

    /// The line of a move, with its quantity.
    pub fn line(&mut self, t: &mut Transaction, of: i64, goods: &Goods) -> i64 {
        let state = if goods.done { "done" } else { "assigned" };
        let date = rows::stamp_text(t.started_at.0);
        let line = json!({
            "product_id": goods.product, "quantity": goods.quantity, "quantity_product_uom": goods.quantity,
            "location_id": goods.from, "location_dest_id": goods.to, "state": state, "picked": goods.done, "date": date,
            "picking_id": goods.picking, "move_id": of, "company_id": 1,
        });
        self.books.create(t, LINE, line)
    }
}
