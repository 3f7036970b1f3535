//! Odoo's stock moves and counts, as [`Moves`].
//!
//! What changes stock is a *line* of a move (`stock.move.line`): it has the place, below that of its move,
//! and the quantity. A count makes lines too, of no quantity where it found what was expected.

use super::client::{Client, Search};
use super::documents;
use super::table::Stamped;
use super::tree::Places;
use super::{give_back, rows, tills};
use crate::connectors::erp::{
    Count, Mark, Move, Moves, OfOrder, Phase, Place, Row, Table, Tally, Window, bad, return_name,
    snapshot,
};
use crate::contract::event::{StockState, Text};
use crate::domain::{Decimal, Timestamp};
use crate::pipeline::{Code, Fault, SourceRecord};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use tokio::sync::Mutex;

pub(super) const LINE: &str = "stock.move.line";
const MOVE: &str = "stock.move";
pub(super) const QUANT: &str = "stock.quant";
const LINE_FIELDS: &[&str] = &[
    "product_id",
    "quantity_product_uom",
    "location_id",
    "location_dest_id",
    "state",
    "date",
    "picking_id",
    "move_id",
    "company_id",
    "create_date",
    "write_date",
];
const MOVE_FIELDS: &[&str] = &[
    "is_inventory",
    "location_final_id",
    "move_orig_ids",
    "picking_id",
    "origin",
];
/// The session of a till that made a picking.
const TILL: &str = "pos_session_id";
const QUANT_FIELDS: &[&str] = &["product_id", "location_id", "quantity"];
/// Counts that may wait to be compared; older ones are passed over.
const COUNTS_MAX: usize = 1_000;

pub(super) struct OdooMoves {
    instance: String,
    client: Arc<Client>,
    places: Mutex<Option<Arc<Places>>>,
}

/// Lines of counts to be compared, by id, with when they were counted.
#[derive(Default, Deserialize, Serialize)]
pub(super) struct Counts {
    waiting: BTreeMap<i64, i64>,
}

/// What a line needs of its product.
struct Goods {
    sku: Option<String>,
    unit: Text,
}

/// What a line needs of its move.
struct Document {
    is_inventory: bool,
    /// Whether it is of a picking that no till made.
    ships: bool,
    /// The receipt of a till that it is of.
    receipt: Option<i64>,
    /// The return that its picking was made for elsewhere.
    returned_by: Option<Text>,
    sale_line: Option<i64>,
    origin: Option<String>,
    /// Where goods that are on the way go.
    destination: Option<i64>,
    /// The move that sent them on the way.
    sent_by: Option<i64>,
}

/// What lines need besides their rows.
struct Around {
    places: Arc<Places>,
    goods: HashMap<i64, Goods>,
    documents: HashMap<i64, Document>,
    /// By line of a sale.
    orders: HashMap<i64, OfOrder>,
    /// By receipt of a till and product.
    receipts: HashMap<(i64, i64), OfOrder>,
}

/// Tries what reading needs.
pub(super) async fn check(client: &Client) -> Result<String, Fault> {
    for (model, fields) in [
        (LINE, LINE_FIELDS),
        (MOVE, MOVE_FIELDS),
        (QUANT, QUANT_FIELDS),
    ] {
        let search = Search {
            model,
            domain: json!([]),
            order: "id desc",
            limit: 1,
            fields,
        };
        client.search(search).await?;
    }
    let done = client.count(LINE, json!([["state", "=", "done"]])).await?;
    Ok(format!("{done} done"))
}

impl OdooMoves {
    pub fn new(instance: &str, client: Arc<Client>) -> Self {
        OdooMoves {
            instance: instance.to_owned(),
            client,
            places: Mutex::default(),
        }
    }

