//! Availability into Medusa.

use super::CAPABILITIES;
use super::client::{Client, Level};
use crate::connectors::availability::{self, Publish};
use crate::pipeline::{Ack, Capabilities, Code, Delivery, Fault, Inbound, Sink, Stage, Verdict};
use std::sync::Arc;

pub(super) struct MedusaSink {
    client: Arc<Client>,
}

impl MedusaSink {
    pub fn new(client: Arc<Client>) -> Self {
        MedusaSink { client }
    }

    async fn publish(
        &self,
        publish: &[Publish],
        results: &mut [Option<Result<Ack, Fault>>],
    ) -> Result<(), Fault> {
        let skus: Vec<&str> = publish.iter().map(|p| p.sku.as_str()).collect();
        let items = self.client.items(&skus).await?;
        let mut levels = Vec::new();
        let mut sent = Vec::new();
        for p in publish {
            match items.get(&p.sku) {
                Some(item) => {
                    levels.push(Level {
                        item: item.id.clone(),
                        stocked: p.quantity + item.reserved,
                        create: !item.has_level,
                    });
                    sent.push(p);
                }
                None => {
                    let message = format!(
                        "the shop has no inventory item with SKU {}; create it there, then redrive",
                        p.sku
                    );
                    results[p.index] = Some(Err(Fault::reject(
                        Stage::Write,
                        Code::UnknownReference,
                        message,
                    )));
                }
            }
        }
        match self.client.set_levels(&levels).await {
            Ok(status) => {
                for (p, level) in sent.iter().zip(&levels) {
                    results[p.index] = Some(Ok(p.acked(&level.item, status)));
                }
            }
            // One bad pair fails the whole call, and nothing of it is written: find it one by one.
            Err(fault) if fault.verdict == Verdict::Reject && levels.len() > 1 => {
                for (p, level) in sent.iter().zip(&levels) {
                    let one = self.client.set_levels(std::slice::from_ref(level)).await;
                    results[p.index] = Some(one.map(|status| p.acked(&level.item, status)));
                }
            }
            Err(fault) => return Err(fault),
        }
        Ok(())
    }
}

#[async_trait::async_trait]
impl Sink for MedusaSink {
    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }
    fn wants(&self, inbound: &Inbound) -> bool {
        availability::is_of_channel(inbound, &self.client.settings.channel)
    }
    fn urgency(&self, inbound: &Inbound) -> u8 {
        availability::urgency(inbound)
    }
    async fn write(&self, batch: &[Delivery]) -> Vec<Result<Ack, Fault>> {
        let (mut results, publish) = availability::plan(batch);
        let outcome = if publish.is_empty() {
            Ok(())
        } else {
            self.publish(&publish, &mut results).await
        };
        availability::complete(results, outcome)
    }
}
