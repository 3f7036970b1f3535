//! `feed-watch`: whether every source is still heard of.
//!
//! Sources beat while they can be read; one that falls silent is told to whoever relies on its facts, and
//! is a case. The rules are in [`crate::domain::recon::Feed`].

use super::cases::{self, About};
use super::checks::{check_key, check_times, no_use};
use super::keyed::{Call, Fate, Heard, Keyed, Rules};
use crate::contract::event::{Event, FeedState, FeedStatus};
use crate::contract::topic;
use crate::domain::recon::Feed;
use crate::domain::{compound_key, key_part};
use crate::pipeline::{Fault, ProcessorDescriptor};

/// What `feed-watch` is.
pub const DESCRIPTOR: ProcessorDescriptor = ProcessorDescriptor {
    name: "feed-watch",
    purpose: "watches that every source is heard of",
    inputs: &[topic::OPS_HEARTBEAT],
    tables: &[],
    outputs: &[topic::OPS_FEED, topic::OPS_EXCEPTION],
};

/// The processor.
pub type FeedWatch = Keyed<Beating>;

/// Its rules.
#[derive(Default)]
pub struct Beating;

impl Rules for Beating {
    const DESCRIPTOR: &'static ProcessorDescriptor = &DESCRIPTOR;
    const SOURCE: &'static str = "crossdock/feed-watch";
    type Known = Feed;
    type Gathered = ();

    fn take(
        &self,
        index: usize,
        feed: &mut Feed,
        _: &mut (),
        call: &mut Call<'_, '_>,
    ) -> Result<Heard, Fault> {
        let Event::SourceHeartbeat(e) = &call.inbound[index].event else {
            return Err(no_use(DESCRIPTOR.name, &call.inbound[index].event));
        };
        check_key(call.key, &compound_key(&[&e.meta.source, &e.scope]))?;
        check_times(&e.meta)?;
        Ok(Heard::Taken(feed.beat(e.meta.occurred_at, e.watermark_at)))
    }

    fn finish(&self, feed: &mut Feed, (): (), call: &mut Call<'_, '_>) -> Result<Fate, Fault> {
        let source = key_part(call.key, 0);
        let (change, changes) = feed.settle(&source, call.now());
        let emitter = call.emitter();
        if let Some(change) = change {
            let record_id = format!("{}#{}", call.key, change.version);
            let event = FeedStatus {
                meta: emitter.meta("FeedStatus", &record_id, change.version),
                feed_source: source,
                scope: key_part(call.key, 1),
                status_version: change.version,
                status: match change.stale {
                    true => FeedState::Stale,
                    false => FeedState::Fresh,
                },
                watermark_at: change.watermark_at,
            };
            call.context.emit(topic::OPS_FEED, call.key, event);
        }
        cases::emit(&About::default(), changes, &emitter, call.context);
        Ok(Fate::Kept)
    }
}
