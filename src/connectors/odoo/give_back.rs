//! Returns that were received elsewhere: goods come in by a picking of the order's sale, and what was invoiced
//! of them is credited.
//!
//! Picking and credit note are imported under external ids that are the return's, and so there once. They name
//! it as their source document and their reference: by that they are found again. What is accepted later,
//! beyond what is there, becomes a further one whose name has the version of the return behind a `+`.

use super::client::{Change, Client, Fields, Search};
use super::dispatches::validate;
use super::documents::{self, MOVE, PICKING, SALE_LINE};
use super::invoices::INVOICE_LINE;
use super::money::{ENTRY, not_made, post};
use super::tree::Places;
use super::{rows, sales};
use crate::connectors::erp::{self, ByLine, Row, reject};
use crate::contract::event::{Disposition, ReturnEvent, SinkOutcome, StockState};
use crate::domain::{Decimal, natural_id};
use crate::pipeline::{Ack, Code, Fault};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};

/// What stands before the id of a return.
const MARK: &str = "return/";
const SALE_LINE_FIELDS: &[&str] = &[
    "name",
    "product_id",
    "product_uom_qty",
    "product_uom_id",
    "price_unit",
    "discount",
    "tax_ids",
    "qty_invoiced",
];

/// The return that a document was made for elsewhere.
pub(super) fn return_of(name: &str) -> Option<&str> {
    let id = name.strip_prefix(MARK)?;
    Some(id.split_once('+').map_or(id, |(id, _)| id))
}

/// Takes what was accepted of a return.
///
/// # Errors
/// `TOO_EARLY` while the order is not there; a reject that names order and line where Odoo has not
/// sold, or has already taken back, what the return says.
pub(super) async fn take(client: &Client, event: &ReturnEvent) -> Result<Ack, Fault> {
    let who = format!("return {} of order {}", event.return_id, event.order_id);
    let Some(sale) = sales::find(client, &event.order_id).await? else {
        return Err(sales::too_early(&who));
    };
    let lines = client.all(
        SALE_LINE,
        "order_id",
        json!([rows::id(&sale)]),
        SALE_LINE_FIELDS,
    );
    let taking = Taking {
        client,
        event,
        sale: &sale,
        lines: lines.await?,
        who: &who,
    };
    let mut changed = taking.goods().await?;
    changed |= taking.credit().await?;
    let pickings = taking.found(PICKING, "origin").await?;
    let number = pickings.last().and_then(|row| rows::text(row, "name"));
    Ok(Ack {
        outcome: match changed {
            true => SinkOutcome::Acked,
            false => SinkOutcome::DuplicateAcked,
        },
        version: event.return_version,
        external_id: number.map(str::to_owned),
        digest: None,
        status: None,
    })
}

struct Taking<'a> {
    client: &'a Client,
    event: &'a ReturnEvent,
    sale: &'a Row,
    /// The sale's.
    lines: Vec<Row>,
    who: &'a str,
}

