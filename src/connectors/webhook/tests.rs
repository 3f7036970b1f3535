//! Signatures against published examples, and what sealing promises.

use super::settings::{DeliveryId, Encoding, Form, Signing, Webhook};
use super::signature::{Headers, Refused, Verifier, sign};
use crate::config::Secret;
use crate::config::seal::{INBOX, OpenFault, Seal};
use crate::domain::Timestamp;
use proptest::prelude::*;

fn webhook(secrets: &[&str]) -> Webhook {
    Webhook {
        listen: "127.0.0.1:0".into(),
        path: "/".into(),
        secrets: secrets.iter().map(|s| Secret::of(*s)).collect(),
        inbox_keys: vec![Secret::of("a key of this connector")],
        window_s: 300,
        body_bytes_max: 1_000,
    }
}

fn plain() -> Signing {
    Signing {
        header: "X-Hub-Signature-256".into(),
        form: Form::Plain,
        prefix: Some("sha256=".into()),
        encoding: Encoding::Hex,
        signed: "{body}".into(),
        timestamp_header: None,
        delivery_id: None,
        base64_secrets: false,
    }
}

fn headers(of: &[(&str, &str)]) -> Headers {
    of.iter()
        .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
        .collect()
}

fn seconds(s: i64) -> Timestamp {
    Timestamp(s * 1_000_000)
}

fn is_verified(verifier: &Verifier, headers: &Headers, body: &[u8], now: i64) -> bool {
    match verifier.verify(headers, body, seconds(now)) {
        Ok(()) => true,
        Err(Refused::Unverified(_)) => false,
        Err(other) => panic!("{other:?}"),
    }
}

#[test]
fn the_authentication_code_is_that_of_rfc_4231() {
    assert_eq!(
        sign("Jefe", b"what do ya want for nothing?"),
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    );
}

#[test]
fn a_signed_body_verifies_as_in_githubs_documentation() {
    let verifier = Verifier::new(&webhook(&["It's a Secret to Everybody"]), &plain());
    let verifier = verifier.expect("settings");
    let signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    let good = headers(&[("x-hub-signature-256", signature)]);
    assert!(is_verified(&verifier, &good, b"Hello, World!", 0));
    assert!(!is_verified(&verifier, &good, b"Hello, World?", 0));
    assert!(!is_verified(
        &verifier,
        &Headers::new(),
        b"Hello, World!",
        0
    ));
    for bad in [
        "sha256=",
        "sha256=75",
        "sha1=757107",
        "757107ea",
        "sha256=ü",
    ] {
        let bad = headers(&[("x-hub-signature-256", bad)]);
        assert!(!is_verified(&verifier, &bad, b"Hello, World!", 0));
    }
}

