//! The orders that an ERP has, listed once in a while.

use super::window::Mark;
use super::{bookmark, kept};
use crate::connectors::manifest::Lists;
use crate::contract::event::{ManifestEntry, SystemRole};
use crate::domain::Timestamp;
use crate::pipeline::{Clock, Cursor, Fault, SourceBatch, SystemClock};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Name of the shard.
pub const LISTING: &str = "listing";

/// Documents that are orders of channels.
#[async_trait::async_trait]
pub trait OrderList: Send + Sync {
    /// Rows behind this one by stamp and id, each with what it says of an order, if it is of one; none when
    /// there are no more.
    async fn after(&self, mark: Mark) -> Result<Vec<(Mark, Option<ManifestEntry>)>, Fault>;
}

/// Lists the orders of an ERP.
pub struct Listing {
    /// Name of the connector instance.
    pub instance: String,
    /// Time from one list to the next.
    pub every: Duration,
    /// For how long after its stamp a row may still appear.
    pub lag: Duration,
    /// The documents.
    pub orders: Box<dyn OrderList>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
struct Place {
    lists: Lists,
    /// The last row that was listed.
    #[serde(default)]
    last: Mark,
}

impl Listing {
    /// The next part of the list, if one is due.
    ///
    /// # Errors
    /// As the calls of the ERP.
    pub async fn poll(&self, cursor: Option<&Cursor>) -> Result<SourceBatch, Fault> {
        let now = SystemClock.now();
        let mut place = match cursor {
            Some(cursor) => bookmark(&self.instance, &cursor.bookmark)?,
            None => Place {
                lists: Lists::new(now),
                ..Place::default()
            },
        };
        let mut batch = SourceBatch::default();
        if let Some((after, to)) = place.lists.window(now, self.every, self.lag) {
            // Ids are 32 bits wide in these databases.
            let from = place.last.max((after.0, i32::MAX.into()));
            let rows = self.orders.after(from).await?;
            let found = rows.len();
            let rows: Vec<_> = rows
                .into_iter()
                .take_while(|((stamp, _), _)| Timestamp(*stamp) <= to)
                .collect();
            let is_last = rows.is_empty() || rows.len() < found;
            if let Some((mark, _)) = rows.last() {
                place.last = *mark;
            }
            let entries = rows.into_iter().filter_map(|(_, entry)| entry).collect();
            let part = place
                .lists
                .part(&self.instance, SystemRole::Erp, entries, is_last);
            batch.records.extend(part);
            batch.more = !is_last;
        }
        batch.cursor.sequence = cursor.map_or(1, |c| c.sequence);
        batch.cursor.bookmark = kept(&place)?;
        Ok(batch)
    }
}
