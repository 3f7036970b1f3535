//! Who customers are, as an ERP is told: which version counts, and that nobody hears what it says of a person.

use super::reject;
use crate::contract::event::{CustomerChanged, CustomerStatus, SinkOutcome};
use crate::pipeline::{Ack, Code, Delivery, Fault, Person, Stage, Vault};

/// Takes over who a customer is. `write` makes the ERP say this of it and no more, nothing of one who was
/// erased, and tells whether something had to be done.
///
/// # Errors
/// As `write` and [`Vault::open`], without what `system` said: it may name the person.
pub async fn take_customer(
    system: &str,
    vault: &dyn Vault,
    e: &CustomerChanged,
    delivery: &Delivery,
    write: impl AsyncFnOnce(Option<&Person>) -> Result<bool, Fault>,
) -> Result<Ack, Fault> {
    let version = e.customer_version;
    let erased = e.status == CustomerStatus::Erased;
    // An erasure is of no version: the shop's clock may be ahead of the one it was stamped by.
    let newer = delivery.sent.as_ref().filter(|s| s.version > version);
    if let Some(sent) = newer.filter(|_| !erased) {
        return Ok(ack(SinkOutcome::StaleSkipped, sent.version));
    }
    let person = match erased {
        true => None,
        // Nobody where the person was erased since. What says so may have been replaced by this, which
        // was sealed before and told after it: so it is taken for the same.
        false => vault.open(e)?,
    };
    let is_forgotten = !erased && person.is_none();
    let changed = write(person.as_ref()).await.map_err(|fault| Fault {
        message: format!(
            "customer {} of {}: {}; what {system} said is left out, for it may name the person",
            e.customer_id, e.channel_id, fault.code
        ),
        source: None,
        ..fault
    })?;
    if is_forgotten {
        return Ok(Ack::erased(version));
    }
    Ok(ack(
        match changed {
            true => SinkOutcome::Acked,
            false => SinkOutcome::DuplicateAcked,
        },
        version,
    ))
}

/// What a person is called: by name, else by e-mail.
pub fn called(person: &Person) -> Option<String> {
    let parts = [&person.given_name, &person.family_name];
    let parts: Vec<&str> = parts.into_iter().flatten().map(String::as_str).collect();
    let name = parts.join(" ");
    let name = Some(name).filter(|n| !n.is_empty());
    name.or_else(|| person.email.clone())
}

/// That a connector that is to keep who customers are cannot read it.
pub fn no_vault(instance: &str) -> Fault {
    let message = format!(
        "{instance} is to keep who customers are, and was given no vault to read that from"
    );
    Fault::halt(Stage::Write, Code::Configuration, message)
}

/// That the ERP keeps no customers of this channel.
pub fn no_customers(system: &str, e: &CustomerChanged) -> Fault {
    let message = format!("{system} keeps no customers of {}", e.channel_id);
    reject(Code::WrongContract, message)
}

fn ack(outcome: SinkOutcome, version: i64) -> Ack {
    Ack {
        outcome,
        version,
        external_id: None,
        digest: None,
        status: None,
    }
}
