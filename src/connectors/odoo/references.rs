//! What the names in an order are in Odoo: customers, price lists, products, taxes, warehouses. Looked up
//! for each order, so that what was mended in Odoo counts at once.

use super::client::{Change, Client, Search};
use super::rows;
use super::settings::ChannelSettings;
use super::tree::Places;
use crate::connectors::erp::{
    Names, Row, SoldProduct, codes_of, configuration, pickup, reject, taxes_named,
};
use crate::contract::event::OrderSnapshot;
use crate::domain::natural_id;
use crate::pipeline::{Code, Fault, Stage};
use serde_json::{Value, json};
use std::collections::HashMap;

const PARTNER: &str = "res.partner";
/// Places of Odoo's prices where it keeps more than amounts have here.
const PLACES_MAX: u32 = 4;

/// The partner with this reference; made when there is none.
///
/// # Errors
/// As the calls; a reject when Odoo allows no such partner.
pub(super) async fn customer(client: &Client, code: &str, who: &str) -> Result<i64, Fault> {
    let find = async || {
        let found = client.search(Search {
            model: PARTNER,
            domain: json!([["ref", "=", code], ["active", "=", true]]),
            order: "id",
            limit: 1,
            fields: &["ref"],
        });
        Ok::<_, Fault>(found.await?.first().map(rows::id))
    };
    if let Some(id) = find().await? {
        return Ok(id);
    }
    // Who it is, is not for everybody who reads orders: the ERP is told by a way of its own.
    let values = [("name", json!(code)), ("ref", json!(code))];
    let key = format!("customer_{}", natural_id(&["customer", code]).simple());
    let made = client.make(PARTNER, &key, &values, None).await?;
    match (find().await?, made) {
        (Some(id), _) => Ok(id),
        (None, Change::Refused(why)) => {
            let message = format!("{who}: Odoo refused a customer with reference {code}: {why}");
            Err(reject(Code::Refused, message))
        }
        (None, Change::Done(_)) => {
            let message = format!("{who}: Odoo made customer {code} and does not show it");
            Err(Fault::retry(Stage::Write, Code::OutcomeUnknown, message))
        }
    }
}

/// The price list of a currency that is not the company's; `None` for the company's own.
///
/// # Errors
/// A reject when Odoo sells in no such currency.
pub(super) async fn price_list(
    client: &Client,
    currency: &str,
    who: &str,
) -> Result<Option<i64>, Fault> {
    let user = client.user().await?;
    if user.currency == currency {
        return Ok(None);
    }
    let found = client.search(Search {
        model: "product.pricelist",
        domain: json!([
            ["currency_id.name", "=", currency],
            ["company_id", "in", [user.company, false]],
            ["active", "=", true]
        ]),
        order: "id",
        limit: 1,
        fields: &["name"],
    });
    match found.await?.first() {
        Some(row) => Ok(Some(rows::id(row))),
        None => {
            let message =
                format!("{who}: Odoo has no price list in {currency}; add one there, then redrive");
            Err(reject(Code::UnknownReference, message))
        }
    }
}

/// The warehouse that delivers an order.
///
/// # Errors
/// A reject when the order is picked up where Odoo has no warehouse, or in several; a halt when
/// nothing says which warehouse delivers for the channel.
pub(super) async fn warehouse(
    client: &Client,
    order: &OrderSnapshot,
    settings: &ChannelSettings,
    who: &str,
) -> Result<i64, Fault> {
    let places = Places::load(client).await?;
    let find = |location: &str| places.warehouse_of(location).map(|w| w.id);
    if let Some(id) = pickup("Odoo", order, who, find)? {
        return Ok(id);
    }
    find(&settings.warehouse).ok_or_else(|| no_warehouse(&order.channel_id, settings))
}

/// That the warehouse of a channel is none.
pub(super) fn no_warehouse(channel: &str, settings: &ChannelSettings) -> Fault {
    configuration(format!(
        "Odoo has no warehouse {}; mend `channels.{channel}.warehouse`",
        settings.warehouse
    ))
}

/// How many places prices have.
///
/// # Errors
/// As the calls.
pub(super) async fn price_places(client: &Client) -> Result<u32, Fault> {
    let found = client.search(Search {
        model: "decimal.precision",
        domain: json!([["name", "=", "Product Price"]]),
        order: "id",
        limit: 1,
        fields: &["digits"],
    });
    let digits = found.await?;
    let digits = digits.first().and_then(|row| row.get("digits")?.as_u64());
    Ok(digits.map_or(2, |d| (d as u32).min(PLACES_MAX)))
}

/// What SKUs, charges and tax codes of an order are in Odoo, or why they are nothing.
///
/// # Errors
/// As the calls.
pub(super) async fn names(client: &Client, order: &OrderSnapshot) -> Result<Names, Fault> {
    let settings = &client.settings;
    let company = client.user().await?.company;
    let codes = codes_of(order, &settings.charges);
    let fields = ["default_code", "name", "uom_id", "taxes_id", "active"];
    let found = client.all("product.product", "default_code", json!(codes), &fields);
    let found: Vec<Row> = found.await?;
    let taxes: Vec<i64> = found
        .iter()
        .flat_map(|p| rows::links(p, "taxes_id"))
        .collect();
    // A product has taxes of all companies.
    let own = client
        .all("account.tax", "id", json!(taxes), &["company_id"])
        .await?;
    let is_own = |tax: &i64| {
        let mut own = own.iter();
        own.any(|t| rows::id(t) == *tax && rows::link(t, "company_id") == Some(company))
    };
    let mut products: HashMap<String, Vec<SoldProduct>> = HashMap::new();
    for row in found.iter().filter(|row| rows::flag(row, "active")) {
        let (Some(code), Some(unit)) = (rows::text(row, "default_code"), rows::link(row, "uom_id"))
        else {
            continue;
        };
        let taxes = rows::links(row, "taxes_id");
        let product = SoldProduct {
            id: rows::id(row),
            unit,
            name: rows::text(row, "name").unwrap_or(code).to_owned(),
            taxes: taxes.into_iter().filter(is_own).collect(),
        };
        products.entry(code.to_owned()).or_default().push(product);
    }
    let mut taxes = HashMap::new();
    for name in taxes_named(order, &settings.taxes) {
        if let Some(id) = tax(client, name, company).await? {
            taxes.insert(name.to_owned(), id);
        }
    }
    let (charges, named) = (&settings.charges, &settings.taxes);
    Ok(Names::of(
        "Odoo",
        order,
        (charges, &products),
        (named, &taxes),
    ))
}

async fn tax(client: &Client, name: &str, company: i64) -> Result<Option<i64>, Fault> {
    let domain: Value = json!([
        ["name", "=", name],
        ["company_id", "=", company],
        ["type_tax_use", "=", "sale"],
        ["active", "=", true]
    ]);
    let found = client.search(Search {
        model: "account.tax",
        domain,
        order: "id",
        limit: 1,
        fields: &["name"],
    });
    Ok(found.await?.first().map(rows::id))
}
