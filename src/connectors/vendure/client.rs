//! Vendure's admin API: one GraphQL endpoint, a session token from a login.

use super::Settings;
use crate::connectors::http;
use crate::pipeline::{Code, Fault, Stage};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::Mutex;

const LOGIN: &str = "mutation($username:String!,$password:String!){login(username:$username,password:$password,rememberMe:true){__typename ... on ErrorResult{errorCode message}}}";
const LOCATIONS: &str = "query($name:String!){stockLocations(options:{filter:{name:{eq:$name}},take:2}){items{id name}}}";
const VARIANTS: &str = "query($skus:[String!]!){productVariants(options:{filter:{sku:{in:$skus}},take:1000}){items{id sku stockLevels{stockLocationId stockAllocated}}}}";
const UPDATE: &str =
    "mutation($input:[UpdateProductVariantInput!]!){updateProductVariants(input:$input){id}}";

/// Talks to one shop.
pub struct Client {
    pub settings: Settings,
    name: String,
    http: reqwest::Client,
    session: Mutex<Session>,
}

#[derive(Default)]
struct Session {
    token: Option<String>,
    location: Option<String>,
}

/// A variant with what open orders hold of it at the location.
pub struct Variant {
    pub id: String,
    pub allocated: i64,
}

impl Client {
    pub fn new(instance: &str, settings: Settings) -> Result<Self, Fault> {
        let http = http::client(Duration::from_millis(settings.timeout_ms))?;
        Ok(Client {
            settings,
            name: instance.to_owned(),
            http,
            session: Mutex::default(),
        })
    }

    /// Id of the configured stock location.
    pub async fn location(&self) -> Result<String, Fault> {
        if let Some(id) = self.session.lock().await.location.clone() {
            return Ok(id);
        }
        let data = self
            .call(LOCATIONS, json!({"name": self.settings.location}))
            .await?;
        let Some(id) = data["stockLocations"]["items"][0]["id"].as_str() else {
            let message = format!(
                "{} has no stock location named {:?}; create it there, or mend `location`",
                self.name, self.settings.location
            );
            return Err(Fault::halt(Stage::Write, Code::Configuration, message));
        };
        self.session.lock().await.location = Some(id.to_owned());
        Ok(id.to_owned())
    }

    /// The variants of these SKUs. A SKU that is absent is unknown; one that several variants have
    /// appears with all of them.
    pub async fn variants(&self, skus: &[&str]) -> Result<HashMap<String, Vec<Variant>>, Fault> {
        let location = self.location().await?;
        let data = self.call(VARIANTS, json!({"skus": skus})).await?;
        let mut found: HashMap<String, Vec<Variant>> = HashMap::new();
        for item in data["productVariants"]["items"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let (Some(id), Some(sku)) = (item["id"].as_str(), item["sku"].as_str()) else {
                continue;
            };
            let levels = item["stockLevels"].as_array().into_iter().flatten();
            let here = levels.filter(|l| l["stockLocationId"] == *location);
            let allocated = here.filter_map(|l| l["stockAllocated"].as_i64()).sum();
            found.entry(sku.to_owned()).or_default().push(Variant {
                id: id.to_owned(),
                allocated,
            });
        }
        Ok(found)
    }

    /// Sets the stock of variants at the location: all of them or, on any error, none.
    pub async fn set_stock(&self, stock: &[(String, i64)]) -> Result<(), Fault> {
        let location = self.location().await?;
        let input: Vec<Value> = stock
            .iter()
            .map(|(id, on_hand)| json!({"id": id, "stockLevels": [{"stockLocationId": location, "stockOnHand": on_hand}]}))
            .collect();
        self.call(UPDATE, json!({"input": input})).await.map(|_| ())
    }

    /// Calls the API, logging in when there is no session or it has gone.
    async fn call(&self, query: &str, variables: Value) -> Result<Value, Fault> {
        for attempt in 0..2 {
            let token = self.token(attempt > 0).await?;
            let request = self
                .http
                .post(format!(
                    "{}/admin-api",
                    self.settings.url.trim_end_matches('/')
                ))
                .bearer_auth(token)
                .json(&json!({"query": query, "variables": variables}));
            let answer = http::send(&self.name, request).await?;
            let Some(error) = answer.body["errors"].get(0) else {
                return self.data(answer.body);
            };
            let code = error["extensions"]["code"].as_str().unwrap_or_default();
            let message = format!(
                "{} answered: {} {}",
                self.name,
                code,
                error["message"].as_str().unwrap_or_default()
            );
            match code {
                "FORBIDDEN" if attempt == 0 => {}
                "FORBIDDEN" => {
                    return Err(Fault::halt(
                        Stage::Write,
                        Code::Unauthorised,
                        format!("{message}; the user lacks a right"),
                    ));
                }
                "GRAPHQL_VALIDATION_FAILED" => {
                    return Err(Fault::halt(
                        Stage::Write,
                        Code::Configuration,
                        format!("{message}; the server is of another version"),
                    ));
                }
                "INTERNAL_SERVER_ERROR" => {
                    return Err(Fault::retry(Stage::Write, Code::Unavailable, message));
                }
                _ => return Err(Fault::reject(Stage::Write, Code::Refused, message)),
            }
        }
        Err(Fault::halt(
            Stage::Write,
            Code::Unauthorised,
            format!("{} forgets every session it gives", self.name),
        ))
    }

    fn data(&self, body: Value) -> Result<Value, Fault> {
        match body {
            Value::Object(mut object) if object.get("data").is_some_and(Value::is_object) => {
                Ok(object.remove("data").unwrap_or_default())
            }
            other => {
                let message = format!(
                    "{} answered without data: {}",
                    self.name,
                    http::quote(other.to_string().as_bytes())
                );
                Err(Fault::retry(Stage::Write, Code::OutcomeUnknown, message))
            }
        }
    }

    async fn token(&self, renew: bool) -> Result<String, Fault> {
        let mut session = self.session.lock().await;
        if let Some(token) = session.token.clone().filter(|_| !renew) {
            return Ok(token);
        }
        let variables = json!({"username": self.settings.username, "password": self.settings.password.reveal()});
        let request = self
            .http
            .post(format!(
                "{}/admin-api",
                self.settings.url.trim_end_matches('/')
            ))
            .json(&json!({"query": LOGIN, "variables": variables}));
        let answer = http::send(&self.name, request).await?;
        let login = &answer.body["data"]["login"];
        if login["errorCode"].is_string() {
            let message = format!(
                "{} refused the login of {}: {}; mend `username` or what `password` refers to",
                self.name,
                self.settings.username,
                login["message"].as_str().unwrap_or_default()
            );
            return Err(Fault::halt(Stage::Write, Code::Unauthorised, message));
        }
        let token = answer
            .headers
            .get("vendure-auth-token")
            .and_then(|v| v.to_str().ok());
        let Some(token) = token else {
            let message = format!(
                "{} gave no session token; its tokenMethod must allow bearer",
                self.name
            );
            return Err(Fault::halt(Stage::Write, Code::Configuration, message));
        };
        session.token = Some(token.to_owned());
        Ok(token.to_owned())
    }
}
