//! Availability into Medusa.

use super::CAPABILITIES;
use super::client::{Client, Level};
use crate::connectors::availability::{self, Publish};
use crate::pipeline::{Ack, Capabilities, Code, Delivery, Fault, Inbound, Sink, Stage};
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
        let places = self.client.places().await?;
        let items = self.client.items(&skus).await?;
        let mut sent: Vec<(&Publish, Vec<Level>)> = Vec::new();
        for p in publish {
            let refuse = |code, message| Some(Err(Fault::reject(Stage::Write, code, message)));
            match items.get(&p.sku) {
                Some(item) if !item.managed => {
                    let message = format!(
                        "the shop does not manage the inventory of {}, so customers can buy any quantity; turn it on there, then redrive",
                        p.sku
                    );
                    results[p.index] = refuse(Code::Refused, message);
                }
                Some(item) if p.unchanged && item.shown(&places) == p.quantity => {
                    results[p.index] = Some(Ok(p.found(&item.id)));
                }
                Some(item) => sent.push((p, item.levels_for(p.quantity, &places))),
                None => {
                    let message = format!(
                        "the shop has no inventory item with SKU {}; create it there, then redrive",
                        p.sku
                    );
                    results[p.index] = refuse(Code::UnknownReference, message);
                }
            }
        }
        if sent.is_empty() {
            return Ok(());
        }
        let all = sent.iter().flat_map(|(_, levels)| levels);
        match self.client.set_levels(all).await {
            Ok(status) => {
                for (p, levels) in &sent {
                    results[p.index] = Some(Ok(p.acked(&levels[0].item, status)));
                }
            }
            // One bad level fails the whole call, and nothing of it is written: find it one by one.
            Err(fault) if fault.code == Code::Refused && sent.len() > 1 => {
                for (p, levels) in &sent {
                    match self.client.set_levels(levels.iter()).await {
                        Ok(status) => {
                            results[p.index] = Some(Ok(p.acked(&levels[0].item, status)));
                        }
                        Err(fault) if fault.code == Code::Refused => {
                            results[p.index] = Some(Err(fault));
                        }
                        // It is not about this item: the rest would fare no better.
                        Err(fault) => return Err(fault),
                    }
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
