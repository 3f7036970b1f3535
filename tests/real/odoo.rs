//! The connector on a real Odoo: its users receive, sell, ring up, move, count and take back, and what is told
//! must add up to what the ERP itself reports; a channel's orders become one sale each, whatever answers
//! are lost, and what becomes of them is told.

use crate::proxy::{Cut, Proxy};
use crate::sales::{event, id_of, last, numbers, placed, write};
use crate::systems::{Systems, url};
use crate::tryton::Reader;
use crossdock::contract::event::{
    Event, EventMeta, InvoiceEvent, InvoiceKind, LineQty, Money, OrderEvent, OrderEventType,
    Package, PaymentEvent, PaymentKind, RefundEvent, RefundStatus, ReturnEvent, ReturnLine,
    ReturnStatus, ShipmentEvent, ShipmentLine, ShipmentStatus, SinkOutcome, StockChanged,
    StockReason,
};
use crossdock::domain::{Decimal, Timestamp, natural_id};
use crossdock::pipeline::{Ack, Code, Sink, Verdict};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The ERP as its users have it.
struct Odoo {
    http: reqwest::blocking::Client,
    key: String,
    key_file: std::path::PathBuf,
}

/// Warehouses: "Warehouse" and "Store" of the catalogue.
const WAREHOUSES: [&str; 2] = ["WH", "STORE"];

impl Odoo {
    fn log_in(systems: &Systems) -> Odoo {
        let key_file = systems.file("odoo/api.key");
        let key = std::fs::read_to_string(&key_file).expect("the key");
        Odoo {
            http: reqwest::blocking::Client::new(),
            key: key.trim().to_owned(),
            key_file,
        }
    }

    fn settings(&self) -> Value {
        json!({"url": url("odoo"), "api_key": format!("${{file:{}}}", self.key_file.display())})
    }

    fn call(&self, model: &str, method: &str, arguments: Value) -> Value {
        let address = format!("{}/json/2/{model}/{method}", url("odoo"));
        let request = self.http.post(address).bearer_auth(&self.key);
        let answer = request.json(&arguments).send().expect("an answer");
        let status = answer.status();
        let body: Value = answer.json().expect("JSON");
        assert!(
            status.is_success(),
            "{model}/{method} {arguments}: {}",
            body["message"]
        );
        body
    }

    fn find(&self, model: &str, domain: Value, fields: &[&str]) -> Vec<Value> {
        let arguments = json!({"domain": domain, "fields": fields, "order": "id"});
        let found = self.call(model, "search_read", arguments);
        found.as_array().expect("rows").clone()
    }

    fn create(&self, model: &str, values: Value) -> Value {
        self.call(model, "create", json!({"vals_list": [values]}))[0].clone()
    }

    fn write(&self, model: &str, id: &Value, values: Value) {
        self.call(model, "write", json!({"ids": [id], "vals": values}));
    }

    fn product(&self, sku: &str) -> Value {
        let found = self.find("product.product", json!([["default_code", "=", sku]]), &[]);
        found[0]["id"].clone()
    }

    fn warehouse(&self, code: &str) -> Value {
        let fields = ["lot_stock_id", "in_type_id", "int_type_id"];
        self.find("stock.warehouse", json!([["code", "=", code]]), &fields)[0].clone()
    }

    fn place(&self, usage: &str) -> Value {
        self.find("stock.location", json!([["usage", "=", usage]]), &[])[0]["id"].clone()
    }

    /// What is on hand in a warehouse, by SKU, as the ERP itself counts it.
    fn on_hand(&self, code: &str) -> BTreeMap<String, f64> {
        let arguments = json!({
            "domain": [["default_code", "=like", "SKU-%"]], "fields": ["default_code", "qty_available"],
            "context": {"warehouse_id": self.warehouse(code)["id"]},
        });
        let rows = self.call("product.product", "search_read", arguments);
        let rows = rows.as_array().expect("products").iter();
        rows.map(|row| {
            let units = row["qty_available"].as_f64().expect("a quantity");
            (
                row["default_code"].as_str().expect("a code").to_owned(),
                units,
            )
        })
        .collect()
    }

    /// Goods go from place to place by a document of this type.
    fn bring(&self, kind: &Value, from: &Value, to: &Value, sku: &str, units: i64) {
        let product = self.product(sku);
        let goods = json!({
            "product_id": product, "product_uom_qty": units, "location_id": from, "location_dest_id": to,
        });
        let picking = self.create(
            "stock.picking",
            json!({"picking_type_id": kind, "location_id": from, "location_dest_id": to, "move_ids": [[0, 0, goods]]}),
        );
        self.call("stock.picking", "action_confirm", json!({"ids": [picking]}));
        self.validate(&picking);
    }

