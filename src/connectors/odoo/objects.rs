//! Locations, products, prices, replenishment rules and documents of Odoo, as [`Kept`].

use super::client::{Client, Search};
use super::documents::{self, Page};
use super::settings::Settings;
use super::stock::unit_code;
use super::table::Stamped;
use super::tree::{self, Places};
use super::{invoices, money, rows, tills};
use crate::connectors::erp::{
    self, Kept, Place, Row, Table, Told, Versions, bad, is_gtin, object_meta,
};
use crate::contract::event::EventMeta;
use crate::domain::Decimal;
use crate::pipeline::{Code, Fault, SourceRecord};
use serde_json::{Value, json};
use std::sync::Arc;

const PRODUCT: &str = "product.product";
const PRODUCT_FIELDS: &[&str] = &[
    "default_code",
    "name",
    "active",
    "is_storable",
    "uom_id",
    "barcode",
    "write_date",
];
const PRICE_FIELDS: &[&str] = &[
    "default_code",
    "is_storable",
    "lst_price",
    "taxes_id",
    "write_date",
];
const ORDER_POINT: &str = "stock.warehouse.orderpoint";
const ORDER_POINT_FIELDS: &[&str] = &[
    "product_id",
    "location_id",
    "product_min_qty",
    "active",
    "company_id",
    "write_date",
];

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
    Receipts,
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
        Kind::Receipts,
    ];

    /// Whether the settings ask for it.
    pub fn is_read(self, settings: &Settings) -> bool {
        match self {
            Kind::Locations | Kind::Products | Kind::Prices => true,
            Kind::OrderPoints => settings.order_points_are_safety_stock,
            Kind::Sales | Kind::Shipments | Kind::Returns | Kind::Invoices => {
                !settings.channels.is_empty()
            }
            Kind::Receipts => !settings.tills.is_empty(),
        }
    }

    /// Polls that are passed over while nothing changes, for each that is made.
    pub const fn rest(self) -> u32 {
        match self {
            // A customer waits for it.
            Kind::Sales | Kind::Shipments => 1,
            Kind::Products | Kind::Prices | Kind::Returns | Kind::Invoices | Kind::Receipts => 4,
            Kind::Locations | Kind::OrderPoints => 20,
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
            Kind::Receipts => "receipts",
        }
    }

    const fn model(self) -> &'static str {
        match self {
            Kind::Locations => tree::LOCATION,
            Kind::Products | Kind::Prices => PRODUCT,
            Kind::OrderPoints => ORDER_POINT,
            Kind::Sales => documents::SALE,
            Kind::Shipments | Kind::Returns => documents::PICKING,
            Kind::Invoices => money::ENTRY,
            Kind::Receipts => tills::RECEIPT,
        }
    }

    const fn fields(self) -> &'static [&'static str] {
        match self {
            Kind::Locations => tree::LOCATION_FIELDS,
            Kind::Products => PRODUCT_FIELDS,
            Kind::OrderPoints => ORDER_POINT_FIELDS,
            Kind::Prices => PRICE_FIELDS,
            Kind::Sales => documents::SALE_FIELDS,
            Kind::Shipments | Kind::Returns => documents::PICKING_FIELDS,
            Kind::Invoices => invoices::INVOICE_FIELDS,
            Kind::Receipts => tills::RECEIPT_FIELDS,
        }
    }

    /// Tables whose rows are parts of an object, with the field that leads to or from it.
    const fn parts(self) -> &'static [(&'static str, Part)] {
        match self {
            Kind::Locations => &[(tree::WAREHOUSE, Part::Names("view_location_id"))],
            Kind::Products => &[("product.template", Part::NamedBy("product_tmpl_id"))],
            // Goods of a picking are written on their own.
            Kind::Shipments | Kind::Returns => &[
                ("stock.move", Part::Names("picking_id")),
                ("stock.move.line", Part::Names("picking_id")),
            ],
            Kind::OrderPoints | Kind::Prices | Kind::Sales | Kind::Invoices | Kind::Receipts => &[],
        }
    }
}

