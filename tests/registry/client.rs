//! The client: credentials, failures, and calls from inside async runtimes.

use crate::support::{client, record, served, subject};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use crossdock::codec::{SchemaError, SchemaSource};
use crossdock::config::Secret;
use crossdock::registry::{
    Authorisation, ClientSettings, Level, Registry, RegistryClient, RegistryError, Version,
};
use schema_registry_converter::async_impl::schema_registry as converter;
use schema_registry_converter::schema_registry_common::{
    SchemaType, SubjectNameStrategy, SuppliedSchema,
};
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

/// Every call of the client against the registry at `url`.
pub fn use_every_call(url: &str) {
    let registry = client(url);
    let name = subject("client");
    let one = record("Client", &["a:int"]);
    let two = record("Client", &["a:int", "b:int=0"]);
    let bad = record("Client", &["a:int", "b:int"]);
    assert_eq!(
        registry.lookup(&name, &one),
        Err(RegistryError::NoSuchSubject(name.clone()))
    );
    assert!(matches!(
        registry.id(&name, &one),
        Err(SchemaError::NotFound)
    ));
    assert_eq!(registry.objections(&name, &one), Ok(vec![]));
    let id = registry.register(&name, &one).expect("registers");
    registry
        .set_level(&name, Level::FullTransitive)
        .expect("sets");
    assert_eq!(registry.level(&name), Ok(Level::FullTransitive));
    assert_eq!(registry.objections(&name, &two), Ok(vec![]));
    let second = registry.register(&name, &two).expect("registers");
    assert_ne!(id, second);
    let objections = registry.objections(&name, &bad).expect("answers");
    assert!(!objections.is_empty());
    match registry.register(&name, &bad) {
        Err(RegistryError::Incompatible { subject, reasons }) => {
            assert_eq!(subject, name);
            assert!(!reasons.is_empty());
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(
        registry.lookup(&name, &bad),
        Err(RegistryError::NoSuchSchema(_))
    ));
    let found = registry.lookup(&name, &two).expect("is there");
    assert_eq!((found.id, found.version), (second, 2));
    assert_eq!(registry.id(&name, &one).ok(), Some(id));
    let other_layout = one.replace(r#""a","type":"int""#, r#""a" , "type": {"type":"int"}"#);
    assert_ne!(one, other_layout);
    assert_eq!(registry.id(&name, &other_layout).ok(), Some(id));
    assert_eq!(registry.versions(&name), Ok(vec![1, 2]));
    assert!(registry.subjects().expect("answers").contains(&name));
    let latest = registry.version(&name, Version::Latest).expect("is there");
    assert_eq!((latest.id, latest.version), (second, 2));
    assert_eq!(
        registry.version(&name, Version::Number(9)),
        Err(RegistryError::NoSuchVersion {
            subject: name.clone(),
            version: "9".into()
        })
    );
    let text = registry.by_id(id).expect("is there");
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&text).ok(),
        serde_json::from_str(&one).ok()
    );
    assert!(matches!(
        registry.by_id(1_999_999_999),
        Err(RegistryError::NoSuchSchema(_))
    ));
    assert!(matches!(
        registry.schema(1_999_999_999),
        Err(SchemaError::NotFound)
    ));
    assert!(matches!(
        registry.register(&subject("none"), "{"),
        Err(RegistryError::InvalidSchema(_) | RegistryError::Refused { code: 422, .. })
    ));
}

#[test]
fn the_client_uses_the_embedded_registry() {
    use_every_call(&served().url());
}

