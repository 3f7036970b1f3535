//! Files: a retailer's nightly export, a till's journal, a data set. CSV or JSON lines, plain or
//! gzip; the mapping from columns to facts stands in the configuration.
//!
//! Lines are read in order and become movements of goods, the stock that is there, lines of payouts, or a
//! list of the orders that a system has. The bookmark
//! is byte offset and line of each file, so a restart goes on behind the last durable line. A line
//! that cannot be mapped is dead-lettered with its number and the reason, and the next one is read.
//!
//! `lines` finds records, `row` splits them into values, `map` and `payouts` make facts of these, `totals`
//! says what a file comes to, `source` goes through the files.

mod lines;
mod map;
mod payouts;
mod row;
mod settings;
mod source;
#[cfg(test)]
mod tests;
mod totals;

pub use settings::Settings;

use crate::contract::topic;
use crate::pipeline::{Check, Connector, ConnectorDescriptor, Evidence, Sink, Source};
use std::sync::Arc;

/// Lines that a check tries.
const CHECKED_LINES: usize = 100;

/// What the connector is.
pub const DESCRIPTOR: ConnectorDescriptor = ConnectorDescriptor {
    kind: "file",
    purpose: "reads movements, stock, payouts or lists of orders from CSV or JSON-lines files",
    emits: &[
        topic::STOCK_CHANGE,
        topic::STOCK_SNAPSHOT,
        topic::SETTLEMENT_EVENT,
        topic::SETTLEMENT_PAYOUT,
        topic::RECON_MANIFEST,
    ],
    inbox: false,
    accepts: &[],
    sink: None,
    evidence: Evidence::RealSystem,
    settings: || schemars::schema_for!(Settings),
    build: |instance, settings| {
        let settings: Settings = super::settings(instance, settings)?;
        map::Mapping::new(instance, &settings)?;
        Ok(Arc::new(Files {
            instance: instance.to_owned(),
            settings,
        }))
    },
    fake: None,
};

struct Files {
    instance: String,
    settings: Settings,
}

impl Files {
    /// Reads the first lines as a source would.
    fn try_lines(&self) -> Result<String, String> {
        let settings = Settings {
            batch_lines_max: CHECKED_LINES,
            ..self.settings.clone()
        };
        let mut source = source::FileSource::new(&self.instance, settings);
        let batch = source.read(None).map_err(|fault| fault.message)?;
        let (good, bad) = (batch.records.len(), batch.rejects.len());
        match batch.rejects.first() {
            None if good == 0 => Ok("no line yet".to_owned()),
            None => Ok(format!("the first {good} are understood")),
            Some(reject) => Err(format!(
                "{bad} of the first {} are not understood; {} of {}: {}",
                good + bad,
                reject.origin.item,
                reject.origin.container,
                reject.fault.message
            )),
        }
    }
}

#[async_trait::async_trait]
impl Connector for Files {
    fn source(&self) -> Option<Box<dyn Source>> {
        Some(Box::new(source::FileSource::new(
            &self.instance,
            self.settings.clone(),
        )))
    }
    fn sink(&self) -> Option<Arc<dyn Sink>> {
        None
    }
    async fn check(&self) -> Vec<Check> {
        let path = &self.settings.path;
        let there = std::fs::metadata(path).map(|m| match m.is_dir() {
            true => "a folder".to_owned(),
            false => format!("a file of {} bytes", m.len()),
        });
        vec![
            Check {
                what: format!("find {}", path.display()),
                result: there.map_err(|e| e.to_string()),
            },
            Check {
                what: "read lines".into(),
                result: self.try_lines(),
            },
        ]
    }
}
