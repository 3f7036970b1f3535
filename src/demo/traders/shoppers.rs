//! Those who buy in the storefronts.

use super::{CHANNELS, Heard, Shared, WAREHOUSE, random, street};
use crate::contract::event::{ReservationAction, ReservationStatus};
use crate::demo::facts::{Wish, command};
use crate::domain::natural_id;
use crate::pipeline::{Clock, Cursor, Fault, Source, SourceBatch, SourceRecord};
use rand::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// Shoppers of both storefronts: hold, then confirm, release or walk away.
pub(in crate::demo) struct Shoppers {
    pub seed: u64,
    pub skus: Vec<String>,
    pub clock: Arc<dyn Clock>,
    pub street: Shared,
    /// What became of their holds.
    pub heard: Heard,
    pub wishes: BTreeMap<Uuid, Wish>,
}

#[async_trait::async_trait]
impl Source for Shoppers {
    async fn poll(&mut self, _shard: &str, cursor: Option<&Cursor>) -> Result<SourceBatch, Fault> {
        let now = self.clock.now();
        let mut cursor = cursor.cloned().unwrap_or(Cursor {
            bookmark: serde_json::Value::Null,
            sequence: 1,
        });
        let mut random = random(self.seed, 3, cursor.sequence);
        let mut records = Vec::new();
        let mut say = |wish: &Wish, action, sequence: &mut i64| {
            records.push(command(wish, action, WAREHOUSE, *sequence, now));
            *sequence += 1;
        };
        for word in self.heard.take() {
            let id = word.reservation;
            let Some(wish) = self.wishes.get(&id).cloned() else {
                continue;
            };
            match word.status {
                ReservationStatus::Held => match random.random_range(0..10) {
                    0..7 => say(&wish, ReservationAction::Confirm, &mut cursor.sequence),
                    7..9 => say(&wish, ReservationAction::Release, &mut cursor.sequence),
                    _ => {}
                },
                ReservationStatus::Confirmed => {
                    self.wishes.remove(&id);
                    street(&self.street)
                        .to_ship
                        .push_back((id, wish.sku, wish.quantity));
                }
                _ => {
                    self.wishes.remove(&id);
                }
            }
        }
        if !street(&self.street).closing {
            for n in 0..25 {
                let order = format!("order-{}-{n}", cursor.sequence);
                let wish = Wish {
                    reservation: natural_id(&[&order, "1", WAREHOUSE, "1"]),
                    order: order.into(),
                    sku: self.skus[random.random_range(0..self.skus.len())]
                        .as_str()
                        .into(),
                    channel: CHANNELS[random.random_range(0..2)],
                    quantity: random.random_range(1..4),
                    expires_at: now.plus(Duration::from_secs(2)),
                };
                self.wishes.insert(wish.reservation, wish.clone());
                // Now and then the confirmation overtakes the hold on its way.
                if random.random_bool(0.05) {
                    say(&wish, ReservationAction::Confirm, &mut cursor.sequence);
                }
                say(&wish, ReservationAction::Hold, &mut cursor.sequence);
            }
        }
        let again: Vec<SourceRecord> = records
            .iter()
            .filter(|_| random.random_bool(0.05))
            .cloned()
            .collect();
        records.extend(again);
        Ok(SourceBatch {
            records,
            cursor,
            ..SourceBatch::default()
        })
    }
}
