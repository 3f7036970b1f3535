//! Tryton's stock moves and counts, as [`Moves`].

use super::client::{Client, Row, Search};
use super::documents;
use super::moves::{self, INTERNAL_SHIPMENT, MOVE_FIELDS, SHIPMENT_FIELDS};
use super::rows;
use super::table::Stamped;
use super::tree;
use crate::connectors::erp::{
    Count, Mark, Move, Moves, Phase, Place, Table, Tally, Tree, Window, snapshot,
};
use crate::domain::{Decimal, Timestamp};
use crate::pipeline::{Fault, SourceRecord};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use tokio::sync::Mutex;

const MOVE: &str = "stock.move";
const INVENTORY: &str = "stock.inventory";
const LINE: &str = "stock.inventory.line";
const INVENTORY_FIELDS: &[&str] = &["state", "location", "company", "last_modified_at"];
const LINE_FIELDS: &[&str] = &["product", "product.code", "quantity"];
/// Counts that may wait to be compared; older ones are passed over.
const COUNTS_MAX: usize = 1_000;

pub(super) struct TrytonMoves {
    instance: String,
    client: Arc<Client>,
    tree: Mutex<Option<Arc<tree::Loaded>>>,
}

/// What is remembered of counts.
#[derive(Default, Deserialize, Serialize)]
pub(super) struct Counts {
    inventories: Window,
    /// Counts to be compared, by id, with when they were confirmed.
    waiting: BTreeMap<i64, i64>,
    /// Lines of the first waiting count up to this id are done.
    after_line: i64,
}

/// Tries what reading needs.
pub(super) async fn check(client: &Client) -> Result<String, Fault> {
    for (model, fields) in [
        (MOVE, MOVE_FIELDS),
        (INVENTORY, INVENTORY_FIELDS),
        (LINE, LINE_FIELDS),
        (INTERNAL_SHIPMENT, SHIPMENT_FIELDS),
    ] {
        let search = Search {
            model,
            domain: json!([]),
            order: json!([["id", "DESC"]]),
            limit: 1,
            fields,
        };
        client.search(search).await?;
    }
    let done = client.count(MOVE, json!([["state", "=", "done"]])).await?;
    Ok(format!("{done} done"))
}

impl TrytonMoves {
    pub fn new(instance: &str, client: Arc<Client>) -> Self {
        TrytonMoves {
            instance: instance.to_owned(),
            client,
            tree: Mutex::default(),
        }
    }

