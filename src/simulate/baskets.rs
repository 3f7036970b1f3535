//! Shoppers who reserve goods, and hear what became of it.

use super::plan::Then;
use crate::contract::event::{Event, ReservationAction, ReservationStatus, Text};
use crate::contract::topic;
use crate::demo::facts::{Wish, command};
use crate::demo::systems::{Desk, System};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// What a shopper holds, where, and what he will do.
struct Basket {
    wish: Wish,
    location: &'static str,
    then: Then,
}

pub(super) struct Baskets {
    desk: Desk,
    baskets: BTreeMap<Uuid, Basket>,
    /// What was heard: the same may come again.
    heard: BTreeSet<(Uuid, ReservationStatus)>,
    /// Confirmed, and not handed out yet: reservation, SKU, location, units.
    ready: Vec<(Uuid, Text, &'static str, i64)>,
    said: i64,
}

impl Baskets {
    pub fn new(desk: Desk) -> Self {
        Baskets {
            desk,
            baskets: BTreeMap::new(),
            heard: BTreeSet::new(),
            ready: Vec::new(),
            said: 0,
        }
    }

    /// A shopper wants to hold goods.
    pub fn hold(&mut self, wish: Wish, location: &'static str, then: Then) {
        self.say(&wish, ReservationAction::Hold, location);
        let basket = Basket {
            wish: wish.clone(),
            location,
            then,
        };
        self.baskets.insert(wish.reservation, basket);
    }

    /// What is to be handed out now.
    pub fn take_ready(&mut self) -> Vec<(Uuid, Text, &'static str, i64)> {
        std::mem::take(&mut self.ready)
    }

    fn say(&mut self, wish: &Wish, action: ReservationAction, location: &str) {
        self.said += 1;
        let record = command(wish, action, location, self.said, self.desk.now());
        self.desk.tell(record.topic, record.key, record.event);
    }
}

impl System for Baskets {
    fn desk(&self) -> &Desk {
        &self.desk
    }
    fn desk_mut(&mut self) -> &mut Desk {
        &mut self.desk
    }
    fn listens(&self) -> &'static [&'static str] {
        &[topic::RESERVATION_EVENT]
    }
    fn hear(&mut self, event: &Event) {
        let Event::ReservationEvent(e) = event else {
            return;
        };
        if !self.heard.insert((e.reservation_id, e.status)) {
            return;
        }
        let Some(basket) = self.baskets.get(&e.reservation_id) else {
            return;
        };
        let (wish, location) = (basket.wish.clone(), basket.location);
        match (e.status, basket.then) {
            (ReservationStatus::Held, Then::Confirms) => {
                self.say(&wish, ReservationAction::Confirm, location);
            }
            (ReservationStatus::Held, Then::Releases) => {
                self.say(&wish, ReservationAction::Release, location);
            }
            (ReservationStatus::Confirmed, _) => {
                self.ready
                    .push((wish.reservation, wish.sku, location, wish.quantity));
            }
            _ => {}
        }
    }
}
