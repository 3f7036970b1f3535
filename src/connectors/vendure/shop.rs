//! Vendure as a storefront.

use super::client::{Client, Stock};
use super::customers;
use super::orders::{self, Places, text};
use crate::connectors::storefront::{
    Done, Head, LISTED_ROWS, List, Publish, ReadOrder, ShopCustomer, Storefront, Terms, Way,
    is_refund, is_told,
};
use crate::contract::event::{
    OrderState, PriceChanged, ProductChanged, RefundEvent, ShipmentState,
};
use crate::domain::Timestamp;
use crate::pipeline::{Ack, Code, Fault, Stage};
use serde_json::{Value, json};

/// Units on hand that Vendure can hold: GraphQL's integers have 32 bits.
const ON_HAND_MAX: i64 = i32::MAX as i64;
/// Refunds move no stamp of their order.
const LISTS: &[List] = &[
    List {
        name: "orders",
        way: Way::Changes,
        tells: is_told,
    },
    List {
        name: "refunds",
        way: Way::Again,
        tells: is_refund,
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
        let stamp = match list.way {
            Way::Changes => "updatedAt",
            Way::Again => "orderPlacedAt",
        };
        let rows = self.client.heads(stamp, from, skip, LISTED_ROWS).await?;
        let head = |row: &Value| {
            let id = text(&row["id"]);
            Some(Head {
                order: id.clone(),
                id,
                stamp: orders::time(&row[stamp])?,
            })
        };
        Ok(rows.iter().filter_map(head).collect())
    }

    async fn orders(&self, ids: &[&str]) -> Result<Vec<ReadOrder>, Fault> {
        let found = self.client.orders(json!({"id": {"in": ids}})).await?;
        let places = Places(self.client.settings.money_places);
        let read = |order: Value| ReadOrder {
            id: text(&order["id"]),
            raw: order.to_string().into(),
            order: orders::read(&order, places),
        };
        Ok(found.into_iter().map(read).collect())
    }

    async fn customer_heads(&self, from: Timestamp, skip: usize) -> Result<Vec<Head>, Fault> {
        let rows = self.client.customer_heads(from, skip, LISTED_ROWS).await?;
        let head = |row: &Value| {
            let id = text(&row["id"]);
            Some(Head {
                order: id.clone(),
                id,
                stamp: orders::time(&row["updatedAt"])?,
            })
        };
        Ok(rows.iter().filter_map(head).collect())
    }

    async fn customers(&self, ids: &[&str]) -> Result<Vec<ShopCustomer>, Fault> {
        let found = self.client.customers(ids).await?;
        Ok(found.iter().filter_map(customers::read).collect())
    }

    async fn announced(&self, body: &Value) -> Result<Option<String>, Fault> {
        let id = text(&body["order"]["id"]);
        Ok(Some(id).filter(|id| !id.is_empty()))
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
                    p.tell(variant.shown());
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
