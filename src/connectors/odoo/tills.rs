//! Receipts of tills, as Odoo keeps them; `receipts` says what facts they are.

use super::client::Client;
use super::documents::Page;
use super::receipts::{Back, Item, Paid, Receipt};
use super::rows;
use super::settings::TillSettings;
use super::tree::Places;
use crate::connectors::erp::{OfOrder, Place, Row, Told, bad, return_name};
use crate::contract::event::Text;
use crate::domain::money::Currency;
use crate::domain::{Decimal, compound_key, order_id};
use crate::pipeline::{Code, Fault, SourceRecord};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// One deployment serves one tenant.
const TENANT: &str = "default";
pub(super) const RECEIPT: &str = "pos.order";
const LINE: &str = "pos.order.line";
const PAYMENT: &str = "pos.payment";
pub(super) const RECEIPT_FIELDS: &[&str] = &[
    "name",
    "pos_reference",
    "uuid",
    "state",
    "config_id",
    "picking_type_id",
    "partner_id",
    "currency_id",
    "date_order",
    "shipping_date",
    "company_id",
    "write_date",
];
const LINE_FIELDS: &[&str] = &[
    "order_id",
    "uuid",
    "product_id",
    "qty",
    "price_unit",
    "price_subtotal",
    "price_subtotal_incl",
    "refunded_orderline_id",
];
const PAYMENT_FIELDS: &[&str] = &[
    "pos_order_id",
    "uuid",
    "amount",
    "payment_method_id",
    "transaction_id",
];

/// The till that a receipt is of, where it is told.
fn till<'s>(client: &'s Client, receipt: &Row) -> Option<&'s TillSettings> {
    let name = rows::link_name(receipt, "config_id")?;
    client.settings.tills.get(name)
}

/// What stands on a receipt.
fn number(receipt: &Row) -> Option<&str> {
    let fields = ["pos_reference", "uuid", "name"];
    fields.iter().find_map(|field| rows::text(receipt, field))
}

/// The order that a receipt is.
fn order_of(client: &Client, receipt: &Row) -> Option<Text> {
    let id = order_id(TENANT, &till(client, receipt)?.channel, number(receipt)?);
    Some(compact_str::format_compact!("{id}"))
}

/// The till's name of a line.
fn line_name(line: &Row) -> Text {
    let uuid = rows::text(line, "uuid").map(Text::from);
    uuid.unwrap_or_else(|| compact_str::format_compact!("{}", rows::id(line)))
}

/// What receipts need besides their rows.
struct Around {
    /// Lines by receipt.
    lines: HashMap<i64, Vec<Row>>,
    /// Lines that come back, by id.
    given_back: HashMap<i64, Row>,
    /// The receipts that they were sold by.
    receipts: HashMap<i64, Row>,
    payments: HashMap<i64, Vec<Row>>,
    /// Payment methods that are only promises.
    on_account: BTreeSet<i64>,
    skus: HashMap<i64, String>,
    /// What customers are called, by partner.
    customers: HashMap<i64, String>,
    /// Locations by type of picking.
    locations: HashMap<i64, Text>,
}

fn by(found: Vec<Row>, field: &str) -> HashMap<i64, Vec<Row>> {
    let mut all: HashMap<i64, Vec<Row>> = HashMap::new();
    for row in found {
        let of = rows::link(&row, field).unwrap_or_default();
        all.entry(of).or_default().push(row);
    }
    all
}

fn by_id(found: Vec<Row>) -> HashMap<i64, Row> {
    found.into_iter().map(|row| (rows::id(&row), row)).collect()
}

fn links<'r>(found: impl IntoIterator<Item = &'r Row>, field: &str) -> BTreeSet<i64> {
    let links = found.into_iter().filter_map(|row| rows::link(row, field));
    links.collect()
}

impl Around {
    async fn of(client: &Client, receipts: &[&Row]) -> Result<Around, Fault> {
        let ids: BTreeSet<i64> = receipts.iter().map(|row| rows::id(row)).collect();
        let lines = client
            .all(LINE, "order_id", json!(ids), LINE_FIELDS)
            .await?;
        let wanted = json!(links(&lines, "refunded_orderline_id"));
        let given_back = client.all(LINE, "id", wanted, LINE_FIELDS).await?;
        let sold_by = links(&given_back, "order_id");
        let sold_by = client
            .all(RECEIPT, "id", json!(sold_by), RECEIPT_FIELDS)
            .await?;
        let paid: BTreeSet<i64> = sold_by.iter().map(rows::id).chain(ids).collect();
        let payments = client
            .all(PAYMENT, "pos_order_id", json!(paid), PAYMENT_FIELDS)
            .await?;
        let methods = json!(links(&payments, "payment_method_id"));
        let methods = client
            .all("pos.payment.method", "id", methods, &["type"])
            .await?;
        let on_account = methods
            .iter()
            .filter(|m| rows::text(m, "type") == Some("pay_later"));
        let products = links(lines.iter().chain(&given_back), "product_id");
        let partners = json!(links(receipts.iter().copied(), "partner_id"));
        let partners = client.all("res.partner", "id", partners, &["ref"]).await?;
        let named = |row: &Row| {
            let code = rows::text(row, "ref").map(str::to_owned);
            (
                rows::id(row),
                code.unwrap_or_else(|| rows::id(row).to_string()),
            )
        };
        let kinds = json!(links(receipts.iter().copied(), "picking_type_id"));
        let fields = ["default_location_src_id"];
        let kinds = client
            .all("stock.picking.type", "id", kinds, &fields)
            .await?;
        let places = Places::load(client).await?;
        let location = |row: &Row| {
            let place = places.tree.place(rows::link(row, fields[0])?).ok()?;
            match place {
                Place::Stock { location, .. } => Some((rows::id(row), location)),
                _ => None,
            }
        };
        Ok(Around {
            on_account: on_account.map(rows::id).collect(),
            skus: skus(client, &products).await?,
            customers: partners.iter().map(named).collect(),
            locations: kinds.iter().filter_map(location).collect(),
            lines: by(lines, "order_id"),
            given_back: by_id(given_back),
            receipts: by_id(sold_by),
            payments: by(payments, "pos_order_id"),
        })
    }

