//! A source on the embedded log, with everything that goes wrong between a row and its record.

use crate::world::{FAULTS, SOURCE, World, meta};
use crossdock::contract::event::*;
use crossdock::contract::{Catalogue, topic};
use crossdock::domain::Decimal;
use crossdock::pipeline::{
    Code, Cursor, Fault, Source, SourceBatch, SourceOrigin, SourceRecord, SourceReject, Stage,
};
use crossdock::runtime::{SourceTask, TaskSettings};
use futures::executor::block_on;
use rand::prelude::*;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const SHARDS: usize = 3;
/// A row that cannot be read, in every shard.
const BAD_ROW: i64 = 17;
/// A row whose event is too large for its topic.
const LARGE_ROW: i64 = 23;

/// A till that appends rows, one list for each shard.
struct Till {
    rows: Mutex<[i64; SHARDS]>,
    acknowledged: Mutex<BTreeMap<String, i64>>,
    random: Mutex<StdRng>,
}

struct Reader(Arc<Till>);

fn fails(till: &Till) -> bool {
    till.random.lock().expect("whole").random_bool(0.15)
}

#[async_trait::async_trait]
impl Source for Reader {
    fn shards(&self) -> Vec<String> {
        (0..SHARDS).map(|n| n.to_string()).collect()
    }

    async fn poll(&mut self, shard: &str, cursor: Option<&Cursor>) -> Result<SourceBatch, Fault> {
        if fails(&self.0) {
            return Err(Fault::retry(
                Stage::Read,
                Code::Unavailable,
                "the till is away",
            ));
        }
        let number: usize = shard.parse().expect("a number");
        let end = self.0.rows.lock().expect("whole")[number];
        let read = cursor.and_then(|c| c.bookmark.as_i64()).unwrap_or(0);
        let mut sequence = cursor.map_or(1, |c| c.sequence);
        let to = end.min(read + 7);
        let mut batch = SourceBatch::default();
        for row in read + 1..=to {
            if row == BAD_ROW {
                batch.rejects.push(SourceReject {
                    origin: SourceOrigin {
                        container: shard.into(),
                        item: row.to_string(),
                    },
                    raw: "bad".into(),
                    fault: Fault::reject(Stage::Read, Code::Malformed, "not a row"),
                });
                continue;
            }
            let mut fact = StockChanged {
                meta: meta("StockChanged", SOURCE, &format!("{shard}/{row}"), sequence),
                sku: shard.into(),
                location_id: "dc".into(),
                qty: Decimal::ONE,
                ..StockChanged::default()
            };
            fact.meta.recorded_at = Default::default();
            if row == LARGE_ROW {
                fact.movement_id = "x".repeat(2 << 20).into();
            }
            sequence += 1;
            batch.records.push(SourceRecord {
                topic: topic::STOCK_CHANGE,
                key: format!("{shard}|dc").into(),
                event: fact.into(),
            });
        }
        batch.more = to < end;
        batch.cursor = Cursor {
            bookmark: to.into(),
            sequence,
        };
        Ok(batch)
    }

    async fn committed(&mut self, shard: &str, cursor: &Cursor) -> Result<(), Fault> {
        if fails(&self.0) {
            return Err(Fault::retry(
                Stage::Read,
                Code::Unavailable,
                "the till is away",
            ));
        }
        let row = cursor.bookmark.as_i64().unwrap_or_default();
        let mut acknowledged = self.0.acknowledged.lock().expect("whole");
        acknowledged.insert(shard.to_owned(), row);
        Ok(())
    }
}

fn task(world: &World, till: &Arc<Till>, slot: &str) -> SourceTask {
    let mut settings = TaskSettings::new(slot, 0);
    settings.static_membership = false;
    SourceTask::new(
        SOURCE,
        Box::new(Reader(till.clone())),
        world.port(),
        world.clock.clone(),
        world.cold_codec(),
        Catalogue::compiled(),
        world.telemetry.clone(),
        settings,
    )
    .expect("a task")
}

