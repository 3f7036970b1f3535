//! Consumer groups: members, generations, who owns what.
//!
//! A change of membership begins a new generation. Under the eager protocol every member first gives
//! up all it owns, and partitions are shared out once all have; under the cooperative ones a member
//! gives up only what moves, and gains a partition once its former owner has given it up.

use super::super::{Assignment, GroupProtocol, GroupSpec, Offsets, TopicPartition};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

#[derive(Default)]
pub(super) struct Group {
    pub generation: u64,
    pub offsets: Offsets,
    members: BTreeMap<String, Member>,
}

struct Member {
    spec: GroupSpec,
    /// Which of the consumers that had this static id is the present one.
    incarnation: u64,
    /// The generation that the member has joined.
    joined: u64,
    owned: BTreeSet<TopicPartition>,
    last_poll: Duration,
    /// When a static member went away; it is expected back within the session timeout.
    gone_at: Option<Duration>,
    /// A returning static member is told again of what it owns.
    returned: bool,
}

impl Group {
    /// Adds a member, or takes the place of the static member of this id.
    pub fn join(&mut self, id: &str, spec: &GroupSpec, incarnation: u64, now: Duration) {
        if let Some(member) = self.members.get_mut(id)
            && member.spec.topics == spec.topics
            && member.spec.protocol == spec.protocol
        {
            member.incarnation = incarnation;
            member.gone_at = None;
            member.last_poll = now;
            member.returned = true;
            return;
        }
        let member = Member {
            spec: spec.clone(),
            incarnation,
            joined: 0,
            owned: BTreeSet::new(),
            last_poll: now,
            gone_at: None,
            returned: false,
        };
        self.members.insert(id.to_owned(), member);
        self.generation += 1;
    }

    /// A member goes: at once, or (static) to be back within its session timeout.
    pub fn leave(&mut self, id: &str, incarnation: u64, now: Duration) {
        let Some(member) = self
            .members
            .get_mut(id)
            .filter(|m| m.incarnation == incarnation)
        else {
            return;
        };
        if member.spec.member.is_some() {
            member.gone_at = Some(now);
        } else {
            self.members.remove(id);
            self.generation += 1;
        }
    }

    pub fn expire(&mut self, prefix: &str) {
        let before = self.members.len();
        self.members.retain(|id, _| !id.starts_with(prefix));
        if self.members.len() != before {
            self.generation += 1;
        }
    }

    pub fn owned(&self, id: &str, incarnation: u64) -> Option<&BTreeSet<TopicPartition>> {
        self.members
            .get(id)
            .filter(|m| m.incarnation == incarnation)
            .map(|m| &m.owned)
    }

    /// Whether the id is a member's, of whatever incarnation.
    pub fn has(&self, id: &str) -> bool {
        self.members.contains_key(id)
    }

    /// Whether this member takes part in the present generation.
    pub fn has_joined(&self, id: &str, incarnation: u64) -> bool {
        let member = self.members.get(id);
        member.is_some_and(|m| m.incarnation == incarnation && m.joined == self.generation)
    }

    pub fn is_member(&self, id: &str, incarnation: u64) -> bool {
        self.members
            .get(id)
            .is_some_and(|m| m.incarnation == incarnation)
    }

