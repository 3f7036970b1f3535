//! Odoo's models, and the part of its domains and reads that the connector uses.

use super::super::rows;
use crate::connectors::erp::{Stored, Tables};
use crate::domain::Timestamp;
use serde_json::{Map, Value, json};
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// Why a call is refused: status, name of the exception, message.
#[derive(Debug)]
pub(super) struct Refused(pub u16, pub &'static str, pub String);

impl Refused {
    /// What is not allowed.
    pub fn user(message: impl Into<String>) -> Self {
        Refused(422, "odoo.exceptions.UserError", message.into())
    }
    /// A name that does not exist is a failure of the server.
    pub fn field(model: &str, name: &str) -> Self {
        let message = format!("Invalid field {name:?} on {model:?}");
        Refused(500, "builtins.ValueError", message)
    }
    /// A row that is not there.
    pub fn missing(model: &str, id: i64) -> Self {
        let message =
            format!("Record does not exist or has been deleted. (Record: {model}({id},))");
        Refused(404, "odoo.exceptions.MissingError", message)
    }
    pub fn not_found(message: String) -> Self {
        Refused(404, "werkzeug.exceptions.NotFound", message)
    }
}

/// What a field holds.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Field {
    Plain,
    /// Id of a row of this model.
    To(&'static str),
    /// Ids of rows.
    Many,
}

use Field::{Many, Plain, To};

/// Models and their fields, besides those that every model has.
pub(super) const MODELS: &[(&str, &[(&str, Field)])] = &[
    (
        "stock.move.line",
        &[
            ("product_id", To("product.product")),
            ("quantity", Plain),
            ("quantity_product_uom", Plain),
            ("location_id", To("stock.location")),
            ("location_dest_id", To("stock.location")),
            ("state", Plain),
            ("picked", Plain),
            ("date", Plain),
            ("picking_id", To("stock.picking")),
            ("move_id", To("stock.move")),
            ("result_package_id", To("stock.package")),
            ("company_id", To("res.company")),
        ],
    ),
    (
        "stock.move",
        &[
            ("product_id", To("product.product")),
            ("product_uom", To("uom.uom")),
            ("product_uom_qty", Plain),
            ("product_qty", Plain),
            ("quantity", Plain),
            ("picked", Plain),
            ("state", Plain),
            ("is_inventory", Plain),
            ("location_id", To("stock.location")),
            ("location_dest_id", To("stock.location")),
            ("location_final_id", To("stock.location")),
            ("move_orig_ids", Many),
            ("move_line_ids", Many),
            ("picking_id", To("stock.picking")),
            ("picking_code", Plain),
            ("location_usage", Plain),
            ("origin", Plain),
            ("sale_line_id", To("sale.order.line")),
            ("to_refund", Plain),
            ("company_id", To("res.company")),
        ],
    ),
    (
        "stock.location",
        &[
            ("name", Plain),
            ("complete_name", Plain),
            ("usage", Plain),
            ("active", Plain),
            ("location_id", To("stock.location")),
        ],
    ),
    (
        "stock.warehouse",
        &[
            ("name", Plain),
            ("code", Plain),
            ("active", Plain),
            ("view_location_id", To("stock.location")),
            ("lot_stock_id", To("stock.location")),
            ("out_type_id", To("stock.picking.type")),
            ("in_type_id", To("stock.picking.type")),
            ("partner_id", To("res.partner")),
            ("company_id", To("res.company")),
        ],
    ),
    (
        "stock.quant",
        &[
            ("product_id", To("product.product")),
            ("location_id", To("stock.location")),
            ("quantity", Plain),
            ("inventory_quantity_auto_apply", Plain),
        ],
    ),
    (
        "stock.picking",
        &[
            ("name", Plain),
            ("state", Plain),
            ("origin", Plain),
            ("picking_type_code", Plain),
            ("picking_type_id", To("stock.picking.type")),
            ("location_id", To("stock.location")),
            ("location_dest_id", To("stock.location")),
            ("partner_id", To("res.partner")),
            ("carrier_tracking_ref", Plain),
            ("pos_session_id", To("pos.session")),
            ("pos_order_id", To("pos.order")),
            ("company_id", To("res.company")),
        ],
    ),
    (
        "stock.warehouse.orderpoint",
        &[
            ("product_id", To("product.product")),
            ("location_id", To("stock.location")),
            ("product_min_qty", Plain),
            ("active", Plain),
            ("company_id", To("res.company")),
        ],
    ),
    ("pos.session", &[("name", Plain)]),
    ("pos.config", &[("name", Plain)]),
    ("pos.payment.method", &[("name", Plain), ("type", Plain)]),
    (
        "pos.order",
        &[
            ("name", Plain),
            ("pos_reference", Plain),
            ("uuid", Plain),
            ("state", Plain),
            ("config_id", To("pos.config")),
            ("picking_type_id", To("stock.picking.type")),
            ("partner_id", To("res.partner")),
            ("currency_id", To("res.currency")),
            ("date_order", Plain),
            ("shipping_date", Plain),
            ("company_id", To("res.company")),
        ],
    ),
    (
        "pos.order.line",
        &[
            ("order_id", To("pos.order")),
            ("uuid", Plain),
            ("product_id", To("product.product")),
            ("qty", Plain),
            ("price_unit", Plain),
            ("price_subtotal", Plain),
            ("price_subtotal_incl", Plain),
            ("refunded_orderline_id", To("pos.order.line")),
        ],
    ),
    (
        "pos.payment",
        &[
            ("pos_order_id", To("pos.order")),
            ("uuid", Plain),
            ("amount", Plain),
            ("payment_method_id", To("pos.payment.method")),
            ("transaction_id", Plain),
        ],
    ),
    ("decimal.precision", &[("name", Plain), ("digits", Plain)]),
    (
        "product.pricelist",
        &[
            ("name", Plain),
            ("active", Plain),
            ("currency_id", To("res.currency")),
            ("currency_id.name", Plain),
            ("company_id", To("res.company")),
        ],
    ),
    (
        "sale.order",
        &[
            ("name", Plain),
            ("state", Plain),
            ("origin", Plain),
            ("client_order_ref", Plain),
            ("partner_id", To("res.partner")),
            ("warehouse_id", To("stock.warehouse")),
            ("pricelist_id", To("product.pricelist")),
            ("currency_id", To("res.currency")),
            ("company_id", To("res.company")),
            ("amount_untaxed", Plain),
            ("amount_tax", Plain),
            ("amount_total", Plain),
            ("picking_ids", Many),
            ("invoice_ids", Many),
        ],
    ),
    (
        "sale.order.line",
        &[
            ("order_id", To("sale.order")),
            ("name", Plain),
            ("product_id", To("product.product")),
            ("product_uom_qty", Plain),
            ("product_uom_id", To("uom.uom")),
            ("price_unit", Plain),
            ("discount", Plain),
            ("tax_ids", Many),
            ("qty_invoiced", Plain),
            ("qty_delivered", Plain),
        ],
    ),
    (
        "account.move",
        &[
            ("name", Plain),
            ("state", Plain),
            ("move_type", Plain),
            ("payment_state", Plain),
            ("posted_before", Plain),
            ("journal_id", To("account.journal")),
            ("partner_id", To("res.partner")),
            ("currency_id", To("res.currency")),
            ("amount_untaxed", Plain),
            ("amount_tax", Plain),
            ("amount_total", Plain),
            ("invoice_date", Plain),
            ("invoice_origin", Plain),
            ("date", Plain),
            ("ref", Plain),
            ("reversed_entry_id", To("account.move")),
            ("company_id", To("res.company")),
        ],
    ),
    (
        "account.move.line",
        &[
            ("move_id", To("account.move")),
            ("parent_state", Plain),
            ("display_type", Plain),
            ("account_id", To("account.account")),
            ("account_id.account_type", Plain),
            ("partner_id", To("res.partner")),
            ("name", Plain),
            ("product_id", To("product.product")),
            ("quantity", Plain),
            ("price_unit", Plain),
            ("discount", Plain),
            ("price_subtotal", Plain),
            ("price_total", Plain),
            ("tax_ids", Many),
            ("sale_line_ids", Many),
            ("debit", Plain),
            ("credit", Plain),
            ("amount_residual", Plain),
            ("reconciled", Plain),
        ],
    ),
    (
        "account.journal",
        &[
            ("name", Plain),
            ("code", Plain),
            ("company_id", To("res.company")),
        ],
    ),
    (
        "account.account",
        &[
            ("name", Plain),
            ("code", Plain),
            ("account_type", Plain),
            ("company_ids", Many),
        ],
    ),
    (
        "stock.picking.type",
        &[
            ("name", Plain),
            ("code", Plain),
            ("warehouse_id", To("stock.warehouse")),
            ("default_location_src_id", To("stock.location")),
        ],
    ),
    ("stock.package", &[("name", Plain)]),
    (
        "product.product",
        &[
            ("default_code", Plain),
            ("name", Plain),
            ("active", Plain),
            ("type", Plain),
            ("is_storable", Plain),
            ("uom_id", To("uom.uom")),
            ("barcode", Plain),
            ("lst_price", Plain),
            ("taxes_id", Many),
            ("product_tmpl_id", To("product.template")),
        ],
    ),
    (
        "product.template",
        &[("name", Plain), ("active", Plain), ("list_price", Plain)],
    ),
    ("uom.uom", &[("name", Plain)]),
    (
        "res.company",
        &[("name", Plain), ("currency_id", To("res.currency"))],
    ),
    ("res.currency", &[("name", Plain), ("active", Plain)]),
    (
        "res.users",
        &[("name", Plain), ("company_id", To("res.company"))],
    ),
    (
        "res.partner",
        &[
            ("name", Plain),
            ("ref", Plain),
            ("active", Plain),
            ("country_code", Plain),
            ("email", Plain),
            ("phone", Plain),
            ("street", Plain),
            ("street2", Plain),
            ("zip", Plain),
            ("city", Plain),
            ("state_id", To("res.country.state")),
            ("country_id", To("res.country")),
        ],
    ),
    ("res.country", &[("name", Plain), ("code", Plain)]),
    (
        "res.country.state",
        &[
            ("name", Plain),
            ("code", Plain),
            ("country_id", To("res.country")),
        ],
    ),
    (
        "account.tax",
        &[
            ("name", Plain),
            ("active", Plain),
            ("amount", Plain),
            ("type_tax_use", Plain),
            ("price_include", Plain),
            ("company_id", To("res.company")),
        ],
    ),
];

/// The name of a model as the tables have it.
pub(super) fn model(name: &str) -> Result<&'static str, Refused> {
    let found = MODELS.iter().find(|(model, _)| *model == name);
    found
        .map(|(model, _)| *model)
        .ok_or_else(|| Refused::not_found(format!("the model {name:?} does not exist")))
}