#[derive(Clone, Copy)]
enum Part {
    /// Of the object that this field of the part names.
    Names(&'static str),
    /// Of the objects whose field names the part.
    NamedBy(&'static str),
}

/// Objects of one kind.
pub(super) struct KeptObjects {
    kind: Kind,
    instance: String,
    client: Arc<Client>,
}

/// Tries what reading needs.
pub(super) async fn check(client: &Client, kind: Kind) -> Result<String, Fault> {
    let search = Search {
        model: kind.model(),
        domain: json!([]),
        order: "id desc",
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
        true
    }

    fn tables(&self) -> Vec<Box<dyn Table + '_>> {
        let own = Stamped {
            client: &self.client,
            model: self.kind.model(),
            fields: &["write_date"],
        };
        let part = |(model, part): &(&'static str, Part)| Stamped {
            model,
            fields: match part {
                Part::Names("picking_id") => &["write_date", "picking_id"],
                Part::Names(_) => &["write_date", "view_location_id"],
                Part::NamedBy(_) => &["write_date"],
            },
            ..own
        };
        let parts = self.kind.parts().iter().map(part);
        let boxed = |table| Box::new(table) as Box<dyn Table>;
        [own].into_iter().chain(parts).map(boxed).collect()
    }

    async fn owners(&self, part: usize, found: &[Row]) -> Result<Vec<i64>, Fault> {
        match self.kind.parts().get(part) {
            Some((_, Part::Names(field))) => {
                Ok(found.iter().filter_map(|r| rows::link(r, field)).collect())
            }
            Some((_, Part::NamedBy(field))) => {
                let parts: Vec<i64> = found.iter().map(rows::id).collect();
                let model = self.kind.model();
                let found = self.client.all(model, field, json!(parts), &["id"]);
                Ok(found.await?.iter().map(rows::id).collect())
            }
            None => Ok(Vec::new()),
        }
    }

    async fn page(&self, after: i64) -> Result<Vec<Row>, Fault> {
        self.some(json!([["id", ">", after]])).await
    }

    async fn read(&self, ids: &[i64]) -> Result<Vec<Row>, Fault> {
        self.some(json!([["id", "in", ids]])).await
    }

    async fn tell<'r>(&self, found: &'r [Row], versions: &mut Versions) -> Result<Told<'r>, Fault> {
        match self.kind {
            Kind::Locations => self.locations(found, versions).await,
            Kind::Products => self.products(found, versions).await,
            Kind::OrderPoints => self.order_points(found, versions).await,
            Kind::Prices => self.prices(found, versions).await,
            Kind::Sales | Kind::Shipments | Kind::Returns | Kind::Invoices | Kind::Receipts => {
                let page = Page {
                    client: &self.client,
                    instance: &self.instance,
                    company: self.client.user().await?.company,
                };
                match self.kind {
                    Kind::Shipments => page.shipments(found, versions).await,
                    Kind::Returns => page.returns(found, versions).await,
                    Kind::Invoices => page.invoices(found, versions).await,
                    Kind::Receipts => page.receipts(found).await,
                    _ => Ok(page.sales(found, versions)),
                }
            }
        }
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
            order: "id",
            limit: self.client.settings.page_rows as usize,
            fields: self.kind.fields(),
        };
        self.client.search(search).await
    }

    fn meta(&self, kind: &str, row: &Row, version: i64) -> EventMeta {
        let record_id = format!("{},{}", self.kind.model(), rows::id(row));
        let at = rows::written_at(row).unwrap_or_default();
        object_meta(&self.instance, kind, &record_id, "", at, version)
    }

    async fn locations<'r>(
        &self,
        found: &'r [Row],
        versions: &mut Versions,
    ) -> Result<Told<'r>, Fault> {
        let places = Places::load(&self.client).await?;
        let partners = places.warehouses.values().filter_map(|w| w.partner);
        let partners: Vec<i64> = partners.collect();
        let countries = self
            .client
            .all("res.partner", "id", json!(partners), &["country_code"])
            .await?;
        let mut told = Vec::new();
        for row in found {
            let owned = places.tree.owned(rows::id(row));
            let record = owned.map(|owned| {
                let warehouse = places.warehouses.get(&rows::id(row));
                let partner = warehouse.and_then(|w| w.partner);
                let country = countries.iter().find(|c| Some(rows::id(c)) == partner);
                let country = country.and_then(|c| rows::text(c, "country_code"));
                let name = warehouse.map_or(rows::text(row, "name"), |w| Some(&*w.name));
                let meta = self.meta("Location", row, versions.next());
                erp::location(meta, owned, name, country.map(Into::into))
            });
            told.push((row, Ok(record.into_iter().collect())));
        }
        Ok(told)
    }

    async fn products<'r>(
        &self,
        found: &'r [Row],
        versions: &mut Versions,
    ) -> Result<Told<'r>, Fault> {
        let language = self.client.user().await?.language;
        let language = language.split('_').next().unwrap_or_default();
        let product = |row: &Row, version: i64| -> Result<Vec<SourceRecord>, Fault> {
            let gtin = rows::text(row, "barcode").filter(|code| is_gtin(code));
            let name = rows::text(row, "name");
            Ok(vec![erp::product(erp::Product {
                meta: self.meta("ProductChanged", row, version),
                sku: sku(row)?,
                gtins: gtin.map(Into::into).into_iter().collect(),
                title: name.map(|n| (language.into(), n.into())),
                active: rows::flag(row, "active"),
                unit: rows::link_name(row, "uom_id").map_or("EA".into(), unit_code),
                stock_tracked: rows::flag(row, "is_storable"),
            })])
        };
        Ok(found
            .iter()
            .filter(|row| is_named(row))
            .map(|row| (row, product(row, versions.next())))
            .collect())
    }

    /// The minimum of what is to be kept at a place; none of a rule that is archived.
    async fn order_points<'r>(
        &self,
        found: &'r [Row],
        versions: &mut Versions,
    ) -> Result<Told<'r>, Fault> {
        let company = self.client.user().await?.company;
        let places = Places::load(&self.client).await?;
        let products: Vec<i64> = found
            .iter()
            .filter_map(|row| rows::link(row, "product_id"))
            .collect();
        let products = self
            .client
            .all(PRODUCT, "id", json!(products), &["default_code"])
            .await?;
        let policy = |row: &Row, version: i64| -> Result<Vec<SourceRecord>, Fault> {
            let location = rows::link(row, "location_id").and_then(|at| {
                let owned = places.tree.owned(at).map(|(location, _)| location);
                owned.or_else(|| match places.tree.place(at) {
                    Ok(Place::Stock { location, .. }) => Some(location),
                    _ => None,
                })
            });
            let Some(location) = location else {
                return Ok(Vec::new());
            };
            let missing = |what: &str| {
                let id = rows::id(row);
                let message = format!("{what} of {ORDER_POINT} {id} is missing or no quantity");
                bad(Code::DataQuality, message)
            };
            let product = rows::link(row, "product_id");
            let product = products.iter().find(|p| Some(rows::id(p)) == product);
            let sku = sku(product.ok_or_else(|| missing("product_id"))?)?;
            let minimum = match rows::flag(row, "active") {
                true => rows::decimal(row, "product_min_qty"),
                false => Some(Decimal::ZERO),
            };
            let minimum = minimum.ok_or_else(|| missing("product_min_qty"))?;
            let meta = self.meta("StockPolicy", row, version);
            Ok(vec![erp::policy(meta, sku, &location, minimum)])
        };
        let own = |row: &&Row| rows::link(row, "company_id") == Some(company);
        Ok(found
            .iter()
            .filter(own)
            .map(|row| (row, policy(row, versions.next())))
            .collect())
    }

    /// List prices; whether taxes are in them, the taxes of the product say.
    async fn prices<'r>(
        &self,
        found: &'r [Row],
        versions: &mut Versions,
    ) -> Result<Told<'r>, Fault> {
        let user = self.client.user().await?;
        let taxes: Vec<i64> = found
            .iter()
            .flat_map(|r| rows::links(r, "taxes_id"))
            .collect();
        let fields = ["price_include", "company_id"];
        let taxes = self
            .client
            .all("account.tax", "id", json!(taxes), &fields)
            .await?;
        let is_inclusive = |row: &Row| {
            let own = rows::links(row, "taxes_id");
            taxes.iter().any(|tax| {
                own.contains(&rows::id(tax))
                    && rows::link(tax, "company_id") == Some(user.company)
                    && rows::flag(tax, "price_include")
            })
        };
        let price = |row: &Row, version: i64| -> Result<Vec<SourceRecord>, Fault> {
            let Some(amount) = rows::decimal(row, "lst_price") else {
                return Ok(Vec::new());
            };
            let price = erp::Price {
                meta: self.meta("PriceChanged", row, version),
                sku: sku(row)?,
                amount,
                currency: &user.currency,
                tax_inclusive: is_inclusive(row),
            };
            Ok(vec![erp::price(&self.instance, price)])
        };
        Ok(found
            .iter()
            .filter(|row| is_named(row))
            .map(|row| (row, price(row, versions.next())))
            .collect())
    }
}

/// Whether a product is one that other systems may know. Odoo has services of its own, for tips and down payments, without
/// an internal reference: nobody else sells or stocks them.
fn is_named(row: &Row) -> bool {
    rows::flag(row, "is_storable") || rows::text(row, "default_code").is_some()
}

fn sku(row: &Row) -> Result<&str, Fault> {
    rows::text(row, "default_code").ok_or_else(|| {
        let id = rows::id(row);
        let message =
            format!("{PRODUCT} {id} has no internal reference, and so no SKU; give it one");
        bad(Code::UnknownReference, message)
    })
}
