//! What is written to Odoo.

use super::client::Client;
use super::{CAPABILITIES, sales};
use crate::connectors::erp::{reject, wants_order};
use crate::contract::event::{Event, OrderEvent, OrderEventType};
use crate::pipeline::{Ack, Capabilities, Code, Delivery, Fault, Inbound, Sink};
use std::sync::Arc;

pub(super) struct OdooSink {
    pub instance: String,
    pub client: Arc<Client>,
}

impl OdooSink {
    async fn order(&self, event: &OrderEvent) -> Result<Ack, Fault> {
        if event.r#type == OrderEventType::CancelDecided {
            return sales::cancel(&self.client, event).await;
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
        let is_kept = |channel: &str| self.client.settings.channels.contains_key(channel);
        match &inbound.event {
            Event::OrderEvent(event) => {
                *event.meta.source != *self.instance && wants_order(event, is_kept)
            }
            _ => false,
        }
    }

    async fn write(&self, batch: &[Delivery]) -> Vec<Result<Ack, Fault>> {
        let mut results = Vec::with_capacity(batch.len());
        for delivery in batch {
            results.push(match &delivery.inbound.event {
                Event::OrderEvent(event) => self.order(event).await,
                other => {
                    let message = format!("Odoo takes no {}", other.contract());
                    Err(reject(Code::WrongContract, message))
                }
            });
        }
        results
    }
}
