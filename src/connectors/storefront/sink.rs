//! Into a storefront: availability, what was sent, what was cancelled, what is refunded, what products
//! are called and cost.

use super::{ACCEPTS, CAPABILITIES, Storefront, availability, is_for_sale, is_plain};
use crate::contract::event::{
    Event, MilestoneKind, OrderState, OrderStatus, RefundEvent, RefundStatus, SinkOutcome,
};
use crate::pipeline::{Ack, Capabilities, Code, Delivery, Fault, Inbound, Sink, Stage};
use std::sync::Arc;

/// Orders that are worked on at a time in one batch.
const ORDERS_AT_A_TIME: usize = 4;

/// The sink of a storefront.
pub struct StorefrontSink<S> {
    shop: Arc<S>,
}

impl<S: Storefront> StorefrontSink<S> {
    pub fn new(shop: Arc<S>) -> Self {
        StorefrontSink { shop }
    }

    async fn order(&self, delivery: &Delivery) -> Result<Ack, Fault> {
        let sent = delivery.sent.as_ref();
        let stale = |version: i64| {
            sent.filter(|s| s.version > version).map(|s| Ack {
                outcome: SinkOutcome::StaleSkipped,
                version: s.version,
                external_id: s.external_id.clone(),
                digest: None,
                status: None,
            })
        };
        match &delivery.inbound.event {
            Event::ShipmentState(e) => match stale(e.state_version) {
                Some(ack) => Ok(ack),
                None => self.shop.fulfil(e).await.map(|d| d.ack(e.state_version)),
            },
            Event::OrderState(e) => match stale(e.state_version) {
                Some(ack) => Ok(ack),
                None => self.shop.cancel(e).await.map(|d| d.ack(e.state_version)),
            },
            // An order has many refunds: each is known by its own key.
            Event::RefundEvent(e) => {
                let psp = e.psp.as_deref().unwrap_or_default();
                let method = self.shop.terms().method_of(psp).unwrap_or_default();
                let key = format!("{}|{}", e.refund_id, e.attempt);
                let done = self.shop.refund(e, method, &key).await?;
                Ok(done.ack(e.refund_version))
            }
            Event::PriceChanged(e) => match stale(e.price_version) {
                Some(ack) => Ok(ack),
                None => {
                    is_plain(e)?;
                    self.shop.price(e).await.map(|d| d.ack(e.price_version))
                }
            },
            Event::ProductChanged(e) => match stale(e.product_version) {
                Some(ack) => Ok(ack),
                None => {
                    let done = self.shop.product(e, is_for_sale(e)?).await?;
                    Ok(done.ack(e.product_version))
                }
            },
            other => Err(Fault::reject(
                Stage::Write,
                Code::WrongContract,
                format!(
                    "a storefront takes {}, not {}",
                    ACCEPTS.join(", "),
                    other.contract()
                ),
            )),
        }
    }

    async fn orders(&self, batch: &[&Delivery]) -> Vec<Result<Ack, Fault>> {
        let mut results = Vec::with_capacity(batch.len());
        for some in batch.chunks(ORDERS_AT_A_TIME) {
            let mut calls = Vec::with_capacity(some.len());
            for delivery in some {
                calls.push(self.order(delivery));
            }
            results.extend(futures::future::join_all(calls).await);
        }
        results
    }

    async fn availability(&self, batch: &[&Delivery]) -> Vec<Result<Ack, Fault>> {
        let (mut results, publish) = availability::plan(batch);
        let outcome = match publish.is_empty() {
            true => Ok(()),
            false => self.shop.publish(&publish, &mut results).await,
        };
        availability::complete(results, outcome)
    }
}

/// Whether units of the order are cancelled, or it was rejected as a whole.
fn is_cancelled(state: &OrderState) -> bool {
    let units = state.lines.iter().any(|l| l.cancelled.is_positive());
    units || state.status == OrderStatus::Rejected
}

/// Whether the storefront is to pay, or to be asked whether it has.
fn is_to_be_paid(refund: &RefundEvent) -> bool {
    let asked = matches!(
        refund.status,
        RefundStatus::Submitted | RefundStatus::OutcomeUnknown
    );
    asked && !refund.issued_elsewhere && refund.attempt > 0
}

#[async_trait::async_trait]
impl<S: Storefront> Sink for StorefrontSink<S> {
    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    fn wants(&self, inbound: &Inbound) -> bool {
        let terms = self.shop.terms();
        match &inbound.event {
            Event::AvailabilityChanged(e) => *e.channel_id == *terms.channel,
            Event::ShipmentState(e) => {
                let sent = |m: &MilestoneKind| *m == MilestoneKind::Shipped;
                let kinds = |f: &crate::contract::event::Fulfilment| {
                    let mut kinds = f.milestones.iter().map(|m| m.kind);
                    kinds.any(|kind| sent(&kind) || kind == MilestoneKind::Delivered)
                };
                *e.channel_id == *terms.channel && e.fulfilments.iter().any(kinds)
            }
            Event::OrderState(e) => *e.channel_id == *terms.channel && is_cancelled(e),
            Event::RefundEvent(e) => {
                let psp = e.psp.as_deref().unwrap_or_default();
                is_to_be_paid(e) && terms.method_of(psp).is_some()
            }
            Event::PriceChanged(e) => {
                terms.catalogue.price_list.as_deref() == Some(&*e.price_list_id)
            }
            Event::ProductChanged(_) => terms.catalogue.products,
            _ => false,
        }
    }

    /// A cancellation cannot be taken back, nor can money.
    fn is_meant_first(&self, inbound: &Inbound) -> bool {
        matches!(inbound.event, Event::RefundEvent(_) | Event::OrderState(_))
    }

    fn looks_first(&self, _: &Inbound) -> bool {
        true
    }

    fn urgency(&self, inbound: &Inbound) -> u8 {
        availability::urgency(inbound)
    }

    async fn write(&self, batch: &[Delivery]) -> Vec<Result<Ack, Fault>> {
        let (mut stock, mut orders) = (Vec::new(), Vec::new());
        for delivery in batch {
            match is_stock(delivery) {
                true => stock.push(delivery),
                false => orders.push(delivery),
            }
        }
        let (stock, orders) = futures::join!(self.availability(&stock), self.orders(&orders));
        let (mut stock, mut orders) = (stock.into_iter(), orders.into_iter());
        let mut results = Vec::with_capacity(batch.len());
        for delivery in batch {
            let result = match is_stock(delivery) {
                true => stock.next(),
                false => orders.next(),
            };
            results.push(result.unwrap_or_else(|| Err(unanswered())));
        }
        results
    }
}

fn is_stock(delivery: &Delivery) -> bool {
    matches!(delivery.inbound.event, Event::AvailabilityChanged(_))
}

fn unanswered() -> Fault {
    let words = "the storefront did not say what became of it";
    Fault::retry(Stage::Write, Code::OutcomeUnknown, words)
}
