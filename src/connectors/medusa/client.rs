//! Medusa's admin API: REST with a secret API key as Basic user name.

use super::Settings;
use super::orders::{FIELDS, Whole};
use crate::connectors::http;
use crate::domain::Timestamp;
use crate::pipeline::{Code, Fault, Stage, rehearsal};
use futures::{StreamExt as _, stream};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::{Mutex, OnceCell};

/// Characters of a query string at most; a server refuses request lines of 16 KiB.
const QUERY_CHARS_MAX: usize = 6_000;

/// Orders whose history is read at a time.
const READS_AT_A_TIME: usize = 4;

/// Talks to one shop.
pub struct Client {
    pub settings: Settings,
    name: String,
    http: reqwest::Client,
    places: Mutex<Option<Places>>,
    sales_channel: OnceCell<String>,
}

/// Ids of the stock locations that the shop's customers see.
#[derive(Clone)]
pub struct Places {
    /// The one that is written to.
    pub location: String,
    /// Those that are kept empty.
    pub emptied: Vec<String>,
}

/// An inventory item as the shop holds it.
pub struct Item {
    pub id: String,
    /// Whether the shop counts it for each variant that is made of it; otherwise customers can buy any
    /// quantity.
    pub managed: bool,
    /// At each location.
    levels: Vec<Stocked>,
}

struct Stocked {
    location: String,
    stocked: i64,
    /// Held for the shop's own open orders.
    reserved: i64,
}

/// A level to set.
pub struct Level {
    pub item: String,
    location: String,
    stocked: i64,
    create: bool,
}

impl Item {
    fn at(&self, location: &str) -> Option<&Stocked> {
        self.levels.iter().find(|l| l.location == location)
    }

    /// What customers can buy.
    pub fn shown(&self, places: &Places) -> i64 {
        let seen = std::iter::once(&places.location).chain(&places.emptied);
        seen.filter_map(|id| self.at(id))
            .map(|l| l.stocked - l.reserved)
            .sum()
    }

    /// What has to be set so that customers can buy `quantity`, all of it at the one location.
    pub fn levels_for(&self, quantity: i64, places: &Places) -> Vec<Level> {
        let here = self.at(&places.location);
        let mut levels = vec![Level {
            item: self.id.clone(),
            location: places.location.clone(),
            stocked: quantity + here.map_or(0, |l| l.reserved),
            create: here.is_none(),
        }];
        let held = places.emptied.iter().filter_map(|id| self.at(id));
        levels.extend(held.filter(|l| l.stocked != l.reserved).map(|l| Level {
            item: self.id.clone(),
            location: l.location.clone(),
            stocked: l.reserved,
            create: false,
        }));
        levels
    }
}

impl Client {
    pub fn new(instance: &str, settings: Settings) -> Result<Self, Fault> {
        let http = http::client(Duration::from_millis(settings.timeout_ms))?;
        Ok(Client {
            settings,
            name: instance.to_owned(),
            http,
            places: Mutex::default(),
            sales_channel: OnceCell::new(),
        })
    }

