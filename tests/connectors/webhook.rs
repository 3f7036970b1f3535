//! The way in for webhooks: what is answered when, what is kept, and what is made of it once.

use super::inbox::MemoryInbox;
use crossdock::config::Secret;
use crossdock::connectors::webhook::{
    DeliveryId, Encoding, Form, Ingress, REMEMBERED, Signing, Webhook, sign,
};
use crossdock::domain::Timestamp;
use crossdock::pipeline::{Inbox, RawDelivery, Verdict};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

const SECRET: &str = "the secret of the sender";
const KEY: &str = "the key of this connector";

fn settings() -> Webhook {
    Webhook {
        listen: "127.0.0.1:0".into(),
        path: "/in".into(),
        secrets: vec![Secret::of(SECRET)],
        inbox_keys: vec![Secret::of(KEY)],
        window_s: 300,
        body_bytes_max: 100_000,
    }
}

fn signing() -> Signing {
    Signing {
        header: "x-signature".into(),
        form: Form::Plain,
        prefix: None,
        encoding: Encoding::Hex,
        signed: "{body}".into(),
        timestamp_header: None,
        delivery_id: Some(DeliveryId {
            header: None,
            pointer: Some("/id".into()),
        }),
        base64_secrets: false,
    }
}

fn ingress(inbox: &Arc<MemoryInbox>) -> Ingress {
    let mut ingress = Ingress::new("wms", &settings(), &signing()).expect("settings");
    ingress.open(inbox.clone()).expect("open");
    ingress
}

struct Sender {
    client: reqwest::Client,
    url: String,
}

impl Sender {
    fn to(ingress: &Ingress) -> Sender {
        Sender {
            client: reqwest::Client::new(),
            url: format!("http://{}/in", ingress.address().expect("an address")),
        }
    }
    async fn send_signed(&self, body: &str, signature: &str) -> reqwest::Response {
        let request = self.client.post(&self.url).header("x-signature", signature);
        let request = request
            .header("authorization", "Bearer canary")
            .body(body.to_owned());
        request.send().await.expect("an answer")
    }
    async fn send(&self, body: &str) -> u16 {
        let signature = sign(SECRET, body.as_bytes());
        let answer = self.send_signed(body, &signature).await;
        answer.status().as_u16()
    }
}

/// Sends as many pieces of 1 MiB, whose sum nobody announced, and reads the answer's status.
fn send_pieces(ingress: &Ingress, count: usize) -> u16 {
    let mut stream = TcpStream::connect(ingress.address().expect("an address")).expect("connected");
    let head = "POST /in HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).expect("sent");
    let piece = vec![b'x'; 1 << 20];
    for _ in 0..count {
        stream.write_all(b"100000\r\n").expect("sent");
        stream.write_all(&piece).expect("sent");
        stream.write_all(b"\r\n").expect("sent");
    }
    stream.write_all(b"0\r\n\r\n").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer[9..12].parse().expect("a status")
}

