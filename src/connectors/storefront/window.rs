//! Following a storefront's list by its rows' stamps, although rows appear late.
//!
//! Stamps are taken before a transaction ends, in whole seconds by some databases, and several rows
//! share one. So every poll lists again what is stamped within the overlap before the newest row, and
//! what is known with its stamp is passed over. A row is read again when its stamp moved, and once more a
//! few seconds later: it may have changed again within the time that its stamp stands for.

use crate::domain::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// Rows listed in one call.
pub const LISTED_ROWS: usize = 200;
/// Rows remembered at most: the bookmark must fit into one record. Of a list that changes faster, the
/// overlap is shorter.
const KNOWN_MAX: usize = 2_000;
/// Rows remembered beyond the overlap, so that an order that only moved its stamp is not told again.
const RECENT_MAX: usize = 500;

/// After so long nothing more happens under a stamp that was seen.
const SETTLED_AFTER: Duration = Duration::from_secs(5);

/// A row of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The row's own id.
    pub id: String,
    /// When it changed last.
    pub stamp: Timestamp,
    /// The order that it belongs to.
    pub order: String,
}

/// What is remembered between polls.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Window {
    /// Rows are listed from this stamp on.
    from: i64,
    /// Rows of the list to pass over: those of one stamp that filled a page.
    skip: usize,
    /// Stamp of the newest row listed.
    high: i64,
    /// By row: its stamp when it was read.
    known: BTreeMap<String, Known>,
}

/// Stamp, what was said, and when the stamp was seen first, while the row is to be read once more.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
struct Known(i64, String, Option<i64>);

impl Window {
    /// Where the list is to be read.
    pub fn place(&self) -> (Timestamp, usize) {
        (Timestamp(self.from), self.skip)
    }