    /// The stock locations of the sales channel, which must be those of the settings: customers see
    /// the sum of them.
    pub async fn places(&self) -> Result<Places, Fault> {
        let mut places = self.places.lock().await;
        if let Some(places) = places.clone() {
            return Ok(places);
        }
        let channel = self.sales_channel().await?;
        let body = self
            .get(
                "/admin/stock-locations",
                &[("fields", "id,name,sales_channels.id"), ("limit", "1000")],
            )
            .await?;
        let found: Vec<(&str, &str)> = body["stock_locations"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|l| {
                let channels = l["sales_channels"].as_array().into_iter().flatten();
                channels.into_iter().any(|c| c["id"] == channel)
            })
            .filter_map(|l| Some((l["id"].as_str()?, l["name"].as_str()?)))
            .collect();
        let id_of = |name: &str| found.iter().find(|(_, n)| *n == name).map(|(id, _)| *id);
        let Some(location) = id_of(&self.settings.location) else {
            return Err(self.misconfigured(format!(
                "has no stock location named {:?} in the sales channel; create it there and link it, or mend `location`",
                self.settings.location
            )));
        };
        let mut emptied = Vec::new();
        for name in &self.settings.empty_locations {
            match id_of(name) {
                Some(id) if id != location => emptied.push(id.to_owned()),
                Some(_) => {
                    return Err(self.misconfigured(format!(
                        "cannot write to {name} and keep it empty; mend `empty_locations`"
                    )));
                }
                None => {
                    return Err(self.misconfigured(format!(
                        "has no stock location named {name:?} in the sales channel; mend `empty_locations`"
                    )));
                }
            }
        }
        let unnamed: Vec<&str> = found
            .iter()
            .filter(|(id, _)| *id != location && !emptied.iter().any(|e| e == id))
            .map(|(_, name)| *name)
            .collect();
        if !unnamed.is_empty() {
            return Err(self.misconfigured(format!(
                "would show customers more than is published, as they also see the stock of {}; take it out of the sales channel, or name it in `empty_locations`",
                unnamed.join(", ")
            )));
        }
        let found = Places {
            location: location.to_owned(),
            emptied,
        };
        *places = Some(found.clone());
        Ok(found)
    }

    /// Id of the sales channel of the settings, or else of the shop's default.
    pub async fn sales_channel(&self) -> Result<&str, Fault> {
        let found = self.sales_channel.get_or_try_init(|| self.find_channel());
        found.await.map(String::as_str)
    }

    async fn find_channel(&self) -> Result<String, Fault> {
        let Some(name) = &self.settings.sales_channel else {
            let body = self
                .get("/admin/stores", &[("fields", "default_sales_channel_id")])
                .await?;
            let id = body["stores"][0]["default_sales_channel_id"].as_str();
            return id.map(str::to_owned).ok_or_else(|| {
                self.misconfigured(
                    "has no default sales channel; name one in `sales_channel`".into(),
                )
            });
        };
        let body = self
            .get("/admin/sales-channels", &[("name", name), ("fields", "id")])
            .await?;
        let id = body["sales_channels"][0]["id"].as_str();
        id.map(str::to_owned).ok_or_else(|| {
            self.misconfigured(format!(
                "has no sales channel named {name:?}; mend `sales_channel`"
            ))
        })
    }

    /// The inventory items of these SKUs; one that is absent is unknown.
    pub async fn items(&self, skus: &[&str]) -> Result<HashMap<String, Item>, Fault> {
        const FIELDS: &str = "id,sku,variants.manage_inventory,location_levels.location_id,location_levels.stocked_quantity,location_levels.reserved_quantity";
        let mut found = HashMap::new();
        for some in pieces(skus) {
            let mut query: Vec<(&str, &str)> = some.iter().map(|sku| ("sku[]", *sku)).collect();
            query.extend([("limit", "1000"), ("fields", FIELDS)]);
            let body = self.get("/admin/inventory-items", &query).await?;
            let items = body["inventory_items"].as_array().into_iter().flatten();
            found.extend(
                items.filter_map(|item| Some((item["sku"].as_str()?.to_owned(), read(item)?))),
            );
        }
        Ok(found)
    }