    fn validate(&self, picking: &Value) {
        let domain = json!([["picking_id", "=", picking], ["state", "!=", "done"]]);
        for moved in self.find("stock.move", domain, &["product_uom_qty"]) {
            let values = json!({"quantity": moved["product_uom_qty"], "picked": true});
            self.write("stock.move", &moved["id"], values);
        }
        let arguments = json!({"ids": [picking], "context": {"skip_backorder": true}});
        self.call("stock.picking", "button_validate", arguments);
        let now = self.find("stock.picking", json!([["id", "=", picking]]), &["state"]);
        assert_eq!(now[0]["state"], "done", "{picking}");
    }

    fn receive(&self, code: &str, sku: &str, units: i64) {
        let w = self.warehouse(code);
        self.bring(
            &w["in_type_id"][0],
            &self.place("supplier"),
            &w["lot_stock_id"][0],
            sku,
            units,
        );
    }

    fn transfer(&self, from: &str, to: &str, sku: &str, units: i64) {
        let (from, to) = (self.warehouse(from), self.warehouse(to));
        let (at, into) = (&from["lot_stock_id"][0], &to["lot_stock_id"][0]);
        self.bring(&from["int_type_id"][0], at, into, sku, units);
    }

    fn count(&self, code: &str, sku: &str, units: i64) {
        let place = self.warehouse(code)["lot_stock_id"][0].clone();
        let values = json!({"product_id": self.product(sku), "location_id": place, "inventory_quantity_auto_apply": units});
        let arguments = json!({"vals_list": [values], "context": {"inventory_mode": true}});
        self.call("stock.quant", "create", arguments);
    }

    /// A customer orders, and everything is shipped. Gives the delivery.
    fn sell(&self, code: &str, sku: &str, units: i64) -> Value {
        let partner = self.find("res.partner", json!([["ref", "=", "C001"]]), &[])[0]["id"].clone();
        let line =
            json!({"product_id": self.product(sku), "product_uom_qty": units, "price_unit": 10.0});
        let sale = self.create(
            "sale.order",
            json!({"partner_id": partner, "warehouse_id": self.warehouse(code)["id"], "order_line": [[0, 0, line]]}),
        );
        self.call("sale.order", "action_confirm", json!({"ids": [sale]}));
        let now = self.find("sale.order", json!([["id", "=", sale]]), &["picking_ids"]);
        let picking = now[0]["picking_ids"][0].clone();
        self.validate(&picking);
        picking
    }

    /// Units of a delivery come back.
    fn take_back(&self, picking: &Value, units: i64) {
        let wizard = self.create("stock.return.picking", json!({"picking_id": picking}));
        let domain = json!([["wizard_id", "=", wizard]]);
        for line in self.find("stock.return.picking.line", domain, &[]) {
            let values = json!({"quantity": units, "to_refund": true});
            self.write("stock.return.picking.line", &line["id"], values);
        }
        let made = self.call(
            "stock.return.picking",
            "action_create_returns",
            json!({"ids": [wizard]}),
        );
        let back = made["res_id"].clone();
        let domain = json!([["picking_id", "=", back]]);
        for moved in self.find("stock.move", domain, &[]) {
            let values = json!({"quantity": units, "picked": true});
            self.write("stock.move", &moved["id"], values);
        }
        let arguments = json!({"ids": [back], "context": {"skip_backorder": true}});
        self.call("stock.picking", "button_validate", arguments);
    }

    /// The open session of the till.
    fn session(&self) -> Value {
        let till = self.find("pos.config", json!([]), &["current_session_id"])[0].clone();
        match till["current_session_id"][0].as_i64() {
            Some(open) => json!(open),
            None => {
                let values = json!({"config_id": till["id"], "user_id": 2});
                let open = self.create("pos.session", values);
                let arguments = json!({"ids": [open], "cashbox_value": 0, "notes": ""});
                self.call("pos.session", "set_opening_control", arguments);
                open
            }
        }
    }

    /// The day is over: what was taken is counted, and the till closed.
    fn close_till(&self) {
        let session = self.session();
        let fields = ["cash_register_balance_end"];
        let now = self.find("pos.session", json!([["id", "=", session]]), &fields);
        let arguments = json!({"ids": [session], "counted_cash": now[0][fields[0]]});
        self.call("pos.session", "post_closing_cash_details", arguments);
        let arguments = json!({"ids": [session]});
        let closed = self.call("pos.session", "close_session_from_ui", arguments);
        assert_eq!(closed["successful"], true, "{closed}");
    }