#[test]
fn the_client_blocks_no_runtime_it_is_called_from() {
    let served = served();
    let registry = client(&served.url());
    let one = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let id = one.block_on(async { registry.register("s", r#""int""#) });
    assert_eq!(id, Ok(1));
    // Dropping it inside a runtime must not panic, either.
    one.block_on(async { drop(registry) });
}

#[test]
fn another_client_library_uses_the_embedded_registry() {
    let served = served();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let settings = converter::SrSettings::new(served.url());
        let supplied =
            |schema: String| SuppliedSchema::new(Some("test.R".into()), SchemaType::Avro, schema);
        let one = record("R", &["a:int"]);
        let posted = converter::post_schema(&settings, "t-value".into(), supplied(one.clone()))
            .await
            .expect("posts");
        let found = converter::get_schema_by_id(posted.id, &settings)
            .await
            .expect("finds");
        assert_eq!(found.schema, one);
        let strategy = SubjectNameStrategy::TopicNameStrategy("t".into(), false);
        let found = converter::get_schema_by_subject(&settings, &strategy)
            .await
            .expect("finds");
        assert_eq!((found.id, found.version), (posted.id, Some(1)));
        let compatible = |fields: &[&str]| {
            converter::is_compatible_schema(
                &settings,
                "t-value".into(),
                supplied(record("R", fields)),
            )
        };
        assert_eq!(compatible(&["a:int", "b:int=0"]).await, Ok(true));
        assert_eq!(compatible(&["a:int", "b:int"]).await, Ok(false));
        assert_eq!(
            converter::get_all_subjects(&settings).await,
            Ok(vec!["t-value".to_owned()])
        );
        assert_eq!(
            converter::get_all_versions(&settings, "t-value".into()).await,
            Ok(vec![1])
        );
    });
}

/// Serves one answer for every request on a free port of loopback until the runtime is dropped.
fn answering<F, R>(answer: F) -> (tokio::runtime::Runtime, String)
where
    F: Fn(HeaderMap) -> R + Clone + Send + Sync + 'static,
    R: IntoResponse + 'static,
{
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let listener = runtime
        .block_on(tokio::net::TcpListener::bind(SocketAddr::from((
            [127, 0, 0, 1],
            0,
        ))))
        .expect("loopback can be listened on");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let routes = axum::Router::new().fallback(move |headers: HeaderMap| {
        let answer = answer.clone();
        async move { answer(headers) }
    });
    runtime.spawn(async move { axum::serve(listener, routes).await });
    (runtime, url)
}

#[test]
fn credentials_go_with_every_call_and_stay_out_of_messages() {
    let (_runtime, url) = answering(|headers| {
        let given = headers
            .get("authorization")
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default();
        let body = match given {
            "Basic YW5uOmh1bnRlcjI=" | "Bearer hunter2" => {
                r#"{"schema":"\"int\"","id":4,"version":2,"compatibilityLevel":"FULL"}"#
            }
            _ => {
                return (
                    StatusCode::UNAUTHORIZED,
                    r#"{"error_code":401,"message":"no"}"#,
                );
            }
        };
        (StatusCode::OK, body)
    });
    let with = |authorisation| {
        let mut settings = ClientSettings::new(&url);
        settings.authorisation = authorisation;
        RegistryClient::new(&settings).expect("a usable URL")
    };
    for authorisation in [
        Authorisation::Basic {
            user: "ann".into(),
            password: Secret::of("hunter2"),
        },
        Authorisation::Bearer(Secret::of("hunter2")),
    ] {
        let registry = with(authorisation);
        assert_eq!(registry.by_id(4), Ok(r#""int""#.into()));
        assert_eq!(registry.level("s"), Ok(Level::Full));
    }
    let wrong = with(Authorisation::Basic {
        user: "ann".into(),
        password: Secret::of("swordfish"),
    });
    for error in [
        wrong.by_id(4).map(drop),
        wrong.level("s").map(drop),
        wrong.register("s", r#""int""#).map(drop),
    ] {
        let error = error.expect_err("the password is wrong");
        assert!(
            matches!(error, RegistryError::Unauthorised { .. }),
            "{error:?}"
        );
        assert!(!error.to_string().contains("swordfish"), "{error}");
    }
    assert!(matches!(wrong.schema(4), Err(SchemaError::Unauthorised(_))));
}

#[test]
fn a_registry_that_is_unwell_is_told_from_one_that_has_no_such_schema() {
    let (_runtime, url) = answering(|_| (StatusCode::SERVICE_UNAVAILABLE, "later"));
    let registry = client(&url);
    assert!(matches!(
        registry.by_id(1),
        Err(RegistryError::Unavailable { .. })
    ));
    assert!(matches!(
        registry.schema(1),
        Err(SchemaError::Unavailable(_))
    ));
    // A 404 that is none of a registry's: something else listens there.
    let (_runtime, url) = answering(|_| (StatusCode::NOT_FOUND, "<html>nothing here</html>"));
    let registry = client(&url);
    assert!(matches!(
        registry.schema(1),
        Err(SchemaError::Unavailable(_))
    ));
    // Nor is every page a schema.
    let (_runtime, url) = answering(|_| (StatusCode::OK, "<html>welcome</html>"));
    let registry = client(&url);
    assert!(matches!(
        registry.schema(1),
        Err(SchemaError::Unavailable(_))
    ));
}

#[test]
fn a_registry_that_is_gone_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback can be listened on");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let error = client(&format!("http://{address}"))
        .subjects()
        .expect_err("nobody listens");
    assert!(matches!(error, RegistryError::Unavailable { .. }));
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

#[test]
fn a_registry_that_hangs_is_given_up() {
    // Takes connections into its backlog, and never answers.
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback can be listened on");
    let address = listener.local_addr().expect("an address");
    let mut settings = ClientSettings::new(format!("http://{address}"));
    settings.timeout = Duration::from_millis(100);
    let registry = RegistryClient::new(&settings).expect("a usable URL");
    for result in [registry.by_id(1).map(drop), registry.level("s").map(drop)] {
        assert!(
            matches!(result, Err(RegistryError::Unavailable { .. })),
            "{result:?}"
        );
    }
}

#[test]
fn the_next_url_is_tried() {
    let served = served();
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback can be listened on");
    let gone = listener.local_addr().expect("an address");
    drop(listener);
    let mut settings = ClientSettings::new(format!("http://{gone}"));
    settings.urls.push(served.url());
    let registry = RegistryClient::new(&settings).expect("usable URLs");
    assert_eq!(registry.register("s", r#""int""#), Ok(1));
    assert_eq!(registry.level("s"), Ok(Level::FullTransitive));
}