    fn item(&self, line: &Row) -> Result<Item, Fault> {
        let missing = |what: &str| {
            let message = format!(
                "{what} of {LINE} {} is missing or no amount",
                rows::id(line)
            );
            bad(Code::DataQuality, message)
        };
        let amount = |field: &str| rows::decimal(line, field).ok_or_else(|| missing(field));
        let product = rows::link(line, "product_id").unwrap_or_default();
        let sku = self.skus.get(&product).ok_or_else(|| {
            let message = format!(
                "product {product} of {LINE} {} has no internal reference; give it one",
                rows::id(line)
            );
            bad(Code::UnknownReference, message)
        })?;
        let positive = |amount: Decimal| amount.max(-amount);
        Ok(Item {
            line: line_name(line),
            sku: sku.as_str().into(),
            quantity: positive(amount("qty")?),
            price: positive(amount("price_unit")?),
            net: positive(amount("price_subtotal")?),
            gross: positive(amount("price_subtotal_incl")?),
        })
    }

    /// Money of a receipt by provider, and what is owed.
    fn paid(&self, client: &Client, receipt: i64) -> Result<(Vec<Paid>, Decimal), Fault> {
        let (mut paid, mut owed): (BTreeMap<String, Paid>, _) = (BTreeMap::new(), Decimal::ZERO);
        for row in self.payments.get(&receipt).into_iter().flatten() {
            let amount = rows::decimal(row, "amount").ok_or_else(|| {
                let message = format!("amount of {PAYMENT} {} is no amount", rows::id(row));
                bad(Code::DataQuality, message)
            })?;
            let method = rows::link(row, "payment_method_id").unwrap_or_default();
            if self.on_account.contains(&method) {
                owed += amount;
                continue;
            }
            let name = rows::link_name(row, "payment_method_id").unwrap_or_default();
            let provider = client.settings.providers.get(name);
            let provider = provider.map_or(name, String::as_str);
            let reference = rows::text(row, "transaction_id").or(rows::text(row, "uuid"));
            let reference = reference.map_or_else(|| rows::id(row).to_string(), str::to_owned);
            let sum = paid.entry(provider.to_owned()).or_insert_with(|| Paid {
                provider: provider.to_owned(),
                reference,
                amount: Decimal::ZERO,
            });
            sum.amount += amount;
        }
        Ok((paid.into_values().collect(), owed))
    }
}

async fn skus(client: &Client, products: &BTreeSet<i64>) -> Result<HashMap<i64, String>, Fault> {
    let found = client.all("product.product", "id", json!(products), &["default_code"]);
    let named = |row: &Row| Some((rows::id(row), rows::text(row, "default_code")?.to_owned()));
    Ok(found.await?.iter().filter_map(named).collect())
}

