//! `settlement-recon`: each payout beside its lines, its control row and the bank; and its books.
//!
//! It books what only a payout knows (fees, reserves, corrections, the bank's credit) and moves what
//! its lines settle from the orders' PSPClearing to its own, which the bank's credit brings to zero. A
//! payout may have very many lines: each is a sub-entry of its own, the payout keeps sums. The rules
//! are in [`crate::domain::finance::Payout`].

use super::cases::{self, About};
use super::checks::{check_key, check_times, damaged, no_use};
use super::finance::facts;
use super::finance::postings::{Books, event as posting_event};
use super::keyed::{Call, Fate, Heard, Keyed, Rules};
use crate::contract::event::{Event, SettlementEvent};
use crate::contract::topic;
use crate::domain::finance::{KeptLine, Payout, Posting, SettledLine};
use crate::domain::{Stored, Taken, adopt_state, tell_state};
use crate::pipeline::{Context, Fault, ProcessorDescriptor};

/// What `settlement-recon` is.
pub const DESCRIPTOR: ProcessorDescriptor = ProcessorDescriptor {
    name: "settlement-recon",
    purpose: "compares payouts with their lines and the bank, and books them",
    inputs: &[topic::SETTLEMENT_PAYOUT],
    tables: &[],
    outputs: &[topic::LEDGER_POSTING, topic::OPS_EXCEPTION],
};

/// The processor.
pub type SettlementRecon = Keyed<OfPayouts>;

/// Its rules.
#[derive(Default)]
pub struct OfPayouts;

impl Rules for OfPayouts {
    const DESCRIPTOR: &'static ProcessorDescriptor = &DESCRIPTOR;
    const SOURCE: &'static str = "crossdock/settlement-recon";
    type Known = Payout;
    /// What the lines have posted.
    type Gathered = Vec<Posting>;

    fn describe_part(value: &[u8]) -> Option<serde_json::Value> {
        tell_state::<KeptLine>(value)
    }

    fn adopt_part(own: &[u8], other: &[u8]) -> Option<Vec<u8>> {
        adopt_state::<KeptLine>(own, other)
    }

    fn take(
        &self,
        index: usize,
        payout: &mut Payout,
        postings: &mut Vec<Posting>,
        call: &mut Call<'_, '_>,
    ) -> Result<Heard, Fault> {
        let (e, told) = told(call.key, &call.inbound[index].event)?;
        let (version, id) = (e.meta.source_position, e.meta.event_id.as_u128());
        let taken = match told {
            facts::Settled::Line(settled) => {
                let (taken, more) = line((version, id), settled, payout, call)?;
                postings.extend(more);
                taken
            }
            facts::Settled::Control(control) => payout.control(&e.line_id, version, id, control),
            facts::Settled::Bank(money) => payout.credit(&e.line_id, version, id, money),
        };
        Ok(Heard::Taken(taken))
    }

    fn finish(
        &self,
        payout: &mut Payout,
        mut postings: Vec<Posting>,
        call: &mut Call<'_, '_>,
    ) -> Result<Fate, Fault> {
        let (more, cases) = payout.settle(call.now());
        postings.extend(more);
        let emitter = call.emitter();
        for posting in postings {
            let event = posting_event(Books::Payout, &posting, &emitter);
            call.context.emit(topic::LEDGER_POSTING, call.key, event);
        }
        let Some(changes) = cases else {
            forget_lines(call.key, payout, call.context)?;
            return Ok(Fate::Forgotten);
        };
        cases::emit(&About::default(), changes, &emitter, call.context);
        Ok(Fate::Kept)
    }
}

fn line(
    (version, id): (i64, u128),
    line: SettledLine,
    payout: &mut Payout,
    call: &mut Call<'_, '_>,
) -> Result<(Taken, Vec<Posting>), Fault> {
    let name = line_key(call.key, &line.line);
    let known = read_line(call.key, &name, call.context)?;
    let (taken, kept) = payout.line(known, version, id, line);
    let Some((kept, postings)) = kept else {
        return Ok((taken, Vec::new()));
    };
    let mut bytes = Vec::new();
    kept.to_state(&mut bytes);
    call.context.state().put(&name, &bytes);
    Ok((taken, postings))
}

fn told<'e>(key: &str, event: &'e Event) -> Result<(&'e SettlementEvent, facts::Settled), Fault> {
    let Event::SettlementEvent(e) = event else {
        return Err(no_use(DESCRIPTOR.name, event));
    };
    check_times(&e.meta)?;
    check_key(key, &e.payout_id)?;
    Ok((e, facts::settled(e)?))
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
