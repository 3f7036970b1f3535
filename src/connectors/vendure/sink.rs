//! Availability into Vendure.

use super::CAPABILITIES;
use super::client::Client;
use crate::connectors::availability::{self, Publish};
use crate::pipeline::{Ack, Capabilities, Code, Delivery, Fault, Inbound, Sink, Stage, Verdict};
use std::sync::Arc;

pub(super) struct VendureSink {
    client: Arc<Client>,
}

impl VendureSink {
    pub fn new(client: Arc<Client>) -> Self {
        VendureSink { client }
    }

    async fn publish(
        &self,
        publish: &[Publish],
        results: &mut [Option<Result<Ack, Fault>>],
    ) -> Result<(), Fault> {
        let skus: Vec<&str> = publish.iter().map(|p| p.sku.as_str()).collect();
        let variants = self.client.variants(&skus).await?;
        let mut stock = Vec::new();
        let mut sent = Vec::new();
        for p in publish {
            match variants.get(&p.sku).map(Vec::as_slice) {
                Some([variant]) => {
                    stock.push((variant.id.clone(), p.quantity + variant.allocated));
                    sent.push((p, variant.id.clone()));
                }
                found => {
                    let message = match found {
                        None => format!(
                            "the shop has no variant with SKU {}; create it there, then redrive",
                            p.sku
                        ),
                        Some(many) => format!(
                            "{} variants of the shop have SKU {}; make it one, then redrive",
                            many.len(),
                            p.sku
                        ),
                    };
                    results[p.index] = Some(Err(Fault::reject(
                        Stage::Write,
                        Code::UnknownReference,
                        message,
                    )));
                }
            }
        }
        match self.client.set_stock(&stock).await {
            Ok(()) => sent
                .iter()
                .for_each(|(p, id)| results[p.index] = Some(Ok(p.acked(id, 200)))),
            // One bad item fails the whole call, and nothing of it is written: find it one by one.
            Err(fault) if fault.verdict == Verdict::Reject && stock.len() > 1 => {
                for ((p, id), one) in sent.iter().zip(&stock) {
                    results[p.index] = Some(
                        self.client
                            .set_stock(std::slice::from_ref(one))
                            .await
                            .map(|()| p.acked(id, 200)),
                    );
                }
            }
            Err(fault) => return Err(fault),
        }
        Ok(())
    }
}

#[async_trait::async_trait]
impl Sink for VendureSink {
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
