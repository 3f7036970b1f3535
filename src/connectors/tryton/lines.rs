//! Lines of a sale for Tryton.

use super::rows;
use crate::connectors::erp::SaleLine;
use serde_json::{Value, json};

/// Places of Tryton's prices.
pub(super) const PRICE_PLACES: u32 = 4;

/// A line at its place.
pub(super) fn value((at, line): (usize, &SaleLine<'_>)) -> Value {
    json!({
        "type": "line",
        "sequence": at + 1,
        "product": line.product.id,
        "unit": line.product.unit,
        "quantity": line.quantity.to_f64(),
        "unit_price": rows::amount_value(line.price),
        "taxes": [["add", line.taxes]],
        "note": line.line,
    })
}
