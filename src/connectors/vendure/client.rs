//! Vendure's admin API: one GraphQL endpoint, a session token from a login.

use super::Settings;
use super::orders::FIELDS;
use crate::connectors::http::{self, RawAnswer};
use crate::domain::Timestamp;
use crate::pipeline::{Code, Fault, Stage, Verdict, rehearsal};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::Mutex;

const LOGIN: &str = "mutation($username:String!,$password:String!){login(username:$username,password:$password,rememberMe:true){__typename ... on ErrorResult{errorCode message}}}";
const PLACES: &str =
    "query{activeChannel{token} stockLocations(options:{take:1000}){items{id name}}}";
const RIGHTS: &str = "query{activeChannel{token} me{channels{token permissions}}}";
const VARIANTS: &str = "query($skus:[String!]!){productVariants(options:{filter:{sku:{in:$skus}},take:1000}){items{id sku trackInventory stockLevels{stockLocationId stockOnHand stockAllocated}}}}";
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
    places: Option<Places>,
}

/// Ids of the stock locations that the shop's customers see.
#[derive(Clone)]
pub struct Places {
    /// The one that is written to.
    pub location: String,
    /// Those that are kept empty.
    pub emptied: Vec<String>,
}

/// A variant as the shop holds it.
pub struct Variant {
    pub id: String,
    /// Whether the shop counts it at all; otherwise customers can buy any quantity.
    pub tracked: bool,
    /// At each location that the shop's customers see.
    pub levels: Vec<Level>,
}

/// Stock of a variant at a location.
pub struct Level {
    pub location: String,
    pub on_hand: i64,
    /// Held for the shop's own open orders.
    pub allocated: i64,
}

/// The stock to set for a variant: locations and units on hand.
pub struct Stock {
    pub variant: String,
    pub on_hand: Vec<(String, i64)>,
}

impl Variant {
    /// What customers can buy.
    pub fn shown(&self) -> i64 {
        self.levels.iter().map(|l| l.on_hand - l.allocated).sum()
    }

    /// What has to be set so that customers can buy `quantity`, all of it at the one location.
    pub fn stock_for(&self, quantity: i64, places: &Places) -> Stock {
        let at = |id: &str| self.levels.iter().find(|l| l.location == id);
        let mut on_hand = vec![(
            places.location.clone(),
            quantity + at(&places.location).map_or(0, |l| l.allocated),
        )];
        let held = places.emptied.iter().filter_map(|id| at(id));
        on_hand.extend(
            held.filter(|l| l.on_hand != l.allocated)
                .map(|l| (l.location.clone(), l.allocated)),
        );
        Stock {
            variant: self.id.clone(),
            on_hand,
        }
    }
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

