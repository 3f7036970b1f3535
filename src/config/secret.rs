//! Secrets come by reference only, and are never printed.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;
use std::fmt;

/// A secret, given in the configuration as `${env:NAME}` or `${file:PATH}`. A literal is refused:
/// configuration files are copied about.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// What a reference looks like; by it a schema tells a secret from any other text.
    pub(super) const PATTERN: &str = "^\\$\\{(env|file):.+\\}$";

    /// Whether a text refers to a secret.
    pub(super) fn is_reference(text: &str) -> bool {
        parts(text).is_some()
    }

    /// Wraps a secret that was never in a configuration: of a stand-in, or from a test.
    pub fn of(value: impl Into<String>) -> Self {
        Secret(value.into())
    }

    /// The secret itself, for the one call that needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Resolves a reference.
    ///
    /// # Errors
    /// When the text is no reference (the message does not repeat it) or what it names is missing.
    pub fn resolve(reference: &str) -> Result<Secret, String> {
        match parts(reference) {
            Some(("env", name)) => std::env::var(name).map(Secret).map_err(|_| {
                format!("the environment has no variable {name}; set it, or name another")
            }),
            Some(("file", path)) => match std::fs::read_to_string(path) {
                Ok(text) => Ok(Secret(text.trim_end_matches(['\n', '\r']).to_owned())),
                Err(error) => Err(format!("the secret file {path} cannot be read: {error}")),
            },
            _ => Err(
                "a secret must be given as ${env:NAME} or ${file:PATH}, not as a literal"
                    .to_owned(),
            ),
        }
    }
}

/// Where a reference refers to, and the name there.
fn parts(reference: &str) -> Option<(&str, &str)> {
    let inner = reference.strip_prefix("${")?.strip_suffix('}')?;
    let (place, name) = inner.split_once(':')?;
    let is_known = matches!(place, "env" | "file") && !name.is_empty();
    is_known.then_some((place, name))
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let reference = String::deserialize(d)?;
        Secret::resolve(&reference).map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Secret {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({"type": "string", "pattern": Secret::PATTERN})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_is_refused_without_being_repeated() {
        let error = Secret::resolve("hunter2").expect_err("a literal");
        assert!(
            error.contains("${env:NAME}") && !error.contains("hunter2"),
            "{error}"
        );
    }

    #[test]
    fn a_secret_is_not_printed() {
        assert_eq!(format!("{:?}", Secret::of("hunter2")), "Secret(…)");
    }
}