    fn table(&self) -> Stamped<'_> {
        Stamped {
            client: &self.client,
            model: MOVE,
            fields: MOVE_FIELDS,
        }
    }

    fn inventories(&self) -> Stamped<'_> {
        Stamped {
            model: INVENTORY,
            fields: INVENTORY_FIELDS,
            ..self.table()
        }
    }

    async fn current_tree(&self) -> Result<Arc<tree::Loaded>, Fault> {
        let mut kept = self.tree.lock().await;
        let current = match kept.take() {
            Some(tree) if tree::is_current(&self.client, &tree).await? => tree,
            _ => Arc::new(tree::load(&self.client).await?),
        };
        Ok(kept.insert(current).clone())
    }

    /// Goods on the way are announced where their shipment goes.
    async fn add_destinations(
        &self,
        tree: &Tree,
        read: &mut [(&Row, Result<Move, Fault>)],
    ) -> Result<(), Fault> {
        let shipment = |row: &Row| {
            let reference = rows::text(row, "shipment").and_then(rows::reference);
            reference
                .filter(|(model, _)| *model == INTERNAL_SHIPMENT)
                .map(|(_, id)| id)
        };
        let wanted: BTreeSet<i64> = read.iter().filter_map(|(row, _)| shipment(row)).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let search = Search {
            model: INTERNAL_SHIPMENT,
            domain: json!([["id", "in", wanted]]),
            order: json!([["id", "ASC"]]),
            limit: wanted.len(),
            fields: SHIPMENT_FIELDS,
        };
        let mut destinations: HashMap<i64, Place> = HashMap::new();
        for row in self.client.search(search).await? {
            let to = rows::integer(&row, "to_location");
            if let Some(place) = to.and_then(|to| tree.place(to).ok()) {
                destinations.insert(rows::id(&row), place);
            }
        }
        for (row, moved) in read {
            if let (Some(id), Ok(moved)) = (shipment(row), moved) {
                moved.destination = destinations.get(&id).cloned();
            }
        }
        Ok(())
    }

    /// Which orders of channels the goods are of, where such orders are kept in the ERP.
    async fn add_orders(&self, read: &mut [(&Row, Result<Move, Fault>)]) -> Result<(), Fault> {
        if self.client.settings.channels.is_empty() {
            return Ok(());
        }
        let line = |row: &Row| documents::origin(row, documents::SALE_LINE);
        let lines: BTreeSet<i64> = read.iter().filter_map(|(row, _)| line(row)).collect();
        let orders = documents::orders_of(&self.client, &lines).await?;
        for (row, moved) in read {
            if let (Some(of), Ok(moved)) = (line(row).and_then(|id| orders.get(&id)), moved) {
                moved.order = Some(of.of_goods(&self.instance, moved.shipment.as_deref()));
            }
        }
        Ok(())
    }

    /// What the ERP reports now for the products of counted lines, at the location of the count: by
    /// line, with SKU and location.
    async fn quantities(
        &self,
        inventory: i64,
        lines: &[Row],
    ) -> Result<Vec<(i64, String, String, Decimal)>, Fault> {
        let products: BTreeSet<i64> = lines
            .iter()
            .filter_map(|l| rows::integer(l, "product"))
            .collect();
        let products: Vec<i64> = products.into_iter().collect();
        let place = self.client.search(Search {
            model: INVENTORY,
            domain: json!([["id", "=", inventory]]),
            order: json!([["id", "ASC"]]),
            limit: 1,
            fields: &["location"],
        });
        let place = place
            .await?
            .first()
            .and_then(|row| rows::integer(row, "location"));
        let tree = &self.current_tree().await?.0;
        let place = place.and_then(|id| tree.place(id).ok());
        let Some(Place::Stock { location, .. }) = place.filter(|_| !products.is_empty()) else {
            return Ok(Vec::new());
        };
        let below = tree.row_of(&location).map(|row| tree.sellable_below(row));
        let context = json!({"locations": below.unwrap_or_default(), "with_childs": false});
        let read = self
            .client
            .read("product.product", &products, &["quantity"], context)
            .await?;
        let quantities: HashMap<i64, &Value> = read
            .iter()
            .filter_map(|row| Some((rows::id(row), row.get("quantity")?)))
            .collect();
        let known = lines.iter().filter_map(|line| {
            let counted = line.get("quantity").is_some_and(|q| !q.is_null());
            let sku = rows::related(line, "product").and_then(|p| rows::text(p, "code"))?;
            let quantity = quantities.get(&rows::integer(line, "product")?)?;
            let quantity = rows::quantity(quantity).filter(|_| counted)?;
            Some((
                rows::id(line),
                sku.to_owned(),
                location.to_string(),
                quantity,
            ))
        });
        Ok(known.collect())
    }
}

#[async_trait::async_trait]
impl Table for TrytonMoves {
    fn limit(&self) -> usize {
        self.table().limit()
    }
    fn overlap_us(&self) -> i64 {
        self.table().overlap_us()
    }
    fn mark(&self, row: &Row) -> Mark {
        self.table().mark(row)
    }
    async fn newest(&self) -> Result<Option<Mark>, Fault> {
        self.table().newest().await
    }
    async fn newer(&self, high: Mark, limit: usize) -> Result<Vec<Row>, Fault> {
        self.table().newer(high, limit).await
    }
    async fn tally(&self, from: i64, to: i64) -> Result<Tally, Fault> {
        self.table().tally(from, to).await
    }
    async fn list(&self, from: i64, to: i64) -> Result<Vec<Mark>, Fault> {
        self.table().list(from, to).await
    }
    async fn read(&self, ids: &[i64]) -> Result<Vec<Row>, Fault> {
        self.table().read(ids).await
    }
}

#[async_trait::async_trait]
impl Moves for TrytonMoves {
    type Counts = Counts;

