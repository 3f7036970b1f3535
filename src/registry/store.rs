//! What an embedded registry knows, and the records that it is made of. Pure: [`Store::apply`]
//! takes records in the order of the topic, the other methods answer from what was applied.
//!
//! Keys and values are JSON, with the names that Confluent's registry uses in `_schemas`.

use super::normal::{self, Normal};
use super::register::{cannot_read_new, cannot_read_old};
use super::{Level, Registered, RegistryError, Version};
use crate::contract::compatibility;
use apache_avro::Schema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Longest subject: that of the longest topic name a broker takes.
const SUBJECT_CHARACTERS_MAX: usize = 249;

#[derive(Clone, Default)]
pub(super) struct Store {
    schemas: BTreeMap<u32, Arc<Known>>,
    ids: HashMap<String, u32>,
    /// Version → id.
    subjects: BTreeMap<String, BTreeMap<u32, u32>>,
    global: Level,
    levels: BTreeMap<String, Level>,
}

struct Known {
    text: String,
    schema: Schema,
}

/// A record of the topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub key: String,
    pub value: String,
}

/// What registering a schema comes to.
enum Registration {
    /// It stands in the subject already, under this id.
    Unchanged(u32),
    /// It gets this id, once the change is written.
    New(u32, Change),
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "keytype")]
enum Key {
    #[serde(rename = "SCHEMA")]
    Schema {
        subject: String,
        version: u32,
        magic: u8,
    },
    #[serde(rename = "CONFIG")]
    Config { subject: Option<String>, magic: u8 },
    #[serde(other)]
    Other,
}

#[derive(Serialize, Deserialize)]
struct SchemaValue {
    subject: String,
    version: u32,
    id: u32,
    schema: String,
    #[serde(default)]
    deleted: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ConfigValue {
    compatibility_level: Level,
}

impl Store {
    /// Takes a record of the topic. Applying one again changes nothing.
    ///
    /// # Errors
    /// In words, when the record is none of a registry or contradicts what is known; the store is
    /// as before.
    pub fn apply(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), String> {
        let key: Key = serde_json::from_slice(key).map_err(|e| format!("key: {e}"))?;
        match (key, value) {
            (Key::Schema { .. }, None) | (Key::Other, _) => Ok(()),
            (Key::Schema { .. }, Some(value)) => {
                let value: SchemaValue =
                    serde_json::from_slice(value).map_err(|e| format!("value: {e}"))?;
                self.apply_schema(value)
            }
            (Key::Config { subject, .. }, value) => {
                let level = match value {
                    Some(value) => {
                        let value: ConfigValue =
                            serde_json::from_slice(value).map_err(|e| format!("value: {e}"))?;
                        Some(value.compatibility_level)
                    }
                    None => None,
                };
                match (subject, level) {
                    (None, level) => self.global = level.unwrap_or_default(),
                    (Some(subject), Some(level)) => {
                        self.levels.insert(subject, level);
                    }
                    (Some(subject), None) => {
                        self.levels.remove(&subject);
                    }
                }
                Ok(())
            }
        }
    }

    fn apply_schema(&mut self, value: SchemaValue) -> Result<(), String> {
        if value.deleted {
            return Ok(());
        }
        let normal = normal::parse(&value.schema).map_err(|e| e.to_string())?;
        match self.ids.get(&normal.form) {
            Some(id) if *id != value.id => {
                return Err(format!(
                    "schema {} of {} is known as {id}",
                    value.id, value.subject
                ));
            }
            Some(_) => {}
            None if self.schemas.contains_key(&value.id) => {
                return Err(format!("id {} is another schema's", value.id));
            }
            None => {
                self.ids.insert(normal.form, value.id);
                let known = Known {
                    text: value.schema,
                    schema: normal.schema,
                };
                self.schemas.insert(value.id, Arc::new(known));
            }
        }
        let versions = self.subjects.entry(value.subject).or_default();
        versions.insert(value.version, value.id);
        Ok(())
    }

