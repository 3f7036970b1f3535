//! The orders that a storefront has, listed once in a while.
//!
//! It is read from the storefront's first list, behind what is followed; what was told does not matter. Only
//! what is placed is listed, and only what is told: nothing from before the beginning.

use super::{Head, LISTED_ROWS, ReadOrder, ShopOrder, Storefront, Terms};
use crate::connectors::manifest::{self, Lists};
use crate::contract::event::{ManifestEntry, SystemRole};
use crate::domain::{Decimal, Timestamp, order_id};
use crate::pipeline::{Fault, SourceBatch};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};

/// Name of the shard.
pub const LISTING: &str = "listing";
/// Orders in one part: what is read in one poll.
const ORDERS_READ: usize = 50;

/// Where listing goes on.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Bookmark {
    lists: Lists,
    /// Stamp of the last row, and how many rows of that stamp were listed.
    #[serde(default)]
    from: i64,
    #[serde(default)]
    skip: usize,
}

impl Bookmark {
    /// The first list begins `now`.
    pub fn new(now: Timestamp) -> Self {
        Bookmark {
            lists: Lists::new(now),
            ..Bookmark::default()
        }
    }
}

/// Reads the next part of the list, if one is due.
///
/// # Errors
/// As the storefront's calls.
pub async fn read<S: Storefront>(
    shop: &S,
    bookmark: &mut Bookmark,
    now: Timestamp,
    batch: &mut SourceBatch,
) -> Result<(), Fault> {
    let terms = shop.terms();
    let (Some(every), Some(list)) = (terms.list_every, shop.lists().first()) else {
        return Ok(());
    };
    let lists = &mut bookmark.lists;
    let Some((after, to)) = lists.window(now, every, terms.overlap) else {
        return Ok(());
    };
    let first = after.0.saturating_add(1).max(terms.since.0);
    let from = match bookmark.from > after.0 {
        true => Timestamp(bookmark.from),
        false => {
            bookmark.skip = 0;
            Timestamp(first)
        }
    };
    let page = shop.heads(list, from, bookmark.skip).await?;
    let rows: Vec<&Head> = page.iter().take_while(|head| head.stamp <= to).collect();
    let taken = &rows[..rows.len().min(ORDERS_READ)];
    let is_last =
        taken.len() == rows.len() && (rows.len() < page.len() || page.len() < LISTED_ROWS);
    let entries = entries(shop, taken).await?;
    // A call that failed leaves the bookmark as it was.
    if let Some(last) = taken.last() {
        let alike = taken.iter().filter(|head| head.stamp == last.stamp).count();
        let before = if last.stamp == from { bookmark.skip } else { 0 };
        (bookmark.from, bookmark.skip) = (last.stamp.0, before + alike);
    }
    let part = bookmark
        .lists
        .part(&terms.instance, SystemRole::Channel, entries, is_last);
    batch.records.extend(part);
    batch.more |= !is_last;
    Ok(())
}

async fn entries<S: Storefront>(shop: &S, heads: &[&Head]) -> Result<Vec<ManifestEntry>, Fault> {
    let stamps: BTreeMap<&str, Timestamp> =
        heads.iter().map(|h| (h.order.as_str(), h.stamp)).collect();
    let ids: Vec<&str> = stamps.keys().copied().filter(|id| !id.is_empty()).collect();
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let read = shop.orders(&ids).await?;
    let read: HashMap<&str, &ReadOrder> = read.iter().map(|r| (r.id.as_str(), r)).collect();
    let terms = shop.terms();
    let placed = stamps.iter().filter_map(|(id, stamp)| {
        // One that cannot be read is a dead letter already.
        let order = read.get(id)?.order.as_ref().ok()?.as_ref()?;
        (order.placed_at >= terms.since).then(|| listed(terms, order, *stamp))
    });
    Ok(placed.collect())
}

fn listed(terms: &Terms, order: &ShopOrder, stamp: Timestamp) -> ManifestEntry {
    let content = order.amended.as_ref().map_or(&order.placed, |(.., c)| c);
    let mut left: BTreeMap<&str, Decimal> = BTreeMap::new();
    for line in &content.lines {
        *left.entry(&line.id).or_default() += line.quantity;
    }
    for (line, quantity) in order.cancellations.iter().flat_map(|c| &c.lines) {
        *left.entry(line).or_default() += -*quantity;
    }
    let is_cancelled = !order.cancellations.is_empty() && !left.values().any(|q| q.is_positive());
    manifest::entry(
        &order_id("default", &terms.channel, &order.number).to_string(),
        &order.number,
        stamp,
        // How far it is supplied others know better than the channel.
        is_cancelled.then_some("CANCELLED"),
        Some(content.grand_total),
    )
}
