//! What the entries of a position's state say, and which of it depends on how its records were gathered.

use super::HORIZON;
use super::claims::{Claim, Known, load, put};
use super::encoding::Stored;
use super::identities::{Entry as Fact, Identities, Kind, seconds};
use super::ledger::Ledger;
use super::shelf::{MemoryShelf, Shelf, Slot};
use serde_json::{Value, json};

/// An entry of a position's state.
enum Entry {
    Header(Box<Ledger>),
    Claim(u128, Known),
}

fn entry(suffix: &[u8], bytes: &[u8]) -> Option<Entry> {
    if suffix.is_empty() {
        return Some(Entry::Header(Box::new(Ledger::from_state(bytes).ok()?)));
    }
    let id = suffix.strip_prefix(b"\0r")?.try_into().ok()?;
    let id = u128::from_be_bytes(id);
    let mut shelf = MemoryShelf::default();
    shelf.put(Slot::Claim(id), bytes);
    Some(Entry::Claim(id, load(id, &shelf).ok()??))
}

/// What an entry of a position's state says; `suffix` is what follows the position's key in its own.
/// Nothing where it cannot be read, or is only an index of others.
pub fn tell_entry(suffix: &[u8], bytes: &[u8]) -> Option<Value> {
    Some(match entry(suffix, bytes)? {
        Entry::Header(ledger) => tell_header(&ledger),
        Entry::Claim(_, Known::Claim(claim)) => tell_claim(&claim),
        Entry::Claim(_, Known::Early(early)) => json!({
            "consumed": early.consumed.tell(),
            "confirmed": early.confirm.is_some(),
            "changedAt": early.changed_at.tell(),
        }),
    })
}

fn tell_header(l: &Ledger) -> Value {
    let offered = l.offered.iter().map(|(channel, o)| {
        let offer = json!({"ats": o.ats.tell(), "buffer": o.buffer.tell(), "backorderable": o.backorderable, "complete": o.complete});
        (channel.to_string(), offer)
    });
    let active = l.active.iter();
    let active = active.map(|(channel, units)| (channel.to_string(), units.tell()));
    json!({
        "authority": l.authority.tell(),
        "sellable": l.totals.sellable.tell(),
        "damaged": l.totals.damaged.tell(),
        "qualityHold": l.totals.held.tell(),
        "inTransitIn": l.totals.incoming.tell(),
        "claimed": Value::Object(active.collect()),
        "backordered": l.backordered.tell(),
        "offered": Value::Object(offered.collect()),
        "policyVersion": l.policy.as_ref().map(|p| p.version),
        "base": l.bases[0].as_ref().map(|base| base.as_of.to_string()),
        "foldedThrough": l.folded_through.map(|p| p.to_string()),
        "factsRemembered": l.remembered(),
        "decisions": l.sequence,
        "levelVersion": l.level_version,
        "offerVersion": l.offer_version,
        "asOf": l.as_of.tell(),
        "newest": l.newest.tell(),
        "stale": l.stale,
    })
}

fn tell_claim(c: &Claim) -> Value {
    json!({
        "order": c.order.tell(),
        "line": c.line.tell(),
        "channel": c.channel.tell(),
        "mode": format!("{:?}", c.mode),
        "status": format!("{:?}", c.status),
        "requested": c.requested.tell(),
        "held": c.held.tell(),
        "consumed": c.consumed.tell(),
        "backordered": c.backordered.tell(),
        "expiresAt": c.expires_at.tell(),
        "promiseAt": c.promise_at.tell(),
        "confirmed": c.confirmed,
        "version": c.version,
        "opened": c.opened,
        "changedAt": c.changed_at.tell(),
    })
}

/// Brings the entries of a position into a form that two of them share which say the same: `header` is its
/// own entry, `shelf` the others. What is remembered is in one place and in one order, whatever the order in
/// which it came; what is beyond the horizon is forgotten at once. For comparing only: a position is not
/// kept like this. `None` where it cannot be read.
pub fn canonical(header: &[u8], shelf: &mut dyn Shelf) -> Option<Vec<u8>> {
    let mut ledger = Ledger::from_state(header).ok()?;
    let horizon_s = seconds(ledger.newest.minus(HORIZON));
    let mut facts = Vec::new();
    let remembered = &ledger.identities;
    let all = remembered.visit(shelf, |_| true, |fact| facts.push(fact.clone()));
    all.ok()?;
    for run in &remembered.runs {
        shelf.delete(Slot::Identities(run.number));
    }
    let old = |fact: &mut Fact| fact.recorded_s < horizon_s && fact.waiting.is_none();
    for fact in facts.extract_if(.., old) {
        if fact.kind == Kind::Claim {
            shelf.delete(Slot::Claim(fact.claim_id()));
        }
    }
    facts.sort_unstable_by_key(|fact| fact.id);
    ledger.identities = Identities::default();
    ledger.identities.inline = facts;
    let mut open = Vec::new();
    for item in ledger.agenda.by_promise(shelf).ok()? {
        if let Some(Known::Claim(claim)) = load(item.id, shelf).ok()?
            && !claim.status.is_terminal()
        {
            open.push(claim.item(item.id));
        }
    }
    open.dedup_by_key(|item| item.id);
    ledger.agenda = ledger.agenda.gathered(open, shelf);
    ledger.active.sort_by(|(a, _), (b, _)| a.cmp(b));
    ledger.folded_through = None;
    ledger.claims_folded_s = None;
    let mut out = Vec::new();
    ledger.write(&mut out);
    Some(out)
}

/// The entry `own` with what depends on how records were gathered and on the clock taken over from
/// `other`: what was told, counts of it, and when. Nothing where one of them cannot be read, or where
/// there is nothing of the kind in it.
pub fn adopt_entry(suffix: &[u8], own: &[u8], other: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    match (entry(suffix, own)?, entry(suffix, other)?) {
        (Entry::Header(mut own), Entry::Header(other)) => {
            own.level_version = other.level_version;
            own.offer_version = other.offer_version;
            // What was told to channels: whoever looks at the position next tells them what differs.
            own.offered = other.offered;
            own.newest.adopt_told(&other.newest);
            own.write(&mut out);
        }
        (Entry::Claim(id, Known::Claim(mut own)), Entry::Claim(_, Known::Claim(other))) => {
            own.changed_at.adopt_told(&other.changed_at);
            let mut shelf = MemoryShelf::default();
            put(id, &Known::Claim(own), &mut shelf);
            out = shelf.slots.remove(&Slot::Claim(id))?;
        }
        _ => return None,
    }
    Some(out)
}