    pub fn subjects(&self) -> Vec<String> {
        self.subjects.keys().cloned().collect()
    }

    fn versions_of(&self, subject: &str) -> Result<&BTreeMap<u32, u32>, RegistryError> {
        self.subjects
            .get(subject)
            .ok_or_else(|| RegistryError::NoSuchSubject(subject.to_owned()))
    }

    pub fn versions(&self, subject: &str) -> Result<Vec<u32>, RegistryError> {
        Ok(self.versions_of(subject)?.keys().copied().collect())
    }

    pub fn version(&self, subject: &str, version: Version) -> Result<Registered, RegistryError> {
        let versions = self.versions_of(subject)?;
        let found = match version {
            Version::Latest => versions.last_key_value(),
            Version::Number(number) => versions.get_key_value(&number),
        };
        let missing = || RegistryError::NoSuchVersion {
            subject: subject.to_owned(),
            version: version.to_string(),
        };
        let (number, id) = found.ok_or_else(missing)?;
        self.registered(subject, *number, *id)
    }

    fn registered(
        &self,
        subject: &str,
        version: u32,
        id: u32,
    ) -> Result<Registered, RegistryError> {
        Ok(Registered {
            subject: subject.to_owned(),
            version,
            id,
            schema: self.known(id)?.text.clone(),
        })
    }

    fn known(&self, id: u32) -> Result<&Arc<Known>, RegistryError> {
        self.schemas
            .get(&id)
            .ok_or_else(|| RegistryError::NoSuchSchema(format!(": id {id}")))
    }

    pub fn by_id(&self, id: u32) -> Result<String, RegistryError> {
        Ok(self.known(id)?.text.clone())
    }

    /// Subjects and versions in which a schema stands.
    pub fn places(&self, id: u32) -> Result<Vec<(String, u32)>, RegistryError> {
        self.known(id)?;
        let mut places = Vec::new();
        for (subject, versions) in &self.subjects {
            for (version, _) in versions.iter().filter(|(_, i)| **i == id) {
                places.push((subject.clone(), *version));
            }
        }
        Ok(places)
    }

    pub fn lookup(&self, subject: &str, normal: &Normal) -> Result<Registered, RegistryError> {
        let versions = self.versions_of(subject)?;
        let found = self
            .ids
            .get(&normal.form)
            .and_then(|id| versions.iter().rev().find(|(_, i)| *i == id));
        match found {
            Some((version, id)) => self.registered(subject, *version, *id),
            None => Err(RegistryError::NoSuchSchema(format!(
                " in subject '{subject}'"
            ))),
        }
    }

    pub fn level(&self, subject: &str) -> Level {
        self.levels.get(subject).copied().unwrap_or(self.global)
    }

    pub fn own_level(&self, subject: &str) -> Option<Level> {
        self.levels.get(subject).copied()
    }

    pub fn global_level(&self) -> Level {
        self.global
    }

    /// What keeps `normal` from following the versions of `subject`, by the level that holds.
    pub fn objections(&self, subject: &str, normal: &Normal) -> Vec<String> {
        let Some(versions) = self.subjects.get(subject) else {
            return Vec::new();
        };
        let level = self.level(subject);
        let earlier = if level.is_transitive() { usize::MAX } else { 1 };
        versions
            .iter()
            .rev()
            .take(earlier)
            .flat_map(|(version, id)| self.objections_of(*version, *id, level, normal))
            .collect()
    }

    /// As [`Store::objections`], against one version only.
    pub fn objections_to(
        &self,
        subject: &str,
        version: Version,
        normal: &Normal,
    ) -> Result<Vec<String>, RegistryError> {
        let at = match self.version(subject, version) {
            Ok(at) => at,
            // Confluent's answer, too: nothing stands against the first version of a subject.
            Err(RegistryError::NoSuchSubject(_)) if version == Version::Latest => {
                return Ok(Vec::new());
            }
            Err(error) => return Err(error),
        };
        Ok(self.objections_of(at.version, at.id, self.level(subject), normal))
    }

