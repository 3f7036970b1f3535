//! Stock moves and counts, in the order in which they are read.
//!
//! All moves are read once by id, from the first one on: what lies in a place is the sum of its done
//! moves, so the base needs no other opening. From then on the table is followed by stamps.
//!
//! Beyond the overlap, open moves are looked up by id as well, a few at a time when nothing else
//! happens: so a move that was done in a longer transaction is found, and one that was deleted is let
//! go. Moves that could not be told are tried again in the same way.

use super::client::{Client, Row, Search};
use super::documents;
use super::map::{self, Count};
use super::moves::{INTERNAL_SHIPMENT, MOVE_FIELDS, Move, SHIPMENT_FIELDS};
use super::rows;
use super::told::{Bookmark, FirstReading, Told};
use super::tree::{Place, Tree};
use super::window::{Table, Window, bookmark};
use crate::domain::Timestamp;
use crate::pipeline::{Code, Cursor, Fault, SourceBatch, SourceOrigin, SourceReject, Stage};
use bytes::Bytes;
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

const MOVE: &str = "stock.move";
const INVENTORY: &str = "stock.inventory";
const LINE: &str = "stock.inventory.line";
const INVENTORY_FIELDS: &[&str] = &["state", "location", "company", "last_modified_at"];
const LINE_FIELDS: &[&str] = &["product", "product.code", "quantity"];
/// Open moves looked up at a time.
const LOOKED_UP_MAX: usize = 200;
/// Idle polls between two times.
const LOOK_UP_POLLS: u32 = 20;
/// Idle polls between two looks for counts.
const COUNT_POLLS: u32 = 4;
/// Counts that may wait to be compared; older ones are passed over.
const COUNTS_MAX: usize = 1_000;

pub(super) struct Stock {
    instance: String,
    client: Arc<Client>,
    tree: Option<Tree>,
    /// Where looking up open moves goes on.
    looked_up: i64,
    /// Polls in a row that found no move.
    idle_polls: u32,
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

impl Stock {
    pub fn new(instance: &str, client: Arc<Client>) -> Self {
        Stock {
            instance: instance.to_owned(),
            client,
            tree: None,
            looked_up: 0,
            idle_polls: 0,
        }
    }

    pub async fn poll(&mut self, cursor: Option<&Cursor>) -> Result<SourceBatch, Fault> {
        let (mut mark, sequence) = match cursor {
            Some(c) => (bookmark(&self.instance, &c.bookmark)?, c.sequence),
            None => (self.begin().await?, 1),
        };
        let mut batch = SourceBatch::default();
        let mut position = sequence;
        if let Some(first) = mark.first_reading.clone() {
            let page = self.page(first.after).await?;
            batch.more = page.len() >= self.limit();
            mark.first_reading = page.last().filter(|_| batch.more).map(|last| FirstReading {
                after: rows::id(last),
            });
            for row in &page {
                mark.moves.note(row);
            }
            self.take_in(&page, &mut mark, &mut position, &mut batch)
                .await?;
            batch.more |= mark.first_reading.is_none();
            mark.forget_absent(self.client.settings.overlap_us());
        } else {
            let found = mark.moves.poll(self.moves()).await?;
            self.take_in(&found.rows, &mut mark, &mut position, &mut batch)
                .await?;
            batch.more = !found.drained;
            if found.drained {
                mark.forget_absent(self.client.settings.overlap_us());
            }
            if found.drained && found.rows.is_empty() {
                self.when_idle(&mut mark, &mut position, &mut batch).await?;
            } else {
                self.idle_polls = 0;
            }
        }
        mark.check(&self.instance)?;
        batch.cursor = Cursor {
            bookmark: serde_json::to_value(&mark).map_err(|e| {
                Fault::halt(Stage::Read, Code::Bug, "a bookmark is not JSON").caused_by(e)
            })?,
            sequence: position,
        };
        Ok(batch)
    }

    async fn when_idle(
        &mut self,
        mark: &mut Bookmark,
        position: &mut i64,
        batch: &mut SourceBatch,
    ) -> Result<(), Fault> {
        if self.idle_polls.is_multiple_of(LOOK_UP_POLLS) {
            self.look_up(mark, position, batch).await?;
        }
        if self.idle_polls.is_multiple_of(COUNT_POLLS) || !mark.waiting.is_empty() {
            self.compare(mark, *position, batch).await?;
        }
        self.idle_polls = self.idle_polls.wrapping_add(1);
        Ok(())
    }

