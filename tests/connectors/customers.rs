//! Who customers are, as ERPs are told: on the stand-ins of each that keeps them.

use super::fake;
use super::sales;
use crossdock::connectors;
use crossdock::contract::event::{Blob, CustomerChanged, CustomerStatus, SinkOutcome};
use crossdock::contract::topic;
use crossdock::pipeline::{
    Ack, Address, ConnectorDescriptor, Delivery, Fake, FakeFault, Fault, Person, Sink, Vault,
    Verdict,
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const KINDS: [&str; 2] = ["tryton", "odoo"];

/// Keeps persons beside their events, readable until they are erased.
#[derive(Default)]
struct Kept {
    persons: Mutex<BTreeMap<u64, Person>>,
    erased: Mutex<BTreeSet<String>>,
}

impl Vault for Kept {
    fn seal(&self, person: &Person, event: &mut CustomerChanged) -> Result<bool, Fault> {
        let mut persons = self.persons.lock().expect("the persons");
        let at = persons.len() as u64;
        persons.insert(at, person.clone());
        event.email = Some(Blob::from(&at.to_be_bytes()[..]));
        Ok(true)
    }
    fn open(&self, event: &CustomerChanged) -> Result<Option<Person>, Fault> {
        let erased = self.erased.lock().expect("the erased");
        if erased.contains(event.customer_id.as_str()) {
            return Ok(None);
        }
        let sealed = event.email.as_ref().expect("sealed");
        let at: [u8; 8] = sealed.0.as_ref().try_into().expect("a number");
        let persons = self.persons.lock().expect("the persons");
        Ok(persons.get(&u64::from_be_bytes(at)).cloned())
    }
}

struct Erp {
    fake: Box<dyn Fake>,
    sink: Arc<dyn Sink>,
    vault: Arc<Kept>,
}

impl Erp {
    async fn open(kind: &str) -> Erp {
        let descriptor: &ConnectorDescriptor = connectors::find(kind).expect("the kind");
        let fake = fake(descriptor).await.expect("a stand-in");
        let mut settings = fake.settings();
        settings["customers"] = true.into();
        let connector = super::build(descriptor, settings);
        assert!(connector.knows_customers(), "{kind}");
        let vault = Arc::new(Kept::default());
        connector.entrust(vault.clone());
        let sink = connector.sink().expect("a sink");
        Erp { fake, sink, vault }
    }

    fn event(&self, version: i64, person: Option<&Person>) -> CustomerChanged {
        let mut event = CustomerChanged {
            channel_id: "web".into(),
            customer_id: "C-1".into(),
            customer_version: version,
            status: match person {
                Some(_) => CustomerStatus::Active,
                None => CustomerStatus::Erased,
            },
            ..CustomerChanged::default()
        };
        if let Some(person) = person {
            self.vault.seal(person, &mut event).expect("sealed");
        }
        event
    }

    fn delivery(&self, event: CustomerChanged) -> Delivery {
        sales::delivery(topic::CUSTOMER_CHANGE, "web|C-1", event)
    }

    async fn write(&self, event: CustomerChanged) -> Result<Ack, Fault> {
        self.sink.write(&[self.delivery(event)]).await.remove(0)
    }

    fn shown(&self) -> Value {
        self.fake.act(&json!({"party": "C-1"})).expect("looked at")
    }
}

fn ada() -> Person {
    Person {
        email: Some("ada@example.org".into()),
        phone: Some("+49 89 1234567".into()),
        given_name: Some("Ada".into()),
        family_name: Some("Lovelace".into()),
        address: Some(Address {
            street: "Hauptstr. 1\n2. Hof".into(),
            postal_code: "80331".into(),
            city: "München".into(),
            region: "Oberland".into(),
            country: "DE".into(),
        }),
        tax_id: None,
    }
}

#[tokio::test]
async fn who_a_customer_is_is_written_once_changed_whole_and_gone_when_erased() {
    for kind in KINDS {
        let erp = Erp::open(kind).await;
        assert!(
            erp.sink
                .wants(&erp.delivery(erp.event(1, Some(&ada()))).inbound),
            "{kind}"
        );
        for outcome in [SinkOutcome::Acked, SinkOutcome::DuplicateAcked] {
            let ack = erp.write(erp.event(1, Some(&ada()))).await.expect("taken");
            assert_eq!(ack.outcome, outcome, "{kind}");
        }
        let shown = erp.shown();
        assert_eq!(shown["name"], "Ada Lovelace", "{kind}");
        assert_eq!(shown["city"], "München", "{kind}");
        let street = shown["street"].as_str().expect("a street");
        for part in ["Hauptstr. 1", "2. Hof", "Oberland"] {
            assert!(street.contains(part), "{kind}: {street}");
        }
        let contacts = shown["contacts"].as_array().expect("contacts").len();
        assert_eq!(contacts, 2, "{kind}: {shown}");

        // What is not said any more is gone.
        let less = Person {
            phone: None,
            address: None,
            family_name: Some("King".into()),
            ..ada()
        };
        erp.write(erp.event(2, Some(&less))).await.expect("taken");
        let shown = erp.shown();
        assert_eq!(shown["name"], "Ada King", "{kind}");
        assert_eq!(shown["contacts"], json!(["ada@example.org"]), "{kind}");
        assert!(!shown.to_string().contains("Hauptstr"), "{kind}: {shown}");

        // The order's own party is the same one.
        let erased = erp.write(erp.event(3, None)).await.expect("taken");
        assert_eq!(erased.outcome, SinkOutcome::Acked, "{kind}");
        let shown = erp.shown().to_string();
        assert!(shown.contains("C-1"), "{kind}: {shown}");
        for word in ["Ada", "King", "ada@example.org"] {
            assert!(!shown.contains(word), "{kind}: {shown}");
        }
    }
}

#[tokio::test]
async fn who_was_erased_does_not_come_back_and_is_not_made() {
    for kind in KINDS {
        let erp = Erp::open(kind).await;
        let before = erp.event(1, Some(&ada()));
        erp.vault
            .erased
            .lock()
            .expect("the erased")
            .insert("C-1".into());
        let ack = erp.write(before).await.expect("taken");
        assert_eq!(ack.digest.as_deref(), Some(Ack::ERASED), "{kind}");
        assert_eq!(erp.shown(), Value::Null, "{kind}");
    }
}

#[tokio::test]
async fn whatever_call_fails_nobody_is_named_and_one_contact_is_left() {
    for kind in KINDS {
        let faults = [
            FakeFault::AppliedThenCut,
            FakeFault::Cut,
            FakeFault::Status(503, None),
            FakeFault::Garbage,
        ];
        for fault in faults {
            let erp = Erp::open(kind).await;
            for call in 0..12 {
                let before = vec![FakeFault::Slow(Duration::ZERO); call];
                erp.fake
                    .inject(before.into_iter().chain([fault.clone()]).collect());
                if let Err(failed) = erp.write(erp.event(1, Some(&ada()))).await {
                    assert!(
                        matches!(failed.verdict, Verdict::Retry { .. }),
                        "{kind}: {failed}"
                    );
                    let said = format!("{failed:?}");
                    assert!(
                        !said.contains("Ada") && !said.contains('@'),
                        "{kind}: {said}"
                    );
                }
            }
            // Faults that no call has met yet are still to come.
            let mut tries = 0;
            while erp.write(erp.event(1, Some(&ada()))).await.is_err() {
                tries += 1;
                assert!(tries < 100, "{kind} {fault:?}: it never comes through");
            }
            let shown = erp.shown();
            assert_eq!(shown["name"], "Ada Lovelace", "{kind} {fault:?}");
            let contacts = shown["contacts"].as_array().expect("contacts").len();
            assert_eq!(contacts, 2, "{kind} {fault:?}: {shown}");
        }
    }
}