    /// The stock locations of the shop's channel, which must be those of the settings: customers see
    /// the sum of them.
    pub async fn places(&self) -> Result<Places, Fault> {
        if let Some(places) = self.session.lock().await.places.clone() {
            return Ok(places);
        }
        let data = self.call(PLACES, json!({})).await?;
        let wrong = |what: String| {
            Err(Fault::halt(
                Stage::Write,
                Code::Configuration,
                self.says(&what),
            ))
        };
        let token = self.settings.channel_token.as_deref();
        if token.is_some_and(|t| data["activeChannel"]["token"] != t) {
            return wrong("has no channel with this token; mend `channel_token`".into());
        }
        let found: Vec<(&str, &str)> = data["stockLocations"]["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|item| Some((item["id"].as_str()?, item["name"].as_str()?)))
            .collect();
        let id_of = |name: &str| found.iter().find(|(_, n)| *n == name).map(|(id, _)| *id);
        let Some(location) = id_of(&self.settings.location) else {
            return wrong(format!(
                "has no stock location named {:?} in the shop's channel; create it there, or mend `location`",
                self.settings.location
            ));
        };
        let mut emptied = Vec::new();
        for name in &self.settings.empty_locations {
            match id_of(name) {
                Some(id) if id != location => emptied.push(id.to_owned()),
                Some(_) => {
                    return wrong(format!(
                        "cannot write to {name} and keep it empty; mend `empty_locations`"
                    ));
                }
                None => {
                    return wrong(format!(
                        "has no stock location named {name:?} in the shop's channel; mend `empty_locations`"
                    ));
                }
            }
        }
        let unnamed: Vec<&str> = found
            .iter()
            .filter(|(id, _)| *id != location && !emptied.iter().any(|e| e == id))
            .map(|(_, name)| *name)
            .collect();
        if !unnamed.is_empty() {
            return wrong(format!(
                "would show customers more than is published, as they also see the stock of {}; take it out of the shop's channel, or name it in `empty_locations`",
                unnamed.join(", ")
            ));
        }
        let places = Places {
            location: location.to_owned(),
            emptied,
        };
        self.session.lock().await.places = Some(places.clone());
        Ok(places)
    }

    /// Whether the user has one of these permissions in the shop's channel; `what` says for what.
    pub async fn may(&self, what: &str, one_of: [&str; 2]) -> Result<(), Fault> {
        let data = self.call(RIGHTS, json!({})).await?;
        let of_shop = data["me"]["channels"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|c| c["token"] == data["activeChannel"]["token"]);
        let permissions = of_shop.and_then(|c| c["permissions"].as_array());
        if permissions.is_some_and(|all| all.iter().any(|p| one_of.iter().any(|o| *p == *o))) {
            return Ok(());
        }
        let what = format!(
            "does not let {} {what}; give the user a role with {} in the shop's channel",
            self.settings.username, one_of[0]
        );
        Err(Fault::halt(
            Stage::Write,
            Code::Unauthorised,
            self.says(&what),
        ))
    }

    /// The variants of these SKUs. A SKU that is absent is unknown; one that several variants have
    /// appears with all of them.
    pub async fn variants(&self, skus: &[&str]) -> Result<HashMap<String, Vec<Variant>>, Fault> {
        let places = self.places().await?;
        let data = self.call(VARIANTS, json!({"skus": skus})).await?;
        let items = data["productVariants"]["items"].as_array();
        let mut found: HashMap<String, Vec<Variant>> = HashMap::new();
        for item in items.into_iter().flatten() {
            let (Some(id), Some(sku)) = (item["id"].as_str(), item["sku"].as_str()) else {
                continue;
            };
            let levels = item["stockLevels"].as_array().into_iter().flatten();
            let levels = levels.filter_map(|l| {
                Some(Level {
                    location: l["stockLocationId"].as_str()?.to_owned(),
                    on_hand: l["stockOnHand"].as_i64()?,
                    allocated: l["stockAllocated"].as_i64()?,
                })
            });
            found.entry(sku.to_owned()).or_default().push(Variant {
                id: id.to_owned(),
                tracked: item["trackInventory"] != "FALSE",
                levels: levels.collect(),
            });
        }
        let known =
            |l: &Level| l.location == places.location || places.emptied.contains(&l.location);
        if found.values().flatten().flat_map(|v| &v.levels).all(known) {
            return Ok(found);
        }
        self.forget_places().await;
        self.places().await?;
        Err(Fault::retry(
            Stage::Write,
            Code::Unavailable,
            self.says("has changed its stock locations meanwhile"),
        ))
    }

    /// Sets stock: all of it or, on any error, none.
    ///
    /// # Errors
    /// [`Code::Refused`] when the shop refused the call for what is in it.
    pub async fn set_stock(&self, stock: &[Stock]) -> Result<(), Fault> {
        let level = |(location, on_hand): &(String, i64)| json!({"stockLocationId": location, "stockOnHand": on_hand});
        let input: Vec<Value> = stock
            .iter()
            .map(|s| json!({"id": s.variant, "stockLevels": s.on_hand.iter().map(level).collect::<Vec<_>>()}))
            .collect();
        self.call(UPDATE, json!({"input": input})).await.map(|_| ())
    }

    /// Id and stamp of the orders that were placed, from a stamp on, by stamp and id.
    pub async fn heads(
        &self,
        stamp: &str,
        from: Timestamp,
        skip: usize,
        take: usize,
    ) -> Result<Vec<Value>, Fault> {
        // `after` leaves out the time itself.
        let after = Timestamp(from.0.max(0) - 1_000).to_string();
        let options = json!({
            "filter": {"active": {"eq": false}, stamp: {"after": after}},
            "sort": {stamp: "ASC", "id": "ASC"},
            "skip": skip,
            "take": take,
        });
        let query = format!(
            "query($options:OrderListOptions!){{orders(options:$options){{items{{id {stamp}}}}}}}"
        );
        self.list_orders(&query, options).await
    }

    /// Orders with all that is read of them.
    pub async fn orders(&self, filter: Value) -> Result<Vec<Value>, Fault> {
        let query = format!(
            "query($options:OrderListOptions!){{orders(options:$options){{items{{{FIELDS}}}}}}}"
        );
        self.list_orders(&query, json!({"filter": filter, "take": 100}))
            .await
    }

    /// No order decides whether the server understands how orders are asked for.
    async fn list_orders(&self, query: &str, options: Value) -> Result<Vec<Value>, Fault> {
        let data = self.call(query, json!({"options": options})).await;
        let mut data = data.map_err(|fault| match fault.verdict {
            Verdict::Reject => Fault {
                verdict: Verdict::Halt,
                ..fault
            },
            _ => fault,
        })?;
        match data["orders"]["items"].take() {
            Value::Array(items) => Ok(items),
            _ => Err(Fault::retry(
                Stage::Read,
                Code::Unavailable,
                self.says("answered without orders"),
            )),
        }
    }

    async fn forget_places(&self) {
        self.session.lock().await.places = None;
    }

    /// Calls the API, logging in when there is no session or it has gone.
    pub(super) async fn call(&self, query: &str, variables: Value) -> Result<Value, Fault> {
        if query.starts_with("mutation") {
            rehearsal::hold(|| named(query))?;
        }
        let body = json!({"query": query, "variables": variables});
        let mut token = self.token(None).await?;
        let mut renewed = false;
        loop {
            let request = self.request().bearer_auth(&token).json(&body);
            let mut answer = self.answer(request).await?.1;
            let Some(error) = answer["errors"].get(0) else {
                return match answer["data"].take() {
                    data @ Value::Object(_) => Ok(data),
                    _ => Err(Fault::retry(
                        Stage::Write,
                        Code::OutcomeUnknown,
                        self.says("answered without data"),
                    )),
                };
            };
            let code = error["extensions"]["code"].as_str().unwrap_or_default();
            let what = error["message"].as_str().unwrap_or_default();
            let message = self.says(&format!("answered: {code} {what}"));
            match code {
                "FORBIDDEN" | "UNAUTHORIZED" if !renewed => {
                    token = self.token(Some(&token)).await?;
                    renewed = true;
                }
                "FORBIDDEN" | "UNAUTHORIZED" => {
                    let message = format!(
                        "{message}; give the user {} the right",
                        self.settings.username
                    );
                    return Err(Fault::halt(Stage::Write, Code::Unauthorised, message));
                }
                "GRAPHQL_VALIDATION_FAILED" | "GRAPHQL_PARSE_FAILED" => {
                    let message = format!(
                        "{message}; the server is of a version that this connector does not know"
                    );
                    return Err(Fault::halt(Stage::Write, Code::Configuration, message));
                }
                // Errors of the server's database come without a code. They may pass; what they name
                // may also be gone, such as a stock location.
                "INTERNAL_SERVER_ERROR" | "" => {
                    self.forget_places().await;
                    return Err(Fault::retry(Stage::Write, Code::Refused, message));
                }
                _ => return Err(Fault::reject(Stage::Write, Code::Refused, message)),
            }
        }
    }

    /// The session's token: the present one, or a new one in the place of `refused`.
    async fn token(&self, refused: Option<&str>) -> Result<String, Fault> {
        let mut session = self.session.lock().await;
        if let Some(token) = session
            .token
            .clone()
            .filter(|t| Some(t.as_str()) != refused)
        {
            return Ok(token);
        }
        let variables = json!({"username": self.settings.username, "password": self.settings.password.reveal()});
        let request = self
            .request()
            .json(&json!({"query": LOGIN, "variables": variables}));
        let (token, answer) = self.answer(request).await?;
        let login = &answer["data"]["login"];
        let refusal = login["message"]
            .as_str()
            .filter(|_| login["errorCode"].is_string())
            .or(answer["errors"][0]["message"].as_str());
        if let Some(refusal) = refusal {
            let what = format!(
                "refused the login of {}: {refusal}; mend `username` or what `password` refers to",
                self.settings.username
            );
            return Err(Fault::halt(
                Stage::Write,
                Code::Unauthorised,
                self.says(&what),
            ));
        }
        let Some(token) = token else {
            let what = "gave no session token; its tokenMethod must allow bearer";
            return Err(Fault::halt(
                Stage::Write,
                Code::Configuration,
                self.says(what),
            ));
        };
        session.token = Some(token.clone());
        Ok(token)
    }

    fn request(&self) -> reqwest::RequestBuilder {
        let url = format!("{}/admin-api", self.settings.url.trim_end_matches('/'));
        let request = self.http.post(url);
        match &self.settings.channel_token {
            Some(token) => request.header("vendure-token", token),
            None => request,
        }
    }

    /// The session token and the GraphQL answer, which may hold errors: a query that the server does
    /// not understand comes with status 400.
    async fn answer(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<(Option<String>, Value), Fault> {
        let raw: RawAnswer = http::raw(&self.name, request).await?;
        let token = raw
            .headers
            .get("vendure-auth-token")
            .and_then(|v| v.to_str().ok())
            .map(str::to_owned);
        match raw.status.as_u16() {
            400 => {
                if let Ok(body) = serde_json::from_slice::<Value>(&raw.bytes)
                    && body["errors"].is_array()
                {
                    return Ok((token, body));
                }
            }
            404 | 405 => {
                let what = "has no /admin-api below its URL; mend `url`";
                return Err(Fault::halt(
                    Stage::Write,
                    Code::Configuration,
                    self.says(what),
                ));
            }
            _ => {}
        }
        Ok((token, raw.judge(&self.name)?.body))
    }

    pub(super) fn says(&self, what: &str) -> String {
        format!("{} {what}", self.name)
    }
}

/// The name of a mutation's first field.
fn named(mutation: &str) -> String {
    let field = mutation
        .split_once('{')
        .map_or(mutation, |(_, field)| field);
    let name = field.split(|c: char| !c.is_alphanumeric()).next();
    name.unwrap_or_default().to_owned()
}