    /// Sets levels: all of them or, on any error, none.
    ///
    /// # Errors
    /// [`Code::Refused`] when the shop refused the call for what is in it.
    pub async fn set_levels<'a>(
        &self,
        levels: impl Iterator<Item = &'a Level> + Clone,
    ) -> Result<u16, Fault> {
        rehearsal::hold(|| "set inventory levels".to_owned())?;
        let of = |create: bool| -> Vec<Value> {
            let chosen = levels.clone().filter(|l| l.create == create);
            chosen.map(|l| json!({"inventory_item_id": l.item, "location_id": l.location, "stocked_quantity": l.stocked})).collect()
        };
        let request = self
            .request(
                reqwest::Method::POST,
                "/admin/inventory-items/location-levels/batch",
            )
            .json(&json!({"create": of(true), "update": of(false)}));
        match http::send(&self.name, request).await {
            Ok(answer) if answer.body["updated"].is_array() => Ok(answer.status),
            Ok(answer) => {
                let message = format!(
                    "{} answered without the levels it set: {}",
                    self.name,
                    http::quote(answer.body.to_string().as_bytes())
                );
                Err(Fault::retry(Stage::Write, Code::OutcomeUnknown, message))
            }
            Err(fault) => {
                if fault.code == Code::Refused {
                    // What was refused may name a location that is gone.
                    *self.places.lock().await = None;
                }
                Err(fault)
            }
        }
    }

    /// Id, stamp and order of the rows of a list, from a stamp on, by stamp.
    pub async fn heads(
        &self,
        path: &str,
        order: &str,
        from: Timestamp,
        skip: usize,
        take: usize,
    ) -> Result<Vec<Value>, Fault> {
        let (from, skip, take) = (from.to_string(), skip.to_string(), take.to_string());
        let fields = format!("id,updated_at,{order}");
        let query = [
            ("updated_at[$gte]", from.as_str()),
            ("order", "updated_at"),
            ("offset", &skip),
            ("limit", &take),
            ("fields", &fields),
        ];
        let mut body = self.get(&format!("/admin/{path}"), &query).await?;
        Ok(rows(&mut body[path]))
    }

    /// The orders with these ids, with what it takes to tell their history. One that is gone is absent.
    pub async fn orders(&self, ids: &[&str]) -> Result<Vec<Whole>, Fault> {
        let mut query: Vec<(&str, &str)> = ids.iter().map(|id| ("id[]", *id)).collect();
        query.extend([("limit", "1000"), ("fields", FIELDS)]);
        let mut body = self.get("/admin/orders", &query).await?;
        let whole = |now: Value| async move {
            let id = now["id"].as_str().unwrap_or_default();
            // Every change of an order is a version of it.
            if now["version"].as_i64() == Some(1) {
                let placed = now.clone();
                let changes = Vec::new();
                return Ok(Whole {
                    now,
                    placed,
                    changes,
                });
            }
            let path = format!("/admin/orders/{id}");
            let first = [("version", "1"), ("fields", FIELDS)];
            let placed = self.get(&path, &first).await?["order"].take();
            let changes = self.changes(id).await?;
            Ok(Whole {
                now,
                placed,
                changes,
            })
        };
        let orders = stream::iter(rows(&mut body["orders"]).into_iter().map(whole));
        let read: Vec<Result<Whole, Fault>> = orders.buffered(READS_AT_A_TIME).collect().await;
        read.into_iter().collect()
    }

    /// What was changed of an order since it was placed, in order.
    pub async fn changes(&self, order: &str) -> Result<Vec<Value>, Fault> {
        let path = format!("/admin/orders/{order}/changes");
        let mut body = self.get(&path, &[]).await?;
        let mut changes = rows(&mut body["order_changes"]);
        changes.sort_by_key(|c| c["version"].as_i64());
        Ok(changes)
    }

    /// A payment with its captures and refunds.
    pub async fn payment(&self, id: &str) -> Result<Option<Value>, Fault> {
        let query = [
            ("id[]", id),
            ("fields", "id,provider_id,currency_code,*captures,*refunds"),
        ];
        let mut body = self.get("/admin/payments", &query).await?;
        let found = rows(&mut body["payments"]).into_iter();
        Ok({ found }.find(|p| p["id"] == id))
    }

    /// The order that a payment is for.
    pub async fn order_of_payment(&self, id: &str) -> Result<Option<String>, Fault> {
        let query = [("id[]", id), ("fields", "id,payment_collection.order.id")];
        let body = self.get("/admin/payments", &query).await?;
        let order = &body["payments"][0]["payment_collection"]["order"]["id"];
        Ok(order.as_str().map(str::to_owned))
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<Value, Fault> {
        rehearsal::hold(|| format!("POST {path}"))?;
        let request = self.request(reqwest::Method::POST, path).json(body);
        let answer = http::send(&self.name, request).await?;
        // What was done answers with the object; anything else does not say that it was.
        match answer.body {
            body @ Value::Object(_) => Ok(body),
            _ => Err(Fault::retry(
                Stage::Write,
                Code::OutcomeUnknown,
                self.says("answered without what it did"),
            )),
        }
    }

    pub(super) async fn delete(&self, path: &str) -> Result<(), Fault> {
        rehearsal::hold(|| format!("DELETE {path}"))?;
        let request = self.request(reqwest::Method::DELETE, path);
        http::send(&self.name, request).await.map(|_| ())
    }

    pub(super) fn says(&self, what: &str) -> String {
        format!("{} {what}", self.name)
    }

    pub(super) async fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Value, Fault> {
        let request = self.request(reqwest::Method::GET, path).query(query);
        let answer = http::read(&self.name, request).await;
        // No record decides whether a path is there and its query is understood.
        answer.map(|a| a.body).map_err(|fault| match fault.code {
            Code::Refused => self.misconfigured(format!(
                "does not serve {path} as this connector knows it; mend `url`, or the server is of another version ({})",
                fault.message
            )),
            _ => fault,
        })
    }

    fn misconfigured(&self, what: String) -> Fault {
        let message = format!("{} {what}", self.name);
        Fault::halt(Stage::Write, Code::Configuration, message)
    }

    fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        let url = format!("{}{path}", self.settings.url.trim_end_matches('/'));
        self.http
            .request(method, url)
            .basic_auth(self.settings.api_key.reveal(), Some(""))
    }
}