pub(super) fn field(model: &str, name: &str) -> Result<Field, Refused> {
    if matches!(name, "id" | "create_date" | "write_date" | "display_name") {
        return Ok(Plain);
    }
    let fields = MODELS.iter().find(|(m, _)| *m == model);
    let fields = fields.map_or(&[][..], |(_, fields)| fields);
    let found = fields.iter().find(|(n, _)| *n == name);
    found
        .map(|(_, field)| *field)
        .ok_or_else(|| Refused::field(model, name))
}

/// What a search asks for.
pub(super) struct Query<'a> {
    pub model: &'static str,
    pub domain: &'a Value,
    pub order: &'a str,
    pub limit: usize,
    pub archived: bool,
}

/// Ids of the rows that match, in order.
pub(super) fn search(tables: &Tables, query: &Query<'_>) -> Result<Vec<i64>, Refused> {
    let none = BTreeMap::new();
    let table = tables.get(query.model).unwrap_or(&none);
    let mut found = Vec::new();
    for (id, row) in table {
        let active = row.values.get("active") != Some(&json!(false));
        if (active || query.archived) && matches(query.model, *id, row, query.domain)? {
            found.push(*id);
        }
    }
    // The last word of an order counts least.
    for part in query
        .order
        .split(',')
        .rev()
        .filter(|p| !p.trim().is_empty())
    {
        let mut words = part.split_whitespace();
        let name = words.next().unwrap_or_default();
        field(query.model, name)?;
        let descending = words.next() == Some("desc");
        found.sort_by(|a, b| {
            let (a, b) = (key(table, *a, name), key(table, *b, name));
            let order = a.partial_cmp(&b).unwrap_or(Ordering::Equal);
            if descending { order.reverse() } else { order }
        });
    }
    found.truncate(query.limit);
    Ok(found)
}