impl Taking<'_> {
    /// The name of what is made now, after so many.
    fn name(&self, before: &[Row]) -> String {
        match before.is_empty() {
            true => format!("{MARK}{}", self.event.return_id),
            false => format!(
                "{MARK}{}+{}",
                self.event.return_id, self.event.return_version
            ),
        }
    }

    /// Documents that were made for the return, cancelled ones left out.
    async fn found(&self, model: &str, field: &str) -> Result<Vec<Row>, Fault> {
        let company = self.client.user().await?.company;
        let name = format!("{MARK}{}", self.event.return_id);
        let fields = ["state", "name", field];
        let found = self.client.search(Search {
            model,
            domain: json!([
                ["company_id", "=", company],
                ["state", "!=", "cancel"],
                [field, "=like", format!("{name}%")]
            ]),
            order: "id",
            limit: erp::LISTED_ROWS,
            fields: &fields,
        });
        let mut found = found.await?;
        let own =
            |row: &Row| rows::text(row, field).and_then(return_of) == Some(&self.event.return_id);
        found.retain(own);
        Ok(found)
    }

    /// Quantities of documents' lines, by the channel's name of the line; `line` is the field that leads to
    /// the sale's line.
    fn sum(
        &self,
        found: &[Row],
        quantity: &str,
        line: impl Fn(&Row) -> Option<i64>,
    ) -> BTreeMap<String, Decimal> {
        let names: HashMap<i64, &str> = self
            .lines
            .iter()
            .filter_map(|row| Some((rows::id(row), documents::line_name(row)?)))
            .collect();
        let mut sums: BTreeMap<String, Decimal> = BTreeMap::new();
        for row in found {
            if let Some(name) = line(row).and_then(|id| names.get(&id)) {
                let units = rows::decimal(row, quantity).unwrap_or_default();
                *sums.entry((*name).to_owned()).or_default() += units;
            }
        }
        sums
    }

    /// Shares of the sale's lines; `most` says how much there can be of each.
    fn shares(
        &self,
        wanted: &ByLine<'_>,
        most: impl Fn(&Row) -> Decimal,
    ) -> (Vec<Decimal>, Option<Fault>) {
        let rows_of = self.lines.iter();
        let rows_of = rows_of.map(|row| (documents::line_name(row), most(row)));
        let (shares, over) = erp::share_out(wanted.clone(), rows_of);
        let fault = erp::never_sold("Odoo", wanted, &over, self.who);
        (shares, fault)
    }

    /// Takes the goods in. Tells whether that was needed.
    async fn goods(&self) -> Result<bool, Fault> {
        let before = self.found(PICKING, "origin").await?;
        let ids: Vec<i64> = before.iter().map(rows::id).collect();
        let fields = ["sale_line_id", "product_uom_qty", "state"];
        let mut moves = self
            .client
            .all(MOVE, "picking_id", json!(ids), &fields)
            .await?;
        moves.retain(|m| rows::text(m, "state") != Some("cancel"));
        let taken = self.sum(&moves, "product_uom_qty", |m| rows::link(m, "sale_line_id"));
        let missing = erp::not_taken("Odoo", erp::came_back(self.event), &taken, self.who)?;
        let mut changed = false;
        if !missing.is_empty() {
            let sold = |row: &Row| rows::decimal(row, "product_uom_qty").unwrap_or_default();
            // What came back before has left less of each line.
            let mut gone = taken;
            let left = |row: &Row| {
                let most = sold(row);
                let before = documents::line_name(row).and_then(|name| gone.get_mut(name));
                before.map_or(most, |before| {
                    let used = (*before).min(most);
                    *before -= used;
                    most - used
                })
            };
            let left: Vec<Decimal> = self.lines.iter().map(left).collect();
            let at: HashMap<i64, Decimal> = self.lines.iter().map(rows::id).zip(left).collect();
            let most = |row: &Row| at.get(&rows::id(row)).copied().unwrap_or_default();
            let (shares, fault) = self.shares(&missing, most);
            if let Some(fault) = fault {
                return Err(fault);
            }
            self.make_picking(&self.name(&before), &shares).await?;
            changed = true;
        }
        for picking in self.found(PICKING, "origin").await? {
            changed |= self.finish(&picking).await?;
        }
        Ok(changed)
    }

    async fn make_picking(&self, name: &str, shares: &[Decimal]) -> Result<(), Fault> {
        let places = Places::load(self.client).await?;
        let at = self.event.return_location_id.as_deref();
        let at = at.and_then(|location| places.warehouse_of(location));
        let id = at.map(|w| w.id).or(rows::link(self.sale, "warehouse_id"));
        let warehouse = id.and_then(|id| places.warehouse(id));
        let (Some((view, warehouse)), Some(customers)) = (warehouse, places.customers) else {
            let message = format!(
                "{}: Odoo has no place where the goods can come to",
                self.who
            );
            return Err(reject(Code::UnknownReference, message));
        };
        let put_away = |line: &str| {
            let mut lines = self.event.lines.iter();
            let damaged =
                lines.any(|l| l.order_line_id == line && l.disposition == Disposition::Damaged);
            let places = places.tree.places_below(view, StockState::Damaged);
            places
                .first()
                .copied()
                .filter(|_| damaged)
                .unwrap_or(warehouse.stock)
        };
        let moved = |(row, units): (&Row, &Decimal)| -> Fields {
            vec![
                ("product_id", json!(rows::link(row, "product_id"))),
                ("product_uom_qty", json!(units.to_f64())),
                ("product_uom/.id", json!(rows::link(row, "product_uom_id"))),
                ("location_id", json!(customers)),
                (
                    "location_dest_id",
                    json!(put_away(documents::line_name(row).unwrap_or_default())),
                ),
                ("sale_line_id", json!(rows::id(row))),
                ("to_refund", json!(true)),
            ]
        };
        let shares = self.lines.iter().zip(shares);
        let moves = shares.filter(|(_, units)| units.is_positive()).map(moved);
        let moves: Vec<Fields> = moves.collect();
        let values = [
            ("picking_type_id", json!(warehouse.receipts)),
            ("location_id", json!(customers)),
            ("location_dest_id", json!(warehouse.stock)),
            ("partner_id", json!(rows::link(self.sale, "partner_id"))),
            ("origin", json!(name)),
        ];
        let made = self
            .make(PICKING, name, &values, "move_ids", &moves)
            .await?;
        match self.found(PICKING, "origin").await?.is_empty() {
            true => Err(not_made(self.who, made)),
            false => Ok(()),
        }
    }

    async fn make(
        &self,
        model: &str,
        name: &str,
        values: &[(&str, Value)],
        field: &str,
        lines: &[Fields],
    ) -> Result<Change, Fault> {
        let id = natural_id(&[model, &self.event.order_id, name]).simple();
        let key = format!("return_{id}");
        let made = self.client.make(model, &key, values, Some((field, lines)));
        match made.await? {
            Change::Refused(why) => Err(not_made(self.who, Change::Refused(why))),
            done => Ok(done),
        }
    }

    /// Confirms a picking and ends it with all that it has.
    async fn finish(&self, picking: &Row) -> Result<bool, Fault> {
        let id = rows::id(picking);
        match rows::text(picking, "state") {
            Some("done") => return Ok(false),
            Some("draft") => {
                let confirmed = self
                    .client
                    .change(PICKING, "action_confirm", json!({"ids": [id]}));
                if let Change::Refused(why) = confirmed.await? {
                    return Err(not_made(self.who, Change::Refused(why)));
                }
            }
            _ => {}
        }
        validate(self.client, picking, self.who).await?;
        Ok(true)
    }

    /// Credits what was invoiced of what was accepted. Tells whether that was needed.
    async fn credit(&self) -> Result<bool, Fault> {
        let before = self.found(ENTRY, "ref").await?;
        let ids: Vec<i64> = before.iter().map(rows::id).collect();
        let fields = ["sale_line_ids", "quantity"];
        let credited = self
            .client
            .all(INVOICE_LINE, "move_id", json!(ids), &fields)
            .await?;
        let line = |row: &Row| rows::links(row, "sale_line_ids").first().copied();
        let taken = self.sum(&credited, "quantity", line);
        let missing = erp::not_taken("Odoo", erp::accepted(self.event), &taken, self.who)?;
        // What was never invoiced is left out of the next invoice by Odoo itself.
        let invoiced = |row: &Row| rows::decimal(row, "qty_invoiced").unwrap_or_default();
        let (shares, _) = self.shares(&missing, invoiced);
        let mut changed = false;
        if shares.iter().any(|units| units.is_positive()) {
            self.make_credit_note(&self.name(&before), &shares).await?;
            changed = true;
        }
        if self.client.settings.post_credit_notes {
            for note in self.found(ENTRY, "ref").await? {
                if rows::text(&note, "state") == Some("draft") {
                    post(self.client, rows::id(&note), self.who).await?;
                    changed = true;
                }
            }
        }
        Ok(changed)
    }

    async fn make_credit_note(&self, name: &str, shares: &[Decimal]) -> Result<(), Fault> {
        let credited = |(row, units): (&Row, &Decimal)| -> Fields {
            vec![
                ("product_id", json!(rows::link(row, "product_id"))),
                ("name", json!(rows::text(row, "name"))),
                ("quantity", json!(units.to_f64())),
                (
                    "price_unit",
                    row.get("price_unit").cloned().unwrap_or_default(),
                ),
                ("discount", row.get("discount").cloned().unwrap_or_default()),
                ("tax_ids", json!(rows::links(row, "tax_ids"))),
                ("sale_line_ids", json!([rows::id(row)])),
            ]
        };
        let shares = self.lines.iter().zip(shares);
        let lines = shares.filter(|(_, units)| units.is_positive());
        let lines: Vec<Fields> = lines.map(credited).collect();
        let mut values = vec![
            ("move_type", json!("out_refund")),
            ("partner_id", json!(rows::link(self.sale, "partner_id"))),
            ("currency_id", json!(rows::link(self.sale, "currency_id"))),
            (
                "invoice_date",
                json!(rows::day_text(self.event.meta.occurred_at)),
            ),
            ("ref", json!(name)),
            ("invoice_origin", json!(rows::text(self.sale, "name"))),
        ];
        values.extend(
            self.invoice()
                .await?
                .map(|id| ("reversed_entry_id", json!(id))),
        );
        self.make(ENTRY, name, &values, "invoice_line_ids", &lines)
            .await?;
        Ok(())
    }

    /// The invoice of the sale, where it has one alone.
    async fn invoice(&self) -> Result<Option<i64>, Fault> {
        let ids = rows::links(self.sale, "invoice_ids");
        let found = self
            .client
            .all(ENTRY, "id", json!(ids), &["move_type", "state"]);
        let mut found = found.await?;
        found.retain(|row| {
            rows::text(row, "move_type") == Some("out_invoice")
                && rows::text(row, "state") == Some("posted")
        });
        Ok(match &found[..] {
            [one] => Some(rows::id(one)),
            _ => None,
        })
    }
}
