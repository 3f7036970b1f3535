//! What the lines of a file come to, told when it has ended: what payouts sum to, and whether a list of
//! orders is whole.

use super::map::{Fact, Mapping, Place};
use super::payouts::Control;
use crate::connectors::manifest::Parts;
use crate::contract::event::{ManifestEntry, SystemRole};
use crate::domain::{Timestamp, compound_key};
use crate::pipeline::{Fault, SourceBatch, SourceRecord};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Payouts of one file whose lines are counted; a report of a year has some hundreds.
const PAYOUTS_MAX: usize = 2_000;

/// What the lines of a file come to so far.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Totals {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    payouts: BTreeMap<String, Payout>,
    #[serde(default)]
    listed: Parts,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
struct Payout {
    lines: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    control: Option<Control>,
}

impl Totals {
    /// Whether nothing is to be remembered.
    pub fn is_nothing(&self) -> bool {
        *self == Totals::default()
    }

    /// Takes a fact in; gives what is to be told at once.
    pub fn take(
        &mut self,
        fact: Fact,
        entries: &mut Vec<ManifestEntry>,
        mapping: &Mapping,
        (place, sequence): (&Place<'_>, i64),
    ) -> Option<SourceRecord> {
        match fact {
            Fact::Record(record) => Some(record),
            Fact::Line { payout, record } => {
                if let Some(payout) = self.payout(payout) {
                    payout.lines += 1;
                }
                Some(record)
            }
            Fact::Payout {
                payout,
                control,
                count: Some(count),
            } => {
                let fields = mapping.at(place);
                Some(fields.control(&payout, &control, Some(count), sequence))
            }
            Fact::Payout {
                payout, control, ..
            } => {
                if let Some(payout) = self.payout(payout) {
                    payout.control = Some(control);
                }
                None
            }
            Fact::Listed(entry) => {
                entries.push(entry);
                None
            }
        }
    }

    fn payout(&mut self, name: String) -> Option<&mut Payout> {
        // Of more payouts no control row is told, and each of them becomes a case that says so.
        if self.payouts.len() >= PAYOUTS_MAX && !self.payouts.contains_key(&name) {
            return None;
        }
        Some(self.payouts.entry(name).or_default())
    }

    /// Tells of the `entries` that were read, and when the file `has_ended` what it comes to.
    ///
    /// # Errors
    /// A reject when the file has no time.
    pub fn close(
        &mut self,
        entries: Vec<ManifestEntry>,
        has_ended: bool,
        mapping: &Mapping,
        place: &Place<'_>,
        batch: &mut SourceBatch,
    ) -> Result<(), Fault> {
        let lists = mapping.role().filter(|_| has_ended || !entries.is_empty());
        if let Some(role) = lists {
            self.chunk(entries, has_ended, role, (mapping, place), batch)?;
        }
        if has_ended {
            for (name, payout) in std::mem::take(&mut self.payouts) {
                let Some(control) = payout.control else {
                    continue;
                };
                // Its lines may stand in another report: then nobody counts them.
                let count = Some(payout.lines).filter(|lines| *lines > 0);
                let fields = mapping.at(place);
                let record = fields.control(&name, &control, count, batch.cursor.sequence);
                push(record, batch);
            }
            *self = Totals::default();
        }
        Ok(())
    }

    fn chunk(
        &mut self,
        entries: Vec<ManifestEntry>,
        is_last: bool,
        role: SystemRole,
        (mapping, place): (&Mapping, &Place<'_>),
        batch: &mut SourceBatch,
    ) -> Result<(), Fault> {
        let fields = mapping.at(place);
        let file = fields.file();
        let record_id = compound_key(&[&file, &self.listed.told().to_string()]);
        let sequence = batch.cursor.sequence;
        let meta = fields.meta("ReconManifest", &record_id, file.as_str().into(), sequence)?;
        let name = compound_key(&[mapping.instance(), &file]);
        // All that the system has, since ever.
        let window = (Timestamp(0), meta);
        let part = self.listed.next((name, role), window, entries, is_last);
        push(part, batch);
        Ok(())
    }
}

fn push(record: SourceRecord, batch: &mut SourceBatch) {
    batch.cursor.sequence += 1;
    batch.records.push(record);
}
