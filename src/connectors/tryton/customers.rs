//! Who customers are, in Tryton: the party that their orders are sold to, by its code.
//!
//! What is written is the whole: name, one address, an e-mail and a phone that are marked as ours, so that
//! those that people have added stay. Of a person who was erased all of that goes. What Tryton says to it is
//! never repeated: it may name the person.

use super::client::{Change, Client, Search};
use super::references::party;
use super::rows;
use super::settings::ChannelSettings;
use crate::connectors::erp::{called, no_customers, reject, take_customer};
use crate::contract::event::CustomerChanged;
use crate::pipeline::{Ack, Address, Code, Delivery, Fault, Person, Stage, Vault};
use serde_json::{Value, json};

const PARTY: &str = "party.party";
const ADDRESS: &str = "party.address";
const CONTACT: &str = "party.contact_mechanism";
/// Name of the contacts that are ours.
const OURS: &str = "Crossdock";

/// The channel of a customer, where this Tryton keeps its customers.
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
        return Err(no_customers("Tryton", e));
    };
    let code = format!("{}{}", channel.party_prefix, e.customer_id);
    let write = async |person: Option<&Person>| write(client, &code, person).await;
    take_customer("Tryton", vault, e, delivery, write).await
}

/// Makes the party say this and no more; tells whether something had to be done.
async fn write(client: &Client, code: &str, person: Option<&Person>) -> Result<bool, Fault> {
    let known = client.search(Search {
        model: PARTY,
        domain: json!([["code", "=", code]]),
        order: json!([["id", "ASC"]]),
        limit: 1,
        fields: &["name"],
    });
    // Who was erased and never was here stays away.
    if person.is_none() && known.await?.is_empty() {
        return Ok(false);
    }
    let party = party(client, code, "a customer").await?;
    let name = person.and_then(called).unwrap_or_else(|| code.to_owned());
    let mut changed = set(client, PARTY, party.id, json!({"name": name})).await?;
    let place = person.and_then(|p| p.address.clone()).unwrap_or_default();
    let place = address(client, &place).await?;
    changed |= set(client, ADDRESS, party.address, place).await?;
    for (kind, value) in [
        ("email", person.and_then(|p| p.email.as_deref())),
        ("phone", person.and_then(|p| p.phone.as_deref())),
    ] {
        changed |= contact(client, party.id, kind, value).await?;
    }
    Ok(changed)
}

async fn address(client: &Client, address: &Address) -> Result<Value, Fault> {
    let mut country = Value::Null;
    if !address.country.is_empty() {
        let found = client.search(Search {
            model: "country.country",
            domain: json!([["code", "=", address.country]]),
            order: json!([["id", "ASC"]]),
            limit: 1,
            fields: &["code"],
        });
        country = found
            .await?
            .first()
            .map_or(Value::Null, |row| json!(rows::id(row)));
    }
    let field = |text: &str| match text.is_empty() {
        true => Value::Null,
        false => json!(text),
    };
    // A region is a row of its own in Tryton, by names of its own: it stands in the street.
    let mut street = address.street.clone();
    if !address.region.is_empty() {
        street = format!("{street}\n{}", address.region);
    }
    Ok(json!({
        "street_unstructured": field(&street), "postal_code": field(&address.postal_code),
        "city": field(&address.city), "country": country,
    }))
}

/// Sets what differs of a row.
async fn set(client: &Client, model: &str, id: i64, values: Value) -> Result<bool, Fault> {
    let fields: Vec<&str> = values
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, _)| name.as_str())
        .collect();
    let found = client.read(model, &[id], &fields, json!({})).await?;
    // An empty text is none.
    let plain = |value: Option<&Value>| match value {
        None => Value::Null,
        Some(value) if value == "" => Value::Null,
        Some(value) => value.clone(),
    };
    let same = |name: &&str| plain(found.first().and_then(|row| row.get(*name))) == values[*name];
    if fields.iter().all(same) {
        return Ok(false);
    }
    change(client, model, "write", vec![json!([id]), values.clone()]).await?;
    Ok(true)
}

/// Our contact of a kind: made, changed or deleted.
async fn contact(
    client: &Client,
    party: i64,
    kind: &str,
    value: Option<&str>,
) -> Result<bool, Fault> {
    let found = client.search(Search {
        model: CONTACT,
        domain: json!([
            ["party", "=", party],
            ["type", "=", kind],
            ["name", "=", OURS]
        ]),
        order: json!([["id", "ASC"]]),
        limit: 10,
        fields: &["value"],
    });
    let found = found.await?;
    let ids: Vec<i64> = found.iter().map(rows::id).collect();
    match (value, &*ids) {
        (None, []) => Ok(false),
        (None, all) => {
            change(client, CONTACT, "delete", vec![json!(all)]).await?;
            Ok(true)
        }
        (Some(value), []) => {
            let made = json!([{"party": party, "type": kind, "value": value, "name": OURS}]);
            change(client, CONTACT, "create", vec![made]).await?;
            Ok(true)
        }
        (Some(value), [one, ..]) => {
            // Tryton may have brought a number into a form of its own.
            let plain = |text: &str| -> String {
                let kept = text.chars().filter(|c| !c.is_whitespace() && *c != '-');
                kept.collect()
            };
            let shown = found.first().and_then(|row| rows::text(row, "value"));
            if shown.is_some_and(|shown| plain(shown) == plain(value)) {
                return Ok(false);
            }
            let value = json!({"value": value});
            change(client, CONTACT, "write", vec![json!([one]), value]).await?;
            Ok(true)
        }
    }
}

async fn change(
    client: &Client,
    model: &str,
    method: &str,
    params: Vec<Value>,
) -> Result<(), Fault> {
    match client.change(model, method, params, json!({})).await? {
        Change::Done(_) => Ok(()),
        Change::Refused(_) => Err(reject(Code::Refused, "refused".into())),
        Change::Conflict => Err(Fault::retry(Stage::Write, Code::Unavailable, "written to")),
    }
}
