//! Locations, products, prices, order points and the documents of orders: objects whose whole state is
//! told whenever it changes.

use super::client::{Client, Row, Search};
use super::documents::{self, Page};
use super::map::{self, ORDER_POINT_FIELDS, PRICE_FIELDS, PRODUCT_FIELDS};
use super::settings::Settings;
use super::table::Stamped;
use super::{invoices, rows, sales, tree};
use crate::connectors::erp::{Kept, LISTED_ROWS, Place, Table, Told, Versions, is_gtin};
use crate::contract::event::Text;
use crate::pipeline::Fault;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;

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

/// Objects of one kind.
pub(super) struct KeptObjects {
    pub kind: Kind,
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

#[async_trait::async_trait]
impl Kept for KeptObjects {
    fn model(&self) -> &'static str {
        self.kind.model()
    }

    fn is_coarse(&self) -> bool {
        false
    }

    fn tables(&self) -> Vec<Box<dyn Table + '_>> {
        let own = Stamped {
            client: &self.client,
            model: self.kind.model(),
            fields: &["last_modified_at"],
        };
        let part = |(model, part): &(&'static str, Part)| Stamped {
            model,
            fields: match part {
                Part::Template => &["last_modified_at"],
                Part::Field(_) => &["last_modified_at", "product"],
                Part::Reference(..) => &["last_modified_at", "shipment"],
            },
            ..own
        };
        let parts = self.kind.parts().iter().map(part);
        let boxed = |table| Box::new(table) as Box<dyn Table>;
        [own].into_iter().chain(parts).map(boxed).collect()
    }

    async fn owners(&self, part: usize, found: &[Row]) -> Result<Vec<i64>, Fault> {
        let owner = |row: &Row| match self.kind.parts().get(part)?.1 {
            Part::Template => None,
            Part::Field(field) => rows::integer(row, field),
            Part::Reference(field, model) => {
                let named = rows::text(row, field).and_then(rows::reference);
                named.filter(|(of, _)| *of == model).map(|(_, id)| id)
            }
        };
        match self.kind.parts().get(part) {
            Some((_, Part::Template)) => {
                let templates: Vec<i64> = found.iter().map(rows::id).collect();
                self.products_of(&templates).await
            }
            _ => Ok(found.iter().filter_map(owner).collect()),
        }
    }

    async fn page(&self, after: i64) -> Result<Vec<Row>, Fault> {
        self.some(json!([["id", ">", after]])).await
    }

    async fn read(&self, ids: &[i64]) -> Result<Vec<Row>, Fault> {
        self.some(json!([["id", "in", ids]])).await
    }

    async fn tell<'r>(&self, rows: &'r [Row], versions: &mut Versions) -> Result<Told<'r>, Fault> {
        self.map(rows, versions).await
    }
}

impl KeptObjects {
    pub fn new(kind: Kind, instance: &str, client: Arc<Client>) -> Self {
        KeptObjects {
            kind,
            instance: instance.to_owned(),
            client,
        }
    }

    /// Some objects, by id, no more than a page has.
    async fn some(&self, domain: Value) -> Result<Vec<Row>, Fault> {
        let search = Search {
            model: self.kind.model(),
            domain,
            order: json!([["id", "ASC"]]),
            limit: self.client.settings.page_rows as usize,
            fields: self.kind.fields(),
        };
        self.client.search(search).await
    }

    async fn products_of(&self, templates: &[i64]) -> Result<Vec<i64>, Fault> {
        let (mut found, mut after) = (Vec::new(), 0);
        loop {
            let page = self.client.search(Search {
                model: Kind::Products.model(),
                domain: json!([["template", "in", templates], ["id", ">", after]]),
                order: json!([["id", "ASC"]]),
                limit: LISTED_ROWS,
                fields: &["id"],
            });
            let page = page.await?;
            found.extend(page.iter().map(rows::id));
            after = found.last().copied().unwrap_or_default();
            if page.len() < LISTED_ROWS {
                return Ok(found);
            }
        }
    }

    async fn map<'a>(&self, found: &'a [Row], versions: &mut Versions) -> Result<Told<'a>, Fault> {
        let mut next = || versions.next();
        let mut told = Vec::with_capacity(found.len());
        match self.kind {
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
                let (tree, _) = tree::load(&self.client).await?;
                for row in found {
                    let owned = tree.owned(rows::id(row));
                    let record = owned.map(|o| map::location(&self.instance, row, o, next()));
                    told.push((row, Ok(record.into_iter().collect())));
                }
            }
            Kind::OrderPoints => {
                let (tree, _) = tree::load(&self.client).await?;
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
                told = match self.kind {
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
            let limit = LISTED_ROWS;
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
                    && is_gtin(code)
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