    /// A customer buys at the till of the store, or brings back with fewer than no units, of this line of a
    /// receipt. Gives the receipt.
    fn ring_up(&self, sku: &str, units: i64, of: Option<&Value>) -> Value {
        let session = self.session();
        let method = self.find(
            "pos.payment.method",
            json!([["is_cash_count", "=", true]]),
            &[],
        );
        let now = jiff::Timestamp::now();
        let begun = now.as_nanosecond().to_string();
        let new = |what: &str| natural_id(&[what, &begun]).to_string();
        let (uid, amount) = (new("order"), 10.0 * units as f64);
        let mut line = json!({
            "name": uid, "uuid": new("line"), "product_id": self.product(sku), "qty": units, "price_unit": 10.0,
            "discount": 0, "price_subtotal": amount, "price_subtotal_incl": amount, "tax_ids": [[6, 0, []]],
        });
        if let Some(of) = of {
            line["refunded_orderline_id"] = of.clone();
        }
        let now = now.strftime("%Y-%m-%d %H:%M:%S").to_string();
        let paid = json!({"name": now, "payment_method_id": method[0]["id"], "amount": amount, "uuid": new("payment")});
        let order = json!({
            "uuid": uid, "session_id": session, "user_id": 2, "name": format!("Order {uid}"), "state": "paid",
            "amount_total": amount, "amount_tax": 0, "amount_paid": amount, "amount_return": 0, "access_token": uid,
            "date_order": now, "fiscal_position_id": false, "pricelist_id": false, "partner_id": false, "to_invoice": false,
            "sequence_number": 1, "last_order_preparation_change": "{}", "lines": [[0, 0, line]], "payment_ids": [[0, 0, paid]],
        });
        // A till whose answer got lost sends it again.
        for _ in 0..2 {
            self.call("pos.order", "sync_from_ui", json!({"orders": [order]}));
        }
        let fields = ["name", "pos_reference", "lines", "amount_total"];
        self.find("pos.order", json!([["uuid", "=", uid]]), &fields)[0].clone()
    }

    /// The sale of an order.
    fn sale(&self, number: &str) -> Value {
        let domain = json!([["origin", "=like", format!("{}%", id_of(number))]]);
        let fields = ["name", "state", "picking_ids", "invoice_ids"];
        let found = self.find("sale.order", domain, &fields);
        assert_eq!(found.len(), 1, "{number}: {found:?}");
        found[0].clone()
    }

    /// People bill what there is to bill of a sale, or credit it, and post that.
    fn bill(&self, number: &str) {
        let sale = self.sale(number);
        let context = json!({"active_model": "sale.order", "active_ids": [sale["id"]]});
        let model = "sale.advance.payment.inv";
        let values = json!([{"advance_payment_method": "delivered"}]);
        let wizard = self.call(
            model,
            "create",
            json!({"vals_list": values, "context": context}),
        );
        self.call(
            model,
            "create_invoices",
            json!({"ids": wizard, "context": context}),
        );
        let ids = self.sale(number)["invoice_ids"].clone();
        let drafts = json!([["id", "in", ids], ["state", "=", "draft"]]);
        for draft in self.find("account.move", drafts, &[]) {
            self.call("account.move", "action_post", json!({"ids": [draft["id"]]}));
        }
    }
}

fn agrees(reader: &Reader, odoo: &Odoo) {
    let stock = reader.stock();
    for code in WAREHOUSES {
        let reported = odoo.on_hand(code);
        assert!(reported.len() >= 300, "{} products", reported.len());
        for (sku, units) in reported {
            let told = stock.get(&(code.to_owned(), sku.clone())).copied();
            assert_eq!(told.unwrap_or_default().to_f64(), units, "{sku} at {code}");
        }
    }
}

fn reasons(moves: &[StockChanged]) -> Vec<(String, StockReason, String)> {
    let short = |e: &StockChanged| (e.location_id.to_string(), e.reason, e.qty.to_string());
    moves.iter().map(short).collect()
}

