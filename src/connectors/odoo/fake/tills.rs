//! Tills: receipts with their lines, what they were paid with, and the goods that went over the counter.

use super::super::rows;
use super::acts::{CUSTOMER, Goods, PICKING, Shop};
use super::sales::cents;
use crate::connectors::erp::Transaction;
use serde_json::{Value, json};

const RECEIPT: &str = "pos.order";
const LINE: &str = "pos.order.line";

/// A line to be.
struct Rung {
    product: i64,
    /// Less than nothing comes back.
    quantity: f64,
    net: f64,
    gross: f64,
    price: f64,
    gives_back: Option<i64>,
}

impl Shop {
    /// A receipt; see the stand-in's documentation. Answers its id.
    pub fn ring_up(&mut self, t: &mut Transaction, action: &Value) -> Result<Value, String> {
        let location = action["location"].as_str().unwrap_or("Store");
        let w = self.warehouses.get(location).copied();
        let w = w.ok_or_else(|| format!("{location:?} is no warehouse"))?;
        let mut rung = Vec::new();
        for (sku, quantity) in action["ring_up"].as_object().into_iter().flatten() {
            rung.push(self.rung(t, sku, quantity.as_f64().unwrap_or_default())?);
        }
        let of = action["of"].as_i64();
        for (sku, quantity) in action["back"].as_object().into_iter().flatten() {
            let quantity = -quantity.as_f64().unwrap_or_default();
            let mut line = self.rung(t, sku, quantity)?;
            let mut sold = t.rows(LINE).filter(|(_, l)| {
                Some(l.id("order_id")) == of && l.id("product_id") == line.product
            });
            line.gives_back = sold.next().map(|(id, _)| id);
            drop(sold);
            rung.push(line);
        }
        let total = cents(rung.iter().map(|l| l.gross).sum());
        let number = self.books.next_id("number of a receipt");
        let now = rows::stamp_text(t.started_at.0);
        let kind = t
            .rows("pos.config")
            .find(|(_, c)| c.text("name") == location);
        let config = kind.map(|(id, _)| id).ok_or("there is no till")?;
        let receipt = self.books.create(t, RECEIPT, json!({
            "name": format!("{location} - {number:06}"), "pos_reference": format!("260-{config}-{number:06}"),
            "uuid": format!("receipt-{number}"), "state": "paid", "config_id": config, "picking_type_id": w.deliveries,
            "currency_id": 1, "date_order": now, "company_id": 1,
        }));
        for (n, line) in rung.iter().enumerate() {
            self.books.create(t, LINE, json!({
                "order_id": receipt, "uuid": format!("line-{number}-{n}"), "product_id": line.product, "qty": line.quantity,
                "price_unit": line.price, "price_subtotal": line.net, "price_subtotal_incl": line.gross,
                "refunded_orderline_id": line.gives_back,
            }));
        }
        let cash = json!({"Cash": total});
        let paid = if action["paid"].is_object() {
            &action["paid"]
        } else {
            &cash
        };
        for (method, amount) in paid.as_object().into_iter().flatten() {
            let known = t
                .rows("pos.payment.method")
                .find(|(_, m)| m.text("name") == method);
            let known = known
                .map(|(id, _)| id)
                .ok_or_else(|| format!("no method {method}"))?;
            self.books.create(t, "pos.payment", json!({
                "pos_order_id": receipt, "uuid": format!("payment-{number}-{method}"), "amount": amount,
                "payment_method_id": known,
            }));
        }
        // What goes and what comes are two pickings.
        for comes in [false, true] {
            let goods: Vec<&Rung> = rung
                .iter()
                .filter(|l| (l.quantity < 0.0) == comes)
                .collect();
            if goods.is_empty() {
                continue;
            }
            let picking = self.picking(t, w.deliveries, "done");
            let (from, to) = if comes {
                (CUSTOMER, w.stock)
            } else {
                (w.stock, CUSTOMER)
            };
            let values = json!({"pos_session_id": 1, "pos_order_id": receipt, "location_id": from});
            t.write(PICKING, picking, values)?;
            for line in goods {
                self.moved(
                    t,
                    Goods {
                        product: line.product,
                        from,
                        to,
                        quantity: line.quantity.abs(),
                        done: true,
                        picking: Some(picking),
                        more: json!({}),
                    },
                );
            }
        }
        Ok(json!([receipt]))
    }

    fn rung(&self, t: &Transaction, sku: &str, quantity: f64) -> Result<Rung, String> {
        let mut products = t
            .rows("product.product")
            .filter(|(_, p)| p.text("default_code") == sku);
        let (product, row) = products.next().ok_or_else(|| format!("no SKU {sku}"))?;
        let price = row.number("lst_price");
        let net = cents(price * quantity);
        Ok(Rung {
            product,
            quantity,
            net,
            gross: cents(net * 1.2),
            price,
            gives_back: None,
        })
    }
}
