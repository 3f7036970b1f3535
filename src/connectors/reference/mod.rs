//! Reference data that no system tells of: channels, locations and stock policies, written in the
//! configuration.

mod source;

use crate::contract::topic;
use crate::domain::Decimal;
use crate::pipeline::{Check, Connector, ConnectorDescriptor, Evidence, Sink, Source};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the connector is.
pub const DESCRIPTOR: ConnectorDescriptor = ConnectorDescriptor {
    kind: "reference",
    purpose: "tells of channels, locations and stock policies that stand in the configuration",
    emits: &[
        topic::CHANNEL_CHANGE,
        topic::LOCATION_CHANGE,
        topic::STOCK_AUTHORITY,
        topic::STOCK_POLICY,
    ],
    inbox: false,
    accepts: &[],
    sink: None,
    evidence: Evidence::RealSystem,
    settings: || schemars::schema_for!(Settings),
    build: |instance, settings| {
        let settings: Settings = super::settings(instance, settings)?;
        Ok(Arc::new(Reference {
            instance: instance.to_owned(),
            settings,
        }))
    },
    fake: None,
};

/// Settings of a reference connector. A change takes effect when the connector is started again;
/// what is taken out of the file is withdrawn.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Channels by id: where customers buy.
    #[serde(default)]
    pub channels: BTreeMap<String, ChannelSettings>,
    /// Locations by id: where stock lies.
    #[serde(default)]
    pub locations: BTreeMap<String, LocationSettings>,
    /// Rules for stock at a position.
    #[serde(default)]
    pub policies: Vec<PolicySettings>,
}

/// A place that sells.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ChannelSettings {
    /// Name for people; the id where there is none.
    pub name: Option<String>,
    /// Locations whose stock it may sell.
    pub locations: Vec<String>,
    /// Units held back from what is published.
    #[serde(default)]
    #[schemars(with = "String")]
    pub buffer: Decimal,
    /// Published quantities round down to a multiple of this.
    #[schemars(with = "Option<String>")]
    pub unit: Option<Decimal>,
}

/// A place that holds stock.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LocationSettings {
    /// Name for people; the id where there is none.
    pub name: Option<String>,
    /// What it is.
    pub kind: Kind,
    /// The system whose stock facts count here, by the source name that its facts carry; those of any
    /// other are compared with them. Without it the first system heard at a position counts there, and
    /// a position that has its system keeps it.
    pub stock_authority: Option<String>,
}

/// What a location is.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Kind {
    Dc,
    Store,
    Dropship,
    ThirdParty,
}

/// Rules for the stock of one SKU at one location.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PolicySettings {
    /// SKU.
    pub sku: String,
    /// Location.
    pub location: String,
    /// Units that are never promised.
    #[serde(default)]
    #[schemars(with = "String")]
    pub safety_stock: Decimal,
    /// Units kept for a channel, by channel.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, String>")]
    pub kept_for: BTreeMap<String, Decimal>,
    /// What to do when stock does not suffice.
    #[serde(default)]
    pub oversell: Oversell,
    /// Most backordered units where backorders are allowed to a limit.
    #[schemars(with = "Option<String>")]
    pub backorder_limit: Option<Decimal>,
}

/// What to do when stock does not suffice.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Oversell {
    /// Refuse.
    #[default]
    Block,
    /// Accept backorders up to the limit.
    BackorderToLimit,
    /// Accept any.
    Allow,
}

struct Reference {
    instance: String,
    settings: Settings,
}

#[async_trait::async_trait]
impl Connector for Reference {
    fn source(&self) -> Option<Box<dyn Source>> {
        Some(Box::new(source::ReferenceSource::new(
            &self.instance,
            self.settings.clone(),
        )))
    }
    fn sink(&self) -> Option<Arc<dyn Sink>> {
        None
    }
    async fn check(&self) -> Vec<Check> {
        let known = |l: &String| {
            self.settings.locations.is_empty() || self.settings.locations.contains_key(l)
        };
        let unknown: Vec<String> = self
            .settings
            .channels
            .iter()
            .flat_map(|(channel, c)| {
                c.locations
                    .iter()
                    .filter(|l| !known(l))
                    .map(move |l| format!("{channel} sells from {l}"))
            })
            .collect();
        let result = match unknown.as_slice() {
            [] => Ok(format!(
                "{} channels, {} policies",
                self.settings.channels.len(),
                self.settings.policies.len()
            )),
            some => Err(format!(
                "{}, which is not among the locations",
                some.join("; ")
            )),
        };
        vec![Check {
            what: "locations of channels".into(),
            result,
        }]
    }
}
