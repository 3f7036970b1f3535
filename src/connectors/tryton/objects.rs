//! Locations, products, prices, order points and the documents of orders: objects whose whole state is
//! told whenever it changes.

use super::client::{Client, Row, Search};
use super::documents::{self, Page, Told};
use super::ids::Ids;
use super::map::{self, ORDER_POINT_FIELDS, PRICE_FIELDS, PRODUCT_FIELDS};
use super::settings::Settings;
use super::tree::{self, Place, Tree};
use super::window::{Table, Window, bookmark};
use super::{configuration, invoices, rows, sales};
use crate::contract::event::Text;
use crate::pipeline::{Code, Cursor, Fault, SourceBatch, SourceOrigin, SourceReject, Stage};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;

/// Templates whose products are listed in one call.
const TEMPLATES_MAX: usize = 50;

/// A kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Locations,
    Products,
    OrderPoints,
    Prices,
    Sales,
    Shipments,
    Returns,
    Invoices,
}

impl Kind {
    pub const ALL: &'static [Kind] = &[
        Kind::Locations,
        Kind::Products,
        Kind::OrderPoints,
        Kind::Prices,
        Kind::Sales,
        Kind::Shipments,
        Kind::Returns,
        Kind::Invoices,
    ];

    /// Whether the settings ask for it.
    pub fn is_read(self, settings: &Settings) -> bool {
        match self {
            Kind::Locations | Kind::Products => true,
            Kind::OrderPoints => settings.order_points_are_safety_stock,
            Kind::Prices | Kind::Sales | Kind::Shipments | Kind::Returns | Kind::Invoices => {
                !settings.channels.is_empty()
            }
        }
    }

    pub const fn shard(self) -> &'static str {
        match self {
            Kind::Locations => "locations",
            Kind::Products => "products",
            Kind::OrderPoints => "order-points",
            Kind::Prices => "prices",
            Kind::Sales => "sales",
            Kind::Shipments => "shipments",
            Kind::Returns => "returns",
            Kind::Invoices => "invoices",
        }
    }

    const fn model(self) -> &'static str {
        match self {
            Kind::Locations => tree::MODEL,
            Kind::Products | Kind::Prices => "product.product",
            Kind::OrderPoints => "stock.order_point",
            Kind::Sales => sales::SALE,
            Kind::Shipments => documents::SHIPMENT,
            Kind::Returns => documents::RETURN,
            Kind::Invoices => invoices::INVOICE,
        }
    }

    const fn fields(self) -> &'static [&'static str] {
        match self {
            Kind::Locations => tree::FIELDS,
            Kind::Products => PRODUCT_FIELDS,
            Kind::OrderPoints => ORDER_POINT_FIELDS,
            Kind::Prices => PRICE_FIELDS,
            Kind::Sales => documents::SALE_FIELDS,
            Kind::Shipments => documents::SHIPMENT_FIELDS,
            Kind::Returns => documents::RETURN_FIELDS,
            Kind::Invoices => invoices::INVOICE_FIELDS,
        }
    }

    /// Tables whose rows are parts of an object, with the field of each that leads to it.
    const fn parts(self) -> &'static [(&'static str, Part)] {
        match self {
            Kind::Products => &[
                ("product.template", Part::Template),
                ("product.identifier", Part::Field("product")),
            ],
            Kind::Prices => &[("product.template", Part::Template)],
            // A move can be written on its own.
            Kind::Shipments => &[(
                "stock.move",
                Part::Reference("shipment", documents::SHIPMENT),
            )],
            Kind::Returns => &[("stock.move", Part::Reference("shipment", documents::RETURN))],
            Kind::Locations | Kind::OrderPoints | Kind::Sales | Kind::Invoices => &[],
        }
    }
}

#[derive(Clone, Copy)]
enum Part {
    /// Of all products of the template.
    Template,
    /// Of the object that this field names.
    Field(&'static str),
    /// Of the object that this field names, when it is of this model.
    Reference(&'static str, &'static str),
}

/// Where reading goes on.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
struct Bookmark {
    /// While objects are read by id: the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    first_reading: Option<i64>,
    /// The objects' table, then those of their parts.
    tables: Vec<Window>,
    /// Changed templates whose products are not listed yet.
    templates: Ids,
    /// Objects to be told.
    changed: Ids,
}

pub(super) struct Objects {
    instance: String,
    client: Arc<Client>,
}

/// Tries what reading needs.
pub(super) async fn check(client: &Client, kind: Kind) -> Result<String, Fault> {
    let search = Search {
        model: kind.model(),
        domain: json!([]),
        order: json!([["id", "DESC"]]),
        limit: 1,
        fields: kind.fields(),
    };
    client.search(search).await?;
    for (model, _) in kind.parts() {
        client.count(model, json!([["id", "=", 0]])).await?;
    }
    let count = client.count(kind.model(), json!([])).await?;
    Ok(format!("{count} rows"))
}

impl Objects {
    pub fn new(instance: &str, client: Arc<Client>) -> Self {
        Objects {
            instance: instance.to_owned(),
            client,
        }
    }