/// Rows sort by microseconds, although nothing shows them.
fn key(table: &BTreeMap<i64, Stored>, id: i64, name: &str) -> f64 {
    let Some(row) = table.get(&id) else {
        return 0.0;
    };
    match name {
        "id" => id as f64,
        "write_date" => row.written_at.0 as f64,
        "create_date" => row.created_at.0 as f64,
        _ => row.number(name),
    }
}

/// A domain in Odoo's prefix notation; clauses without an operator between them all hold.
fn matches(model: &str, id: i64, row: &Stored, domain: &Value) -> Result<bool, Refused> {
    let parts = domain.as_array().map_or(&[][..], Vec::as_slice);
    let mut stack: Vec<bool> = Vec::new();
    for part in parts.iter().rev() {
        match part.as_str() {
            Some(operator) => {
                let (a, b) = (stack.pop(), stack.pop());
                let (Some(a), Some(b)) = (a, b) else {
                    let message = format!("Domain {domain} is not well-formed");
                    return Err(Refused(500, "builtins.ValueError", message));
                };
                stack.push(if operator == "|" { a || b } else { a && b });
            }
            None => stack.push(holds(model, id, row, part)?),
        }
    }
    Ok(stack.into_iter().all(|holds| holds))
}

fn holds(model: &str, id: i64, row: &Stored, clause: &Value) -> Result<bool, Refused> {
    let (name, operator) = (
        clause[0].as_str().unwrap_or_default(),
        clause[1].as_str().unwrap_or_default(),
    );
    let operand = &clause[2];
    field(model, name)?;
    let value = raw(id, row, name);
    let order = compare(&value, operand);
    let among = || {
        let list = operand.as_array().map_or(&[][..], Vec::as_slice);
        let own = match &value {
            Value::Array(own) => own.clone(),
            other => vec![other.clone()],
        };
        own.iter().any(|own| {
            list.iter()
                .any(|v| compare(own, v) == Some(Ordering::Equal))
        })
    };
    Ok(match operator {
        "=" => order == Some(Ordering::Equal),
        "!=" => order != Some(Ordering::Equal),
        ">" => order == Some(Ordering::Greater),
        ">=" => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
        "<" => order == Some(Ordering::Less),
        "<=" => matches!(order, Some(Ordering::Less | Ordering::Equal)),
        "in" => among(),
        "not in" => !among(),
        // Only what begins with a text.
        "=like" => {
            let begins = operand.as_str().unwrap_or_default().trim_end_matches('%');
            value.as_str().is_some_and(|v| v.starts_with(begins))
        }
        other => {
            let message = format!("Invalid operator {other:?}");
            return Err(Refused(500, "builtins.ValueError", message));
        }
    })
}

