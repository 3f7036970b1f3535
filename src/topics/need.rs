//! What a process needs of the log before it starts, and what to do where that is missing.

use crate::contract::{Catalogue, Tier, topic};
use crate::log::{Log, LogError, TopicSpec};
use crate::pipeline::{ConnectorDescriptor, ProcessorDescriptor};
use std::collections::BTreeMap;
use std::fmt;

/// A topic that must exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// Topic name.
    pub topic: String,
    /// It must have as many partitions as this topic, because equal keys must meet in equal
    /// partition numbers.
    pub partitions_of: Option<String>,
    /// It must have no more partitions than this topic, in which what is kept of a partition is kept
    /// under its number.
    pub within: Option<String>,
}

impl Need {
    /// The topic, with any number of partitions.
    pub fn of(topic: impl Into<String>) -> Self {
        Need {
            topic: topic.into(),
            partitions_of: None,
            within: None,
        }
    }
    /// The topic, with as many partitions as `other`.
    pub fn like(topic: impl Into<String>, other: impl Into<String>) -> Self {
        Need {
            partitions_of: Some(other.into()),
            ..Need::of(topic)
        }
    }
    /// The topic, with no more partitions than `other`.
    pub fn within(topic: impl Into<String>, other: impl Into<String>) -> Self {
        Need {
            within: Some(other.into()),
            ..Need::of(topic)
        }
    }
}

/// What a processor needs: its inputs, state and dead letters with equal partition counts, its
/// tables and outputs, and where its outcomes are counted.
pub fn needs_of(processor: &ProcessorDescriptor, catalogue: &Catalogue) -> Vec<Need> {
    let mut needs = vec![Need::of(topic::OPS_DISPOSITION)];
    if let Some((first, others)) = processor.inputs.split_first() {
        needs.push(Need::of(*first));
        needs.extend(others.iter().map(|topic| Need::like(*topic, *first)));
        for topic in [
            catalogue.state_topic(processor.name),
            catalogue.dead_letter_topic(processor.name),
            catalogue.park_topic(processor.name),
        ] {
            needs.push(Need::like(topic, *first));
        }
    }
    needs.extend(processor.tables.iter().copied().map(Need::of));
    needs.extend(processor.outputs.iter().copied().map(Need::of));
    needs
}

/// What a connector named `instance` needs: what its source writes and its sink reads, the topics of
/// its own, and where its cursor is kept and its outcomes are counted.
pub fn needs_of_connector(
    instance: &str,
    kind: &ConnectorDescriptor,
    catalogue: &Catalogue,
) -> Vec<Need> {
    let mut needs = vec![Need::of(catalogue.dead_letter_topic(instance))];
    if let (Some(_), Some(input)) = (&kind.sink, kind.accepts.first()) {
        needs.push(Need::of(topic::OPS_DISPOSITION));
        needs.push(Need::of(*input));
        // Facts of one order or position meet under one number; what has a key of another kind only
        // needs room for its receipts.
        let layout = |topic: &str| {
            let tiers = [Tier::S, Tier::M, Tier::L];
            tiers.map(|tier| catalogue.partitions(topic, tier))
        };
        let others = kind.accepts.iter().skip(1);
        needs.extend(others.map(|topic| match layout(topic) == layout(input) {
            true => Need::like(*topic, *input),
            false => Need::within(*topic, *input),
        }));
        for own in [
            catalogue.dead_letter_topic(instance),
            catalogue.receipt_topic(instance),
            catalogue.park_topic(instance),
        ] {
            needs.push(Need::like(own, *input));
        }
    }
    if !kind.emits.is_empty() {
        needs.push(Need::of(topic::SOURCE_CURSOR));
        needs.push(Need::of(topic::OPS_HEARTBEAT));
        needs.extend(kind.emits.iter().copied().map(Need::of));
    }
    if [kind.emits, kind.accepts]
        .concat()
        .contains(&topic::CUSTOMER_CHANGE)
    {
        needs.push(Need::of(topic::CUSTOMER_KEY));
    }
    if kind.inbox {
        needs.push(Need::of(catalogue.inbox_topic(instance)));
    }
    needs
}

/// Every need that a log does not meet. Its `Display` names each, and the command that mends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Topics that do not exist, sorted.
    pub topics: Vec<String>,
    /// Topic, its partitions, the topic it must agree with, that one's partitions.
    pub unequal: Vec<(String, i32, String, i32)>,
    /// Topic, its partitions, the topic that must have as many or more, that one's partitions.
    pub beyond: Vec<(String, i32, String, i32)>,
    /// The command that creates what is missing.
    pub command: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = Vec::new();
        if !self.topics.is_empty() {
            lines.push(format!(
                "the log lacks {}; create what is missing with `{}`",
                self.topics.join(", "),
                self.command
            ));
        }
        for (topic, partitions, other, others) in &self.unequal {
            lines.push(format!(
                "{topic} has {partitions} partitions and {other} has {others}, but equal keys of both must meet in equal partitions; `{}` tells what the catalogue wants",
                self.command.replace(" apply", " plan")
            ));
        }
        for (topic, partitions, other, most) in &self.beyond {
            lines.push(format!(
                "{topic} has {partitions} partitions, more than the {most} of {other}, by whose numbers receipts are kept; `{}` tells what the catalogue wants",
                self.command.replace(" apply", " plan")
            ));
        }
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for Missing {}

/// Checks that a log meets these needs. `Ok(Err(…))` tells everything that is missing at once.
///
/// # Errors
/// When the log does not answer.
pub fn verify(log: &dyn Log, needs: &[Need]) -> Result<Result<(), Missing>, LogError> {
    let existing: BTreeMap<String, TopicSpec> = log
        .admin()
        .topics()?
        .into_iter()
        .map(|t| (t.name.clone(), t))
        .collect();
    let mut topics = Vec::new();
    let mut unequal = Vec::new();
    let mut beyond = Vec::new();
    for need in needs {
        let Some(found) = existing.get(&need.topic) else {
            topics.push(need.topic.clone());
            continue;
        };
        // Where the other topic is missing, that is told by the need for it.
        let other = need.partitions_of.as_ref().and_then(|o| existing.get(o));
        if let Some(other) = other.filter(|o| o.partitions != found.partitions) {
            unequal.push((
                found.name.clone(),
                found.partitions,
                other.name.clone(),
                other.partitions,
            ));
        }
        let most = need.within.as_ref().and_then(|o| existing.get(o));
        if let Some(most) = most.filter(|m| m.partitions < found.partitions) {
            let (name, most_name) = (found.name.clone(), most.name.clone());
            beyond.push((name, found.partitions, most_name, most.partitions));
        }
    }
    if topics.is_empty() && unequal.is_empty() && beyond.is_empty() {
        return Ok(Ok(()));
    }
    topics.sort_unstable();
    topics.dedup();
    Ok(Err(Missing {
        topics,
        unequal,
        beyond,
        command: match log.address() {
            "embedded" => "crossdock topics apply".to_owned(),
            address => format!("crossdock topics apply --bootstrap {address}"),
        },
    }))
}
