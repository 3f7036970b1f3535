//! Tables, and the part of Tryton's domains and reads that the connector uses.

use super::super::rows;
use crate::domain::Timestamp;
use serde_json::{Map, Value, json};
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// Why a call is refused.
#[derive(Debug)]
pub(super) enum Refused {
    /// The model has no such method: HTTP 403.
    Method,
    /// An exception: its text and what goes with it.
    Error(String, Value),
}

impl Refused {
    pub fn error(text: &str) -> Self {
        Refused::Error(text.to_owned(), json!(""))
    }
    /// A `KeyError`, whose text is the quoted name.
    fn unknown(name: &str) -> Self {
        Refused::error(&format!("'{name}'"))
    }
}

/// What a field holds.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Field {
    Plain,
    /// Id of a row of this model.
    To(&'static str),
    /// Computed from the context.
    Quantity,
}

use Field::{Plain, Quantity, To};

/// Models and their fields, besides those that every model has.
pub(super) const MODELS: &[(&str, &[(&str, Field)])] = &[
    (
        "stock.move",
        &[
            ("product", To("product.product")),
            ("unit", To("product.uom")),
            ("from_location", To("stock.location")),
            ("to_location", To("stock.location")),
            ("quantity", Plain),
            ("internal_quantity", Plain),
            ("state", Plain),
            ("effective_date", Plain),
            ("planned_date", Plain),
            ("company", To("company.company")),
            ("origin", Plain),
            ("shipment", Plain),
            ("cost_price", Plain),
        ],
    ),
    (
        "stock.location",
        &[
            ("name", Plain),
            ("code", Plain),
            ("type", Plain),
            ("parent", To("stock.location")),
            ("active", Plain),
            ("address", To("party.address")),
            ("storage_location", To("stock.location")),
        ],
    ),
    (
        "stock.inventory",
        &[
            ("number", Plain),
            ("state", Plain),
            ("date", Plain),
            ("location", To("stock.location")),
            ("company", To("company.company")),
            ("empty_quantity", Plain),
            ("lines", Plain),
        ],
    ),
    (
        "stock.inventory.line",
        &[
            ("inventory", To("stock.inventory")),
            ("product", To("product.product")),
            ("quantity", Plain),
            ("expected_quantity", Plain),
        ],
    ),
    (
        "stock.shipment.internal",
        &[
            ("number", Plain),
            ("state", Plain),
            ("from_location", To("stock.location")),
            ("to_location", To("stock.location")),
        ],
    ),
    (
        "stock.order_point",
        &[
            ("product", To("product.product")),
            ("type", Plain),
            ("warehouse_location", To("stock.location")),
            ("storage_location", To("stock.location")),
            ("min_quantity", Plain),
            ("target_quantity", Plain),
        ],
    ),
    (
        "product.product",
        &[
            ("template", To("product.template")),
            ("code", Plain),
            ("active", Plain),
            ("default_uom", To("product.uom")),
            ("account_category", To("product.category")),
            ("list_price_used", Plain),
            ("quantity", Quantity),
        ],
    ),
    (
        "product.template",
        &[
            ("name", Plain),
            ("active", Plain),
            ("type", Plain),
            ("consumable", Plain),
            ("list_price", Plain),
        ],
    ),
    (
        "product.identifier",
        &[
            ("product", To("product.product")),
            ("type", Plain),
            ("code", Plain),
        ],
    ),
    ("product.uom", &[("name", Plain), ("symbol", Plain)]),
    (
        "product.category",
        &[("name", Plain), ("customer_taxes_used", Plain)],
    ),
    (
        "company.company",
        &[("name", Plain), ("currency", To("currency.currency"))],
    ),
    ("currency.currency", &[("code", Plain), ("active", Plain)]),
    (
        "account.tax",
        &[
            ("name", Plain),
            ("rate", Plain),
            ("company", To("company.company")),
        ],
    ),
    (
        "party.party",
        &[
            ("name", Plain),
            ("code", Plain),
            ("active", Plain),
            ("addresses", Plain),
        ],
    ),
    (
        "party.address",
        &[
            ("party", To("party.party")),
            ("street_unstructured", Plain),
            ("postal_code", Plain),
            ("city", Plain),
            ("country", To("country.country")),
        ],
    ),
    (
        "party.contact_mechanism",
        &[
            ("party", To("party.party")),
            ("type", Plain),
            ("value", Plain),
            ("name", Plain),
        ],
    ),
    ("country.country", &[("code", Plain)]),
    (
        "web.shop",
        &[
            ("name", Plain),
            ("company", To("company.company")),
            ("warehouses", Plain),
        ],
    ),
    (
        "sale.sale",
        &[
            ("number", Plain),
            ("reference", Plain),
            ("description", Plain),
            ("comment", Plain),
            ("state", Plain),
            ("company", To("company.company")),
            ("party", To("party.party")),
            ("invoice_address", To("party.address")),
            ("shipment_address", To("party.address")),
            ("warehouse", To("stock.location")),
            ("currency", To("currency.currency")),
            ("web_shop", To("web.shop")),
            ("web_id", Plain),
            ("origin", Plain),
            ("shipment_method", Plain),
            ("shipment_cost_method", Plain),
            ("untaxed_amount", Plain),
            ("tax_amount", Plain),
            ("total_amount", Plain),
            ("lines", Plain),
            ("shipments", Plain),
            ("shipment_returns", Plain),
            ("invoices", Plain),
        ],
    ),
    (
        "sale.line",
        &[
            ("sale", To("sale.sale")),
            ("type", Plain),
            ("sequence", Plain),
            ("product", To("product.product")),
            ("unit", To("product.uom")),
            ("quantity", Plain),
            ("unit_price", Plain),
            ("amount", Plain),
            ("taxes", Plain),
            ("note", Plain),
        ],
    ),
    (
        "stock.shipment.out",
        &[
            ("number", Plain),
            ("reference", Plain),
            ("state", Plain),
            ("company", To("company.company")),
            ("warehouse", To("stock.location")),
            ("customer", To("party.party")),
        ],
    ),
    (
        "stock.shipment.out.return",
        &[
            ("number", Plain),
            ("reference", Plain),
            ("state", Plain),
            ("company", To("company.company")),
            ("warehouse", To("stock.location")),
            ("customer", To("party.party")),
        ],
    ),
    ("account.journal", &[("code", Plain)]),
    ("account.account", &[("code", Plain)]),
    (
        "account.move",
        &[
            ("company", To("company.company")),
            ("state", Plain),
            ("journal", To("account.journal")),
            ("date", Plain),
            ("description", Plain),
            ("lines", Plain),
        ],
    ),
    (
        "account.invoice",
        &[
            ("number", Plain),
            ("state", Plain),
            ("type", Plain),
            ("company", To("company.company")),
            ("party", To("party.party")),
            ("currency", To("currency.currency")),
            ("invoice_date", Plain),
            ("accounting_date", Plain),
            ("untaxed_amount", Plain),
            ("tax_amount", Plain),
            ("total_amount", Plain),
        ],
    ),
    (
        "account.invoice.line",
        &[
            ("invoice", To("account.invoice")),
            ("type", Plain),
            ("origin", Plain),
            ("quantity", Plain),
            ("amount", Plain),
            ("taxes", Plain),
        ],
    ),
];

