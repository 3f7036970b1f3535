//! How to reach a registry: addresses, credentials, certificates.

use super::chain;
use crate::config::Secret;
use reqwest::{Certificate, Identity};
use schema_registry_converter::async_impl::schema_registry::SrSettingsBuilder;
use std::path::PathBuf;
use std::time::Duration;

/// A call that takes longer has failed.
const CALL_TIME_MAX: Duration = Duration::from_secs(5);
/// Who the client says it is.
#[derive(Clone, Debug, Default)]
pub enum Authorisation {
    /// Nobody.
    #[default]
    None,
    /// A user with a password (in Confluent Cloud: API key and secret).
    Basic {
        /// User name.
        user: String,
        /// Password.
        password: Secret,
    },
    /// The bearer of a token.
    Bearer(Secret),
}

/// How to reach a registry.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// Base URLs, tried in order: `http://host:8081`, `https://host/apis/ccompat/v7`. None may
    /// hold credentials.
    pub urls: Vec<String>,
    /// Credentials.
    pub authorisation: Authorisation,
    /// PEM file with the certificate authorities that sign the registry's certificate, besides
    /// the system's.
    pub ca: Option<PathBuf>,
    /// PEM files of a client certificate and its PKCS#8 key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// URL of a proxy for all calls; without one the usual environment variables count.
    pub proxy: Option<String>,
    /// A call that takes longer has failed.
    pub timeout: Duration,
}

impl ClientSettings {
    /// Without credentials; five seconds for a call.
    pub fn new(url: impl Into<String>) -> Self {
        ClientSettings {
            urls: vec![url.into()],
            authorisation: Authorisation::None,
            ca: None,
            identity: None,
            proxy: None,
            timeout: CALL_TIME_MAX,
        }
    }

    /// With what the environment says beside the URL: `CROSSDOCK_REGISTRY_USER` and
    /// `CROSSDOCK_REGISTRY_PASSWORD`, or `CROSSDOCK_REGISTRY_TOKEN`; `CROSSDOCK_REGISTRY_CA`;
    /// `CROSSDOCK_REGISTRY_CERTIFICATE` and `CROSSDOCK_REGISTRY_KEY`; `CROSSDOCK_REGISTRY_PROXY`.
    pub fn from_environment(url: impl Into<String>) -> Self {
        Self::from_variables(url, |name| {
            std::env::var(name).ok().filter(|v| !v.is_empty())
        })
    }

    fn from_variables(url: impl Into<String>, get: impl Fn(&str) -> Option<String>) -> Self {
        let get = |name: &str| get(&format!("CROSSDOCK_REGISTRY_{name}"));
        let mut settings = ClientSettings::new(url);
        if let Some(token) = get("TOKEN") {
            settings.authorisation = Authorisation::Bearer(Secret::of(token));
        } else if let Some(user) = get("USER") {
            let password = Secret::of(get("PASSWORD").unwrap_or_default());
            settings.authorisation = Authorisation::Basic { user, password };
        }
        settings.ca = get("CA").map(PathBuf::from);
        settings.identity = get("CERTIFICATE")
            .map(PathBuf::from)
            .zip(get("KEY").map(PathBuf::from));
        settings.proxy = get("PROXY");
        settings
    }
}

/// The URL without a slash at its end.
pub(super) fn base_url(url: &str) -> Result<String, String> {
    let parsed = reqwest::Url::parse(url)
        .map_err(|e| format!("the schema registry's URL cannot be read: {e}"))?;
    if !matches!(parsed.scheme(), "http" | "https") {
        return Err("the schema registry's URL must begin with http:// or https://".into());
    }
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err(
            "the schema registry's URL holds credentials, which would be printed with it; give them in CROSSDOCK_REGISTRY_USER and CROSSDOCK_REGISTRY_PASSWORD, or in the configuration"
                .into(),
        );
    }
    Ok(url.trim_end_matches('/').to_owned())
}

pub(super) fn authorise(builder: &mut SrSettingsBuilder, authorisation: &Authorisation) {
    match authorisation {
        Authorisation::None => {}
        Authorisation::Basic { user, password } => {
            builder.set_basic_authorization(user, Some(password.reveal()));
        }
        Authorisation::Bearer(token) => {
            builder.set_token_authorization(token.reveal());
        }
    }
}

pub(super) fn http_builder(settings: &ClientSettings) -> Result<reqwest::ClientBuilder, String> {
    let read = |path: &PathBuf| std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()));
    let mut builder = reqwest::Client::builder().connect_timeout(settings.timeout);
    if let Some(path) = &settings.ca {
        let authorities = Certificate::from_pem_bundle(&read(path)?)
            .map_err(|e| format!("{}: {}", path.display(), chain(&e)))?;
        for authority in authorities {
            builder = builder.add_root_certificate(authority);
        }
    }
    if let Some((certificate, key)) = &settings.identity {
        let identity = Identity::from_pkcs8_pem(&read(certificate)?, &read(key)?)
            .map_err(|e| format!("{}: {}", certificate.display(), chain(&e)))?;
        builder = builder.identity(identity);
    }
    if let Some(proxy) = &settings.proxy {
        let proxy = reqwest::Proxy::all(proxy)
            .map_err(|e| format!("the schema registry's proxy: {}", chain(&e)))?;
        builder = builder.proxy(proxy);
    }
    Ok(builder)
}

#[cfg(test)]
mod tests {
    use super::super::RegistryClient;
    use super::*;

    #[test]
    fn settings_never_print_a_secret() {
        let settings = ClientSettings::from_variables("https://r", |name| match name {
            "CROSSDOCK_REGISTRY_USER" => Some("ann".into()),
            "CROSSDOCK_REGISTRY_PASSWORD" => Some("hunter2".into()),
            _ => None,
        });
        assert!(matches!(
            settings.authorisation,
            Authorisation::Basic { .. }
        ));
        assert!(!format!("{settings:?}").contains("hunter2"));
        let error = RegistryClient::new(&ClientSettings::new("http://ann:hunter2@r")).err();
        let text = error.map(|e| e.to_string()).unwrap_or_default();
        assert!(
            text.contains("credentials") && !text.contains("hunter2"),
            "{text}"
        );
    }

    #[test]
    fn a_token_goes_before_a_user() {
        let settings = ClientSettings::from_variables("https://r", |name| {
            (name != "CROSSDOCK_REGISTRY_CA").then(|| "x".into())
        });
        assert!(matches!(settings.authorisation, Authorisation::Bearer(_)));
        assert!(settings.identity.is_some() && settings.ca.is_none());
    }

    #[test]
    fn what_cannot_work_is_said_at_once() {
        for (url, part) in [
            ("", "cannot be read"),
            ("ftp://r", "must begin with http"),
            ("registry:8081", "must begin with http"),
        ] {
            let error = RegistryClient::new(&ClientSettings::new(url)).err();
            let text = error.map(|e| e.to_string()).unwrap_or_default();
            assert!(text.contains(part), "{url}: {text}");
        }
    }
}