#[test]
fn whatever_fails_at_whatever_moment_every_row_is_written_once_and_acknowledged() {
    for seed in 0..60 {
        let world = World::new();
        let mut random = StdRng::seed_from_u64(seed);
        let till = Arc::new(Till {
            rows: Mutex::default(),
            acknowledged: Mutex::default(),
            random: Mutex::new(StdRng::seed_from_u64(seed + 1_000)),
        });
        let mut tasks = vec![task(&world, &till, "slot-0")];
        let mut next = 1;
        for _ in 0..150 {
            till.rows.lock().expect("whole")[random.random_range(0..SHARDS)] +=
                random.random_range(0..5);
            match random.random_range(0..20) {
                0..5 => world
                    .log
                    .inject(*FAULTS.choose(&mut random).expect("a fault")),
                5 => {
                    let down = random.random_bool(0.4);
                    world.registry.0.store(down, Ordering::SeqCst);
                }
                6 => world.log.expire("crossdock.till.source", "member-"),
                7 if tasks.len() < 3 => {
                    tasks.push(task(&world, &till, &format!("slot-{next}")));
                    next += 1;
                }
                8 => {
                    let chosen = random.random_range(0..tasks.len());
                    drop(tasks.swap_remove(chosen));
                    if tasks.is_empty() {
                        tasks.push(task(&world, &till, &format!("slot-{next}")));
                        next += 1;
                    }
                }
                _ => {}
            }
            let chosen = random.random_range(0..tasks.len());
            let _ = block_on(tasks[chosen].step());
        }
        world.registry.0.store(false, Ordering::SeqCst);
        let rows = *till.rows.lock().expect("whole");
        let expected: BTreeMap<String, i64> =
            (0..SHARDS).map(|n| (n.to_string(), rows[n])).collect();
        let mut turns = 0;
        while expected.iter().any(|(shard, end)| {
            *end > 0 && till.acknowledged.lock().expect("whole").get(shard) != Some(end)
        }) {
            turns += 1;
            assert!(
                turns < 5_000,
                "seed {seed}: rows were never read and acknowledged"
            );
            world.advance(Duration::from_millis(50));
            for task in &mut tasks {
                let _ = block_on(task.step());
            }
        }
        let mut found: BTreeMap<String, Vec<(Text, i64)>> = BTreeMap::new();
        for event in world.events(topic::STOCK_CHANGE) {
            let Event::StockChanged(fact) = event else {
                panic!("not a change")
            };
            found
                .entry(fact.sku.to_string())
                .or_default()
                .push((fact.meta.correlation_id, fact.meta.source_position));
        }
        let mut left_out = 0;
        for (shard, end) in &expected {
            let mut sequence = 0;
            let mut rows = Vec::new();
            for row in (1..=*end).filter(|row| *row != BAD_ROW) {
                sequence += 1;
                if row != LARGE_ROW {
                    rows.push((Text::from(format!("{shard}/{row}")), sequence));
                }
            }
            left_out += usize::from(*end >= BAD_ROW) + usize::from(*end >= LARGE_ROW);
            assert_eq!(
                found.remove(shard).unwrap_or_default(),
                rows,
                "seed {seed}: shard {shard}: each row once, in order, with a sequence without gaps"
            );
        }
        let letters = world.events("retail.rt.till.dlq.v1");
        assert_eq!(letters.len(), left_out, "seed {seed}");
    }
}

/// A system without news, which can be away.
struct Quiet(Arc<AtomicBool>);

#[async_trait::async_trait]
impl Source for Quiet {
    fn source_name(&self) -> Option<&str> {
        Some("erp")
    }
    async fn poll(&mut self, _shard: &str, cursor: Option<&Cursor>) -> Result<SourceBatch, Fault> {
        if self.0.load(Ordering::SeqCst) {
            let away = Fault::retry(Stage::Read, Code::Unavailable, "it is away");
            return Err(away);
        }
        Ok(SourceBatch {
            cursor: cursor.cloned().unwrap_or_default(),
            ..SourceBatch::default()
        })
    }
}

#[test]
fn a_source_without_news_is_heard_of_every_minute_and_falls_silent_when_it_is_away() {
    let (world, away) = (World::new(), Arc::new(AtomicBool::new(false)));
    let mut settings = TaskSettings::new("slot-0", 0);
    settings.static_membership = false;
    let mut task = SourceTask::new(
        SOURCE,
        Box::new(Quiet(away.clone())),
        world.port(),
        world.clock.clone(),
        world.cold_codec(),
        Catalogue::compiled(),
        world.telemetry.clone(),
        settings,
    )
    .expect("a task");
    let mut live = |seconds: u64| {
        for _ in 0..seconds {
            world.advance(Duration::from_secs(1));
            let _ = block_on(task.step());
        }
        world.events(topic::OPS_HEARTBEAT)
    };
    let heard = live(301);
    assert!(
        (5..=6).contains(&heard.len()),
        "{} beats in five minutes",
        heard.len()
    );
    let Event::SourceHeartbeat(last) = &heard[heard.len() - 1] else {
        panic!("not a heartbeat")
    };
    assert_eq!((&*last.meta.source, &*last.scope), ("erp", "main"));
    away.store(true, Ordering::SeqCst);
    assert_eq!(live(600).len(), heard.len(), "nobody answers");
    away.store(false, Ordering::SeqCst);
    assert_eq!(live(2).len(), heard.len() + 1, "it is back");
}