    /// Rows of the page that are not known as they are, or are to be read once more `now`; at most `max`.
    pub fn fresh<'a>(&self, page: &'a [Head], max: usize, now: Timestamp) -> Vec<&'a Head> {
        let is_fresh = |head: &&Head| match self.known.get(&head.id) {
            Some(Known(stamp, _, seen)) if *stamp == head.stamp.0 => {
                seen.is_some_and(|seen| now.since(Timestamp(seen)) >= SETTLED_AFTER)
            }
            _ => true,
        };
        page.iter().filter(is_fresh).take(max).collect()
    }

    /// What was said of a row when it was read last, if that is remembered.
    pub fn said(&self, id: &str) -> Option<&str> {
        self.known.get(id).map(|k| k.1.as_str())
    }

    /// Remembers that a row was read `now`, and what it said.
    pub fn note(&mut self, head: &Head, said: String, now: Timestamp) {
        let seen = match self.known.get(&head.id) {
            Some(Known(stamp, _, seen)) if *stamp == head.stamp.0 => {
                seen.filter(|seen| now.since(Timestamp(*seen)) < SETTLED_AFTER)
            }
            _ => Some(now.0),
        };
        let known = Known(head.stamp.0, said, seen);
        self.known.insert(head.id.clone(), known);
    }

    /// Stamp of the newest row listed.
    pub fn high(&self) -> Timestamp {
        Timestamp(self.high)
    }

    /// Goes on behind `page` once all of it is known. Returns whether there is more.
    pub fn advance(&mut self, page: &[Head], overlap: Duration) -> bool {
        self.high = page.iter().map(|h| h.stamp.0).fold(self.high, i64::max);
        let behind = Timestamp(self.high).minus(overlap).0;
        let more = page.len() >= LISTED_ROWS;
        match page.last().filter(|_| more) {
            Some(last) if last.stamp.0 > self.from => (self.from, self.skip) = (last.stamp.0, 0),
            Some(_) => self.skip += page.len(),
            None => (self.from, self.skip) = (behind, 0),
        }
        self.forget(behind);
        more
    }

    /// Of a list that is read again and again: goes on behind the rows `read` of `page`, and after the
    /// last begins again `horizon` before the newest row.
    pub fn turn(&mut self, page: &[Head], read: usize, horizon: Duration) {
        self.high = page.iter().map(|h| h.stamp.0).fold(self.high, i64::max);
        let is_last = read == page.len() && page.len() < LISTED_ROWS;
        match page.get(read.wrapping_sub(1)).filter(|_| !is_last) {
            Some(last) if last.stamp.0 > self.from => (self.from, self.skip) = (last.stamp.0, 0),
            Some(_) => self.skip += read,
            None => (self.from, self.skip) = (Timestamp(self.high).minus(horizon).0, 0),
        }
        let mut stamps: Vec<i64> = self.known.values().map(|k| k.0).collect();
        stamps.sort_unstable_by(|a, b| b.cmp(a));
        if let Some(room) = stamps.get(KNOWN_MAX) {
            self.known.retain(|_, k| k.0 > *room);
        }
    }

    /// Lets go of rows from before `behind`, but for the latest; of very many the oldest anyway.
    fn forget(&mut self, behind: i64) {
        let mut stamps: Vec<i64> = self.known.values().map(|k| k.0).collect();
        stamps.sort_unstable_by(|a, b| b.cmp(a));
        let recent = stamps.get(RECENT_MAX).map_or(i64::MIN, |s| s + 1);
        let room = stamps.get(KNOWN_MAX).map_or(i64::MIN, |s| s + 1);
        let floor = behind.min(self.from).min(recent).max(room);
        if self.skip == 0 {
            self.from = self.from.max(room);
        }
        self.known.retain(|_, k| k.0 >= floor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(id: usize, stamp: i64) -> Head {
        Head {
            id: format!("{id:05}"),
            stamp: Timestamp(stamp),
            order: id.to_string(),
        }
    }

    /// Reads a list to its end, as a source does; gives the rows in the order of reading.
    fn drain(window: &mut Window, list: &[Head]) -> Vec<(String, i64)> {
        drain_at(window, list, Timestamp(0))
    }

    fn drain_at(window: &mut Window, list: &[Head], now: Timestamp) -> Vec<(String, i64)> {
        let mut read = Vec::new();
        for _ in 0..1_000 {
            let (from, skip) = window.place();
            let mut page: Vec<Head> = list.iter().filter(|h| h.stamp >= from).cloned().collect();
            page.sort_by_key(|h| (h.stamp, h.id.clone()));
            let page: Vec<Head> = page.into_iter().skip(skip).take(LISTED_ROWS).collect();
            let fresh: Vec<Head> = window.fresh(&page, 50, now).into_iter().cloned().collect();
            for head in &fresh {
                read.push((head.id.clone(), head.stamp.0));
                window.note(head, String::new(), now);
            }
            let more = fresh.len() == 50 || window.advance(&page, Duration::from_micros(100));
            if !more {
                return read;
            }
        }
        panic!("the list never ends");
    }

    #[test]
    fn every_row_is_read_once_however_many_share_a_stamp() {
        let list: Vec<Head> = (0..1_500)
            .map(|i| head(i, (i as i64 / 700) * 1_000))
            .collect();
        let mut window = Window::default();
        let mut read = drain(&mut window, &list);
        read.sort();
        read.dedup();
        assert_eq!(read.len(), 1_500);
        assert!(drain(&mut window, &list[1_400..]).is_empty());
    }

    #[test]
    fn a_list_that_is_read_again_begins_again_after_its_last_row() {
        let list: Vec<Head> = (0..450)
            .map(|i| head(i, 1 + (i as i64 / 120) * 1_000))
            .collect();
        let mut window = Window::default();
        let mut seen = std::collections::BTreeSet::new();
        let mut begun = 0;
        for _ in 0..60 {
            let (from, skip) = window.place();
            begun += usize::from(from.0 < 1 && skip == 0);
            let rows = list.iter().filter(|h| h.stamp >= from).cloned();
            let page: Vec<Head> = rows.skip(skip).take(LISTED_ROWS).collect();
            let read = page.len().min(50);
            seen.extend(page[..read].iter().map(|h| h.id.clone()));
            window.turn(&page, read, Duration::from_secs(3_600));
        }
        assert_eq!(seen.len(), 450);
        assert!(begun >= 3, "{begun}");
    }

    #[test]
    fn a_row_that_appears_behind_newer_ones_is_found_and_one_that_moved_is_read_again() {
        let mut list: Vec<Head> = (0..10).map(|i| head(i, 1_000 + i as i64)).collect();
        let mut window = Window::default();
        assert_eq!(drain(&mut window, &list).len(), 10);
        list.push(head(77, 950));
        list[3].stamp = Timestamp(2_000);
        let read = drain(&mut window, &list);
        assert_eq!(
            read,
            [("00077".to_owned(), 950), ("00003".to_owned(), 2_000)]
        );
        assert!(drain(&mut window, &list).is_empty());
    }

    #[test]
    fn a_row_is_read_once_more_when_its_second_is_over() {
        let list = [head(1, 1_000)];
        let mut window = Window::default();
        for (at_s, reads) in [(0, 1), (3, 0), (6, 1), (60, 0)] {
            let read = drain_at(&mut window, &list, Timestamp(at_s * 1_000_000));
            assert_eq!(read.len(), reads, "after {at_s} s");
        }
    }
}
