//! TLS and passwords, by settings alone: what fits works, and what does not is told in words of its
//! own, without the password.

use crate::kafka::Kafka;
use crossdock::config::lint::{self, Kinds};
use crossdock::log::kafka::KafkaLog;
use crossdock::log::{Log, LogError};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

const PASSWORD: &str = "correct-horse";

/// A key and a certificate that it signs itself, as one PEM file for the broker and one for clients.
fn certificate(folder: &Path, name: &str) -> Option<(String, String)> {
    let path = |what: &str| {
        folder
            .join(format!("{name}-{what}.pem"))
            .display()
            .to_string()
    };
    let (key, authority, both) = (path("key"), path("authority"), path("broker"));
    let made = Command::new("openssl")
        .args([
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
        ])
        .args([
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
        ])
        .args(["-keyout", &key, "-out", &authority])
        .output()
        .ok()?;
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    let text = |path: &str| std::fs::read_to_string(path).expect("made");
    std::fs::write(&both, text(&key) + &text(&authority)).expect("written");
    Some((authority, both))
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

#[test]
fn passwords_and_certificates_are_taken_from_the_settings_and_judged_apart() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some((authority, broker)) = certificate(folder.path(), "ours") else {
        println!("SKIPPED: openssl is needed to make certificates");
        return;
    };
    let (stranger, _) = certificate(folder.path(), "stranger").expect("as before");
    let (plain, controller, by_password, by_both) =
        (free_port(), free_port(), free_port(), free_port());
    let listeners = |with_controller: bool| {
        let mut all = vec![format!("PLAINTEXT://127.0.0.1:{plain}")];
        if with_controller {
            all.push(format!("CONTROLLER://127.0.0.1:{controller}"));
        }
        all.push(format!("SASL_PLAINTEXT://127.0.0.1:{by_password}"));
        all.push(format!("SASL_SSL://127.0.0.1:{by_both}"));
        all.join(",")
    };
    // Blanks part the settings, so those within one are written as properties of Java allow.
    let login = format!(
        "org.apache.kafka.common.security.plain.PlainLoginModule\\u0020required\\u0020user_shop=\"{PASSWORD}\";"
    );
    let properties = [
        format!("listeners={}", listeners(true)),
        format!("advertised.listeners={}", listeners(false)),
        format!("controller.quorum.voters=1@127.0.0.1:{controller}"),
        "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL".into(),
        "sasl.enabled.mechanisms=PLAIN".into(),
        format!("listener.name.sasl_plaintext.plain.sasl.jaas.config={login}"),
        format!("listener.name.sasl_ssl.plain.sasl.jaas.config={login}"),
        "ssl.keystore.type=PEM".into(),
        format!("ssl.keystore.location={broker}"),
    ];
    let Some(_kafka) = Kafka::with_properties(&properties.join("\n")) else {
        return;
    };
    let password = folder.path().join("password");
    std::fs::write(&password, PASSWORD).expect("written");
    let wrong = folder.path().join("wrong");
    std::fs::write(&wrong, "battery-staple").expect("written");
    let connect = |port: u16, password: Option<&Path>, authority: Option<&str>| {
        let mut text = format!("log:\n  bootstrap: 127.0.0.1:{port}\n");
        if let Some(password) = password {
            text += &format!(
                "  sasl: {{mechanism: PLAIN, username: shop, password: \"${{file:{}}}\"}}\n",
                password.display()
            );
        }
        if let Some(authority) = authority {
            text += &format!("  tls: {{ca: {authority}}}\n");
        }
        let kinds = Kinds {
            names: Vec::new(),
            settings: &|_| None,
        };
        let settings = lint::read("crossdock.yaml", &text, &kinds)
            .expect("a configuration")
            .log;
        KafkaLog::connect(settings.expect("a log")).map(|log| {
            log.admin().topics().expect("topics");
        })
    };
    connect(by_password, Some(&password), None).expect("the right password");
    connect(by_both, Some(&password), Some(&authority)).expect("and the right authority");

    let refused = connect(by_password, Some(&wrong), None).expect_err("the wrong password");
    assert!(
        matches!(refused, LogError::Unauthorised { .. }),
        "{refused:?}"
    );
    let refused = connect(by_both, Some(&wrong), Some(&authority)).expect_err("the wrong password");
    assert!(
        matches!(refused, LogError::Unauthorised { .. }),
        "{refused:?}"
    );
    assert!(!format!("{refused} {refused:?}").contains("battery-staple"));

    let unknown =
        connect(by_both, Some(&password), Some(&stranger)).expect_err("another authority");
    assert!(
        matches!(unknown, LogError::Unreachable { .. }),
        "{unknown:?}"
    );
    assert!(unknown.to_string().contains("certificate"), "{unknown}");
}
