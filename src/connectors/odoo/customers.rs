//! Who customers are, in Odoo: the contact that their orders are sold to, by its reference.
//!
//! What is written is the whole: name, e-mail, phone and address; what people have added beside them stays. Of
//! a person who was erased all of that goes. Odoo would note what it was before beside the contact, so it is told
//! not to. What Odoo says to it is never repeated: it may name the person.

use super::client::{Change, Client, Search};
use super::settings::ChannelSettings;
use super::{references, rows};
use crate::connectors::erp::{Row, called, no_customers, reject, take_customer};
use crate::contract::event::CustomerChanged;
use crate::pipeline::{Ack, Address, Code, Delivery, Fault, Person, Stage, Vault};
use serde_json::{Map, Value, json};

const PARTNER: &str = "res.partner";
const FIELDS: &[&str] = &[
    "name",
    "email",
    "phone",
    "street",
    "street2",
    "zip",
    "city",
    "state_id",
    "country_id",
];

/// The channel of a customer, where this Odoo keeps its customers.
pub(super) fn channel<'c>(client: &'c Client, e: &CustomerChanged) -> Option<&'c ChannelSettings> {
    let channel = client.settings.channels.get(&*e.channel_id);
    channel.filter(|_| client.settings.customers)
}

/// Takes over who a customer is.
///
/// # Errors
/// As the calls and [`Vault::open`].
pub(super) async fn take(
    client: &Client,
    vault: &dyn Vault,
    e: &CustomerChanged,
    delivery: &Delivery,
) -> Result<Ack, Fault> {
    let Some(channel) = channel(client, e) else {
        return Err(no_customers("Odoo", e));
    };
    let code = format!("{}{}", channel.customer_prefix, e.customer_id);
    let write = async |person: Option<&Person>| write(client, &code, person).await;
    take_customer("Odoo", vault, e, delivery, write).await
}

/// Makes the contact say this and no more; tells whether something had to be done.
async fn write(client: &Client, code: &str, person: Option<&Person>) -> Result<bool, Fault> {
    let known = async || {
        let found = client.search(Search {
            model: PARTNER,
            domain: json!([["ref", "=", code], ["active", "=", true]]),
            order: "id",
            limit: 1,
            fields: FIELDS,
        });
        Ok::<_, Fault>(found.await?.into_iter().next())
    };
    let mut contact = known().await?;
    // Who was erased and never was here stays away.
    if person.is_none() && contact.is_none() {
        return Ok(false);
    }
    if contact.is_none() {
        references::customer(client, code, "a customer").await?;
        contact = known().await?;
    }
    let Some(contact) = contact else {
        let message = "its contact was deleted meanwhile";
        return Err(Fault::retry(Stage::Write, Code::Unavailable, message));
    };
    let values = values(client, code, person).await?;
    if values
        .iter()
        .all(|(name, value)| says(&contact, name, value))
    {
        return Ok(false);
    }
    let arguments = json!({
        "ids": [rows::id(&contact)], "vals": values, "context": {"tracking_disable": true},
    });
    match client.change(PARTNER, "write", arguments).await? {
        Change::Done(_) => Ok(true),
        Change::Refused(_) => Err(reject(Code::Refused, "refused".into())),
    }
}

/// Whether a contact says this already. A related row is shown with its name.
fn says(contact: &Row, name: &str, value: &Value) -> bool {
    let own = match name.ends_with("_id") {
        true => rows::link(contact, name).map_or(json!(false), |id| json!(id)),
        false => rows::text(contact, name).map_or(json!(false), |text| json!(text)),
    };
    own == *value
}

async fn values(
    client: &Client,
    code: &str,
    person: Option<&Person>,
) -> Result<Map<String, Value>, Fault> {
    let place = person.and_then(|p| p.address.clone()).unwrap_or_default();
    let (country, state) = region(client, &place).await?;
    let (street, more) = place.street.split_once('\n').unwrap_or((&place.street, ""));
    let mut more: Vec<&str> = more.lines().filter(|l| !l.is_empty()).collect();
    // A region that Odoo does not know stands in the street.
    if state.is_none() && !place.region.is_empty() {
        more.push(&place.region);
    }
    let text = |text: &str| match text.is_empty() {
        true => json!(false),
        false => json!(text),
    };
    let of_person = |field: Option<&String>| field.map_or(json!(false), |f| text(f));
    let row = |id: Option<i64>| id.map_or(json!(false), |id| json!(id));
    let values = [
        (
            "name",
            json!(person.and_then(called).unwrap_or_else(|| code.to_owned())),
        ),
        ("email", of_person(person.and_then(|p| p.email.as_ref()))),
        ("phone", of_person(person.and_then(|p| p.phone.as_ref()))),
        ("street", text(street)),
        ("street2", text(&more.join(", "))),
        ("zip", text(&place.postal_code)),
        ("city", text(&place.city)),
        ("state_id", row(state)),
        ("country_id", row(country)),
    ];
    Ok(values.map(|(n, v)| (n.to_owned(), v)).into_iter().collect())
}

/// The rows of an address's country and region, as far as Odoo knows them.
async fn region(client: &Client, place: &Address) -> Result<(Option<i64>, Option<i64>), Fault> {
    if place.country.is_empty() {
        return Ok((None, None));
    }
    let find = async |model, domain| {
        let found = client.search(Search {
            model,
            domain,
            order: "id",
            limit: 1,
            fields: &["code"],
        });
        Ok::<_, Fault>(found.await?.first().map(rows::id))
    };
    let country = find("res.country", json!([["code", "=", place.country]])).await?;
    let (Some(country), false) = (country, place.region.is_empty()) else {
        return Ok((country, None));
    };
    let state = json!([
        ["country_id", "=", country],
        "|",
        ["code", "=", place.region],
        ["name", "=", place.region]
    ]);
    Ok((Some(country), find("res.country.state", state).await?))
}