    /// Stamps are taken before the first reading: what changes during it is read again after it.
    async fn begin(&self) -> Result<Bookmark, Fault> {
        let moves = Window::begin(self.moves()).await?;
        let counts = Window::begin(self.inventories()).await?;
        Ok(Bookmark::begin(moves, counts))
    }

    fn limit(&self) -> usize {
        self.client.settings.page_rows as usize
    }

    fn moves(&self) -> Table<'_> {
        Table {
            client: &self.client,
            model: MOVE,
            fields: MOVE_FIELDS,
            limit: self.limit(),
        }
    }

    fn inventories(&self) -> Table<'_> {
        Table {
            model: INVENTORY,
            fields: INVENTORY_FIELDS,
            ..self.moves()
        }
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

    /// Tells what rows of moves mean, and remembers that it was told.
    async fn take_in(
        &mut self,
        rows: &[Row],
        mark: &mut Bookmark,
        position: &mut i64,
        batch: &mut SourceBatch,
    ) -> Result<(), Fault> {
        let (company, _) = self.client.company().await?;
        let mut told = Vec::new();
        for row in rows {
            let what = mark.settle(row);
            if what != Told::Nothing && rows::integer(row, "company") == Some(company) {
                told.push((row, what));
            }
        }
        if told.is_empty() {
            return Ok(());
        }
        let tree = self.current_tree().await?;
        let mut read: Vec<(&Row, Told, Result<Move, Fault>)> = told
            .into_iter()
            .map(|(row, what)| (row, what, Move::read(row, |id| tree.place(id))))
            .collect();
        self.add_destinations(&mut read).await?;
        self.add_orders(&mut read).await?;
        for (row, what, moved) in read {
            let id = rows::id(row);
            match moved {
                Ok(moved) => {
                    mark.rejected.remove(id);
                    batch.records.extend(match what {
                        Told::Cancelled => moved.corrections(&self.instance, position),
                        _ => moved.events(&self.instance, position),
                    });
                }
                // It was dead-lettered when it was read first.
                Err(_) if mark.rejected.contains(id) => {}
                Err(fault) => {
                    mark.rejected.insert(id);
                    batch.rejects.push(SourceReject {
                        origin: SourceOrigin {
                            container: MOVE.into(),
                            item: id.to_string(),
                        },
                        raw: Bytes::from(Value::Object(row.clone()).to_string()),
                        fault,
                    });
                }
            }
        }
        Ok(())
    }

    async fn current_tree(&mut self) -> Result<&Tree, Fault> {
        let kept = match self.tree.take() {
            Some(tree) if tree.is_current(&self.client).await? => tree,
            _ => Tree::load(&self.client).await?,
        };
        Ok(self.tree.insert(kept))
    }

