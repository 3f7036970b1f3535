//! Availability into Vendure.

use super::CAPABILITIES;
use super::client::{Client, Stock};
use crate::connectors::availability::{self, Publish};
use crate::pipeline::{Ack, Capabilities, Code, Delivery, Fault, Inbound, Sink, Stage};
use std::sync::Arc;

/// Units on hand that Vendure can hold: GraphQL's integers have 32 bits.
const ON_HAND_MAX: i64 = i32::MAX as i64;

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
        let places = self.client.places().await?;
        let variants = self.client.variants(&skus).await?;
        let mut stock: Vec<Stock> = Vec::new();
        let mut sent = Vec::new();
        for p in publish {
            let refuse = |code, message| Some(Err(Fault::reject(Stage::Write, code, message)));
            match variants.get(&p.sku).map(Vec::as_slice) {
                Some([variant]) if !variant.tracked => {
                    let message = format!(
                        "the shop does not track the stock of {}, so customers can buy any quantity; turn tracking on there, then redrive",
                        p.sku
                    );
                    results[p.index] = refuse(Code::Refused, message);
                }
                Some([variant]) if p.unchanged && variant.shown() == p.quantity => {
                    results[p.index] = Some(Ok(p.found(&variant.id)));
                }
                Some([variant]) => {
                    let to_set = variant.stock_for(p.quantity, &places);
                    if to_set.on_hand.iter().any(|(_, q)| *q > ON_HAND_MAX) {
                        let message = format!(
                            "{} units of {} are more than the shop can hold ({ON_HAND_MAX})",
                            p.quantity, p.sku
                        );
                        results[p.index] = refuse(Code::DataQuality, message);
                        continue;
                    }
                    stock.push(to_set);
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
                    results[p.index] = refuse(Code::UnknownReference, message);
                }
            }
        }
        if stock.is_empty() {
            return Ok(());
        }
        match self.client.set_stock(&stock).await {
            Ok(()) => sent
                .iter()
                .for_each(|(p, id)| results[p.index] = Some(Ok(p.acked(id, 200)))),
            // One bad item fails the whole call, and nothing of it is written: find it one by one.
            Err(fault) if fault.code == Code::Refused && stock.len() > 1 => {
                for ((p, id), one) in sent.iter().zip(&stock) {
                    match self.client.set_stock(std::slice::from_ref(one)).await {
                        Ok(()) => results[p.index] = Some(Ok(p.acked(id, 200))),
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
