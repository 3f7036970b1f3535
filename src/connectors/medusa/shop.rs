//! Medusa as a storefront.

use super::client::{Client, Level};
use super::customers;
use super::orders::{self, text};
use crate::connectors::storefront::{
    Done, Head, LISTED_ROWS, List, Publish, ReadOrder, ShopCustomer, Storefront, Terms, Way,
    is_of_money, is_told,
};
use crate::contract::event::{
    OrderState, PriceChanged, ProductChanged, RefundEvent, ShipmentState,
};
use crate::domain::Timestamp;
use crate::pipeline::{Ack, Code, Fault, Stage};

/// A capture and the end of an authorisation move no stamp of their order, but their payment's.
const LISTS: &[List] = &[
    List {
        name: "orders",
        way: Way::Changes,
        tells: is_told,
    },
    List {
        name: "payments",
        way: Way::Changes,
        tells: is_of_money,
    },
];

pub(super) struct Shop {
    pub client: Client,
    pub terms: Terms,
}

#[async_trait::async_trait]
impl Storefront for Shop {
    fn terms(&self) -> &Terms {
        &self.terms
    }

    fn lists(&self) -> &'static [List] {
        LISTS
    }

    async fn heads(&self, list: &List, from: Timestamp, skip: usize) -> Result<Vec<Head>, Fault> {
        let (path, order) = match list.name {
            "payments" => ("payments", "payment_collection.order.id"),
            _ => ("orders", "id"),
        };
        let rows = self.client.heads(path, order, from, skip, LISTED_ROWS);
        let head = |row: &serde_json::Value| {
            let id = text(&row["id"]);
            Some(Head {
                stamp: orders::time(&row["updated_at"])?,
                // A payment whose basket never became an order has none.
                order: match list.name {
                    "payments" => text(&row["payment_collection"]["order"]["id"]),
                    _ => id.clone(),
                },
                id,
            })
        };
        Ok(rows.await?.iter().filter_map(head).collect())
    }

    async fn orders(&self, ids: &[&str]) -> Result<Vec<ReadOrder>, Fault> {
        let found = self.client.orders(ids).await?;
        let channel = self.client.sales_channel().await?;
        let read = |whole: orders::Whole| ReadOrder {
            id: text(&whole.now["id"]),
            raw: whole.to_json().to_string().into(),
            order: match whole.now["sales_channel_id"] == channel {
                true => orders::read(&whole),
                // Of another shop in the same Medusa.
                false => Ok(None),
            },
        };
        Ok(found.into_iter().map(read).collect())
    }

    async fn customer_heads(&self, from: Timestamp, skip: usize) -> Result<Vec<Head>, Fault> {
        let rows = self
            .client
            .heads("customers", "id", from, skip, LISTED_ROWS);
        let head = |row: &serde_json::Value| {
            let id = text(&row["id"]);
            Some(Head {
                order: id.clone(),
                id,
                stamp: orders::time(&row["updated_at"])?,
            })
        };
        Ok(rows.await?.iter().filter_map(head).collect())
    }

    async fn customers(&self, ids: &[&str]) -> Result<Vec<ShopCustomer>, Fault> {
        let found = self.client.customers(ids).await?;
        Ok(found.iter().filter_map(customers::read).collect())
    }

    async fn announced(&self, body: &serde_json::Value) -> Result<Option<String>, Fault> {
        let data = &body["data"];
        let id = [&data["order_id"], &data["id"]].map(text);
        if let Some(order) = id.iter().find(|id| id.starts_with("order_")) {
            return Ok(Some(order.clone()));
        }
        match id.iter().find(|id| id.starts_with("pay_")) {
            Some(payment) => self.client.order_of_payment(payment).await,
            None => Ok(None),
        }
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
                Some(item) => {
                    p.tell(item.shown(&places));
                    sent.push((p, item.levels_for(p.quantity, &places)));
                }
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

    async fn fulfil(&self, state: &ShipmentState) -> Result<Done, Fault> {
        self.client.fulfil(state).await
    }

    async fn cancel(&self, state: &OrderState) -> Result<Done, Fault> {
        self.client.cancel(state).await
    }

    async fn refund(&self, refund: &RefundEvent, method: &str, key: &str) -> Result<Done, Fault> {
        self.client.refund(refund, method, key).await
    }

    async fn price(&self, price: &PriceChanged) -> Result<Done, Fault> {
        self.client.price(price).await
    }

    async fn product(&self, product: &ProductChanged, for_sale: bool) -> Result<Done, Fault> {
        self.client.product(product, for_sale).await
    }
}