    fn model(&self) -> &'static str {
        MOVE
    }

    fn phase(&self, row: &Row) -> Phase {
        match rows::text(row, "state") {
            Some("done") => Phase::Done,
            Some("cancelled") => Phase::Cancelled {
                // The date is set when a move is done; a draft can have one too.
                seems_done: row.get("effective_date").is_some_and(|d| !d.is_null()),
            },
            _ => Phase::Open,
        }
    }

    fn created_at(&self, row: &Row) -> i64 {
        let created_at = row.get("create_date").and_then(rows::stamp);
        created_at.unwrap_or_default().0
    }

    async fn page(&self, after: i64) -> Result<Vec<Row>, Fault> {
        let search = Search {
            model: MOVE,
            domain: json!([["id", ">", after]]),
            order: json!([["id", "ASC"]]),
            limit: self.limit(),
            fields: MOVE_FIELDS,
        };
        self.client.search(search).await
    }

    async fn interpret(&self, found: &[&Row]) -> Result<Vec<Option<Result<Move, Fault>>>, Fault> {
        let (company, _) = self.client.company().await?;
        let is_own = |row: &Row| rows::integer(row, "company") == Some(company);
        let own: Vec<&Row> = found.iter().copied().filter(|row| is_own(row)).collect();
        let mut read = Vec::with_capacity(own.len());
        if !own.is_empty() {
            let tree = &self.current_tree().await?.0;
            read.extend(own.into_iter().map(|row| {
                let moved = moves::read(row, |id| tree.place(id));
                (row, moved)
            }));
            self.add_destinations(tree, &mut read).await?;
            self.add_orders(&mut read).await?;
        }
        let mut read = read.into_iter().map(|(_, moved)| moved);
        let of = |row: &&Row| is_own(row).then(|| read.next()).flatten();
        Ok(found.iter().map(of).collect())
    }

    async fn begin_counts(&self) -> Result<Counts, Fault> {
        Ok(Counts {
            inventories: Window::begin(&self.inventories()).await?,
            ..Counts::default()
        })
    }

    /// Counts have a table of their own.
    fn notice(&self, _: &[&Row], _: &mut Counts) {}

    fn wait(counts: &Counts) -> bool {
        !counts.waiting.is_empty()
    }

    async fn compare(
        &self,
        counts: &mut Counts,
        moves: &Window,
        as_of: i64,
    ) -> Result<(Vec<SourceRecord>, bool), Fault> {
        let (company, _) = self.client.company().await?;
        let found = counts.inventories.poll(&self.inventories()).await?;
        for row in &found.rows {
            let done = rows::text(row, "state") == Some("done");
            if done && rows::integer(row, "company") == Some(company) {
                let at = rows::modified_at(row).unwrap_or_default();
                counts.waiting.insert(rows::id(row), at.0);
            }
        }
        while counts.waiting.len() > COUNTS_MAX {
            counts.waiting.pop_first();
            counts.after_line = 0;
        }
        let first = counts.waiting.first_key_value().map(|(i, at)| (*i, *at));
        let Some((inventory, at)) = first else {
            return Ok((Vec::new(), !found.drained));
        };
        let lines = self.client.search(Search {
            model: LINE,
            domain: json!([
                ["inventory", "=", inventory],
                ["id", ">", counts.after_line]
            ]),
            order: json!([["id", "ASC"]]),
            limit: self.limit(),
            fields: LINE_FIELDS,
        });
        let lines = lines.await?;
        let quantities = self.quantities(inventory, &lines).await?;
        if !moves.is_current(self).await? {
            return Ok((Vec::new(), true));
        }
        let told = quantities.iter().map(|(line, sku, location, quantity)| {
            let count = Count {
                record_id: &format!("{LINE},{line}"),
                sku,
                location,
                quantity: *quantity,
                at: Timestamp(at),
                as_of,
            };
            snapshot(&self.instance, &count)
        });
        let told = told.collect();
        match lines.last() {
            Some(last) if lines.len() >= self.limit() => counts.after_line = rows::id(last),
            _ => {
                counts.waiting.remove(&inventory);
                counts.after_line = 0;
            }
        }
        Ok((told, !found.drained || !counts.waiting.is_empty()))
    }
}
