//! The topics of a deployment: what the catalogue wants against what a log has.
//!
//! [`Plan::make`] compares, [`Plan::apply`] creates and widens, [`verify`] tells a process about to
//! start what it misses. What it deliberately lacks: deleting, shrinking and repartitioning. Each
//! throws something away that readers rely on, so a plan refuses them and says what to do instead.

mod need;
mod plan;

pub use need::{Missing, Need, needs_of, needs_of_connector, verify};
pub use plan::{Plan, Step};

use crate::codec::subject;
use crate::contract::event::Event;
use crate::contract::{Catalogue, PhysicalTopic, Status, Tier};
use crate::log::{Log, LogError, TopicSpec};
use crate::pipeline::ConnectorDescriptor;
use crate::registry::register::Wanted;
use crate::{processors, registry};

/// Copies of each partition where there are brokers enough.
const REPLICATION_DEFAULT: usize = 3;

/// Who has topics of its own in a deployment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readers {
    /// Processors, each with one of its inputs.
    pub processors: Vec<(String, String)>,
    /// Sinks by instance name, each with one of its inputs.
    pub sinks: Vec<(String, String)>,
    /// Sources by instance name, each with one topic it writes.
    pub sources: Vec<(String, String)>,
    /// Connectors by instance name that take deliveries over HTTP.
    pub inboxes: Vec<String>,
}

impl Readers {
    /// Every processor of this build, and no connectors.
    pub fn processors() -> Self {
        let processors = processors::ALL
            .iter()
            .filter_map(|p| {
                let input = p.descriptor.inputs.first()?;
                Some((p.descriptor.name.to_owned(), (*input).to_owned()))
            })
            .collect();
        Readers {
            processors,
            ..Readers::default()
        }
    }

    /// With a connector of this kind under this instance name.
    pub fn with_connector(mut self, instance: &str, kind: &ConnectorDescriptor) -> Self {
        if let (Some(_), Some(input)) = (&kind.sink, kind.accepts.first()) {
            self.sinks.push((instance.to_owned(), (*input).to_owned()));
        }
        if let Some(output) = kind.emits.first() {
            self.sources
                .push((instance.to_owned(), (*output).to_owned()));
        }
        if kind.inbox {
            self.inboxes.push(instance.to_owned());
        }
        self
    }
}

/// What a deployment should have: the fixed topics, those of each reader, and the registry's.
/// `replication` is left at 0 for the plan to fill in.
pub fn wanted(catalogue: &Catalogue, tier: Tier, readers: &Readers) -> Vec<TopicSpec> {
    fn pairs(owned: &[(String, String)]) -> Vec<(&str, &str)> {
        owned
            .iter()
            .map(|(reader, topic)| (reader.as_str(), topic.as_str()))
            .collect()
    }
    let spec = |topic: PhysicalTopic| TopicSpec {
        name: topic.name,
        partitions: topic.partitions,
        replication: 0,
        settings: topic.settings,
    };
    let inboxes: Vec<&str> = readers.inboxes.iter().map(String::as_str).collect();
    let mut all: Vec<TopicSpec> = catalogue
        .physical(tier, &pairs(&readers.processors), &pairs(&readers.sinks))
        .into_iter()
        .chain(catalogue.physical_of_sources(tier, &pairs(&readers.sources)))
        .chain(catalogue.physical_of_inboxes(&inboxes))
        .map(spec)
        .collect();
    let mut registry = registry::topic_spec(0);
    registry.settings.remove(MIN_INSYNC);
    all.push(registry);
    // A connector that is source and sink has one dead-letter topic for both.
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all.dedup_by(|a, b| a.name == b.name);
    all
}

/// The schemas that a deployment's topics need: those of published contracts, each in its topic's
/// subject. Drafts may still change, and a registered schema never does.
pub fn subjects(catalogue: &Catalogue, readers: &Readers) -> Vec<Wanted> {
    let is_draft = |name: &str| {
        catalogue
            .topic(name)
            .is_some_and(|t| t.status == Status::Draft)
    };
    wanted(catalogue, Tier::S, readers)
        .into_iter()
        .filter(|topic| !is_draft(&topic.name))
        .filter_map(|topic| {
            let contract = catalogue.contract(&topic.name)?;
            let (_, schema) = Event::CONTRACTS
                .iter()
                .find(|(name, _)| *name == contract)?;
            Some(Wanted {
                subject: subject(&topic.name),
                schema,
            })
        })
        .collect()
}

/// Setting that says how many copies a write waits for.
pub(crate) const MIN_INSYNC: &str = "min.insync.replicas";

/// How many copies a write waits for (DOMAIN.md §0).
pub fn min_insync_replicas(replication: i32) -> i32 {
    replication.min(2)
}

/// Copies of each partition in a log of this many brokers, unless somebody says otherwise.
pub fn default_replication(brokers: usize) -> i32 {
    brokers.clamp(1, REPLICATION_DEFAULT) as i32
}

/// Makes the log as the catalogue wants it, as far as that throws nothing away; for the demo and
/// for tests. Doing it again changes nothing.
///
/// # Errors
/// When the log does not answer; or [`LogError::Other`] with every refusal, after everything else
/// was done.
pub fn ensure(
    log: &dyn Log,
    catalogue: &Catalogue,
    tier: Tier,
    replication: Option<i32>,
    readers: &Readers,
) -> Result<Plan, LogError> {
    let plan = Plan::make(log, wanted(catalogue, tier, readers), replication)?;
    plan.apply(log)?;
    let refusals: Vec<String> = plan.refusals().map(|step| step.to_string()).collect();
    if refusals.is_empty() {
        Ok(plan)
    } else {
        Err(LogError::Other(refusals.join("\n")))
    }
}

/// The tier that a log is laid out for, judged by the catalogue's topics in it: `None` when it has
/// none of them, or they fit no tier or several.
pub fn tier_of(existing: &[TopicSpec], catalogue: &Catalogue) -> Option<Tier> {
    let fits = |tier: Tier| {
        let mut any = false;
        let all = existing.iter().all(|topic| {
            let Some(partitions) = catalogue.partitions(&topic.name, tier) else {
                return true;
            };
            any = true;
            topic.partitions == partitions
        });
        any && all
    };
    let mut tiers = [Tier::S, Tier::M, Tier::L].into_iter().filter(|t| fits(*t));
    match (tiers.next(), tiers.next()) {
        (Some(tier), None) => Some(tier),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
