//! `manifest-split`: lists of what systems have, entry by entry, at the keys of what they list.
//!
//! A list comes in chunks; each entry goes on at once, and whether the list is whole is watched here: for which
//! time they all are is told in a table, so that what they leave out can be found. The rules are in [`crate::domain::recon::Manifests`].

use super::cases::{self, About};
use super::checks::{check_key, check_times, no_use, quality, unknown};
use super::keyed::{Call, Fate, Heard, Keyed, Rules};
use crate::contract::event::{Event, ListCoverage, ReconManifest, SystemRole};
use crate::contract::topic;
use crate::domain::recon::{Chunk, Coverage, Manifests};
use crate::domain::{Taken, compound_key, key_part};
use crate::pipeline::{Fault, ProcessorDescriptor};

/// What `manifest-split` is.
pub const DESCRIPTOR: ProcessorDescriptor = ProcessorDescriptor {
    name: "manifest-split",
    purpose: "passes on what systems list of orders to each order, and watches that lists are whole",
    inputs: &[topic::RECON_MANIFEST],
    tables: &[],
    outputs: &[
        topic::MANIFEST_SPLIT_ORDER,
        topic::RECON_COVERAGE,
        topic::OPS_EXCEPTION,
    ],
};

/// The kind of thing whose entries go on.
const ORDER: &str = "order";

/// The processor.
pub type ManifestSplit = Keyed<Splitting>;

/// Its rules.
#[derive(Default)]
pub struct Splitting;

impl Rules for Splitting {
    const DESCRIPTOR: &'static ProcessorDescriptor = &DESCRIPTOR;
    const SOURCE: &'static str = "crossdock/manifest-split";
    type Known = Manifests;
    type Gathered = ();

    fn take(
        &self,
        index: usize,
        manifests: &mut Manifests,
        _: &mut (),
        call: &mut Call<'_, '_>,
    ) -> Result<Heard, Fault> {
        let Event::ReconManifest(e) = &call.inbound[index].event else {
            return Err(no_use(DESCRIPTOR.name, &call.inbound[index].event));
        };
        check_key(call.key, &compound_key(&[&e.meta.source, &e.entity_type]))?;
        check_times(&e.meta)?;
        let taken = manifests.chunk(chunk(e)?, call.now());
        if taken == Taken::Applied && *e.entity_type == *ORDER {
            let mut single = e.clone();
            for entry in std::mem::take(&mut single.entries) {
                let key = entry.entity_key.clone();
                single.entries = vec![entry];
                let topic = topic::MANIFEST_SPLIT_ORDER;
                call.context.emit(topic, key, single.clone());
            }
        }
        Ok(Heard::Taken(taken))
    }

    fn finish(
        &self,
        manifests: &mut Manifests,
        (): (),
        call: &mut Call<'_, '_>,
    ) -> Result<Fate, Fault> {
        let (changes, covered) = manifests.settle(call.now());
        if let Some((version, of)) = covered {
            let coverage = coverage(version, of, call);
            call.context.emit(topic::RECON_COVERAGE, call.key, coverage);
        }
        cases::emit(&About::default(), changes, &call.emitter(), call.context);
        Ok(Fate::Kept)
    }
}

fn coverage(version: i64, of: Coverage, call: &Call<'_, '_>) -> ListCoverage {
    let record_id = format!("{}#{version}", call.key);
    ListCoverage {
        meta: call.emitter().meta("ListCoverage", &record_id, version),
        list_source: key_part(call.key, 0),
        entity_type: key_part(call.key, 1),
        coverage_version: version,
        covered_since: of.since,
        last_since: of.last_since,
        covered_until: of.until,
    }
}

fn chunk(e: &ReconManifest) -> Result<Chunk, Fault> {
    if e.role == SystemRole::Unknown {
        return Err(unknown("role"));
    }
    let part = (u32::try_from(e.chunk), u32::try_from(e.chunks));
    let (Ok(chunk), Ok(chunks)) = part else {
        return Err(quality("chunk and chunks must not be less than 0"));
    };
    if chunk >= chunks {
        return Err(quality(format!(
            "chunk {chunk} of {chunks}: they count from 0"
        )));
    }
    if e.window_end < e.window_start {
        return Err(quality("windowEnd is before windowStart"));
    }
    Ok(Chunk {
        manifest: e.manifest_id.clone(),
        window: (e.window_start, e.window_end),
        part: (chunk, chunks),
        sums: (
            e.entries.len() as i64,
            e.entries.iter().filter_map(|entry| entry.amount).sum(),
        ),
        totals: (e.total_count, e.total_amount),
    })
}
