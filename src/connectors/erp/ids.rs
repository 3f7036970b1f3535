//! A set of row ids, small because ids that follow each other are one range.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A set of positive ids. As text, each range is the distance from the end of the one before, and
/// `+n` where it holds n more: `{3, 4, 5, 9}` is `3+2,4`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ids {
    /// First and last of each range, ascending, never adjacent.
    ranges: Vec<(i64, i64)>,
}

impl Ids {
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Number of ranges: what the set costs.
    pub fn ranges(&self) -> usize {
        self.ranges.len()
    }

    /// Number of ids.
    pub fn count(&self) -> i64 {
        self.ranges
            .iter()
            .map(|(first, last)| last - first + 1)
            .sum()
    }

    /// Sum of the ids.
    pub fn sum(&self) -> i64 {
        let sum = |(first, last): &(i64, i64)| (first + last) * (last - first + 1) / 2;
        self.ranges.iter().map(sum).sum()
    }

    pub fn contains(&self, id: i64) -> bool {
        let at = self.ranges.partition_point(|r| r.1 < id);
        self.ranges.get(at).is_some_and(|r| r.0 <= id)
    }

    pub fn insert(&mut self, id: i64) {
        self.insert_range(id, id);
    }

    /// Adds `first..=last`; nothing when that is empty.
    pub fn insert_range(&mut self, first: i64, last: i64) {
        if first > last {
            return;
        }
        // Ranges that touch the new one become one with it.
        let from = self.ranges.partition_point(|r| r.1 < first - 1);
        let to = self.ranges.partition_point(|r| r.0 <= last + 1);
        let merged = self.ranges[from..to]
            .iter()
            .fold((first, last), |m, r| (m.0.min(r.0), m.1.max(r.1)));
        self.ranges.splice(from..to, [merged]);
    }

    /// Takes an id out. Returns whether it was there.
    pub fn remove(&mut self, id: i64) -> bool {
        let at = self.ranges.partition_point(|r| r.1 < id);
        let Some((first, last)) = self.ranges.get(at).copied().filter(|r| r.0 <= id) else {
            return false;
        };
        let left = (first < id).then_some((first, id - 1));
        let right = (id < last).then_some((id + 1, last));
        self.ranges.splice(at..=at, left.into_iter().chain(right));
        true
    }

    /// Ids above `after`, ascending.
    pub fn above(&self, after: i64) -> impl Iterator<Item = i64> + '_ {
        let at = self.ranges.partition_point(|r| r.1 <= after);
        self.ranges[at..]
            .iter()
            .flat_map(move |(first, last)| (*first).max(after + 1)..=*last)
    }

    fn parse(text: &str) -> Option<Ids> {
        let mut ids = Ids::default();
        let mut end = 0_i64;
        for part in text.split(',').filter(|p| !p.is_empty()) {
            let (distance, more) = part.split_once('+').unwrap_or((part, "0"));
            let first = end.checked_add(distance.parse().ok().filter(|d| *d > 0)?)?;
            end = first.checked_add(more.parse().ok().filter(|m| *m >= 0)?)?;
            ids.ranges.push((first, end));
        }
        Some(ids)
    }
}

impl Serialize for Ids {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        use std::fmt::Write as _;
        let mut text = String::new();
        let mut end = 0;
        for (first, last) in &self.ranges {
            let comma = if text.is_empty() { "" } else { "," };
            let _ = write!(text, "{comma}{}", first - end);
            if last > first {
                let _ = write!(text, "+{}", last - first);
            }
            end = *last;
        }
        s.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for Ids {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        Ids::parse(&text).ok_or_else(|| serde::de::Error::custom("not a set of ids"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn it_is_the_set_that_it_says(steps in prop::collection::vec((any::<bool>(), 1_i64..40, 0_i64..5), 0..60)) {
            let (mut ids, mut plain) = (Ids::default(), BTreeSet::new());
            for (add, id, more) in steps {
                if add {
                    ids.insert_range(id, id + more);
                    plain.extend(id..=id + more);
                } else {
                    prop_assert_eq!(ids.remove(id), plain.remove(&id));
                }
                prop_assert_eq!(ids.above(0).collect::<BTreeSet<_>>(), plain.clone());
                prop_assert_eq!(ids.count(), plain.len() as i64);
                prop_assert_eq!(ids.sum(), plain.iter().sum::<i64>());
                prop_assert_eq!(ids.contains(id), plain.contains(&id));
                let text = serde_json::to_value(&ids).expect("text");
                prop_assert_eq!(&serde_json::from_value::<Ids>(text).expect("read back"), &ids);
                for pair in ids.ranges.windows(2) {
                    prop_assert!(pair[0].1 + 1 < pair[1].0, "adjacent ranges are one");
                }
            }
        }
    }

    #[test]
    fn neighbours_cost_one_range() {
        let mut ids = Ids::default();
        for id in [5, 3, 9, 4] {
            ids.insert(id);
        }
        assert_eq!(serde_json::to_value(&ids).expect("text"), "3+2,4");
        assert_eq!(ids.above(4).collect::<Vec<_>>(), [5, 9]);
        assert!(serde_json::from_value::<Ids>("3,-1".into()).is_err());
    }
}
