//! Registering the contracts of a build: what `crossdock schemas register` does, and the only place
//! where a schema gets into a registry.

use super::{Level, Registry, RegistryError, Version, normal};
use crate::contract::compatibility;
use std::fmt;

/// A schema that should stand in a subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Subject, by Confluent's TopicNameStrategy.
    pub subject: String,
    /// The schema's text.
    pub schema: &'static str,
}

/// What is to be done about one subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The schema becomes a version of the subject.
    Register {
        /// What to register.
        wanted: Wanted,
        /// Whether it is the subject's first.
        is_first: bool,
    },
    /// The schema stands there already.
    Unchanged {
        /// The subject.
        subject: String,
        /// Version within the subject.
        version: u32,
        /// Id of the schema.
        id: u32,
    },
    /// The schema must not follow the versions that are there.
    Refused {
        /// The subject.
        subject: String,
        /// Each break, in words.
        reasons: Vec<String>,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Register { wanted, is_first } => {
                let what = if *is_first {
                    "new subject"
                } else {
                    "new version"
                };
                write!(f, "+ {} {what}", wanted.subject)
            }
            Step::Unchanged {
                subject,
                version,
                id,
            } => write!(f, "= {subject} version={version} id={id}"),
            Step::Refused { subject, reasons } => {
                write!(f, "! {subject}")?;
                reasons.iter().try_for_each(|r| write!(f, "\n    {r}"))
            }
        }
    }
}

/// Steps that bring a registry to what is wanted. Its `Display` is the diff, a line for each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    steps: Vec<Step>,
}

impl Plan {
    /// Looks up every wanted schema, and judges those that are not there against every version
    /// that is: by this project's rules always, because not every registry sees every break (a
    /// decimal's scale, for one), and by the registry's own.
    ///
    /// # Errors
    /// When the registry cannot answer.
    pub fn make(registry: &dyn Registry, wanted: &[Wanted]) -> Result<Plan, RegistryError> {
        let mut steps = Vec::with_capacity(wanted.len());
        for one in wanted {
            steps.push(step(registry, one)?);
        }
        Ok(Plan { steps })
    }

    /// The steps, in the order of what was wanted.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Whether [`Plan::apply`] would register anything.
    pub fn is_pending(&self) -> bool {
        self.steps
            .iter()
            .any(|s| matches!(s, Step::Register { .. }))
    }

    /// Subjects whose versions do not let the wanted schema follow.
    pub fn refusals(&self) -> impl Iterator<Item = &Step> {
        self.steps
            .iter()
            .filter(|s| matches!(s, Step::Refused { .. }))
    }

    /// Registers what is new. Refused subjects are left alone. A subject's first version also
    /// sets its compatibility to FULL_TRANSITIVE, where the registry's own default is another.
    ///
    /// # Errors
    /// At the first subject that fails; registering again goes on from there.
    pub fn apply(&self, registry: &dyn Registry) -> Result<(), RegistryError> {
        let pending = || {
            self.steps.iter().filter_map(|step| match step {
                Step::Register { wanted, is_first } => Some((wanted, *is_first)),
                _ => None,
            })
        };
        let schemas: Vec<(&str, &str)> = pending().map(|(w, _)| (&*w.subject, w.schema)).collect();
        registry.register_all(&schemas)?;
        for (wanted, is_first) in pending() {
            if is_first && registry.level(&wanted.subject)? != Level::FullTransitive {
                registry.set_level(&wanted.subject, Level::FullTransitive)?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.steps.iter().try_for_each(|step| writeln!(f, "{step}"))
    }
}

/// Registers everything that is wanted, or says why not; for the demo and for tests. Doing it again
/// changes nothing.
///
/// # Errors
/// When the registry cannot answer; [`RegistryError::Incompatible`] for the first subject that
/// refuses, before anything is registered.
pub fn all(registry: &dyn Registry, wanted: &[Wanted]) -> Result<(), RegistryError> {
    let plan = Plan::make(registry, wanted)?;
    if let Some(Step::Refused { subject, reasons }) = plan.refusals().next() {
        return Err(RegistryError::Incompatible {
            subject: subject.clone(),
            reasons: reasons.clone(),
        });
    }
    plan.apply(registry)
}

fn step(registry: &dyn Registry, wanted: &Wanted) -> Result<Step, RegistryError> {
    let subject = &wanted.subject;
    match registry.lookup(subject, wanted.schema) {
        Ok(found) => {
            return Ok(Step::Unchanged {
                subject: subject.clone(),
                version: found.version,
                id: found.id,
            });
        }
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error),
    }
    let versions = match registry.versions(subject) {
        Ok(versions) => versions,
        Err(RegistryError::NoSuchSubject(_)) => Vec::new(),
        Err(error) => return Err(error),
    };
    let new = normal::parse(wanted.schema)?.schema;
    let mut reasons = Vec::new();
    for version in &versions {
        let old = registry.version(subject, Version::Number(*version))?;
        let old = match normal::parse(&old.schema) {
            Ok(old) => old.schema,
            Err(error) => {
                reasons.push(format!("version {version}: {error}"));
                continue;
            }
        };
        reasons.extend(both_ways(&old, &new, *version));
    }
    if reasons.is_empty() && !versions.is_empty() {
        reasons = registry.objections(subject, wanted.schema)?;
    }
    Ok(if reasons.is_empty() {
        Step::Register {
            wanted: wanted.clone(),
            is_first: versions.is_empty(),
        }
    } else {
        Step::Refused {
            subject: subject.clone(),
            reasons,
        }
    })
}

/// What keeps an old version and a new schema from reading one another.
fn both_ways(
    old: &apache_avro::Schema,
    new: &apache_avro::Schema,
    version: u32,
) -> impl Iterator<Item = String> {
    let backward = compatibility::breaks(old, new).into_iter();
    let forward = compatibility::breaks(new, old).into_iter();
    backward
        .map(move |b| cannot_read_old(version, &b))
        .chain(forward.map(move |b| cannot_read_new(version, &b)))
}

pub(super) fn cannot_read_old(version: u32, what: &str) -> String {
    format!("the new schema cannot read what version {version} wrote: {what}")
}

pub(super) fn cannot_read_new(version: u32, what: &str) -> String {
    format!("version {version} cannot read what the new schema writes: {what}")
}
