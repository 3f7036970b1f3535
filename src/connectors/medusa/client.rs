//! Medusa's admin API: REST with a secret API key as Basic user name.

use super::Settings;
use crate::connectors::http;
use crate::pipeline::{Code, Fault, Stage};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::Mutex;

/// Talks to one shop.
pub struct Client {
    pub settings: Settings,
    name: String,
    http: reqwest::Client,
    location: Mutex<Option<String>>,
}

/// An inventory item with what open orders hold of it at the location.
pub struct Item {
    pub id: String,
    pub reserved: i64,
    /// Whether the item has a level at the location yet.
    pub has_level: bool,
}

/// A level to set.
pub struct Level {
    pub item: String,
    pub stocked: i64,
    pub create: bool,
}

impl Client {
    pub fn new(instance: &str, settings: Settings) -> Result<Self, Fault> {
        let http = http::client(Duration::from_millis(settings.timeout_ms))?;
        Ok(Client {
            settings,
            name: instance.to_owned(),
            http,
            location: Mutex::default(),
        })
    }

    /// Id of the configured stock location.
    pub async fn location(&self) -> Result<String, Fault> {
        let mut location = self.location.lock().await;
        if let Some(id) = location.clone() {
            return Ok(id);
        }
        let query = [
            ("name", self.settings.location.as_str()),
            ("fields", "id,name"),
        ];
        let answer = http::send(
            &self.name,
            self.request(reqwest::Method::GET, "/admin/stock-locations")
                .query(&query),
        )
        .await?;
        let Some(id) = answer.body["stock_locations"][0]["id"].as_str() else {
            let message = format!(
                "{} has no stock location named {:?}; create it there, or mend `location`",
                self.name, self.settings.location
            );
            return Err(Fault::halt(Stage::Write, Code::Configuration, message));
        };
        *location = Some(id.to_owned());
        Ok(id.to_owned())
    }

    /// The inventory items of these SKUs; one that is absent is unknown.
    pub async fn items(&self, skus: &[&str]) -> Result<HashMap<String, Item>, Fault> {
        let location = self.location().await?;
        let mut query: Vec<(&str, &str)> = skus.iter().map(|sku| ("sku[]", *sku)).collect();
        query.push(("limit", "1000"));
        query.push((
            "fields",
            "id,sku,location_levels.location_id,location_levels.reserved_quantity",
        ));
        let answer = http::send(
            &self.name,
            self.request(reqwest::Method::GET, "/admin/inventory-items")
                .query(&query),
        )
        .await?;
        let items = answer.body["inventory_items"]
            .as_array()
            .into_iter()
            .flatten();
        let found = items.filter_map(|item| {
            let level = item["location_levels"]
                .as_array()
                .into_iter()
                .flatten()
                .find(|l| l["location_id"] == *location);
            let reserved = level
                .and_then(|l| l["reserved_quantity"].as_i64())
                .unwrap_or_default();
            let item_id = item["id"].as_str()?.to_owned();
            Some((
                item["sku"].as_str()?.to_owned(),
                Item {
                    id: item_id,
                    reserved,
                    has_level: level.is_some(),
                },
            ))
        });
        Ok(found.collect())
    }

    /// Sets levels at the location: all of them or, on any error, none.
    pub async fn set_levels(&self, levels: &[Level]) -> Result<u16, Fault> {
        let location = self.location().await?;
        let of = |create: bool| -> Vec<Value> {
            let chosen = levels.iter().filter(|l| l.create == create);
            chosen.map(|l| json!({"inventory_item_id": l.item, "location_id": location, "stocked_quantity": l.stocked})).collect()
        };
        let body = json!({"create": of(true), "update": of(false)});
        let request = self
            .request(
                reqwest::Method::POST,
                "/admin/inventory-items/location-levels/batch",
            )
            .json(&body);
        let answer = http::send(&self.name, request).await?;
        if answer.body["updated"].is_array() {
            return Ok(answer.status);
        }
        let message = format!(
            "{} answered without the levels it set: {}",
            self.name,
            http::quote(answer.body.to_string().as_bytes())
        );
        Err(Fault::retry(Stage::Write, Code::OutcomeUnknown, message))
    }

    fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        let url = format!("{}{path}", self.settings.url.trim_end_matches('/'));
        self.http
            .request(method, url)
            .basic_auth(self.settings.api_key.reveal(), Some(""))
    }
}