pub(super) fn rows(list: &mut Value) -> Vec<Value> {
    match list.take() {
        Value::Array(rows) => rows,
        _ => Vec::new(),
    }
}

/// Cuts a list of SKUs so that each piece fits into a query string.
fn pieces<'a>(skus: &'a [&'a str]) -> Vec<&'a [&'a str]> {
    let mut pieces = Vec::new();
    let (mut begin, mut chars) = (0, 0);
    for (i, sku) in skus.iter().enumerate() {
        // Three characters for each byte at worst, and the parameter's own name.
        let more = 3 * sku.len() + 12;
        if chars + more > QUERY_CHARS_MAX && i > begin {
            pieces.push(&skus[begin..i]);
            (begin, chars) = (i, 0);
        }
        chars += more;
    }
    if begin < skus.len() {
        pieces.push(&skus[begin..]);
    }
    pieces
}

fn read(item: &Value) -> Option<Item> {
    let levels = item["location_levels"].as_array().into_iter().flatten();
    let levels = levels.filter_map(|l| {
        Some(Stocked {
            location: l["location_id"].as_str()?.to_owned(),
            stocked: l["stocked_quantity"].as_i64()?,
            reserved: l["reserved_quantity"].as_i64()?,
        })
    });
    let variants = item["variants"].as_array().into_iter().flatten();
    let mut managed = variants.map(|v| v["manage_inventory"] != false);
    Some(Item {
        id: item["id"].as_str()?.to_owned(),
        managed: managed.all(|m| m),
        levels: levels.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skus_are_asked_for_in_pieces_that_fit_a_request_line() {
        let long = "x".repeat(500);
        let skus = vec![long.as_str(); 10];
        let pieces = pieces(&skus);
        assert!(pieces.iter().all(|p| !p.is_empty() && p.len() <= 3));
        assert_eq!(pieces.concat(), skus);
        assert_eq!(super::pieces(&["a"; 200]).concat(), ["a"; 200]);
        assert_eq!(super::pieces(&[]).len(), 0);
    }
}
