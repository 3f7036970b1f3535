//! State that is read back while the log fails: whatever partition meets it, all of them are worked on
//! afterwards.

use crate::stock::{sale, settled};
use crate::world::World;
use crossdock::contract::{Catalogue, topic};
use crossdock::domain::compound_key;
use crossdock::log::{
    Admin, Consumer, GroupSpec, Isolation, Log, LogError, Offset, Producer, ProducerSpec, Reader,
    TopicPartition, Wanted,
};
use crossdock::pipeline::Record;
use crossdock::processors;
use crossdock::runtime::{ProcessorTask, TaskSettings};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// A log of which one read is not answered.
struct Deaf {
    inner: Arc<dyn Log>,
    /// Reads until then.
    reads: Arc<AtomicI64>,
}

impl Log for Deaf {
    fn consumer(&self, spec: &GroupSpec) -> Result<Box<dyn Consumer>, LogError> {
        self.inner.consumer(spec)
    }
    fn reader(
        &self,
        from: &[(TopicPartition, Offset)],
        isolation: Isolation,
    ) -> Result<Box<dyn Reader>, LogError> {
        Ok(Box::new(DeafReader {
            inner: self.inner.reader(from, isolation)?,
            reads: self.reads.clone(),
        }))
    }
    fn producer(&self, spec: &ProducerSpec) -> Result<Box<dyn Producer>, LogError> {
        self.inner.producer(spec)
    }
    fn admin(&self) -> &dyn Admin {
        self.inner.admin()
    }
    fn address(&self) -> &str {
        self.inner.address()
    }
    fn id(&self) -> &str {
        self.inner.id()
    }
}

struct DeafReader {
    inner: Box<dyn Reader>,
    reads: Arc<AtomicI64>,
}

impl Reader for DeafReader {
    fn poll_where(
        &mut self,
        max: usize,
        wait: Duration,
        wanted: &Wanted,
        into: &mut Vec<Record>,
    ) -> Result<usize, LogError> {
        match self.reads.fetch_sub(1, Ordering::SeqCst) {
            0 => Err(LogError::TimedOut("nobody answers".into())),
            _ => self.inner.poll_where(max, wait, wanted, into),
        }
    }
    fn caught_up(&self) -> bool {
        self.inner.caught_up()
    }
    fn position(&self, partition: &TopicPartition) -> Option<i64> {
        self.inner.position(partition)
    }
}

const PER_WAVE: i64 = 40;

fn send(world: &World, from: i64) {
    for position in from..from + PER_WAVE {
        let sku = format!("S{position}");
        let fact = sale(&sku, "dc", position, 1);
        world.send(topic::STOCK_CHANGE, &compound_key(&[&sku, "dc"]), fact);
    }
}

#[test]
fn a_read_that_fails_while_state_is_restored_holds_no_other_partition_up() {
    let mut met = 0;
    for nth in 0..12 {
        let world = World::new();
        send(&world, 0);
        let mut first = world.task("stock-ledger", "one");
        world.settle(&mut [&mut first]);
        drop(first);
        send(&world, PER_WAVE);
        let reads = Arc::new(AtomicI64::new(nth));
        let inner = world.port();
        let deaf = Arc::new(Deaf {
            inner,
            reads: reads.clone(),
        });
        let mut settings = TaskSettings::new("two", 0);
        settings.static_membership = false;
        let mut second = ProcessorTask::new(
            (processors::find("stock-ledger").expect("a processor").make)(),
            deaf,
            world.clock.clone(),
            world.codec.clone(),
            Catalogue::compiled(),
            world.telemetry.clone(),
            settings,
        )
        .expect("a task");
        // The step that meets the fault reports it; the next ones go on by themselves.
        for _ in 0..100 {
            met += usize::from(second.step(Duration::ZERO).is_err());
        }
        world.settle(&mut [&mut second]);
        let (count, _) = settled(&world, "stock-ledger");
        assert_eq!(count, 2 * PER_WAVE, "read {nth} failed");
    }
    assert!(met > 1, "{met} reads failed");
}
