//! What is written to Odoo.

use super::CAPABILITIES;
use super::client::Client;
use super::{cancellations, corrections, customers, dispatches, give_back, money, sales};
use crate::connectors::erp::{self, Booking, reject, wants_order};
use crate::contract::event::{Correction, CorrectionKind, Event, OrderEvent, OrderEventType};
use crate::pipeline::{Ack, Capabilities, Code, Delivery, Fault, Inbound, Replay, Sink, Vault};
use std::sync::Arc;

pub(super) struct OdooSink {
    pub instance: String,
    pub client: Arc<Client>,
    pub vault: Option<Arc<dyn Vault>>,
}

impl OdooSink {
    async fn take(&self, delivery: &Delivery) -> Result<Ack, Fault> {
        let client = &self.client;
        match (&delivery.inbound.event, &client.settings.payments) {
            (Event::OrderEvent(event), _) => self.order(event).await,
            (Event::ShipmentEvent(event), _) => dispatches::take(client, event).await,
            (Event::ReturnEvent(event), _) => give_back::take(client, event).await,
            (Event::PaymentEvent(event), Some(settings)) => {
                money::book(client, settings, &Booking::of_payment(event)).await
            }
            (Event::RefundEvent(event), Some(settings)) => {
                money::book(client, settings, &Booking::of_refund(event)).await
            }
            (Event::Correction(event), _) if event.kind == CorrectionKind::CancelDuplicate => {
                cancellations::take_duplicate(client, event).await
            }
            (Event::Correction(event), _) => corrections::take(client, event).await,
            (Event::CustomerChanged(event), _) => match &self.vault {
                Some(vault) => customers::take(client, vault.as_ref(), event, delivery).await,
                None => Err(erp::no_vault(&self.instance)),
            },
            (other, _) => {
                let message = format!("Odoo takes no {}", other.contract());
                Err(reject(Code::WrongContract, message))
            }
        }
    }

    fn again(&self, e: &Correction) -> Option<Replay> {
        let keeps_orders = !self.client.settings.channels.is_empty();
        erp::tells_again(&self.instance, keeps_orders, e)
    }

    async fn order(&self, event: &OrderEvent) -> Result<Ack, Fault> {
        if event.r#type == OrderEventType::CancelDecided {
            return cancellations::take(&self.client, event).await;
        }
        let Some(order) = &event.order else {
            let message = format!(
                "order {}: {} comes without the order",
                event.order_id, event.r#type
            );
            return Err(reject(Code::DataQuality, message));
        };
        match event.r#type {
            OrderEventType::Amended => sales::amend(&self.client, event, order).await,
            _ => sales::place(&self.client, event, order).await,
        }
    }
}

#[async_trait::async_trait]
impl Sink for OdooSink {
    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    /// What it has told itself is not news to it.
    fn wants(&self, inbound: &Inbound) -> bool {
        if *inbound.event.meta().source == *self.instance {
            return false;
        }
        let settings = &self.client.settings;
        let keeps_orders = !settings.channels.is_empty();
        let books_money = keeps_orders && settings.payments.is_some();
        match &inbound.event {
            Event::OrderEvent(event) => {
                wants_order(event, |channel| settings.channels.contains_key(channel))
            }
            Event::ShipmentEvent(event) => {
                settings.ships_elsewhere(&event.node_id) && erp::has_left(event)
            }
            Event::ReturnEvent(event) => keeps_orders && !erp::accepted(event).is_empty(),
            Event::PaymentEvent(event) => books_money && erp::wants_payment(event),
            Event::RefundEvent(event) => books_money && erp::wants_refund(event),
            Event::CustomerChanged(event) => customers::channel(&self.client, event).is_some(),
            Event::Correction(event) => {
                (settings.correct_stock && erp::sets_stock(&self.instance, event))
                    || cancellations::wants_duplicate(&self.client, &self.instance, event)
                    || self.again(event).is_some()
            }
            _ => false,
        }
    }

    /// An amendment is written anew without a look at what the sale says.
    fn looks_first(&self, inbound: &Inbound) -> bool {
        let amends = |e: &OrderEvent| e.r#type == OrderEventType::Amended;
        !matches!(&inbound.event, Event::OrderEvent(e) if amends(e))
    }

    fn replays(&self, inbound: &Inbound) -> Option<Replay> {
        match &inbound.event {
            Event::Correction(event) => self.again(event),
            _ => None,
        }
    }

    async fn write(&self, batch: &[Delivery]) -> Vec<Result<Ack, Fault>> {
        let mut results = Vec::with_capacity(batch.len());
        for delivery in batch {
            results.push(self.take(delivery).await);
        }
        results
    }
}