/// A row as it is kept.
#[derive(Clone, Debug, Default)]
pub(super) struct Stored {
    pub created_at: Timestamp,
    pub written_at: Option<Timestamp>,
    pub values: Map<String, Value>,
}

/// All tables.
#[derive(Clone, Default)]
pub(super) struct Store {
    pub tables: BTreeMap<&'static str, BTreeMap<i64, Stored>>,
}

/// What a search asks for.
pub(super) struct Query<'a> {
    pub model: &'a str,
    pub domain: &'a Value,
    pub order: &'a Value,
    pub offset: usize,
    pub limit: usize,
    /// Whether archived rows are found too.
    pub archived: bool,
}

impl Store {
    pub fn fields(&self, model: &str) -> Result<&'static [(&'static str, Field)], Refused> {
        let found = MODELS.iter().find(|(name, _)| *name == model);
        found
            .map(|(_, fields)| *fields)
            .ok_or_else(|| Refused::unknown(model))
    }

    pub fn get(&self, model: &str, id: i64) -> Option<&Stored> {
        self.tables.get(model)?.get(&id)
    }

    pub fn field(&self, model: &str, name: &str) -> Result<Field, Refused> {
        let of_every_model = [
            "id",
            "create_date",
            "write_date",
            "last_modified_at",
            "_timestamp",
        ];
        if of_every_model.contains(&name) {
            return Ok(Plain);
        }
        let found = self.fields(model)?.iter().find(|(field, _)| *field == name);
        found
            .map(|(_, field)| *field)
            .ok_or_else(|| Refused::unknown(name))
    }

    fn value(&self, id: i64, row: &Stored, name: &str) -> Value {
        let at = |stamp: Timestamp| rows::stamp_value(stamp);
        match name {
            "id" => json!(id),
            "create_date" => at(row.created_at),
            "write_date" => row.written_at.map_or(Value::Null, at),
            "last_modified_at" => at(row.written_at.unwrap_or(row.created_at)),
            "_timestamp" => json!(row.timestamp()),
            _ => row.values.get(name).cloned().unwrap_or(Value::Null),
        }
    }

    /// Ids of the rows that match.
    pub fn search(&self, query: &Query<'_>) -> Result<Vec<i64>, Refused> {
        let fields = self.fields(query.model)?;
        let none = BTreeMap::new();
        let table = self.tables.get(query.model).unwrap_or(&none);
        let has_active = fields.iter().any(|(name, _)| *name == "active");
        let only_active =
            has_active && !query.archived && !query.domain.to_string().contains("\"active\"");
        self.check_domain(query.model, query.domain)?;
        let matching = table.iter().filter(|(id, row)| {
            let hidden = only_active && row.values.get("active") == Some(&json!(false));
            !hidden && self.matches(**id, row, query.domain)
        });
        let mut found: Vec<(i64, &Stored)> = matching.map(|(id, row)| (*id, row)).collect();
        for by in query.order.as_array().into_iter().flatten().rev() {
            let name = by[0].as_str().unwrap_or_default();
            self.field(query.model, name)?;
            found.sort_by(|a, b| {
                let order = match (a.1.stamp(name), b.1.stamp(name)) {
                    (Some(a), Some(b)) => a.cmp(&b),
                    _ => compare(&self.value(a.0, a.1, name), &self.value(b.0, b.1, name))
                        .unwrap_or(Ordering::Equal),
                };
                if by[1] == "DESC" {
                    order.reverse()
                } else {
                    order
                }
            });
        }
        let ids = found.into_iter().map(|(id, _)| id);
        Ok(ids.skip(query.offset).take(query.limit).collect())
    }

    /// All fields and operators of a domain, whether or not a row needs them.
    fn check_domain(&self, model: &str, domain: &Value) -> Result<(), Refused> {
        let parts = domain
            .as_array()
            .ok_or_else(|| Refused::error("invalid domain"))?;
        let Some((name, operator, _)) = clause(parts) else {
            let parts = parts.iter().filter(|p| !p.is_string());
            return parts
                .into_iter()
                .try_for_each(|p| self.check_domain(model, p));
        };
        if self.field(model, name)? == Quantity {
            return Err(Refused::error("quantity cannot be searched for"));
        }
        match ["=", "!=", ">", ">=", "<", "<=", "in", "not in", "like"].contains(&operator) {
            true => Ok(()),
            false => Err(Refused::unknown(operator)),
        }
    }

    fn matches(&self, id: i64, row: &Stored, domain: &Value) -> bool {
        let parts = domain.as_array().map_or(&[][..], Vec::as_slice);
        if let Some((name, operator, operand)) = clause(parts) {
            return self.holds(id, row, name, operator, operand);
        }
        let mut inner = parts.iter().filter(|p| !p.is_string());
        match parts.first().is_some_and(|p| p == "OR") {
            true => inner.any(|p| self.matches(id, row, p)),
            false => inner.all(|p| self.matches(id, row, p)),
        }
    }

    fn holds(&self, id: i64, row: &Stored, name: &str, operator: &str, operand: &Value) -> bool {
        let order = match row.stamp(name) {
            Some(stamp) => rows::stamp(operand).map(|o| stamp.cmp(&o)),
            None => compare(&self.value(id, row, name), operand),
        };
        let among = || {
            let value = self.value(id, row, name);
            let list = operand.as_array().map_or(&[][..], Vec::as_slice);
            list.iter()
                .any(|v| compare(&value, v) == Some(Ordering::Equal))
        };
        match operator {
            "=" => order == Some(Ordering::Equal),
            "!=" => order != Some(Ordering::Equal),
            ">" => order == Some(Ordering::Greater),
            ">=" => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
            "<" => order == Some(Ordering::Less),
            "<=" => matches!(order, Some(Ordering::Less | Ordering::Equal)),
            "in" => among(),
            // Only what begins with a text.
            "like" => {
                let value = self.value(id, row, name);
                let begins = operand.as_str().unwrap_or_default().trim_end_matches('%');
                value.as_str().is_some_and(|v| v.starts_with(begins))
            }
            _ => !among(),
        }
    }

    /// Fields of rows. A related row's field, `product.code`, comes in an object `product.`.
    pub fn read(
        &self,
        model: &str,
        ids: &[i64],
        fields: &Value,
        context: &Value,
    ) -> Result<Value, Refused> {
        let names: Vec<&str> = fields
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        for name in &names {
            self.check_path(model, name)?;
        }
        let mut found = Vec::new();
        for id in ids {
            let Some(row) = self.get(model, *id) else {
                continue;
            };
            found.push(self.show(model, *id, row, &names, context)?);
        }
        Ok(Value::Array(found))
    }

    fn show(
        &self,
        model: &str,
        id: i64,
        row: &Stored,
        names: &[&str],
        context: &Value,
    ) -> Result<Value, Refused> {
        let mut shown = Map::new();
        shown.insert("id".into(), json!(id));
        let mut related: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for name in names {
            match name.split_once('.') {
                Some((head, rest)) => related.entry(head).or_default().push(rest),
                None if self.field(model, name)? == Quantity => {
                    shown.insert((*name).into(), json!(self.quantity(id, context)));
                }
                None => {
                    shown.insert((*name).into(), self.value(id, row, name));
                }
            }
        }
        for (head, rest) in related {
            let Field::To(target) = self.field(model, head)? else {
                return Err(Refused::unknown(head));
            };
            let other = row.values.get(head).and_then(Value::as_i64);
            let other = other.and_then(|id| Some((id, self.get(target, id)?)));
            let value = match other {
                Some((id, row)) => self.show(target, id, row, &rest, context)?,
                None => Value::Null,
            };
            shown.insert(format!("{head}."), value);
        }
        Ok(Value::Object(shown))
    }

    fn check_path(&self, model: &str, path: &str) -> Result<(), Refused> {
        match path.split_once('.') {
            None => self.field(model, path).map(|_| ()),
            Some((head, rest)) => match self.field(model, head)? {
                Field::To(target) => self.check_path(target, rest),
                _ => Err(Refused::unknown(head)),
            },
        }
    }

    /// What lies of a product in the locations of the context: done moves in less done moves out.
    fn quantity(&self, product: i64, context: &Value) -> f64 {
        let wanted = context["locations"]
            .as_array()
            .map_or(&[][..], Vec::as_slice);
        let inside =
            |row: &Stored, field: &str| row.values.get(field).is_some_and(|l| wanted.contains(l));
        let moves = self
            .tables
            .get("stock.move")
            .into_iter()
            .flat_map(BTreeMap::values);
        moves
            .filter(|row| row.values["state"] == "done" && row.values["product"] == product)
            .map(|row| {
                let quantity = row.values["internal_quantity"].as_f64().unwrap_or_default();
                let sign =
                    i32::from(inside(row, "to_location")) - i32::from(inside(row, "from_location"));
                quantity * f64::from(sign)
            })
            .sum()
    }
}

impl Stored {
    /// What a caller shows to have seen the row as it is.
    pub fn timestamp(&self) -> String {
        let at = self.written_at.unwrap_or(self.created_at);
        format!("{}.{:06}", at.0 / 1_000_000, at.0 % 1_000_000)
    }

    fn stamp(&self, name: &str) -> Option<Timestamp> {
        match name {
            "create_date" => Some(self.created_at),
            "last_modified_at" => Some(self.written_at.unwrap_or(self.created_at)),
            _ => None,
        }
    }
}

/// Field, operator and operand, where it is one clause.
fn clause(parts: &[Value]) -> Option<(&str, &str, &Value)> {
    match parts {
        [name, operator, operand] if name != "OR" => {
            Some((name.as_str()?, operator.as_str()?, operand))
        }
        _ => None,
    }
}

/// How two values stand to each other; `None` when one is null or they are of different kinds.
fn compare(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Null, Value::Null) => Some(Ordering::Equal),
        (Value::Number(a), Value::Number(b)) => a.as_f64()?.partial_cmp(&b.as_f64()?),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        (Value::Object(_), Value::Object(_)) => Some(rows::stamp(a)?.cmp(&rows::stamp(b)?)),
        _ => None,
    }
}