    fn objections_of(&self, version: u32, id: u32, level: Level, normal: &Normal) -> Vec<String> {
        let Some(old) = self.schemas.get(&id) else {
            return Vec::new();
        };
        let mut found = Vec::new();
        if level.new_reads_old() {
            let breaks = compatibility::breaks(&old.schema, &normal.schema);
            found.extend(breaks.iter().map(|b| cannot_read_old(version, b)));
        }
        if level.old_reads_new() {
            let breaks = compatibility::breaks(&normal.schema, &old.schema);
            found.extend(breaks.iter().map(|b| cannot_read_new(version, b)));
        }
        found
    }

    /// What it takes to make each of these texts the next version of its subject, in order, and their
    /// ids. Each is judged with those before it in place.
    pub fn registrations(
        &self,
        wanted: &[(&str, &str, Normal)],
    ) -> Result<(Vec<u32>, Vec<Change>), RegistryError> {
        let mut after = self.clone();
        let (mut ids, mut changes) = (Vec::new(), Vec::new());
        for (subject, text, normal) in wanted {
            match after.registration(subject, text, normal)? {
                Registration::Unchanged(id) => ids.push(id),
                Registration::New(id, change) => {
                    after
                        .apply(change.key.as_bytes(), Some(change.value.as_bytes()))
                        .map_err(RegistryError::InvalidSchema)?;
                    ids.push(id);
                    changes.push(change);
                }
            }
        }
        Ok((ids, changes))
    }

    /// What it takes to make `text` the next version of `subject`.
    fn registration(
        &self,
        subject: &str,
        text: &str,
        normal: &Normal,
    ) -> Result<Registration, RegistryError> {
        check_subject(subject)?;
        match self.lookup(subject, normal) {
            Ok(registered) => return Ok(Registration::Unchanged(registered.id)),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
        let reasons = self.objections(subject, normal);
        if !reasons.is_empty() {
            return Err(RegistryError::Incompatible {
                subject: subject.to_owned(),
                reasons,
            });
        }
        let id = self
            .ids
            .get(&normal.form)
            .copied()
            .unwrap_or_else(|| self.schemas.last_key_value().map_or(1, |(id, _)| id + 1));
        let last = self.subjects.get(subject).and_then(|v| v.last_key_value());
        let value = SchemaValue {
            subject: subject.to_owned(),
            version: last.map_or(1, |(version, _)| version + 1),
            id,
            schema: text.to_owned(),
            deleted: false,
        };
        let key = Key::Schema {
            subject: value.subject.clone(),
            version: value.version,
            magic: 1,
        };
        Ok(Registration::New(id, change(&key, &value)?))
    }

    /// The record that sets a level, of one subject or the global one.
    pub fn level_change(subject: Option<&str>, level: Level) -> Result<Change, RegistryError> {
        if let Some(subject) = subject {
            check_subject(subject)?;
        }
        let key = Key::Config {
            subject: subject.map(str::to_owned),
            magic: 0,
        };
        let value = ConfigValue {
            compatibility_level: level,
        };
        change(&key, &value)
    }
}

fn change(key: &Key, value: &impl Serialize) -> Result<Change, RegistryError> {
    let json = |result: serde_json::Result<String>| {
        result.map_err(|e| RegistryError::InvalidSchema(e.to_string()))
    };
    Ok(Change {
        key: json(serde_json::to_string(key))?,
        value: json(serde_json::to_string(value))?,
    })
}

fn check_subject(subject: &str) -> Result<(), RegistryError> {
    let length = subject.chars().count();
    if (1..=SUBJECT_CHARACTERS_MAX).contains(&length) && !subject.chars().any(char::is_control) {
        Ok(())
    } else {
        Err(RegistryError::InvalidSubject(
            subject
                .chars()
                .filter(|c| !c.is_control())
                .take(64)
                .collect(),
        ))
    }
}