fn delivery(id: &str) -> String {
    format!(r#"{{"id": "{id}", "email": "jane@example.org"}}"#)
}

/// Names of what is taken from `position` on, with the next position.
fn take(ingress: &mut Ingress, position: i64) -> (Vec<String>, i64) {
    let (mut names, mut next) = (Vec::new(), position);
    loop {
        let taken = ingress.take(next, 100).expect("taken");
        assert!(taken.rejects.is_empty(), "{:?}", taken.rejects);
        names.extend(taken.deliveries.iter().map(|d| d.id.to_string()));
        next = taken.next;
        if !taken.more {
            return (names, next);
        }
    }
}

#[tokio::test]
async fn a_delivery_is_durable_when_it_is_answered_and_refused_for_now_while_it_cannot_be() {
    let inbox = Arc::new(MemoryInbox::default());
    let mut ingress = ingress(&inbox);
    let sender = Sender::to(&ingress);
    assert_eq!(sender.send(&delivery("a")).await, 200);
    assert_eq!(inbox.kept().len(), 1);
    inbox.set_down(true);
    let body = delivery("b");
    let signature = sign(SECRET, body.as_bytes());
    let answer = sender.send_signed(&body, &signature).await;
    assert_eq!(answer.status(), 503);
    assert!(answer.headers().contains_key("retry-after"));
    assert_eq!(inbox.kept().len(), 1);
    inbox.set_down(false);
    assert_eq!(sender.send(&body).await, 200);
    ingress.woken().await;
    let taken = ingress.take(0, 10).expect("taken");
    let first = &taken.deliveries[0];
    assert_eq!((&*first.id, first.path.as_str()), ("a", "/in"));
    assert_eq!(first.body, delivery("a"));
    assert_eq!(first.json().expect("JSON")["email"], "jane@example.org");
    assert!(first.header("x-signature").is_some());
    assert_eq!(
        first.header("authorization"),
        None,
        "no credentials are kept"
    );
    assert_eq!(&*taken.deliveries[1].id, "b");
}

#[tokio::test]
async fn nothing_is_kept_that_no_secret_verifies_or_that_is_sent_elsewhere() {
    let inbox = Arc::new(MemoryInbox::default());
    let ingress = ingress(&inbox);
    let sender = Sender::to(&ingress);
    let body = delivery("a");
    let forged = sign("the secret of a stranger", body.as_bytes());
    for signature in [forged.as_str(), "", "00", "not hexadecimal"] {
        let answer = sender.send_signed(&body, signature).await;
        assert_eq!(answer.status(), 401, "{signature}");
        let said = answer.text().await.expect("a body");
        assert!(!said.contains(SECRET), "{said}");
    }
    let unsigned = sender.client.post(&sender.url).body(body.clone());
    assert_eq!(unsigned.send().await.expect("an answer").status(), 401);
    let other = sender.url.replace("/in", "/other");
    let elsewhere = sender.client.post(other).body(body.clone());
    assert_eq!(elsewhere.send().await.expect("an answer").status(), 404);
    let read = sender.client.get(&sender.url);
    assert_eq!(read.send().await.expect("an answer").status(), 405);
    assert!(inbox.kept().is_empty());
}

#[tokio::test]
async fn a_body_that_is_too_large_or_nested_too_deep_is_refused_and_others_are_served() {
    let inbox = Arc::new(MemoryInbox::default());
    let ingress = ingress(&inbox);
    let sender = Sender::to(&ingress);
    // Announced, and in pieces whose sum nobody announced.
    let large = "x".repeat(50 << 20);
    assert_eq!(sender.send(&large).await, 413);
    assert_eq!(send_pieces(&ingress, 50), 413);
    let deep = format!(
        r#"{{"id": "deep", "a": {}{}}}"#,
        "[".repeat(1_000),
        "]".repeat(1_000)
    );
    assert_eq!(sender.send(&deep).await, 400);
    for bad in ["", "{", "nonsense", r#"{"no": "name"}"#, r#"{"id": ""}"#] {
        assert_eq!(sender.send(bad).await, 400, "{bad}");
    }
    let mut whole = delivery("largest");
    whole += &" ".repeat(100_000 - whole.len());
    assert_eq!(sender.send(&whole).await, 200);
    whole += " ";
    assert_eq!(sender.send(&whole).await, 413);
    assert_eq!(sender.send(&delivery("next")).await, 200);
    assert_eq!(inbox.kept().len(), 2);
}

#[tokio::test]
async fn a_repeated_delivery_is_answered_alike_and_taken_once_also_after_a_restart() {
    let inbox = Arc::new(MemoryInbox::default());
    let mut first = ingress(&inbox);
    let sender = Sender::to(&first);
    for id in ["a", "b", "a", "a", "c"] {
        assert_eq!(sender.send(&delivery(id)).await, 200);
    }
    assert_eq!(inbox.kept().len(), 3, "what is known is not kept again");
    assert_eq!(
        take(&mut first, 0),
        (vec!["a".into(), "b".into(), "c".into()], 3)
    );
    // A new process knows the names from the inbox alone.
    let mut second = ingress(&inbox);
    let sender = Sender::to(&second);
    for id in ["b", "d", "c", "d"] {
        assert_eq!(sender.send(&delivery(id)).await, 200);
    }
    assert_eq!(take(&mut second, 3), (vec!["d".into()], 6));
    // From any position, also one that was passed, everything after it comes once and alike.
    let whole = ["a", "b", "c", "d"];
    for position in [2, 0, 4, 6, 1, 3, 5] {
        let (names, next) = take(&mut second, position);
        let expected = &whole[(position as usize).min(3) + usize::from(position > 4)..];
        assert_eq!(
            (names.as_slice(), next),
            (
                expected
                    .iter()
                    .map(|n| (*n).to_owned())
                    .collect::<Vec<_>>()
                    .as_slice(),
                6
            ),
            "from {position}"
        );
    }
}

#[test]
fn a_name_is_forgotten_after_as_many_deliveries_as_are_promised_whoever_remembers() {
    let inbox = Arc::new(MemoryInbox::default());
    let sealed = {
        let inbox = Arc::new(MemoryInbox::default());
        let ingress = ingress(&inbox);
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        assert_eq!(
            runtime.block_on(Sender::to(&ingress).send(&delivery("x"))),
            200
        );
        inbox.kept()[0].sealed.clone()
    };
    // Nobody can open the others, which matters to nobody but their takers.
    let named = |id: String| RawDelivery {
        id: id.as_str().into(),
        received_at: Timestamp(0),
        sealed: sealed.clone(),
    };
    inbox.keep(&[named("x".into())]).expect("kept");
    let others: Vec<RawDelivery> = (0..REMEMBERED).map(|n| named(format!("{n}"))).collect();
    inbox.keep(&others).expect("kept");
    inbox
        .keep(&[named("x".into()), named("x".into())])
        .expect("kept");
    let mut ingress = ingress(&inbox);
    let names = |taken: &crossdock::connectors::webhook::Taken| -> Vec<String> {
        taken.deliveries.iter().map(|d| d.id.to_string()).collect()
    };
    let last = ingress.take(REMEMBERED, 10).expect("taken");
    assert_eq!(
        names(&last),
        ["x"],
        "beyond what is remembered once more, then known again"
    );
    let mut next = 0;
    let mut all = Vec::new();
    while next < REMEMBERED + 3 {
        let taken = ingress.take(next, 777).expect("taken");
        all.extend(names(&taken));
        next = taken.next;
    }
    assert_eq!(all, ["x", "x"], "as the one that began in the middle");
}

#[tokio::test]
async fn what_cannot_be_opened_halts_or_is_rejected_by_its_cause() {
    let inbox = Arc::new(MemoryInbox::default());
    let open = |keys: &[&str]| {
        let settings = Webhook {
            inbox_keys: keys.iter().map(|k| Secret::of(*k)).collect(),
            ..settings()
        };
        let mut ingress = Ingress::new("wms", &settings, &signing()).expect("settings");
        ingress.open(inbox.clone()).expect("open");
        ingress
    };
    let before = open(&[KEY]);
    assert_eq!(Sender::to(&before).send(&delivery("a")).await, 200);
    let fault = open(&["another key of this one"])
        .take(0, 10)
        .expect_err("halted");
    assert_eq!(fault.verdict, Verdict::Halt);
    assert!(fault.message.contains("inbox_keys"), "{fault}");
    let mut after = open(&["another key of this one", KEY]);
    let taken = after.take(0, 10).expect("taken");
    assert_eq!(taken.deliveries.len(), 1);
    let letter = taken.deliveries[0].reject(fault);
    assert!(
        !letter.raw.windows(4).any(|w| w == b"jane"),
        "sealed as it was kept"
    );
    let mut damaged = inbox.kept().remove(0);
    damaged.id = "b".into();
    inbox.keep(&[damaged]).expect("kept");
    let taken = after.take(1, 10).expect("taken");
    assert_eq!(taken.rejects[0].fault.verdict, Verdict::Reject);
    assert_eq!(taken.rejects[0].origin.item, "b");
}

#[tokio::test]
async fn a_sender_that_says_nothing_does_not_keep_others_out() {
    let inbox = Arc::new(MemoryInbox::default());
    let ingress = ingress(&inbox);
    let address = ingress.address().expect("an address");
    let silent: Vec<_> = (0..20)
        .map(|_| TcpStream::connect(address).expect("connected"))
        .collect();
    let sender = Sender::to(&ingress);
    let body = delivery("a");
    let sent = tokio::time::timeout(Duration::from_secs(30), sender.send(&body));
    assert_eq!(sent.await.expect("served"), 200);
    drop(silent);
}