#[test]
fn what_is_told_is_what_odoo_itself_reports() {
    use StockReason as R;
    let Some(systems) = Systems::find() else {
        return;
    };
    let odoo = Odoo::log_in(&systems);
    let mut reader = Reader::of("odoo", odoo.settings());
    let checks = reader.runtime.block_on(reader.connector.check());
    assert!(checks.iter().all(|c| c.result.is_ok()), "{checks:?}");
    reader.drain();
    agrees(&reader, &odoo);

    let mut told = |what: &dyn Fn(&Odoo)| {
        what(&odoo);
        let (moves, snapshots) = reader.drain();
        (reasons(&moves), snapshots)
    };
    let one = |at: &str, reason, units: &str| vec![(at.to_owned(), reason, units.to_owned())];
    let (moves, _) = told(&|o| o.receive("WH", "SKU-0101", 12));
    assert_eq!(moves, one("WH", R::Receipt, "12"));
    let delivery = std::cell::RefCell::new(Value::Null);
    let (moves, _) = told(&|o| *delivery.borrow_mut() = o.sell("WH", "SKU-0101", 5));
    assert_eq!(moves, one("WH", R::Shipment, "5"));
    let (moves, _) = told(&|o| o.take_back(&delivery.borrow(), 2));
    assert_eq!(moves, one("WH", R::Return, "2"));
    let bought = std::cell::RefCell::new(Value::Null);
    let (moves, _) = told(&|o| *bought.borrow_mut() = o.ring_up("SKU-0102", 3, None));
    assert_eq!(
        moves,
        one("STORE", R::Sale, "3"),
        "though the till sent it twice"
    );
    // Of its receipt: no test can read as an order what was brought back without one.
    let (moves, _) = told(&|o| drop(o.ring_up("SKU-0102", -1, Some(&bought.borrow()["lines"][0]))));
    assert_eq!(moves, one("STORE", R::Return, "1"));
    let (moves, _) = told(&|o| o.transfer("WH", "STORE", "SKU-0103", 4));
    let legs: Vec<_> = moves
        .iter()
        .map(|(at, reason, _)| (&**at, *reason))
        .collect();
    let expected = [
        ("WH", R::TransferOut),
        ("STORE", R::TransferIn),
        ("STORE", R::TransferIn),
    ];
    assert_eq!(legs, expected);
    let units = odoo.on_hand("STORE")["SKU-0104"] as i64 + 1;
    let (moves, snapshots) = told(&|o| o.count("STORE", "SKU-0104", units));
    assert_eq!(moves.len(), 1);
    assert_eq!(moves[0].1, R::CountAdjustment);
    let counted: Vec<_> = snapshots
        .iter()
        .map(|s| (&*s.sku, s.sellable.to_string()))
        .collect();
    assert_eq!(counted, [("SKU-0104", units.to_string())], "and compared");
    reader.restart();
    let (moves, _) = reader.drain();
    assert_eq!(reasons(&moves), [], "a restart tells nothing again");
    agrees(&reader, &odoo);

    let products = reader.records.iter().filter(|r| {
        matches!(&r.event, Event::ProductChanged(e) if e.sku.starts_with("SKU-") && e.stock_tracked)
    });
    assert!(products.count() >= 300);
}

fn order(e: &Event) -> Option<&OrderEvent> {
    match e {
        Event::OrderEvent(e) => Some(e),
        _ => None,
    }
}

fn shipment(e: &Event) -> Option<&ShipmentEvent> {
    match e {
        Event::ShipmentEvent(e) => Some(e),
        _ => None,
    }
}

