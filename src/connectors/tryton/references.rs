//! What the names in an order are in Tryton: shops, currencies, parties, products, taxes, warehouses.
//! Looked up for each order, so that what was mended in Tryton counts at once.

use super::client::{Change, Client, Row, Search};
use super::settings::ChannelSettings;
use super::{rows, tree};
use crate::connectors::erp::configuration;
use crate::connectors::erp::{Names, SoldProduct, codes_of, pickup, reject, taxes_named};
use crate::contract::event::OrderSnapshot;
use crate::pipeline::{Code, Fault, Stage};
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap};

const PARTY: &str = "party.party";
/// Rows of one name that are read, to see whether it is one.
const SAME_NAME_MAX: usize = 1_000;

/// A web shop of Tryton.
pub(super) struct Shop {
    pub id: i64,
    warehouses: Vec<i64>,
}

/// A party and its address.
pub(super) struct Party {
    pub id: i64,
    pub address: i64,
}

/// The web shop of a channel.
///
/// # Errors
/// A halt when there is none, or none of the user's company: no order of the channel can be taken.
pub(super) async fn shop(
    client: &Client,
    channel: &str,
    settings: &ChannelSettings,
) -> Result<Shop, Fault> {
    let (company, _) = client.company().await?;
    let found = client.search(Search {
        model: "web.shop",
        domain: json!([["name", "=", settings.shop], ["company", "=", company]]),
        order: json!([["id", "ASC"]]),
        limit: 1,
        fields: &["warehouses"],
    });
    match found.await?.first() {
        Some(row) => Ok(Shop {
            id: rows::id(row),
            warehouses: rows::integers(row, "warehouses"),
        }),
        None => Err(configuration(format!(
            "Tryton has no web shop {:?} of the company; create it there, or mend `channels.{channel}.shop`",
            settings.shop
        ))),
    }
}

/// # Errors
/// A reject when Tryton does not keep the currency.
pub(super) async fn currency(client: &Client, code: &str, who: &str) -> Result<i64, Fault> {
    let found = client.search(Search {
        model: "currency.currency",
        domain: json!([["code", "=", code], ["active", "=", true]]),
        order: json!([["id", "ASC"]]),
        limit: 1,
        fields: &["code"],
    });
    found.await?.first().map(rows::id).ok_or_else(|| {
        let message =
            format!("{who}: Tryton has no currency {code}; activate it there, then redrive");
        reject(Code::UnknownReference, message)
    })
}

/// The party with this code; made when there is none. Codes are unique in Tryton, so two orders of a
/// new customer at once make one party.
///
/// # Errors
/// As the calls; a reject when Tryton allows no such party.
pub(super) async fn party(client: &Client, code: &str, who: &str) -> Result<Party, Fault> {
    let mut refused = None;
    loop {
        if let Some(row) = find_party(client, code).await? {
            let id = rows::id(&row);
            return match rows::integers(&row, "addresses").first() {
                Some(address) => Ok(Party {
                    id,
                    address: *address,
                }),
                None => {
                    let made = json!([{"party": id}]);
                    let made = create(client, "party.address", made, who).await?;
                    Ok(Party { id, address: made })
                }
            };
        }
        if let Some(why) = refused {
            let message = format!("{who}: Tryton refused a party with code {code}: {why}");
            return Err(reject(Code::Refused, message));
        }
        // Who it is, is not for everybody who reads orders: the ERP is told by a way of its own.
        let values = json!([{"name": code, "code": code, "addresses": [["create", [{}]]]}]);
        match client
            .change(PARTY, "create", vec![values], json!({}))
            .await?
        {
            Change::Done(_) => {}
            // Somebody else has made it just now: then it is found.
            Change::Refused(why) => refused = Some(why),
            Change::Conflict => refused = Some("it was made at the same time".into()),
        }
    }
}

async fn find_party(client: &Client, code: &str) -> Result<Option<Row>, Fault> {
    let found = client.search(Search {
        model: PARTY,
        domain: json!([["code", "=", code]]),
        order: json!([["id", "ASC"]]),
        limit: 1,
        fields: &["addresses"],
    });
    Ok(found.await?.into_iter().next())
}

