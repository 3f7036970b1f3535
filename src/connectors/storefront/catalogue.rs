//! What the storefronts share of products and prices: whose they take, and which prices they can show.

use crate::contract::event::{PriceChanged, ProductChanged, ProductStatus, Text};
use crate::domain::Decimal;
use crate::domain::recon::CLOCK_SKEW;
use crate::pipeline::{Code, Fault, Stage};
use schemars::JsonSchema;
use serde::Deserialize;

/// What of a product the shop is told from elsewhere.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CatalogueSettings {
    /// List whose prices the shop shows, as in `priceListId` of events; a Tryton connector's list has
    /// the connector's name. Without it, prices are the shop's own.
    pub price_list: Option<String>,
    /// Whether the shop takes over what products are called, and stops selling those that are
    /// discontinued, recalled or not released yet; what is active is sold. Off, because many shops
    /// write better names than an ERP has.
    pub products: bool,
    /// Language of the names, where a product has several and the shop shows one; `en` where none is
    /// given.
    pub language: Option<String>,
}

impl CatalogueSettings {
    /// The name of a product in the shop's one language; the only one where it has one.
    pub fn title<'e>(&self, e: &'e ProductChanged) -> Option<&'e str> {
        let language: Text = self.language.as_deref().unwrap_or("en").into();
        let only = || e.title.values().next().filter(|_| e.title.len() == 1);
        let title = e.title.get(&language).or_else(only);
        title.map(|t| &**t).filter(|t| !t.is_empty())
    }
}

/// Whether customers may buy a product.
///
/// # Errors
/// A reject when its status says nothing.
pub fn is_for_sale(e: &ProductChanged) -> Result<bool, Fault> {
    match e.status {
        ProductStatus::Active => Ok(true),
        ProductStatus::Draft | ProductStatus::Discontinued | ProductStatus::Recalled => Ok(false),
        ProductStatus::Unknown => {
            let message = format!(
                "product {}: its status is one that this version does not know",
                e.sku
            );
            Err(Fault::reject(Stage::Validate, Code::UnknownSymbol, message))
        }
    }
}

/// Checks that a price is what a shop can show as the price of a piece, from now on.
///
/// # Errors
/// A reject that names what it is besides.
pub fn is_plain(e: &PriceChanged) -> Result<(), Fault> {
    let besides = if e.promotion_id.is_some() {
        "is a promotion's"
    } else if e.min_qty.is_some_and(|least| least > Decimal::ONE) {
        "holds from a quantity on"
    } else if e.effective_to.is_some() {
        "ends"
    } else if e.effective_from > e.meta.occurred_at.plus(CLOCK_SKEW) {
        "begins later than it is told"
    } else if e.price.amount.is_negative() {
        "is negative"
    } else {
        return Ok(());
    };
    let message = format!(
        "the price of {} in list {} {besides}, and the shop can only show what a piece costs from now on; keep such prices in the shop, or in a list of their own",
        e.sku, e.price_list_id
    );
    Err(Fault::reject(Stage::Validate, Code::DataQuality, message))
}

/// That there is no product of this SKU, or that there are several.
pub fn not_one(sku: &str, found: usize) -> Fault {
    let message = match found {
        0 => format!("the shop has no variant with SKU {sku}; create it there, then redrive"),
        many => {
            format!("{many} variants of the shop have SKU {sku}; make it one, then redrive")
        }
    };
    Fault::reject(Stage::Write, Code::UnknownReference, message)
}

/// That the price is with tax and the shop's are without, or the other way round.
pub fn other_tax(e: &PriceChanged) -> Fault {
    let (is, other) = match e.tax_inclusive {
        true => ("with tax", "without"),
        false => ("without tax", "with"),
    };
    let message = format!(
        "the price of {} in list {} is {is}, and the shop's prices in {} are {other}; set the shop to prices {is}, or name another list in `catalogue.price_list`",
        e.sku, e.price_list_id, e.price.currency
    );
    Fault::reject(Stage::Write, Code::DataQuality, message)
}