#[test]
fn a_standard_webhook_verifies_as_in_its_specification_and_within_its_window() {
    let webhook = webhook(&["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]);
    let verifier = Verifier::new(&webhook, &Signing::standard_webhooks()).expect("settings");
    let signature = "v1,AAAA v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
    let id = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    let body = br#"{"test": 2432232314}"#;
    let of = |id, time| {
        headers(&[
            ("webhook-id", id),
            ("webhook-timestamp", time),
            ("webhook-signature", signature),
        ])
    };
    let good = of(id, "1614265330");
    assert!(is_verified(&verifier, &good, body, 1_614_265_330));
    assert!(is_verified(&verifier, &good, body, 1_614_265_330 + 300));
    assert!(is_verified(&verifier, &good, body, 1_614_265_330 - 300));
    assert!(!is_verified(&verifier, &good, body, 1_614_265_330 + 301));
    assert!(!is_verified(&verifier, &good, body, 1_614_265_330 - 301));
    let other = of("msg_other", "1614265330");
    assert!(!is_verified(&verifier, &other, body, 1_614_265_330));
    let moved = of(id, "1614265331");
    assert!(!is_verified(&verifier, &moved, body, 1_614_265_331));
}

#[test]
fn pairs_hold_time_and_signatures_and_either_secret_verifies() {
    let secrets = ["the secret of before", "the secret from now on"];
    let both = Verifier::new(&webhook(&secrets), &Signing::stripe()).expect("settings");
    let new = Verifier::new(&webhook(&secrets[1..]), &Signing::stripe()).expect("settings");
    let body = br#"{"id":"evt_1"}"#;
    let message = [b"1700000000.".as_slice(), body].concat();
    let of = |secret| {
        let signature = sign(secret, &message);
        let header = format!("t=1700000000,v0=00,v1={signature}");
        headers(&[("stripe-signature", &header)])
    };
    for secret in secrets {
        assert!(is_verified(&both, &of(secret), body, 1_700_000_010));
        let is_new = secret == secrets[1];
        assert_eq!(is_verified(&new, &of(secret), body, 1_700_000_010), is_new);
    }
    assert!(!is_verified(
        &both,
        &of("the secret of nobody"),
        body,
        1_700_000_010
    ));
}

#[test]
fn a_delivery_is_named_by_body_header_or_content() {
    let json = serde_json::json!({"event": {"id": 17}});
    let named = |delivery_id| {
        let signing = Signing {
            delivery_id,
            ..plain()
        };
        let verifier = Verifier::new(&webhook(&["sixteen characters"]), &signing);
        let headers = headers(&[("x-id", "abc")]);
        verifier.expect("settings").id(&headers, b"body", &json)
    };
    let at = |header: Option<&str>, pointer: Option<&str>| {
        Some(DeliveryId {
            header: header.map(str::to_owned),
            pointer: pointer.map(str::to_owned),
        })
    };
    assert_eq!(named(at(None, Some("/event/id"))), Ok("17".to_owned()));
    assert_eq!(named(at(Some("X-Id"), None)), Ok("abc".to_owned()));
    assert_eq!(named(None).expect("a digest").len(), 64);
    assert!(matches!(
        named(at(None, Some("/event"))),
        Err(Refused::Malformed(_))
    ));
    assert!(matches!(
        named(at(Some("X-None"), None)),
        Err(Refused::Malformed(_))
    ));
}

#[test]
fn every_mistake_in_the_settings_is_told_at_once() {
    let signing = Signing {
        signed: "{timestamp}.{id}".into(),
        ..plain()
    };
    let wrong = Verifier::new(&webhook(&["short"]), &signing)
        .err()
        .expect("mistakes");
    let wrong = wrong.join("\n");
    for said in ["{body}", "timestamp_header", "delivery_id", "secrets.0"] {
        assert!(wrong.contains(said), "{said}: {wrong}");
    }
    assert!(!wrong.contains("short\n") && !wrong.contains("\"short\""));
    for signed in ["{body", "{nobody}"] {
        let signing = Signing {
            signed: signed.into(),
            ..plain()
        };
        assert!(Verifier::new(&webhook(&["sixteen characters"]), &signing).is_err());
    }
    for secrets in [&[][..], &["a a a a a a a a a"; 3][..]] {
        assert!(Verifier::new(&webhook(secrets), &plain()).is_err());
    }
}

fn seal(instance: &str, keys: &[&str]) -> Seal {
    let keys: Vec<Secret> = keys.iter().map(|k| Secret::of(*k)).collect();
    Seal::new(INBOX, instance, &keys).unwrap_or_else(|e| panic!("{e:?}"))
}

const OLD: &str = "the key of last year";
const NEW: &str = "the key of this year";

#[test]
fn what_is_sealed_is_opened_by_its_connector_for_its_delivery_with_its_key() {
    let sealed = seal("wms", &[OLD])
        .seal("d-1", b"jane@example.org")
        .expect("sealed");
    assert!(!sealed.windows(4).any(|w| w == b"jane"));
    let open = |instance, keys: &[&str], id| seal(instance, keys).open(id, &sealed);
    assert_eq!(
        open("wms", &[NEW, OLD], "d-1").as_deref(),
        Ok(&b"jane@example.org"[..])
    );
    assert_eq!(
        open("wms", &[NEW], "d-1"),
        Err(OpenFault::KeyMissing("inbox_keys"))
    );
    assert_eq!(open("wms", &[OLD], "d-2"), Err(OpenFault::Damaged));
    assert_eq!(open("pos", &[OLD], "d-1"), Err(OpenFault::Damaged));
}

proptest! {
    /// Any change and any cut is seen; nothing panics.
    #[test]
    fn what_was_changed_is_not_opened(content in proptest::collection::vec(any::<u8>(), 0..80), at in 0usize..300, bit in 0u8..8) {
        let seal = seal("wms", &[OLD]);
        let sealed = seal.seal("d", &content).expect("sealed");
        prop_assert_eq!(seal.open("d", &sealed), Ok(content));
        let mut changed = sealed.clone();
        let at = at % sealed.len();
        changed[at] ^= 1 << bit;
        prop_assert!(seal.open("d", &changed).is_err());
        prop_assert!(seal.open("d", &sealed[..at]).is_err());
    }
}
