//! What is written to Tryton.

use super::CAPABILITIES;
use super::client::Client;
use super::{
    cancellations, corrections, customers, dispatches, duplicates, give_back, money, sales,
};
use crate::connectors::erp::{self, Booking, reject, wants_order};
use crate::contract::event::{Correction, CorrectionKind, Event, OrderEvent, OrderEventType};
use crate::pipeline::{Ack, Capabilities, Code, Delivery, Fault, Inbound, Replay, Sink, Vault};
use std::sync::Arc;

pub(super) struct TrytonSink {
    instance: String,
    client: Arc<Client>,
    vault: Option<Arc<dyn Vault>>,
}

impl TrytonSink {
    pub fn new(instance: &str, client: Arc<Client>, vault: Option<Arc<dyn Vault>>) -> Self {
        TrytonSink {
            instance: instance.to_owned(),
            client,
            vault,
        }
    }

    async fn take(&self, delivery: &Delivery) -> Result<Ack, Fault> {
        match &delivery.inbound.event {
            Event::OrderEvent(event) => self.order(event).await,
            Event::ShipmentEvent(event) => dispatches::take(&self.client, event).await,
            Event::ReturnEvent(event) => give_back::take(&self.client, event).await,
            Event::PaymentEvent(event) => match &self.client.settings.payments {
                Some(settings) => {
                    money::book(&self.client, settings, &Booking::of_payment(event)).await
                }
                None => Err(no_use(&delivery.inbound.event)),
            },
            Event::RefundEvent(event) => match &self.client.settings.payments {
                Some(settings) => {
                    money::book(&self.client, settings, &Booking::of_refund(event)).await
                }
                None => Err(no_use(&delivery.inbound.event)),
            },
            Event::Correction(event) if event.kind == CorrectionKind::CancelDuplicate => {
                duplicates::take(&self.client, event).await
            }
            Event::Correction(event) => corrections::take(&self.client, event).await,
            Event::CustomerChanged(event) => match &self.vault {
                Some(vault) => customers::take(&self.client, vault.as_ref(), event, delivery).await,
                None => Err(erp::no_vault(&self.instance)),
            },
            other => Err(no_use(other)),
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

fn no_use(event: &Event) -> Fault {
    let message = format!("Tryton takes no {}", event.contract());
    reject(Code::WrongContract, message)
}

#[async_trait::async_trait]
impl Sink for TrytonSink {
    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    /// What it has told itself is not news to it.
    fn wants(&self, inbound: &Inbound) -> bool {
        if *inbound.event.meta().source == *self.instance {
            return false;
        }
        let books_money = self.client.settings.payments.is_some();
        match &inbound.event {
            Event::OrderEvent(event) => {
                wants_order(event, |c| self.client.settings.channels.contains_key(c))
            }
            Event::ShipmentEvent(event) => dispatches::wants(&self.client, event),
            Event::ReturnEvent(event) => event.lines.iter().any(|l| l.accepted.is_positive()),
            Event::PaymentEvent(event) => books_money && erp::wants_payment(event),
            Event::RefundEvent(event) => books_money && erp::wants_refund(event),
            Event::CustomerChanged(event) => customers::channel(&self.client, event).is_some(),
            Event::Correction(event) => {
                (self.client.settings.correct_stock && erp::sets_stock(&self.instance, event))
                    || duplicates::wants(&self.client, &self.instance, event)
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