    fn table(&self) -> Stamped<'_> {
        Stamped {
            client: &self.client,
            model: LINE,
            fields: LINE_FIELDS,
        }
    }

    async fn places(&self) -> Result<Arc<Places>, Fault> {
        let mut kept = self.places.lock().await;
        let current = match kept.take() {
            Some(places) if places.is_current(&self.client).await? => places,
            _ => Arc::new(Places::load(&self.client).await?),
        };
        Ok(kept.insert(current).clone())
    }

    async fn goods(&self, lines: &[&Row]) -> Result<HashMap<i64, Goods>, Fault> {
        let wanted: BTreeSet<i64> = lines
            .iter()
            .filter_map(|l| rows::link(l, "product_id"))
            .collect();
        let fields = ["default_code", "uom_id"];
        let found = self
            .client
            .all("product.product", "id", json!(wanted), &fields);
        let found = found.await?;
        let goods = |row: &Row| Goods {
            sku: rows::text(row, "default_code").map(str::to_owned),
            unit: rows::link_name(row, "uom_id").map_or("EA".into(), unit_code),
        };
        Ok(found.iter().map(|r| (rows::id(r), goods(r))).collect())
    }

    /// Pickings of these lines. What a till moves is sold there and then.
    async fn pickings(&self, lines: &[&Row]) -> Result<HashMap<i64, Row>, Fault> {
        let pickings: BTreeSet<i64> = lines
            .iter()
            .filter_map(|l| rows::link(l, "picking_id"))
            .collect();
        let model = documents::PICKING;
        let has_tills = !pickings.is_empty() && self.client.has_field(model, TILL).await?;
        let fields = match has_tills {
            true => &["origin", TILL, "pos_order_id"][..],
            false => &["origin"],
        };
        let found = self.client.all(model, "id", json!(pickings), fields);
        Ok(found
            .await?
            .into_iter()
            .map(|r| (rows::id(&r), r))
            .collect())
    }

    async fn documents(&self, lines: &[&Row]) -> Result<HashMap<i64, Document>, Fault> {
        let pickings = self.pickings(lines).await?;
        // Without orders the sales' application may be missing.
        let keeps_orders = !self.client.settings.channels.is_empty();
        let more = if keeps_orders {
            &["sale_line_id"][..]
        } else {
            &[]
        };
        let fields = [MOVE_FIELDS, more].concat();
        let wanted: BTreeSet<i64> = lines
            .iter()
            .filter_map(|l| rows::link(l, "move_id"))
            .collect();
        let found = self.client.all(MOVE, "id", json!(wanted), &fields);
        let mut found: HashMap<i64, Row> = found
            .await?
            .into_iter()
            .map(|r| (rows::id(&r), r))
            .collect();
        // The moves before these, where goods come from the way.
        let before: BTreeSet<i64> = found
            .values()
            .flat_map(|row| rows::links(row, "move_orig_ids"))
            .collect();
        let before = self.client.all(MOVE, "id", json!(before), MOVE_FIELDS);
        let before: HashMap<i64, Row> = before
            .await?
            .into_iter()
            .map(|r| (rows::id(&r), r))
            .collect();
        let document = |row: &Row| {
            let sent = rows::links(row, "move_orig_ids");
            let sent = sent.iter().find_map(|id| Some((*id, before.get(id)?)));
            let sent_to = sent.and_then(|(_, row)| rows::link(row, "location_final_id"));
            let picking = rows::link(row, "picking_id").and_then(|id| pickings.get(&id));
            let elsewhere = picking.and_then(|p| rows::text(p, "origin"));
            Document {
                is_inventory: rows::flag(row, "is_inventory"),
                ships: picking.is_some_and(|p| rows::link(p, TILL).is_none()),
                receipt: picking.and_then(|p| rows::link(p, "pos_order_id")),
                returned_by: elsewhere.and_then(give_back::return_of).map(Text::from),
                sale_line: rows::link(row, "sale_line_id"),
                origin: rows::text(row, "origin").map(str::to_owned),
                destination: sent_to.or(rows::link(row, "location_final_id")),
                sent_by: sent.filter(|_| sent_to.is_some()).map(|(id, _)| id),
            }
        };
        Ok(found
            .drain()
            .map(|(id, row)| (id, document(&row)))
            .collect())
    }

    fn interpreted(&self, row: &Row, around: &Around) -> Result<Move, Fault> {
        let Around {
            places,
            goods,
            documents,
            orders,
            receipts,
        } = around;
        let id = rows::id(row);
        let product = rows::link(row, "product_id").unwrap_or_default();
        let goods = goods.get(&product);
        let Some(sku) = goods.and_then(|g| g.sku.as_deref()) else {
            return Err(bad(
                Code::UnknownReference,
                format!(
                    "product {product} of {LINE} {id} has no internal reference; give it one, and the line is read again"
                ),
            ));
        };
        let location = |field: &str| {
            let found = rows::link(row, field).ok_or_else(|| format!("{field} is missing"));
            found
                .and_then(|id| places.tree.place(id))
                .map_err(|why| bad(Code::UnknownReference, format!("{LINE} {id}: {why}")))
        };
        let quantity = row.get("quantity_product_uom").unwrap_or(&Value::Null);
        let (from, to) = (location("location_id")?, location("location_dest_id")?);
        let document = rows::link(row, "move_id").and_then(|id| Some((id, documents.get(&id)?)));
        let on_the_way = from == Place::Transit || to == Place::Transit;
        let picking = rows::link(row, "picking_id").map(|id| format!("stock.picking,{id}"));
        let shipment = match &document {
            // Both halves of a transfer go by the move that sent it.
            Some((id, d)) if on_the_way => Some(format!("{MOVE},{}", d.sent_by.unwrap_or(*id))),
            Some((_, d)) if d.ships => picking.clone(),
            _ => None,
        };
        let from_customer =
            matches!(&from, Place::Outside { state, .. } if *state == StockState::Customer);
        let of_sale = || {
            let (_, document) = document.as_ref()?;
            let of = orders.get(&document.sale_line?)?.clone();
            let name = || Some(return_name(&of.order, &self.instance, picking.as_deref()?));
            let returned_by = document.returned_by.clone().or_else(name);
            Some(OfOrder {
                returned_by: returned_by.filter(|_| from_customer),
                ..of
            })
        };
        let of_receipt = || {
            let (_, document) = document.as_ref()?;
            receipts.get(&(document.receipt?, product)).cloned()
        };
        let order = of_sale().or_else(of_receipt);
        let destination = document.as_ref().and_then(|(_, d)| d.destination);
        let destination = destination.and_then(|id| places.tree.place(id).ok());
        let arrives_unannounced =
            from == Place::Transit && document.as_ref().is_none_or(|(_, d)| d.sent_by.is_none());
        Ok(Move {
            record_id: format!("{LINE},{id}"),
            sku: sku.into(),
            quantity: rows::number(quantity).ok_or_else(|| {
                bad(
                    Code::DataQuality,
                    format!("quantity_product_uom of {LINE} {id} is {quantity}, not a number of at most four decimal places"),
                )
            })?,
            unit: goods.map_or("EA".into(), |g| g.unit.clone()),
            from,
            to,
            at: row.get("date").and_then(rows::stamp).ok_or_else(|| {
                bad(Code::DataQuality, format!("date of {LINE} {id} is no time"))
            })?,
            date: None,
            shipment,
            counted: document.as_ref().is_some_and(|(_, d)| d.is_inventory),
            origin: picking.or(document.and_then(|(_, d)| d.origin.clone())),
            destination: destination.filter(|_| on_the_way && !arrives_unannounced),
            order,
            system: "odoo",
        })
    }

    /// What the ERP has now of the product of each line, in the warehouse that it was counted in: by
    /// line, with SKU and location.
    async fn quantities(&self, lines: &[Row]) -> Result<Vec<(i64, String, Text, Decimal)>, Fault> {
        let places = self.places().await?;
        let lines: Vec<&Row> = lines.iter().collect();
        let goods = self.goods(&lines).await?;
        let mut counted = Vec::new();
        for line in lines {
            let sides = ["location_id", "location_dest_id"];
            let place =
                sides
                    .iter()
                    .find_map(|field| match places.tree.place(rows::link(line, field)?) {
                        Ok(Place::Stock { location, .. }) => Some(location),
                        _ => None,
                    });
            let product = rows::link(line, "product_id").unwrap_or_default();
            let sku = goods.get(&product).and_then(|g| g.sku.clone());
            if let (Some(location), Some(sku)) = (place, sku) {
                counted.push((rows::id(line), product, sku, location));
            }
        }
        let products: BTreeSet<i64> = counted.iter().map(|(_, product, _, _)| *product).collect();
        // Several rows of one product and place add up.
        let found = self
            .client
            .all(QUANT, "product_id", json!(products), QUANT_FIELDS);
        let found = found.await?;
        let mut told = Vec::with_capacity(counted.len());
        for (line, product, sku, location) in counted {
            let below = places.tree.row_of(&location);
            let below = below.map(|row| places.tree.sellable_below(row));
            let below: BTreeSet<i64> = below.into_iter().flatten().collect();
            let here = |row: &&Row| {
                rows::link(row, "product_id") == Some(product)
                    && rows::link(row, "location_id").is_some_and(|l| below.contains(&l))
            };
            let quantities = found.iter().filter(here);
            let quantity = quantities.map(|row| rows::decimal(row, "quantity"));
            if let Some(quantity) = quantity.sum::<Option<Decimal>>() {
                told.push((line, sku, location, quantity));
            }
        }
        Ok(told)
    }
}

