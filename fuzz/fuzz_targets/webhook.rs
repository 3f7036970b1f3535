//! Webhooks: a delivery with any headers and body, signed or not, is verified, kept, and made events of. What is not
//! signed is never taken; whatever is taken becomes events or a dead letter.
#![no_main]

use crossdock::connectors;
use crossdock::connectors::webhook::{self, Ingress, Signing, Webhook};
use crossdock::pipeline::{Code, Cursor, Fault, Inbox, InboxPage, RawDelivery, Source};
use crossdock_fuzz::{CODEC, cut};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex};
use tokio::runtime::Runtime;

const SECRET: &str = "a secret of sixteen";

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().expect("a runtime")
});

/// Gives the one delivery that stands in it.
#[derive(Default)]
struct One(Mutex<Option<(i64, RawDelivery)>>);

impl Inbox for One {
    fn keep(&self, _: &[RawDelivery]) -> Result<(), Fault> {
        Ok(())
    }
    fn read(&self, position: i64, _: usize) -> Result<InboxPage, Fault> {
        let one = self.0.lock().expect("whole").clone();
        let (at, delivery) = one.expect("something");
        Ok(InboxPage {
            next: at.max(position) + i64::from(position >= at),
            deliveries: Vec::from_iter((position == at).then_some((at, delivery))),
            ..InboxPage::default()
        })
    }
}

struct Way {
    /// The same settings as the source's own.
    ingress: Ingress,
    source: Box<dyn Source>,
    inbox: Arc<One>,
    position: i64,
    stripe: bool,
}

thread_local! {
    static WAYS: RefCell<Vec<Way>> = RefCell::new(ways());
}

fn ways() -> Vec<Way> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("secret");
    std::fs::write(&path, SECRET).expect("written");
    let secret = format!("${{file:{}}}", path.display());
    let webhook = json!({"listen": "127.0.0.1:0", "path": "/hook", "secrets": [secret], "inbox_keys": [secret]});
    let mapped: Value = serde_norway::from_str(include_str!("mapping.yaml")).expect("a mapping");
    let mut generic = mapped.clone();
    generic["webhook"] = webhook.clone();
    let psp = json!({
        "url": "http://127.0.0.1:9", "api_key": secret, "webhook": webhook.clone(), "channel": "web",
        "lag_s": 4_000_000_000_u32, // its list of events is never asked for
    });
    let hooked: Webhook = serde_json::from_value(webhook).expect("settings");
    let signing: Signing = serde_json::from_value(mapped["signature"].clone()).expect("settings");
    let made = [
        ("http", generic, signing, false),
        ("psp", psp, Signing::stripe(), true),
    ];
    made.map(|(kind, settings, signing, stripe)| {
        let connector = (connectors::find(kind).expect("a kind").build)("fuzz", settings);
        let mut source = connector.expect("settings").source().expect("a source");
        let inbox = Arc::new(One::default());
        source.open(inbox.clone()).expect("a port");
        Way {
            ingress: Ingress::new("fuzz", &hooked, &signing).expect("settings"),
            source,
            inbox,
            position: 0,
            stripe,
        }
    })
    .into()
}

fuzz_target!(|data: &[u8]| {
    let Some((choice, data)) = data.split_first() else {
        return;
    };
    let (header, body) = cut(data, 0);
    WAYS.with_borrow_mut(|ways| {
        let count = ways.len();
        let way = &mut ways[usize::from(choice >> 1) % count];
        let signed = choice & 1 == 1;
        way.deliver(signed, header, body);
    });
});

impl Way {
    fn deliver(&mut self, signed: bool, header: &[u8], body: &[u8]) {
        let text = String::from_utf8_lossy(header).into_owned();
        let seconds = std::time::SystemTime::UNIX_EPOCH
            .elapsed()
            .map_or(0, |d| d.as_secs());
        let (name, header) = match (self.stripe, signed) {
            (true, true) => {
                let message = [format!("{seconds}.").as_bytes(), body].concat();
                (
                    "stripe-signature",
                    format!("t={seconds},v1={}", webhook::sign(SECRET, &message)),
                )
            }
            (true, false) => ("stripe-signature", text),
            (false, true) => ("x-wms-signature", webhook::sign(SECRET, body)),
            (false, false) => ("x-wms-signature", text),
        };
        let headers = BTreeMap::from([(name.to_owned(), header)]);
        let Ok(delivery) = self.ingress.accept(headers, body) else {
            return;
        };
        assert!(signed, "a signature was made up");
        // Each has a place of its own, so far from the one before that its name is none that is remembered.
        self.position += 20_000;
        *self.inbox.0.lock().expect("whole") = Some((self.position, delivery));
        let bookmark = match self.stripe {
            true => json!({"inbox": self.position, "until": 0, "heard": {}}),
            false => self.position.into(),
        };
        let from = Cursor {
            bookmark,
            sequence: 1,
        };
        let polled = RUNTIME.block_on(self.source.poll("events", Some(&from)));
        let batch = match polled {
            Ok(batch) => batch,
            // A refund's charge is asked for, and nobody answers.
            Err(fault) if self.stripe && fault.code == Code::Unavailable => return,
            Err(fault) => panic!("a delivery holds up its neighbours: {fault:?}"),
        };
        assert!(batch.rejects.len() <= 1, "one delivery, one dead letter");
        for told in &batch.records {
            assert!(!told.key.is_empty(), "an event without a key");
            CODEC
                .encode(told.topic, &told.event, &mut Vec::new())
                .expect("an event of its topic");
        }
    }
}
