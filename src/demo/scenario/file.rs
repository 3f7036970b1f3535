//! The file of a scenario: what there is, and the sentences in turn.

use super::phrase::{self, Phrase};
use super::stage::Act;
use super::{expect, money, words};
use crate::contract::event::Text;
use crate::contract::lint::{Finding, Lines};
use crate::domain::Decimal;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Files larger than this are no scenarios.
const BYTES_MAX: usize = 1 << 20;

/// What a location is.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Kind {
    /// A warehouse of one's own.
    Warehouse,
    /// A store with tills.
    Store,
    /// A third party's warehouse.
    ThirdParty,
}

/// Names that the file uses and no system knows, on purpose.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Unknown {
    #[serde(default)]
    pub skus: Vec<Text>,
    #[serde(default)]
    pub locations: Vec<Text>,
    #[serde(default)]
    pub channels: Vec<Text>,
    #[serde(default)]
    pub currencies: Vec<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(rename = "scenario")]
    title: String,
    #[serde(default, rename = "about")]
    _about: Option<String>,
    locations: BTreeMap<Text, Kind>,
    channels: BTreeMap<Text, Vec<Text>>,
    stock: BTreeMap<Text, BTreeMap<Text, Decimal>>,
    #[serde(default)]
    currencies: Option<Vec<Text>>,
    #[serde(default)]
    tax: Option<String>,
    #[serde(default)]
    unknown: Unknown,
    steps: Vec<String>,
}

/// What there is.
#[derive(Clone, Debug, Default)]
pub(super) struct World {
    pub locations: BTreeMap<Text, Kind>,
    /// Which locations each channel sells from, best first.
    pub channels: BTreeMap<Text, Vec<Text>>,
    pub stock: BTreeMap<Text, BTreeMap<Text, Decimal>>,
    pub currencies: Vec<Text>,
    /// Contained in prices: 0.2 for 20 %.
    pub tax: Decimal,
    pub unknown: Unknown,
    /// Orders told of so far.
    pub orders: Vec<Text>,
}

impl World {
    /// Every location that may be named, and so on.
    pub fn places(&self) -> Vec<Text> {
        self.locations
            .keys()
            .chain(&self.unknown.locations)
            .cloned()
            .collect()
    }
    pub fn sellers(&self) -> Vec<Text> {
        self.channels
            .keys()
            .chain(&self.unknown.channels)
            .cloned()
            .collect()
    }
    pub fn goods(&self) -> Vec<Text> {
        self.stock
            .keys()
            .chain(&self.unknown.skus)
            .cloned()
            .collect()
    }
    pub fn monies(&self) -> Vec<Text> {
        self.currencies
            .iter()
            .chain(&self.unknown.currencies)
            .cloned()
            .collect()
    }
    pub fn systems(&self) -> Vec<Text> {
        let own = ["ERP", "PSP", "service"].map(Text::from);
        own.into_iter()
            .chain(self.locations.keys().cloned())
            .chain(self.sellers())
            .collect()
    }
}

/// A step.
pub(super) struct Step {
    pub line: usize,
    pub sentence: String,
    pub act: Act,
}

/// A scenario that can be played.
pub(super) struct Story {
    pub title: String,
    pub world: World,
    pub steps: Vec<Step>,
}

/// Reads a scenario.
pub(super) fn read(file: &str, text: &str) -> Result<Story, Vec<Finding>> {
    let finding = |line, field: &str, cause: String, remedy: &str| Finding {
        file: file.to_owned(),
        line,
        field: field.to_owned(),
        cause,
        remedy: remedy.to_owned(),
    };
    if text.len() > BYTES_MAX {
        let cause = format!("it has {} bytes", text.len());
        return Err(vec![finding(
            1,
            "",
            cause,
            "write a scenario of less than 1 MiB",
        )]);
    }
    let written: Written = serde_norway::from_str(text).map_err(|e| {
        let line = e.location().map_or(1, |l| l.line());
        let remedy =
            "see `crossdock scenario --help` for what a file holds; a sentence with a colon needs quotes";
        vec![finding(line, "", e.to_string(), remedy)]
    })?;
    let lines = Lines::new(text);
    let mut found = Vec::new();
    let steps = written.steps;
    let mut world = World {
        locations: written.locations,
        channels: written.channels,
        stock: written.stock,
        currencies: written.currencies.unwrap_or_else(|| vec!["EUR".into()]),
        tax: Decimal::ZERO,
        unknown: written.unknown,
        orders: Vec::new(),
    };
    let known: Vec<Text> = world.locations.keys().cloned().collect();
    let named = world
        .channels
        .iter()
        .map(|(c, all)| (format!("channels.{c}"), all.clone()));
    let stocked = world.stock.iter();
    let stocked = stocked.map(|(s, all)| (format!("stock.{s}"), all.keys().cloned().collect()));
    for (field, locations) in named.chain(stocked) {
        for location in locations {
            if let Err(why) = phrase::is_known(&location, "location", &known) {
                let remedy = "name it under locations";
                found.push(finding(lines.of(&field), &field, why, remedy));
            }
        }
    }
    if let Some(tax) = &written.tax {
        match tax.strip_suffix('%').map(|t| t.trim().parse::<Decimal>()) {
            Some(Ok(tax)) if !tax.is_negative() => {
                world.tax = Decimal::from_units(tax.units() / 100);
            }
            _ => {
                let cause = format!("\"{tax}\" is no rate of tax");
                found.push(finding(lines.of("tax"), "tax", cause, "write it as 20 %"));
            }
        }
    }
    let phrases: Vec<&'static Phrase> = words::PHRASES
        .iter()
        .chain(expect::PHRASES)
        .chain(money::PHRASES)
        .collect();
    let mut read = Vec::new();
    for (n, sentence) in steps.into_iter().enumerate() {
        let field = format!("steps.{n}");
        let line = lines.of(&field);
        match phrase::read(&sentence, &world, &phrases) {
            Ok(act) => {
                world.orders.extend(act.orders());
                read.push(Step {
                    line,
                    sentence,
                    act,
                });
            }
            Err(cause) => found.push(finding(
                line,
                &field,
                format!("\"{sentence}\": {cause}"),
                "`crossdock scenario --sentences` lists what can be said",
            )),
        }
    }
    match found.is_empty() {
        true => Ok(Story {
            title: written.title,
            world,
            steps: read,
        }),
        false => Err(found),
    }
}