#[async_trait::async_trait]
impl Table for OdooMoves {
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
impl Moves for OdooMoves {
    type Counts = Counts;

    fn model(&self) -> &'static str {
        LINE
    }

    /// A line that was done stays done.
    fn phase(&self, row: &Row) -> Phase {
        match rows::text(row, "state") {
            Some("done") => Phase::Done,
            Some("cancel") => Phase::Cancelled { seems_done: false },
            _ => Phase::Open,
        }
    }

    fn created_at(&self, row: &Row) -> i64 {
        let created_at = row.get("create_date").and_then(rows::stamp);
        created_at.unwrap_or_default().0
    }

    async fn page(&self, after: i64) -> Result<Vec<Row>, Fault> {
        let search = Search {
            model: LINE,
            domain: json!([["id", ">", after]]),
            order: "id",
            limit: self.limit(),
            fields: LINE_FIELDS,
        };
        self.client.search(search).await
    }

    async fn interpret(&self, found: &[&Row]) -> Result<Vec<Option<Result<Move, Fault>>>, Fault> {
        let company = self.client.user().await?.company;
        let is_own = |row: &Row| rows::link(row, "company_id") == Some(company);
        let own: Vec<&Row> = found.iter().copied().filter(|row| is_own(row)).collect();
        if own.is_empty() {
            return Ok(found.iter().map(|_| None).collect());
        }
        let places = self.places().await?;
        let goods = self.goods(&own).await?;
        let documents = self.documents(&own).await?;
        let lines: BTreeSet<i64> = documents.values().filter_map(|d| d.sale_line).collect();
        let orders = documents::orders_of(&self.client, &lines).await?;
        let receipts = documents.values().filter_map(|d| d.receipt).collect();
        let receipts = tills::orders_of(&self.client, &self.instance, &receipts).await?;
        let around = Around {
            places,
            goods,
            documents,
            orders,
            receipts,
        };
        let read = |row: &&Row| is_own(row).then(|| self.interpreted(row, &around));
        Ok(found.iter().map(read).collect())
    }