    pub async fn poll(&self, kind: Kind, cursor: Option<&Cursor>) -> Result<SourceBatch, Fault> {
        let (mut mark, mut version) = match cursor {
            Some(c) => (
                bookmark::<Bookmark>(&self.instance, &c.bookmark)?,
                c.sequence,
            ),
            None => (self.begin(kind).await?, 1),
        };
        if mark.tables.len() != 1 + kind.parts().len() {
            return Err(configuration(format!(
                "the bookmark of {} is of a version that reads other tables; give the connector another name to read from the beginning",
                self.instance
            )));
        }
        let mut batch = SourceBatch::default();
        let found = match mark.first_reading {
            Some(after) => self.page(kind, after, &mut mark, &mut batch).await?,
            None => {
                self.follow(kind, &mut mark, &mut batch).await?;
                self.take_changed(kind, &mut mark).await?
            }
        };
        batch.more |= !mark.changed.is_empty() || !mark.templates.is_empty();
        for (row, told) in self.map(kind, &found, &mut version).await? {
            match told {
                Ok(records) => batch.records.extend(records),
                Err(fault) => batch.rejects.push(SourceReject {
                    origin: SourceOrigin {
                        container: kind.model().into(),
                        item: rows::id(row).to_string(),
                    },
                    raw: Bytes::from(Value::Object(row.clone()).to_string()),
                    fault,
                }),
            }
        }
        batch.cursor = Cursor {
            bookmark: serde_json::to_value(&mark).map_err(|e| {
                Fault::halt(Stage::Read, Code::Bug, "a bookmark is not JSON").caused_by(e)
            })?,
            sequence: version,
        };
        Ok(batch)
    }

    /// Stamps are taken before the first reading: what changes during it is read again after it.
    async fn begin(&self, kind: Kind) -> Result<Bookmark, Fault> {
        let mut tables = vec![Window::begin(self.table(kind)).await?];
        for (model, part) in kind.parts() {
            tables.push(Window::begin(self.part(kind, model, *part)).await?);
        }
        Ok(Bookmark {
            first_reading: Some(0),
            tables,
            ..Bookmark::default()
        })
    }

    fn table(&self, kind: Kind) -> Table<'_> {
        Table {
            client: &self.client,
            model: kind.model(),
            fields: &["last_modified_at"],
            limit: self.client.settings.page_rows as usize,
        }
    }

    fn part<'a>(&'a self, kind: Kind, model: &'a str, part: Part) -> Table<'a> {
        Table {
            model,
            fields: match part {
                Part::Template => &["last_modified_at"],
                Part::Field(_) => &["last_modified_at", "product"],
                Part::Reference(..) => &["last_modified_at", "shipment"],
            },
            ..self.table(kind)
        }
    }

    async fn page(
        &self,
        kind: Kind,
        after: i64,
        mark: &mut Bookmark,
        batch: &mut SourceBatch,
    ) -> Result<Vec<Row>, Fault> {
        let limit = self.client.settings.page_rows as usize;
        let found = self.client.search(Search {
            model: kind.model(),
            domain: json!([["id", ">", after]]),
            order: json!([["id", "ASC"]]),
            limit,
            fields: kind.fields(),
        });
        let found = found.await?;
        for row in &found {
            mark.tables[0].note(row);
        }
        mark.first_reading = found.last().filter(|_| found.len() >= limit).map(rows::id);
        batch.more = true;
        Ok(found)
    }

    /// Finds out which objects have changed.
    async fn follow(
        &self,
        kind: Kind,
        mark: &mut Bookmark,
        batch: &mut SourceBatch,
    ) -> Result<(), Fault> {
        let found = mark.tables[0].poll(self.table(kind)).await?;
        batch.more |= !found.drained;
        for row in &found.rows {
            mark.changed.insert(rows::id(row));
        }
        for (at, (model, part)) in kind.parts().iter().enumerate() {
            let found = mark.tables[at + 1]
                .poll(self.part(kind, model, *part))
                .await?;
            batch.more |= !found.drained;
            for row in &found.rows {
                match part {
                    Part::Template => mark.templates.insert(rows::id(row)),
                    Part::Field(field) => {
                        if let Some(id) = rows::integer(row, field) {
                            mark.changed.insert(id);
                        }
                    }
                    Part::Reference(field, model) => {
                        let named = rows::text(row, field).and_then(rows::reference);
                        if let Some((_, id)) = named.filter(|(of, _)| of == model) {
                            mark.changed.insert(id);
                        }
                    }
                }
            }
        }
        let templates: Vec<i64> = mark.templates.above(0).take(TEMPLATES_MAX).collect();
        if !templates.is_empty() {
            for id in self.products_of(&templates).await? {
                mark.changed.insert(id);
            }
            for id in templates {
                mark.templates.remove(id);
            }
        }
        Ok(())
    }