    /// Goods on the way are announced where their shipment goes.
    async fn add_destinations(
        &self,
        read: &mut [(&Row, Told, Result<Move, Fault>)],
    ) -> Result<(), Fault> {
        let shipment = |row: &Row| {
            let reference = rows::text(row, "shipment").and_then(rows::reference);
            reference
                .filter(|(model, _)| *model == INTERNAL_SHIPMENT)
                .map(|(_, id)| id)
        };
        let mut wanted: Vec<i64> = read
            .iter()
            .filter_map(|(row, _, _)| shipment(row))
            .collect();
        wanted.sort_unstable();
        wanted.dedup();
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
            if let (Some(to), Some(tree)) = (to, &self.tree)
                && let Ok(place) = tree.place(to)
            {
                destinations.insert(rows::id(&row), place);
            }
        }
        for (row, _, moved) in read {
            if let (Some(id), Ok(moved)) = (shipment(row), moved) {
                moved.destination = destinations.get(&id).cloned();
            }
        }
        Ok(())
    }

    /// Which orders of channels the goods are of, where such orders are kept in the ERP.
    async fn add_orders(
        &self,
        read: &mut [(&Row, Told, Result<Move, Fault>)],
    ) -> Result<(), Fault> {
        if self.client.settings.channels.is_empty() {
            return Ok(());
        }
        let line = |row: &Row| documents::origin(row, documents::SALE_LINE);
        let lines: BTreeSet<i64> = read.iter().filter_map(|(row, _, _)| line(row)).collect();
        let orders = documents::orders_of(&self.client, &lines).await?;
        for (row, _, moved) in read {
            if let (Some(of), Ok(moved)) = (line(row).and_then(|id| orders.get(&id)), moved) {
                moved.order = Some(of.clone());
            }
        }
        Ok(())
    }

    /// Looks up the next few open or rejected moves by id.
    async fn look_up(
        &mut self,
        mark: &mut Bookmark,
        position: &mut i64,
        batch: &mut SourceBatch,
    ) -> Result<(), Fault> {
        let mut wanted: Vec<i64> = mark
            .open
            .above(self.looked_up)
            .take(LOOKED_UP_MAX)
            .collect();
        wanted.extend(mark.rejected.above(0).take(LOOKED_UP_MAX));
        self.looked_up = match wanted.len() < LOOKED_UP_MAX {
            true => 0,
            false => wanted[LOOKED_UP_MAX - 1],
        };
        if wanted.is_empty() {
            return Ok(());
        }
        let search = Search {
            model: MOVE,
            domain: json!([["id", "in", wanted]]),
            order: json!([["last_modified_at", "ASC"], ["id", "ASC"]]),
            limit: wanted.len(),
            fields: MOVE_FIELDS,
        };
        let rows = self.client.search(search).await?;
        for id in &wanted {
            if !rows.iter().any(|row| rows::id(row) == *id) {
                mark.open.remove(*id);
                mark.rejected.remove(*id);
            }
        }
        self.take_in(&rows, mark, position, batch).await
    }

    /// Compares stock after a count with what the moves say. The quantities that the ERP reports
    /// are those of this very moment, so they are told only when no move has come in between.
    async fn compare(
        &mut self,
        mark: &mut Bookmark,
        position: i64,
        batch: &mut SourceBatch,
    ) -> Result<(), Fault> {
        let (company, _) = self.client.company().await?;
        let found = mark.counts.poll(self.inventories()).await?;
        for row in &found.rows {
            let done = rows::text(row, "state") == Some("done");
            if done && rows::integer(row, "company") == Some(company) {
                let at = rows::modified_at(row).unwrap_or_default();
                mark.waiting.insert(rows::id(row), at.0);
            }
        }
        while mark.waiting.len() > COUNTS_MAX {
            mark.waiting.pop_first();
            mark.after_line = 0;
        }
        batch.more |= !found.drained;
        let Some((inventory, at)) = mark.waiting.first_key_value().map(|(i, a)| (*i, *a)) else {
            return Ok(());
        };
        let lines = self.client.search(Search {
            model: LINE,
            domain: json!([["inventory", "=", inventory], ["id", ">", mark.after_line]]),
            order: json!([["id", "ASC"]]),
            limit: self.limit(),
            fields: LINE_FIELDS,
        });
        let lines = lines.await?;
        let snapshots = self.quantities(inventory, &lines).await?;
        if !mark.moves.is_current(self.moves()).await? {
            batch.more = true;
            return Ok(());
        }
        for (line, sku, location, quantity) in &snapshots {
            let count = Count {
                line: *line,
                sku,
                location,
                quantity: *quantity,
                at: Timestamp(at),
                as_of: position - 1,
            };
            batch.records.push(map::snapshot(&self.instance, &count));
        }
        match lines.last() {
            Some(last) if lines.len() >= self.limit() => mark.after_line = rows::id(last),
            _ => {
                mark.waiting.remove(&inventory);
                mark.after_line = 0;
            }
        }
        batch.more |= !mark.waiting.is_empty();
        Ok(())
    }

    /// What the ERP reports now for the products of counted lines, at the location of the count: by
    /// line, with SKU and location.
    async fn quantities(
        &mut self,
        inventory: i64,
        lines: &[Row],
    ) -> Result<Vec<(i64, String, String, crate::domain::Decimal)>, Fault> {
        let mut products: Vec<i64> = lines
            .iter()
            .filter_map(|l| rows::integer(l, "product"))
            .collect();
        products.sort_unstable();
        products.dedup();
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
        let client = self.client.clone();
        let tree = self.current_tree().await?;
        let place = place.and_then(|id| tree.place(id).ok());
        let Some(Place::Stock { location, .. }) = place.filter(|_| !products.is_empty()) else {
            return Ok(Vec::new());
        };
        let below = tree.row_of(&location).map(|row| tree.sellable_below(row));
        let context = json!({"locations": below.unwrap_or_default(), "with_childs": false});
        let read = client
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