/// Creates one row.
///
/// # Errors
/// A reject with Tryton's words when it is not allowed.
pub(super) async fn create(
    client: &Client,
    model: &str,
    values: Value,
    who: &str,
) -> Result<i64, Fault> {
    match client
        .change(model, "create", vec![values], json!({}))
        .await?
    {
        Change::Done(ids) => ids[0].as_i64().ok_or_else(|| {
            let message = format!("{who}: Tryton made a {model} and did not say which");
            Fault::retry(Stage::Write, Code::OutcomeUnknown, message)
        }),
        Change::Refused(why) => {
            let message = format!("{who}: Tryton refused a {model}: {why}; mend it, then redrive");
            Err(reject(Code::Refused, message))
        }
        Change::Conflict => Err(busy(who)),
    }
}

/// Somebody else writes the same rows all the time.
pub(super) fn busy(who: &str) -> Fault {
    let message = format!("{who}: others were writing the same rows in Tryton");
    Fault::retry(Stage::Write, Code::Unavailable, message)
}

/// The warehouse that delivers an order.
///
/// # Errors
/// A reject when the order is picked up where Tryton has no warehouse, or in several; a halt when
/// nothing says which warehouse delivers for the channel.
pub(super) async fn warehouse(
    client: &Client,
    order: &OrderSnapshot,
    shop: &Shop,
    settings: &ChannelSettings,
    who: &str,
) -> Result<i64, Fault> {
    let (tree, _) = tree::load(client).await?;
    if let Some(row) = pickup("Tryton", order, who, |location| tree.row_of(location))? {
        return Ok(row);
    }
    match (&settings.warehouse, &*shop.warehouses) {
        (Some(location), _) => tree.row_of(location).ok_or_else(|| {
            configuration(format!(
                "Tryton has no location {location}; mend `channels.{}.warehouse`",
                order.channel_id
            ))
        }),
        (None, [one]) => Ok(*one),
        (None, several) => Err(configuration(format!(
            "the web shop {:?} of Tryton has {} warehouses; name the one that delivers in `channels.{}.warehouse`",
            settings.shop,
            several.len(),
            order.channel_id
        ))),
    }
}

/// What SKUs, charges and tax codes of an order are in Tryton, or why they are nothing.
///
/// # Errors
/// As the calls.
pub(super) async fn names(client: &Client, order: &OrderSnapshot) -> Result<Names, Fault> {
    let settings = &client.settings;
    let found = products(client, &codes_of(order, &settings.charges)).await?;
    let mut taxes = HashMap::new();
    for name in taxes_named(order, &settings.taxes) {
        if let Some(id) = tax(client, name).await? {
            taxes.insert(name.to_owned(), id);
        }
    }
    let (charges, named) = (&settings.charges, &settings.taxes);
    Ok(Names::of(
        "Tryton",
        order,
        (charges, &found),
        (named, &taxes),
    ))
}

async fn tax(client: &Client, name: &str) -> Result<Option<i64>, Fault> {
    let (company, _) = client.company().await?;
    let found = client.search(Search {
        model: "account.tax",
        domain: json!([["name", "=", name], ["company", "=", company]]),
        order: json!([["id", "ASC"]]),
        limit: 1,
        fields: &["name"],
    });
    Ok(found.await?.first().map(rows::id))
}

async fn products(
    client: &Client,
    codes: &BTreeSet<&str>,
) -> Result<HashMap<String, Vec<SoldProduct>>, Fault> {
    let mut found: HashMap<String, Vec<SoldProduct>> = HashMap::new();
    if codes.is_empty() {
        return Ok(found);
    }
    let rows = client.search(Search {
        model: "product.product",
        domain: json!([["code", "in", codes], ["active", "=", true]]),
        order: json!([["id", "ASC"]]),
        limit: SAME_NAME_MAX,
        fields: &[
            "code",
            "default_uom",
            "account_category.customer_taxes_used",
        ],
    });
    for row in rows.await? {
        let Some(code) = rows::text(&row, "code") else {
            continue;
        };
        // Orders count in the unit that stock is counted in.
        let Some(unit) = rows::integer(&row, "default_uom") else {
            continue;
        };
        let category = rows::related(&row, "account_category");
        let product = SoldProduct {
            id: rows::id(&row),
            unit,
            name: code.to_owned(),
            taxes: category
                .map(|c| rows::integers(c, "customer_taxes_used"))
                .unwrap_or_default(),
        };
        found.entry(code.to_owned()).or_default().push(product);
    }
    Ok(found)
}
