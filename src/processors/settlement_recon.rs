//! `settlement-recon`: each payout beside its lines, its control row and the bank; and its books.
//!
//! It books what only a payout knows (fees, reserves, corrections, the bank's credit) and moves what
//! its lines settle from the orders' PSPClearing to its own, which the bank's credit brings to zero. A
//! payout may have very many lines: each is a sub-entry of its own, the payout keeps sums. The rules
//! are in [`crate::domain::finance::Payout`].

use super::checks::{check_key, check_times, damaged, no_use};
use super::finance::postings::{Books, event as posting_event};
use super::finance::{Emitter, cases, facts, forget, keep, settle};
use crate::contract::event::{Event, SettlementEvent, Text};
use crate::contract::topic;
use crate::domain::Timestamp;
use crate::domain::finance::{KeptLine, Payout, Posting, Taken};
use crate::pipeline::{Context, Fault, Inbound, Processor, ProcessorDescriptor};

/// What `settlement-recon` is.
pub const DESCRIPTOR: ProcessorDescriptor = ProcessorDescriptor {
    name: "settlement-recon",
    purpose: "compares payouts with their lines and the bank, and books them",
    inputs: &[topic::SETTLEMENT_PAYOUT],
    tables: &[],
    outputs: &[topic::LEDGER_POSTING, topic::OPS_EXCEPTION],
};

const SOURCE: &str = "crossdock/settlement-recon";

/// The processor.
#[derive(Default)]
pub struct SettlementRecon {
    bytes: Vec<u8>,
}

impl SettlementRecon {
    /// Without any payout; state brings them.
    pub fn new() -> Self {
        Self::default()
    }

    fn finish(
        &mut self,
        key: &str,
        mut payout: Payout,
        timer: Option<Timestamp>,
        (inbound, mut postings): (&[Inbound], Vec<Posting>),
        context: &mut Context<'_>,
    ) -> Result<(), Fault> {
        let (more, cases) = payout.settle(context.now());
        postings.extend(more);
        let emitter = Emitter {
            processor: DESCRIPTOR.name,
            source: SOURCE,
            entity: key,
            cause: inbound.last().map(|i| i.event.meta()),
            at: context.now(),
        };
        for posting in postings {
            let event = posting_event(Books::Payout, &posting, &emitter);
            context.emit(topic::LEDGER_POSTING, key, event);
        }
        let Some(changes) = cases else {
            forget_lines(key, &payout, context)?;
            forget(key, context);
            return Ok(());
        };
        cases::emit(None, changes, inbound, &emitter, context);
        payout.to_state(&mut self.bytes);
        keep(key, &self.bytes, (timer, payout.due()), context);
        Ok(())
    }

    fn line(
        &mut self,
        key: &str,
        e: &SettlementEvent,
        line: crate::domain::finance::SettledLine,
        payout: &mut Payout,
        context: &mut Context<'_>,
    ) -> Result<(Taken, Vec<Posting>), Fault> {
        let name = line_key(key, &line.line);
        let known = read_line(key, &name, context)?;
        let (version, id) = (e.meta.source_position, e.meta.event_id.as_u128());
        let (taken, kept) = payout.line(known, version, id, line);
        let Some((kept, postings)) = kept else {
            return Ok((taken, Vec::new()));
        };
        kept.to_state(&mut self.bytes);
        context.state().put(&name, &self.bytes);
        Ok((taken, postings))
    }
}

impl Processor for SettlementRecon {
    fn descriptor(&self) -> &'static ProcessorDescriptor {
        &DESCRIPTOR
    }

    fn process(
        &mut self,
        key: &str,
        inbound: &[Inbound],
        context: &mut Context<'_>,
    ) -> Result<(), Fault> {
        let mut payout = load(key, context)?;
        let timer = payout.due();
        let (mut news, mut postings) = (false, Vec::new());
        for (index, i) in inbound.iter().enumerate() {
            let (e, told) = match told(key, &i.event) {
                Ok(told) => told,
                Err(fault) => {
                    context.reject(index, fault);
                    continue;
                }
            };
            let (version, id) = (e.meta.source_position, e.meta.event_id.as_u128());
            let taken = match told {
                facts::Settled::Line(line) => {
                    let (taken, more) = self.line(key, e, line, &mut payout, context)?;
                    postings.extend(more);
                    taken
                }
                facts::Settled::Control(control) => {
                    payout.control(&e.line_id, version, id, control)
                }
                facts::Settled::Bank(money) => payout.credit(&e.line_id, version, id, money),
            };
            news |= taken == Taken::Applied;
            settle(index, taken, context);
        }
        if news {
            payout.heard(context.now());
            self.finish(key, payout, timer, (inbound, postings), context)?;
        }
        Ok(())
    }

    fn timer(
        &mut self,
        key: &str,
        _due: Timestamp,
        context: &mut Context<'_>,
    ) -> Result<(), Fault> {
        let payout = load(key, context)?;
        // It has fired: whatever follows sets it again.
        context.set_timer(key, None);
        self.finish(key, payout, None, (&[], Vec::new()), context)
    }

    fn restored_timer(&self, key: &[u8], value: &[u8]) -> Option<(Text, Timestamp)> {
        if !self.is_entity(key) {
            return None;
        }
        let due = Payout::due_of(value).ok()??;
        Some((std::str::from_utf8(key).ok()?.into(), due))
    }
}

fn told<'e>(key: &str, event: &'e Event) -> Result<(&'e SettlementEvent, facts::Settled), Fault> {
    let Event::SettlementEvent(e) = event else {
        return Err(no_use(DESCRIPTOR.name, event));
    };
    check_times(&e.meta)?;
    check_key(key, &e.payout_id)?;
    Ok((e, facts::settled(e)?))
}

fn load(key: &str, context: &mut Context<'_>) -> Result<Payout, Fault> {
    match context.state().get(key.as_bytes()) {
        Some(bytes) => Payout::from_state(bytes).map_err(|e| damaged(key, e)),
        None => Ok(Payout::default()),
    }
}

/// The state key of a line: behind the payout's own.
fn line_key(key: &str, line: &str) -> Vec<u8> {
    [key.as_bytes(), &[0], line.as_bytes()].concat()
}

fn read_line(key: &str, name: &[u8], context: &mut Context<'_>) -> Result<Option<KeptLine>, Fault> {
    let bytes = context.state().get(name);
    let kept = bytes.map(KeptLine::from_state).transpose();
    kept.map_err(|e| damaged(key, e))
}

/// Forgets the lines of a payout that is over for good, each of which names the one before it.
fn forget_lines(key: &str, payout: &Payout, context: &mut Context<'_>) -> Result<(), Fault> {
    let mut next = payout.last_line().cloned();
    while let Some(line) = next {
        let name = line_key(key, &line);
        let kept = read_line(key, &name, context)?;
        context.state().delete(&name);
        next = kept.and_then(|kept| kept.before().cloned());
    }
    Ok(())
}