    /// A member's poll: what has changed for it. `None`: it is no member any more.
    pub fn poll(
        &mut self,
        id: &str,
        incarnation: u64,
        now: Duration,
        partitions: &BTreeMap<Arc<str>, i32>,
    ) -> Option<Vec<Assignment>> {
        self.remove_overdue(now);
        let generation = self.generation;
        let member = self
            .members
            .get_mut(id)
            .filter(|m| m.incarnation == incarnation)?;
        member.last_poll = now;
        let mut changes = Vec::new();
        if std::mem::take(&mut member.returned)
            && member.joined == generation
            && !member.owned.is_empty()
        {
            changes.push(Assignment::Gained(member.owned.iter().cloned().collect()));
            return Some(changes);
        }
        let eager = member.spec.protocol == GroupProtocol::Range;
        if eager && member.joined != generation {
            member.joined = generation;
            let given_up = std::mem::take(&mut member.owned);
            if !given_up.is_empty() {
                changes.push(Assignment::Revoked(given_up.into_iter().collect()));
            }
        }
        if eager && !self.members.values().all(|m| m.joined == generation) {
            return Some(changes);
        }
        let mut target = self.share_out(partitions).remove(id).unwrap_or_default();
        let held: BTreeSet<TopicPartition> = self
            .members
            .iter()
            .filter(|(other, _)| *other != id)
            .flat_map(|(_, m)| m.owned.iter().cloned())
            .collect();
        let member = self.members.get_mut(id)?;
        member.joined = generation;
        let given_up: Vec<TopicPartition> = member.owned.difference(&target).cloned().collect();
        member.owned.retain(|p| target.contains(p));
        if !given_up.is_empty() {
            changes.push(Assignment::Revoked(given_up));
        }
        target.retain(|p| !member.owned.contains(p) && !held.contains(p));
        if !target.is_empty() {
            member.owned.extend(target.iter().cloned());
            changes.push(Assignment::Gained(target.into_iter().collect()));
        }
        Some(changes)
    }

    fn remove_overdue(&mut self, now: Duration) {
        let before = self.members.len();
        self.members.retain(|_, m| {
            let gone = m
                .gone_at
                .is_some_and(|at| now.saturating_sub(at) > m.spec.session_timeout);
            let silent =
                m.gone_at.is_none() && now.saturating_sub(m.last_poll) > m.spec.max_poll_interval;
            !gone && !silent
        });
        if self.members.len() != before {
            self.generation += 1;
        }
    }

    /// What each member should own.
    fn share_out(
        &self,
        partitions: &BTreeMap<Arc<str>, i32>,
    ) -> BTreeMap<String, BTreeSet<TopicPartition>> {
        let mut shares: BTreeMap<String, BTreeSet<TopicPartition>> = BTreeMap::new();
        for (topic, count) in partitions {
            let members: Vec<(&String, &Member)> = self
                .members
                .iter()
                .filter(|(_, m)| m.spec.topics.contains(topic))
                .collect();
            let Some((_, first)) = members.first() else {
                continue;
            };
            let count = *count as usize;
            let sticky = first.spec.protocol == GroupProtocol::CooperativeSticky;
            let quota =
                |index: usize| count / members.len() + usize::from(index < count % members.len());
            let all = (0..count as i32).map(|p| TopicPartition {
                topic: topic.clone(),
                partition: p,
            });
            if sticky {
                let mut free: BTreeSet<TopicPartition> = all.collect();
                for (index, (id, member)) in members.iter().enumerate() {
                    let kept: Vec<_> = member
                        .owned
                        .iter()
                        .filter(|p| p.topic == *topic)
                        .take(quota(index))
                        .cloned()
                        .collect();
                    kept.iter().for_each(|p| {
                        free.remove(p);
                    });
                    shares.entry((*id).clone()).or_default().extend(kept);
                }
                for (index, (id, _)) in members.iter().enumerate() {
                    let share = shares.entry((*id).clone()).or_default();
                    let have = share.iter().filter(|p| p.topic == *topic).count();
                    let more: Vec<_> = free
                        .iter()
                        .take(quota(index).saturating_sub(have))
                        .cloned()
                        .collect();
                    more.iter().for_each(|p| {
                        free.remove(p);
                    });
                    share.extend(more);
                }
            } else {
                let mut rest = all;
                for (index, (id, _)) in members.iter().enumerate() {
                    shares
                        .entry((*id).clone())
                        .or_default()
                        .extend(rest.by_ref().take(quota(index)));
                }
            }
        }
        shares
    }
}