/// A value as it is compared: times in whole seconds.
fn raw(id: i64, row: &Stored, name: &str) -> Value {
    match name {
        "id" => json!(id),
        "write_date" => json!(rows::stamp_text(row.written_at.0)),
        "create_date" => json!(rows::stamp_text(row.created_at.0)),
        _ => match row.values.get(name) {
            None | Some(Value::Null) => json!(false),
            Some(value) => value.clone(),
        },
    }
}

/// How two values stand to each other; `None` when they are of different kinds.
fn compare(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64()?.partial_cmp(&b.as_f64()?),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        _ => None,
    }
}

/// Fields of rows; those that are not there are left out.
pub(super) fn read(
    tables: &Tables,
    model: &'static str,
    ids: &[i64],
    names: &Value,
) -> Result<Value, Refused> {
    let names: Vec<&str> = names
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    for name in &names {
        field(model, name)?;
    }
    let mut found = Vec::new();
    for id in ids {
        let Some(row) = tables.get(model).and_then(|t| t.get(id)) else {
            continue;
        };
        let mut shown = Map::new();
        shown.insert("id".into(), json!(id));
        for name in &names {
            let value = raw(*id, row, name);
            let value = match (field(model, name)?, &value) {
                (Field::To(target), Value::Number(to)) => {
                    let to = to.as_i64().unwrap_or_default();
                    json!([to, display(tables, target, to)])
                }
                (Field::Many, Value::Bool(_)) => json!([]),
                _ => value,
            };
            shown.insert((*name).to_owned(), value);
        }
        found.push(Value::Object(shown));
    }
    Ok(Value::Array(found))
}

fn display(tables: &Tables, model: &str, id: i64) -> String {
    let row = tables.get(model).and_then(|t| t.get(&id));
    let names = ["complete_name", "name", "default_code"];
    let name = row.and_then(|row| names.iter().map(|n| row.text(n)).find(|n| !n.is_empty()));
    name.unwrap_or_default().to_owned()
}

/// What lies where: what done lines brought less what they took. Odoo keeps them as rows of their own.
pub(super) fn quants(tables: &Tables) -> BTreeMap<i64, Stored> {
    let mut sums: BTreeMap<(i64, i64), f64> = BTreeMap::new();
    for row in tables
        .get("stock.move.line")
        .into_iter()
        .flat_map(BTreeMap::values)
    {
        if row.text("state") == "done" {
            let quantity = row.number("quantity_product_uom");
            for (field, sign) in [("location_id", -1.0), ("location_dest_id", 1.0)] {
                *sums
                    .entry((row.id("product_id"), row.id(field)))
                    .or_default() += sign * quantity;
            }
        }
    }
    let stored = |((product, location), quantity): ((i64, i64), f64)| {
        let values = json!({"product_id": product, "location_id": location, "quantity": quantity});
        Stored {
            created_at: Timestamp(0),
            written_at: Timestamp(0),
            values: values.as_object().cloned().unwrap_or_default(),
        }
    };
    (1..).zip(sums.into_iter().map(stored)).collect()
}