    async fn products_of(&self, templates: &[i64]) -> Result<Vec<i64>, Fault> {
        let limit = 1_000;
        let (mut found, mut after) = (Vec::new(), 0);
        loop {
            let page = self.client.search(Search {
                model: Kind::Products.model(),
                domain: json!([["template", "in", templates], ["id", ">", after]]),
                order: json!([["id", "ASC"]]),
                limit,
                fields: &["id"],
            });
            let page = page.await?;
            found.extend(page.iter().map(rows::id));
            after = found.last().copied().unwrap_or_default();
            if page.len() < limit {
                return Ok(found);
            }
        }
    }

    async fn take_changed(&self, kind: Kind, mark: &mut Bookmark) -> Result<Vec<Row>, Fault> {
        let limit = self.client.settings.page_rows as usize;
        let wanted: Vec<i64> = mark.changed.above(0).take(limit).collect();
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let found = self.client.search(Search {
            model: kind.model(),
            domain: json!([["id", "in", wanted]]),
            order: json!([["id", "ASC"]]),
            limit,
            fields: kind.fields(),
        });
        let found = found.await?;
        for id in wanted {
            mark.changed.remove(id);
        }
        Ok(found)
    }

    async fn map<'a>(
        &self,
        kind: Kind,
        found: &'a [Row],
        version: &mut i64,
    ) -> Result<Told<'a>, Fault> {
        if found.is_empty() {
            return Ok(Vec::new());
        }
        let mut next = || {
            *version += 1;
            *version - 1
        };
        let mut told = Vec::with_capacity(found.len());
        match kind {
            Kind::Products => {
                let (_, language) = self.client.company().await?;
                let mut gtins = self.gtins(found).await?;
                for row in found {
                    let gtins = gtins.remove(&rows::id(row)).unwrap_or_default();
                    let record = map::product(&self.instance, &language, row, gtins, next());
                    told.push((row, record.map(|r| vec![r])));
                }
            }
            Kind::Locations => {
                let tree = Tree::load(&self.client).await?;
                for row in found {
                    let owned = tree.owned(rows::id(row));
                    let record = owned.map(|o| map::location(&self.instance, row, o, next()));
                    told.push((row, Ok(record.into_iter().collect())));
                }
            }
            Kind::OrderPoints => {
                let tree = Tree::load(&self.client).await?;
                for row in found {
                    let at = ["warehouse_location", "storage_location"];
                    let at = at.iter().find_map(|f| rows::integer(row, f));
                    let location = at.and_then(|id| {
                        tree.owned(id)
                            .map(|(l, _)| l)
                            .or_else(|| match tree.place(id) {
                                Ok(Place::Stock { location, .. }) => Some(location),
                                _ => None,
                            })
                    });
                    let record = location
                        .map(|location| map::policy(&self.instance, row, &location, next()));
                    let record = record.transpose();
                    told.push((row, record.map(|r| r.into_iter().collect())));
                }
            }
            Kind::Prices => {
                let currency = self.client.currency().await?;
                for row in found {
                    let record = map::price(&self.instance, &currency, row, next());
                    told.push((row, record.map(|r| r.into_iter().collect())));
                }
            }
            Kind::Sales | Kind::Shipments | Kind::Returns | Kind::Invoices => {
                let (company, _) = self.client.company().await?;
                let page = Page {
                    client: &self.client,
                    instance: &self.instance,
                    company,
                };
                told = match kind {
                    Kind::Shipments => page.shipments(found, &mut next).await?,
                    Kind::Returns => page.returns(found, &mut next).await?,
                    Kind::Invoices => page.invoices(found, &mut next).await?,
                    _ => page.sales(found, &mut next),
                };
            }
        }
        Ok(told)
    }

    async fn gtins(&self, products: &[Row]) -> Result<HashMap<i64, Vec<Text>>, Fault> {
        let ids: Vec<i64> = products.iter().map(rows::id).collect();
        let mut found: HashMap<i64, Vec<Text>> = HashMap::new();
        let mut after = 0;
        loop {
            let limit = 1_000;
            let page = self.client.search(Search {
                model: "product.identifier",
                domain: json!([["product", "in", ids], ["id", ">", after]]),
                order: json!([["id", "ASC"]]),
                limit,
                fields: &["product", "code"],
            });
            let page = page.await?;
            for row in &page {
                after = rows::id(row);
                if let (Some(product), Some(code)) =
                    (rows::integer(row, "product"), rows::text(row, "code"))
                    && map::is_gtin(code)
                {
                    found.entry(product).or_default().push(code.into());
                }
            }
            if page.len() < limit {
                return Ok(found);
            }
        }
    }
}