    async fn begin_counts(&self) -> Result<Counts, Fault> {
        Ok(Counts::default())
    }

    fn notice(&self, found: &[&Row], counts: &mut Counts) {
        // Whether a line is of a count, its move says: that is looked up when they are compared.
        for row in found {
            if rows::link(row, "picking_id").is_none() {
                let at = row.get("date").and_then(rows::stamp).unwrap_or_default();
                counts.waiting.insert(rows::id(row), at.0);
            }
        }
        while counts.waiting.len() > COUNTS_MAX {
            counts.waiting.pop_first();
        }
    }

    fn wait(counts: &Counts) -> bool {
        !counts.waiting.is_empty()
    }

    async fn compare(
        &self,
        counts: &mut Counts,
        moves: &Window,
        as_of: i64,
    ) -> Result<(Vec<SourceRecord>, bool), Fault> {
        let wanted: Vec<i64> = counts.waiting.keys().copied().take(self.limit()).collect();
        if wanted.is_empty() {
            return Ok((Vec::new(), false));
        }
        let company = self.client.user().await?.company;
        let mut lines = self.read(&wanted).await?;
        let documents = self.documents(&lines.iter().collect::<Vec<_>>()).await?;
        lines.retain(|line| {
            let document = rows::link(line, "move_id").and_then(|id| documents.get(&id));
            rows::link(line, "company_id") == Some(company)
                && document.is_some_and(|d| d.is_inventory)
        });
        let quantities = self.quantities(&lines).await?;
        if !moves.is_current(self).await? {
            return Ok((Vec::new(), true));
        }
        let told = quantities.iter().map(|(line, sku, location, quantity)| {
            let count = Count {
                record_id: &format!("{LINE},{line}"),
                sku,
                location,
                quantity: *quantity,
                at: Timestamp(counts.waiting.get(line).copied().unwrap_or_default()),
                as_of,
            };
            snapshot(&self.instance, &count)
        });
        let told = told.collect();
        for id in wanted {
            counts.waiting.remove(&id);
        }
        Ok((told, !counts.waiting.is_empty()))
    }
}

/// UN/ECE Recommendation 20 codes of Odoo's own units; another unit keeps its name.
pub(super) fn unit_code(name: &str) -> Text {
    match name {
        "Units" => "EA",
        "Dozens" => "DZN",
        "kg" => "KGM",
        "g" => "GRM",
        "t" => "TNE",
        "lb" => "LBR",
        "oz" => "ONZ",
        "L" => "LTR",
        "m" => "MTR",
        "cm" => "CMT",
        "m²" => "MTK",
        "m³" => "MTQ",
        "Hours" => "HUR",
        "Days" => "DAY",
        other => other,
    }
    .into()
}