#[test]
fn an_order_becomes_one_sale_though_answers_are_lost_and_its_delivery_is_told() {
    let Some(systems) = Systems::find() else {
        return;
    };
    let odoo = Odoo::log_in(&systems);
    odoo.receive("WH", "SKU-0260", 60);
    odoo.receive("WH", "SKU-0261", 30);
    let proxy = Proxy::start(&url("odoo"));
    let mut settings = with_orders(&odoo);
    settings["url"] = proxy.url().into();
    let mut reader = Reader::of("odoo", settings);
    let checks = reader.runtime.block_on(reader.connector.check());
    assert!(checks.iter().all(|c| c.result.is_ok()), "{checks:?}");
    reader.drain();
    let sink = reader.connector.sink().expect("a sink");
    let sales = |number: &str| {
        let fields = ["state", "amount_total", "client_order_ref", "picking_ids"];
        let id = id_of(number);
        let domain = json!([["origin", "=like", format!("{id}%")]]);
        odoo.find("sale.order", domain, &fields)
    };
    let mut next = numbers();
    // The calls that write are customer, sale, confirmation: each is lost on its way, and on its way back.
    for cuts in [
        vec![Cut::Before],
        vec![Cut::After],
        vec![Cut::Not, Cut::Before],
        vec![Cut::Not, Cut::After],
        vec![Cut::Not, Cut::Not, Cut::Before],
        vec![Cut::Not, Cut::Not, Cut::After],
    ] {
        let (number, customer) = (next(), next());
        proxy.cut(&cuts);
        let taken = write(&reader, &sink, &placed(&number, &customer));
        let fault = taken.expect_err("cut");
        assert!(matches!(fault.verdict, Verdict::Retry { .. }), "{fault}");
        write(&reader, &sink, &placed(&number, &customer)).expect("taken");
        let again = write(&reader, &sink, &placed(&number, &customer)).expect("taken");
        assert_eq!(again.outcome, SinkOutcome::DuplicateAcked);
        let found = sales(&number);
        assert_eq!(found.len(), 1, "{cuts:?}: {found:?}");
        assert_eq!(
            (
                &found[0]["state"],
                &found[0]["amount_total"],
                &found[0]["client_order_ref"]
            ),
            (&json!("sale"), &json!(28.98), &json!(number))
        );
        let partners = odoo.find("res.partner", json!([["ref", "=", customer]]), &[]);
        assert_eq!(partners.len(), 1, "{cuts:?}");
    }

    // Two instances at once.
    for _ in 0..4 {
        let (number, customer) = (next(), next());
        let order = placed(&number, &customer);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let other = Reader::of("odoo", with_orders(&odoo));
                let sink = other.connector.sink().expect("a sink");
                // Who comes too late for a step is told so, and tries again.
                drop(write(&other, &sink, &order));
            });
            drop(write(&reader, &sink, &order));
        });
        write(&reader, &sink, &order).expect("taken");
        assert_eq!(sales(&number).len(), 1);
        let partners = odoo.find("res.partner", json!([["ref", "=", customer]]), &[]);
        assert_eq!(partners.len(), 1);
    }

    let number = next();
    let told = reader.records.len();
    write(&reader, &sink, &placed(&number, "C001")).expect("taken");
    reader.drain();
    let accepted = last(&reader, told, &number, order).expect("told");
    assert_eq!(accepted.r#type, OrderEventType::Accepted);
    let reserved = last(&reader, told, &number, shipment).expect("told");
    assert_eq!(reserved.status, ShipmentStatus::Acknowledged);
    let picking = sales(&number)[0]["picking_ids"][0].clone();
    odoo.write(
        "stock.picking",
        &picking,
        json!({"carrier_tracking_ref": "1Z-TRACK"}),
    );
    odoo.validate(&picking);
    reader.restart();
    reader.drain();
    let sent = last(&reader, told, &number, shipment).expect("told");
    assert_eq!(
        (sent.status, &*sent.node_id),
        (ShipmentStatus::Shipped, "WH")
    );
    assert_eq!(sent.shipment_id, reserved.shipment_id);
    assert_eq!(
        sent.packages[0].tracking_number.as_deref(),
        Some("1Z-TRACK")
    );
    let mut lines: Vec<_> = sent
        .lines
        .iter()
        .map(|l| (&*l.line_id, &*l.sku, l.shipped))
        .collect();
    lines.sort_unstable();
    let units = |n: i32| Decimal::from(n);
    assert_eq!(
        lines,
        [("a", "SKU-0260", units(2)), ("b", "SKU-0261", units(1))]
    );
    let id = id_of(&number);
    let moved = reader.records[told..].iter().filter(|r| {
        matches!(&r.event, Event::StockChanged(e)
            if e.reason == StockReason::Shipment && e.order_id.as_deref() == Some(&*id))
    });
    assert_eq!(moved.count(), 2, "goods name their order");

    // A cancellation: not of what has left, and not told back to who knows.
    let cancelled = |number: &str| {
        let mut event = event(number, OrderEventType::CancelDecided, None);
        event.affected = [("a", 2), ("b", 1)]
            .map(|(line, qty)| LineQty {
                line_id: line.into(),
                qty: units(qty),
            })
            .to_vec();
        event
    };
    let late = write(&reader, &sink, &cancelled(&number)).expect_err("it has left");
    assert_eq!(
        (late.verdict, late.code),
        (Verdict::Reject, Code::IllegalTransition),
        "{late}"
    );
    let number = next();
    write(&reader, &sink, &placed(&number, "C001")).expect("taken");
    let told = reader.records.len();
    for _ in 0..2 {
        write(&reader, &sink, &cancelled(&number)).expect("taken");
    }
    reader.drain();
    assert_eq!(sales(&number)[0]["state"], "cancel");
    let stopped = last(&reader, told, &number, shipment).expect("told");
    assert_eq!(stopped.status, ShipmentStatus::Cancelled);
    let said = reader.records[told..]
        .iter()
        .filter_map(|r| order(&r.event));
    let refused = said.filter(|e| e.r#type == OrderEventType::Rejected);
    assert_eq!(
        refused.count(),
        0,
        "what the channel knows is not told back"
    );
    agrees(&reader, &odoo);
}

fn with_orders(odoo: &Odoo) -> Value {
    let mut settings = odoo.settings();
    settings["channels"] = json!({"web": {"warehouse": "WH"}});
    settings["post_credit_notes"] = true.into();
    settings["payments"] = json!({
        "journal": "MISC", "clearing_account": "101403", "receivable_account": "121000",
    });
    settings
}

fn returned(e: &Event) -> Option<&ReturnEvent> {
    match e {
        Event::ReturnEvent(e) => Some(e),
        _ => None,
    }
}

fn invoice(e: &Event) -> Option<&InvoiceEvent> {
    match e {
        Event::InvoiceEvent(e) => Some(e),
        _ => None,
    }
}

fn d(text: &str) -> Decimal {
    text.parse().expect("a number")
}

fn dollars(amount: &str) -> Money {
    Money {
        amount: d(amount),
        currency: "USD".into(),
    }
}

fn elsewhere() -> EventMeta {
    EventMeta {
        source: "elsewhere".into(),
        occurred_at: Timestamp(jiff::Timestamp::now().as_microsecond()),
        ..EventMeta::default()
    }
}

fn captured(number: &str) -> PaymentEvent {
    PaymentEvent {
        meta: elsewhere(),
        order_id: id_of(number).into(),
        kind: PaymentKind::Captured,
        amount: dollars("28.98"),
        psp: "psp".into(),
        psp_reference: format!("ch_{number}").into(),
        ..PaymentEvent::default()
    }
}

/// One of line `a` was accepted.
fn accepted(number: &str) -> ReturnEvent {
    ReturnEvent {
        meta: elsewhere(),
        order_id: id_of(number).into(),
        return_id: format!("R-{number}").into(),
        return_version: 1,
        status: ReturnStatus::Inspected,
        lines: vec![ReturnLine {
            return_line_id: "1".into(),
            order_line_id: "a".into(),
            sku: "SKU-0260".into(),
            requested: Decimal::ONE,
            received: Decimal::ONE,
            accepted: Decimal::ONE,
            ..ReturnLine::default()
        }],
        ..ReturnEvent::default()
    }
}

fn refunded(number: &str) -> RefundEvent {
    RefundEvent {
        meta: elsewhere(),
        order_id: id_of(number).into(),
        refund_id: natural_id(&["refund", number]),
        status: RefundStatus::Completed,
        amount: dollars("11.99"),
        ..RefundEvent::default()
    }
}

/// Calls until it is taken; what keeps it from that must be about the moment.
fn taken(reader: &Reader, sink: &Arc<dyn Sink>, event: &(impl Into<Event> + Clone)) -> Ack {
    for _ in 0..9 {
        match write(reader, sink, event) {
            Ok(ack) => return ack,
            Err(fault) => assert!(matches!(fault.verdict, Verdict::Retry { .. }), "{fault}"),
        }
    }
    panic!("never taken");
}

/// Whichever call is lost, the capture, the return and the refund of an order that was shipped and billed are each
/// in the books once, and settle what they belong to.
#[test]
fn money_and_returns_of_elsewhere_are_there_once_though_answers_are_lost() {
    let Some(systems) = Systems::find() else {
        return;
    };
    let odoo = Odoo::log_in(&systems);
    odoo.receive("WH", "SKU-0260", 60);
    odoo.receive("WH", "SKU-0261", 30);
    let proxy = Proxy::start(&url("odoo"));
    let mut settings = with_orders(&odoo);
    settings["url"] = proxy.url().into();
    let mut reader = Reader::of("odoo", settings);
    reader.drain();
    let (sink, told) = (
        reader.connector.sink().expect("a sink"),
        reader.records.len(),
    );
    let (mut next, mut orders) = (numbers(), Vec::new());
    for (call, cut) in (0..5).flat_map(|call| [(call, Cut::Before), (call, Cut::After)]) {
        let number = next();
        taken(&reader, &sink, &placed(&number, "C002"));
        odoo.validate(&odoo.sale(&number)["picking_ids"][0]);
        odoo.bill(&number);
        let events: [Event; 3] = [
            captured(&number).into(),
            accepted(&number).into(),
            refunded(&number).into(),
        ];
        for event in &events {
            proxy.cut(&[vec![Cut::Not; call], vec![cut]].concat());
            taken(&reader, &sink, event);
        }
        for event in &events {
            let again = taken(&reader, &sink, event);
            assert_eq!(again.outcome, SinkOutcome::DuplicateAcked, "{call} {cut:?}");
        }
        let sale = odoo.sale(&number);
        let fields = [
            "move_type",
            "state",
            "payment_state",
            "amount_total",
            "amount_residual",
        ];
        let bills = odoo.find(
            "account.move",
            json!([["id", "in", sale["invoice_ids"]]]),
            &fields,
        );
        let bills: Vec<Value> = bills
            .into_iter()
            .map(|b| json!(fields.map(|f| b[f].clone())))
            .collect();
        let expected = [
            json!(["out_invoice", "posted", "paid", 28.98, 0.0]),
            // The money that went back is an entry, which reverses the credit note, as Odoo puts it.
            json!(["out_refund", "posted", "reversed", 11.99, 0.0]),
        ];
        assert_eq!(bills, expected, "{call} {cut:?}");
        let keys = json!([
            format!("CAPTURED|psp|ch_{number}"),
            format!("COMPLETED|refund|{}", natural_id(&["refund", &number])),
        ]);
        let entries = odoo.find("account.move", json!([["ref", "in", keys]]), &["state"]);
        let posted = entries.iter().filter(|e| e["state"] == "posted").count();
        assert_eq!((entries.len(), posted), (2, 2), "{call} {cut:?}");
        let pickings = json!([["id", "in", sale["picking_ids"]], ["state", "=", "done"]]);
        assert_eq!(
            odoo.find("stock.picking", pickings, &[]).len(),
            2,
            "{call} {cut:?}"
        );
        let lines = odoo.find(
            "sale.order.line",
            json!([["order_id", "=", sale["id"]]]),
            &["qty_delivered", "qty_invoiced", "qty_to_invoice"],
        );
        for line in lines {
            let units =
                ["qty_delivered", "qty_invoiced", "qty_to_invoice"].map(|f| line[f].as_f64());
            assert_eq!(units, [Some(1.0), Some(1.0), Some(0.0)], "{call} {cut:?}");
        }
        orders.push(number);
    }
    reader.drain();
    for number in &orders {
        let id = id_of(number);
        let own = || reader.records[told..].iter().filter(|r| r.key == id);
        assert!(own().all(|r| returned(&r.event).is_none()), "not told back");
        let bill = |kind| {
            let bills = own().filter_map(|r| invoice(&r.event));
            bills
                .filter(|e| e.kind == kind)
                .last()
                .expect("told")
                .clone()
        };
        let (billed, credit) = (bill(InvoiceKind::Invoice), bill(InvoiceKind::CreditNote));
        assert_eq!((billed.gross, credit.gross), (d("28.98"), d("11.99")));
        let name = format!("R-{number}");
        assert_eq!(credit.return_id.as_deref(), Some(&*name));
        assert_eq!(credit.original_invoice_id, Some(billed.invoice_id));
        let restocked = reader.records[told..].iter().filter(|r| {
            matches!(&r.event, Event::StockChanged(e)
                if e.reason == StockReason::Return && e.return_id.as_deref() == Some(&*name))
        });
        assert_eq!(restocked.count(), 1, "goods name their return");
    }
    agrees(&reader, &odoo);
}

#[test]
fn returns_of_odoo_and_receipts_of_its_tills_are_told_as_it_reports_them() {
    let Some(systems) = Systems::find() else {
        return;
    };
    let odoo = Odoo::log_in(&systems);
    odoo.receive("WH", "SKU-0260", 20);
    odoo.receive("WH", "SKU-0261", 10);
    let mut settings = with_orders(&odoo);
    settings["credit_notes_request_refunds"] = true.into();
    let till = odoo.find("pos.config", json!([]), &["name"])[0]["name"].clone();
    settings["tills"] = json!({till.as_str().expect("a name"): {"channel": "store"}});
    let mut reader = Reader::of("odoo", settings);
    let checks = reader.runtime.block_on(reader.connector.check());
    assert!(checks.iter().all(|c| c.result.is_ok()), "{checks:?}");
    reader.drain();
    let sink = reader.connector.sink().expect("a sink");
    let number = numbers()();
    let told = reader.records.len();
    taken(&reader, &sink, &placed(&number, "C003"));
    let picking = odoo.sale(&number)["picking_ids"][0].clone();
    odoo.validate(&picking);
    odoo.bill(&number);
    odoo.take_back(&picking, 1);
    odoo.bill(&number);
    reader.drain();
    let back = last(&reader, told, &number, returned).expect("told");
    assert_eq!(back.status, ReturnStatus::Inspected);
    let units: Vec<_> = back.lines.iter().map(|l| (&*l.sku, l.accepted)).collect();
    assert_eq!(
        units,
        [("SKU-0260", Decimal::ONE), ("SKU-0261", Decimal::ONE)]
    );
    let credit = last(&reader, told, &number, invoice).expect("told");
    assert_eq!(
        (credit.kind, credit.gross, credit.return_id.as_deref()),
        (InvoiceKind::CreditNote, d("16.99"), Some(&*back.return_id))
    );
    let asked = last(&reader, told, &number, |e| match e {
        Event::RefundRequest(e) => Some(e),
        _ => None,
    });
    assert_eq!(asked.expect("told").amount, dollars("16.99"));

    // Tills.
    let told = reader.records.len();
    let bought = odoo.ring_up("SKU-0105", 3, None);
    let back = odoo.ring_up("SKU-0105", -1, Some(&bought["lines"][0]));
    reader.drain();
    let short = |event: &Event| match event {
        Event::OrderEvent(e) => Some(e.r#type.to_string()),
        Event::PaymentEvent(e) => Some(format!("{} {}", e.kind, e.amount.amount)),
        Event::InvoiceEvent(e) => Some(format!("{} {}", e.kind, e.gross)),
        Event::ReturnEvent(e) => Some(format!("{} {}", e.status, e.lines[0].accepted)),
        Event::RefundRequest(e) => Some(format!("asked {}", e.amount.amount)),
        _ => None,
    };
    let new = &reader.records[told..];
    let keys: BTreeSet<&str> = new
        .iter()
        .filter(|r| short(&r.event).is_some())
        .map(|r| &*r.key)
        .collect();
    assert_eq!(keys.len(), 1, "one order");
    let facts: BTreeSet<String> = new.iter().filter_map(|r| short(&r.event)).collect();
    let expected = [
        "PLACED",
        "ACCEPTED",
        "CAPTURED 30",
        "INVOICE 30",
        "INSPECTED 1",
        "CREDIT_NOTE 10",
        "REFUNDED 10",
        "asked 10",
    ];
    assert_eq!(facts, expected.map(str::to_owned).into());
    let order = new
        .iter()
        .find_map(|r| order(&r.event)?.order.as_ref())
        .expect("told");
    assert_eq!(
        *order.channel_order_id,
        *bought["pos_reference"].as_str().expect("a number")
    );
    let sum = |of: &Value| of["amount_total"].as_f64().expect("an amount");
    assert_eq!(order.grand_total.to_f64(), sum(&bought));
    assert_eq!(sum(&back), -10.0);
    let goods = new.iter().filter_map(|r| match &r.event {
        Event::StockChanged(e) => Some((e.reason, e.order_id.clone()?, e.return_id.is_some())),
        _ => None,
    });
    let key = keys.first().copied().expect("a key");
    let expected = [
        (StockReason::Sale, key.into(), false),
        (StockReason::Return, key.into(), true),
    ];
    assert_eq!(
        goods.collect::<Vec<_>>(),
        expected,
        "goods name their order"
    );
    let known: BTreeSet<_> = reader
        .records
        .iter()
        .map(|r| r.event.meta().event_id)
        .collect();
    let before = reader.records.len();
    odoo.close_till();
    reader.drain();
    let again = reader.records[before..].iter();
    let new: Vec<_> = again
        .filter(|r| short(&r.event).is_some() && !known.contains(&r.event.meta().event_id))
        .collect();
    assert!(new.is_empty(), "a receipt never changes: {new:?}");
    agrees(&reader, &odoo);
}

#[test]
fn goods_that_another_system_sent_leave_odoo_once_though_answers_are_lost() {
    let Some(systems) = Systems::find() else {
        return;
    };
    let odoo = Odoo::log_in(&systems);
    odoo.receive("WH", "SKU-0260", 20);
    odoo.receive("WH", "SKU-0261", 10);
    let proxy = Proxy::start(&url("odoo"));
    let mut settings = with_orders(&odoo);
    settings["url"] = proxy.url().into();
    settings["locations"] = json!({"WH": {"ships_elsewhere": true}});
    let mut reader = Reader::of("odoo", settings);
    reader.drain();
    let sink = reader.connector.sink().expect("a sink");
    let told = reader.records.len();
    let sent = |number: &str, id: &str, lines: &[(&str, i32)]| ShipmentEvent {
        meta: elsewhere(),
        order_id: id_of(number).into(),
        shipment_id: id.into(),
        shipment_version: 1,
        node_id: "WH".into(),
        status: ShipmentStatus::Shipped,
        lines: lines
            .iter()
            .map(|(line, units)| ShipmentLine {
                line_id: (*line).into(),
                shipped: Decimal::from(*units),
                ..ShipmentLine::default()
            })
            .collect(),
        packages: vec![Package {
            package_id: id.into(),
            tracking_number: Some(format!("T-{id}").into()),
            ..Package::default()
        }],
        ..ShipmentEvent::default()
    };
    let mut next = numbers();
    for (call, cut) in [
        (0, Cut::Before),
        (0, Cut::After),
        (1, Cut::Before),
        (1, Cut::After),
    ] {
        let number = next();
        taken(&reader, &sink, &placed(&number, "C004"));
        let before = odoo.on_hand("WH");
        let parcels = [
            sent(&number, "P1", &[("a", 1)]),
            sent(&number, "P2", &[("a", 1), ("b", 1)]),
        ];
        for parcel in &parcels {
            proxy.cut(&[vec![Cut::Not; call], vec![cut]].concat());
            taken(&reader, &sink, parcel);
        }
        for parcel in &parcels {
            let again = taken(&reader, &sink, parcel);
            assert_eq!(again.outcome, SinkOutcome::DuplicateAcked, "{call} {cut:?}");
        }
        let after = odoo.on_hand("WH");
        let left = ["SKU-0260", "SKU-0261"].map(|sku| before[sku] - after[sku]);
        assert_eq!(left, [2.0, 1.0], "{call} {cut:?}");
        let ids = odoo.sale(&number)["picking_ids"].clone();
        let fields = ["state", "carrier_tracking_ref"];
        let pickings = odoo.find("stock.picking", json!([["id", "in", ids]]), &fields);
        let pickings: Vec<Value> = pickings
            .into_iter()
            .map(|p| json!(fields.map(|f| p[f].clone())))
            .collect();
        assert_eq!(pickings, [json!(["done", "T-P1"]), json!(["done", "T-P2"])]);
    }
    reader.drain();
    let mut new = reader.records[told..].iter();
    assert!(new.all(|r| shipment(&r.event).is_none()), "not told back");
    agrees(&reader, &odoo);
}
