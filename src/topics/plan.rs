//! What it takes to make a log as it should be, as a diff.

use super::{MIN_INSYNC, default_replication, min_insync_replicas};
use crate::log::{Log, LogError, TopicSpec};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What is to be done about one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is missing: create it.
    Create(TopicSpec),
    /// Settings are missing or narrower than they should be: set them.
    Change {
        /// Topic name.
        topic: String,
        /// Name, present value (`None` when the broker's default holds), value to be.
        settings: Vec<(String, Option<String>, String)>,
    },
    /// It is as it should be.
    Unchanged(String),
    /// It differs in a way that cannot be mended without throwing something away. Left alone.
    Refused {
        /// Topic name.
        topic: String,
        /// What differs, why it is not mended, and what to do.
        why: String,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Create(topic) => {
                write!(
                    f,
                    "+ {} partitions={} replication={}",
                    topic.name, topic.partitions, topic.replication
                )?;
                topic
                    .settings
                    .iter()
                    .try_for_each(|(name, value)| write!(f, " {name}={value}"))
            }
            Step::Change { topic, settings } => {
                write!(f, "~ {topic}")?;
                settings.iter().try_for_each(|(name, from, to)| {
                    let from = from.as_deref().unwrap_or("(the broker's default)");
                    write!(f, " {name}: {from} -> {to}")
                })
            }
            Step::Unchanged(topic) => write!(f, "= {topic}"),
            Step::Refused { topic, why } => write!(f, "! {topic}: {why}"),
        }
    }
}

/// Steps towards a log as it should be, by topic name. Its `Display` is the diff, a line for each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    steps: Vec<Step>,
}

impl Plan {
    /// Compares what is wanted with what `log` has. Topics that are not wanted are left alone
    /// without a word: others may own them.
    ///
    /// `replication` is how many copies new topics get; by default three, or as many as there are
    /// brokers. Existing topics keep theirs.
    ///
    /// # Errors
    /// When the log does not answer.
    pub fn make(
        log: &dyn Log,
        wanted: Vec<TopicSpec>,
        replication: Option<i32>,
    ) -> Result<Plan, LogError> {
        let admin = log.admin();
        let existing: BTreeMap<String, TopicSpec> = admin
            .topics()?
            .into_iter()
            .map(|t| (t.name.clone(), t))
            .collect();
        let replication_of_new = match replication {
            Some(replication) => replication,
            None => default_replication(admin.brokers()?),
        };
        let mut steps = Vec::new();
        for topic in wanted {
            match existing.get(&topic.name) {
                Some(found) => compare(found, &topic, replication, &mut steps),
                None => steps.push(Step::Create(TopicSpec {
                    replication: replication_of_new,
                    settings: with_min_insync(&topic.settings, replication_of_new),
                    ..topic
                })),
            }
        }
        Ok(Plan { steps })
    }

    /// The steps, by topic name; a topic with a change and a refusal has two.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Whether [`Plan::apply`] would do anything.
    pub fn is_pending(&self) -> bool {
        self.steps
            .iter()
            .any(|s| matches!(s, Step::Create(_) | Step::Change { .. }))
    }

    /// What is not mended.
    pub fn refusals(&self) -> impl Iterator<Item = &Step> {
        self.steps
            .iter()
            .filter(|s| matches!(s, Step::Refused { .. }))
    }

    /// Creates and changes what is to be created and changed; refusals are left alone. Applying a
    /// plan halfway and making a new one goes on where it ended.
    ///
    /// # Errors
    /// At the first step that fails, with the topic's name.
    pub fn apply(&self, log: &dyn Log) -> Result<(), LogError> {
        let admin = log.admin();
        let new = self.steps.iter().filter_map(|step| match step {
            Step::Create(topic) => Some(topic.clone()),
            _ => None,
        });
        admin.create_all(&new.collect::<Vec<_>>())?;
        for step in &self.steps {
            if let Step::Change { topic, settings } = step {
                let settings = settings
                    .iter()
                    .map(|(name, _, to)| (name.clone(), to.clone()))
                    .collect();
                admin.alter(topic, &settings)?;
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

fn with_min_insync(
    settings: &BTreeMap<String, String>,
    replication: i32,
) -> BTreeMap<String, String> {
    let mut settings = settings.clone();
    let copies = min_insync_replicas(replication).to_string();
    settings.insert(MIN_INSYNC.to_owned(), copies);
    settings
}

fn compare(found: &TopicSpec, wanted: &TopicSpec, replication: Option<i32>, steps: &mut Vec<Step>) {
    let topic = &found.name;
    let mut refuse = |why: String| {
        steps.push(Step::Refused {
            topic: topic.clone(),
            why,
        });
    };
    let mut is_refused = false;
    if found.partitions != wanted.partitions {
        is_refused = true;
        refuse(format!(
            "has {} partitions, {} are wanted. Repartitioning would tear keys from their state and order. Choose the tier that the log is laid out for (--tier), or lay out a new log and copy into it",
            found.partitions, wanted.partitions
        ));
    }
    if let Some(replication) = replication.filter(|r| *r != found.replication) {
        is_refused = true;
        refuse(format!(
            "has {} copies, {replication} are wanted. Copies are moved by the brokers' own tool: kafka-reassign-partitions",
            found.replication
        ));
    }
    let mut settings = Vec::new();
    for (name, to) in with_min_insync(&wanted.settings, found.replication) {
        let from = found.settings.get(&name);
        if from.is_some_and(|from| is_same(&name, from, &to)) {
            continue;
        }
        match from.and_then(|from| loss(&name, from, &to).map(|loss| (from, loss))) {
            Some((from, loss)) => {
                is_refused = true;
                refuse(format!(
                    "{name} is {from}, {to} is wanted. That would {loss}. If it is meant, set it with the brokers' own tool: kafka-configs"
                ));
            }
            None => settings.push((name, from.cloned(), to)),
        }
    }
    if !settings.is_empty() {
        steps.push(Step::Change {
            topic: topic.clone(),
            settings,
        });
    } else if !is_refused {
        steps.push(Step::Unchanged(topic.clone()));
    }
}

fn is_same(name: &str, from: &str, to: &str) -> bool {
    match name {
        "cleanup.policy" => policies(from) == policies(to),
        _ => from == to,
    }
}

fn policies(text: &str) -> BTreeSet<&str> {
    text.split(',').map(str::trim).collect()
}

/// What changing a setting would throw away; `None` when nothing.
fn loss(name: &str, from: &str, to: &str) -> Option<&'static str> {
    match name {
        "cleanup.policy" => {
            let more = policies(to).difference(&policies(from)).next().is_some();
            more.then_some("delete records that are kept now")
        }
        "retention.ms" | "retention.bytes" => {
            // -1 is for ever.
            let kept = |text: &str| {
                text.parse::<i64>()
                    .map(|n| if n < 0 { i64::MAX } else { n })
            };
            let shorter = matches!((kept(from), kept(to)), (Ok(from), Ok(to)) if to < from);
            shorter.then_some("delete records that are kept now")
        }
        "max.message.bytes" => narrower(from, to).then_some("refuse records that are taken now"),
        MIN_INSYNC => narrower(from, to).then_some("acknowledge writes with fewer copies than now"),
        _ => None,
    }
}

fn narrower(from: &str, to: &str) -> bool {
    matches!((from.parse::<i64>(), to.parse::<i64>()), (Ok(from), Ok(to)) if to < from)
}
