//! Reads the inbox and tells what deliveries say.

use super::event::Mappings;
use crate::connectors::webhook::Ingress;
use crate::pipeline::{Cursor, Fault, Inbox, Source, SourceBatch, Verdict};
use std::net::SocketAddr;
use std::sync::Arc;

/// Deliveries in one batch.
const DELIVERIES_MAX: usize = 200;

/// The source.
pub struct GenericSource {
    instance: String,
    mappings: Arc<Mappings>,
    ingress: Ingress,
}

impl GenericSource {
    /// The source of a connector.
    pub fn new(instance: &str, mappings: Arc<Mappings>, ingress: Ingress) -> Self {
        GenericSource {
            instance: instance.to_owned(),
            mappings,
            ingress,
        }
    }
}

#[async_trait::async_trait]
impl Source for GenericSource {
    fn source_name(&self) -> Option<&str> {
        Some(self.mappings.source())
    }

    fn open(&mut self, inbox: Arc<dyn Inbox>) -> Result<(), Fault> {
        self.ingress.open(inbox)
    }

    fn address(&self) -> Option<SocketAddr> {
        self.ingress.address()
    }

    async fn woken(&mut self) {
        self.ingress.woken().await;
    }

    async fn poll(&mut self, _shard: &str, cursor: Option<&Cursor>) -> Result<SourceBatch, Fault> {
        let position = cursor.and_then(|c| c.bookmark.as_i64()).unwrap_or(0);
        let taken = self.ingress.take(position, DELIVERIES_MAX)?;
        let mut batch = SourceBatch {
            rejects: taken.rejects,
            cursor: Cursor {
                bookmark: taken.next.into(),
                sequence: cursor.map_or(1, |c| c.sequence),
            },
            more: taken.more,
            ..SourceBatch::default()
        };
        for delivery in taken.deliveries {
            match self.mappings.events(&delivery, batch.cursor.sequence) {
                Ok(records) => {
                    batch.cursor.sequence += records.len() as i64;
                    batch.records.extend(records);
                }
                Err(fault) if fault.verdict == Verdict::Reject => {
                    let message = format!("{}: {}", self.instance, fault.message);
                    batch
                        .rejects
                        .push(delivery.reject(Fault { message, ..fault }));
                }
                Err(fault) => return Err(fault),
            }
        }
        Ok(batch)
    }
}