impl Page<'_> {
    /// Receipts that were paid, of the tills that are told.
    pub async fn receipts<'r>(&self, found: &'r [Row]) -> Result<Told<'r>, Fault> {
        let told = |row: &&Row| {
            let state = rows::text(row, "state");
            matches!(state, Some("paid" | "done" | "invoiced")) && till(self.client, row).is_some()
        };
        let own: Vec<&Row> = self.own(found).filter(told).collect();
        if own.is_empty() {
            return Ok(Vec::new());
        }
        let around = Around::of(self.client, &own).await?;
        let told = own.into_iter().map(|row| (row, self.receipt(row, &around)));
        Ok(told.collect())
    }

    fn receipt(&self, row: &Row, around: &Around) -> Result<Vec<SourceRecord>, Fault> {
        let id = rows::id(row);
        let record_id = format!("{RECEIPT},{id}");
        let missing = |what: &str, remedy: &str| {
            let message = format!("{what} of {record_id} is missing or unknown{remedy}");
            bad(Code::UnknownReference, message)
        };
        let (Some(till), Some(order), Some(number)) = (
            till(self.client, row),
            order_of(self.client, row),
            number(row),
        ) else {
            return Err(missing("number", ""));
        };
        let code = rows::link_name(row, "currency_id").unwrap_or_default();
        let currency = Currency::parse(code).map_err(|_| missing("currency_id", ""))?;
        let kind = rows::link(row, "picking_type_id").unwrap_or_default();
        let location = around.locations.get(&kind).cloned();
        let (mut sold, mut back): (Vec<Item>, BTreeMap<i64, Back>) = Default::default();
        for line in around.lines.get(&id).into_iter().flatten() {
            let quantity = rows::decimal(line, "qty").unwrap_or_default();
            if quantity.is_positive() {
                sold.push(around.item(line)?);
            } else if quantity.is_negative() {
                let (of, given) = self.given_back(line, around)?;
                let item = Item {
                    line: line_name(of),
                    ..around.item(line)?
                };
                let entry = back.entry(rows::id(given));
                let entry = entry.or_insert_with(|| Back {
                    order: order_of(self.client, given).unwrap_or_default(),
                    receipt: format!("{RECEIPT},{}", rows::id(given)),
                    items: Vec::new(),
                    paid_with: Vec::new(),
                });
                entry.items.push(item);
            }
        }
        for (receipt, back) in &mut back {
            let (paid, _) = around.paid(self.client, *receipt)?;
            back.paid_with = paid
                .into_iter()
                .map(|p| (p.provider, p.reference))
                .collect();
        }
        let (paid, owed) = around.paid(self.client, id)?;
        let customer = rows::link(row, "partner_id").and_then(|id| around.customers.get(&id));
        let receipt = Receipt {
            instance: self.instance,
            record_id: &record_id,
            order,
            channel: &till.channel,
            number,
            name: rows::text(row, "name").unwrap_or(number),
            at: row
                .get("date_order")
                .and_then(rows::stamp)
                .ok_or_else(|| missing("date_order", ""))?,
            location: location.ok_or_else(|| {
                missing(
                    "place",
                    "; mend the operation type of the till, or `locations`",
                )
            })?,
            customer: customer.map(|code| compound_key(&[&till.channel, code])),
            currency,
            is_sent: rows::text(row, "shipping_date").is_some(),
            sold,
            back: back.into_values().collect(),
            paid,
            owed,
        };
        Ok(receipt.events())
    }

    /// The line that a line takes back, and the receipt that it was sold by.
    fn given_back<'a>(&self, line: &Row, around: &'a Around) -> Result<(&'a Row, &'a Row), Fault> {
        let of = rows::link(line, "refunded_orderline_id");
        let of = of.and_then(|id| around.given_back.get(&id));
        let receipt = of.and_then(|of| around.receipts.get(&rows::link(of, "order_id")?));
        let told = |receipt: &&Row| till(self.client, receipt).is_some();
        of.zip(receipt.filter(told)).ok_or_else(|| {
            let message = format!(
                "{LINE} {} takes back what no receipt of a till of `tills` has sold: no order can be named; book it by hand",
                rows::id(line)
            );
            bad(Code::UnknownReference, message)
        })
    }
}

/// The orders that goods of tills are of, by receipt and product: where one line has the product.
///
/// # Errors
/// As the calls.
pub(super) async fn orders_of(
    client: &Client,
    instance: &str,
    receipts: &BTreeSet<i64>,
) -> Result<HashMap<(i64, i64), OfOrder>, Fault> {
    if client.settings.tills.is_empty() || receipts.is_empty() {
        return Ok(HashMap::new());
    }
    let lines = client
        .all(LINE, "order_id", json!(receipts), LINE_FIELDS)
        .await?;
    let wanted = json!(links(&lines, "refunded_orderline_id"));
    let given_back = by_id(client.all(LINE, "id", wanted, LINE_FIELDS).await?);
    let all: BTreeSet<i64> = links(given_back.values(), "order_id");
    let all: BTreeSet<i64> = all.union(receipts).copied().collect();
    let found = by_id(
        client
            .all(RECEIPT, "id", json!(all), RECEIPT_FIELDS)
            .await?,
    );
    let mut orders: HashMap<(i64, i64), OfOrder> = HashMap::new();
    for line in &lines {
        let (Some(receipt), Some(product)) =
            (rows::link(line, "order_id"), rows::link(line, "product_id"))
        else {
            continue;
        };
        let of = rows::link(line, "refunded_orderline_id").and_then(|id| given_back.get(&id));
        let sold = of.unwrap_or(line);
        let order = rows::link(sold, "order_id").and_then(|id| found.get(&id));
        let Some(order) = order.and_then(|row| order_of(client, row)) else {
            continue;
        };
        let returned_by =
            of.map(|_| return_name(&order, instance, &format!("{RECEIPT},{receipt}")));
        let entry = orders.entry((receipt, product));
        // Several lines of a product are moved as one, which is of none of them.
        let entry = entry.and_modify(|of| of.line = Text::default());
        entry.or_insert_with(|| OfOrder {
            order,
            line: line_name(sold),
            returned_by,
        });
    }
    Ok(orders)
}
