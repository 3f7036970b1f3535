//! What the connectors of ERPs share: how a table is followed whose rows appear late, what was told of
//! it, what a place is, and what facts movements, objects and documents are.
//!
//! An ERP's own folder talks to it and knows its tables. It shows them here as a [`Table`] that is
//! followed by stamps, its stock as [`Moves`], its locations as a [`Tree`], and gets the bookmarks and
//! the events.

mod bills;
mod books;
mod corrections;
mod customers;
mod documents;
mod elsewhere;
mod events;
mod ids;
mod listing;
mod money;
mod moves;
mod objects;
mod orders;
mod places;
mod source;
mod stock;
mod told;
mod window;

pub use bills::{Bill, BillLine, taxes_of_lines};
pub use books::{Books, Stored, Tables, Transaction};
pub use corrections::{SetStock, sets_stock, tells_again};
pub use customers::{called, no_customers, no_vault, take_customer};
pub use documents::{
    Document, Return, ReturnPart, Shipment, ShipmentPart, disposition, return_name, unknown_state,
};
pub use elsewhere::{
    ByLine, accepted, came_back, has_left, left, never_sold, not_taken, share_out,
};
pub use events::{Count, Price, Product, bad, is_gtin, object_meta, snapshot};
pub use events::{location, policy, price, product};
pub use ids::Ids;
pub use listing::{Listing, OrderList};
pub use money::{Booking, PaymentSettings, wants_payment, wants_refund};
pub use moves::{Move, OfOrder};
pub use objects::{Kept, Objects, Told, Versions};
pub use orders::{
    Names, SaleLine, SoldProduct, affected, agrees, check_order, codes_of, covers, named, pickup,
    reject, sale_lines, taxes_named, wants_order,
};
pub use places::{Kind, LocationSettings, Node, Place, Tree};
pub use source::{ErpSource, Part};
pub use stock::{Moves, Stock};
pub use told::Phase;
pub use window::{Mark, Table, Tally, Window};

use crate::pipeline::{Code, Fault, Stage};
use serde_json::{Map, Value};

/// A row as an ERP answers it, by field.
pub type Row = Map<String, Value>;

/// Rows listed in one call.
pub const LISTED_ROWS: usize = 1_000;

/// A mistake in the configuration, or in what it refers to.
pub fn configuration(message: String) -> Fault {
    Fault::halt(Stage::Read, Code::Configuration, message)
}

/// A bookmark of the connector `name`.
///
/// # Errors
/// A halt when it is of something else.
pub fn bookmark<B: serde::de::DeserializeOwned>(name: &str, value: &Value) -> Result<B, Fault> {
    B::deserialize(value).map_err(|e| {
        configuration(format!(
            "the bookmark of {name} cannot be read: it was written by another kind of connector or a later version; give the connector another name to read from the beginning"
        ))
        .caused_by(e)
    })
}

/// A bookmark for the log.
///
/// # Errors
/// A halt, for that is a defect.
pub fn kept(mark: &impl serde::Serialize) -> Result<Value, Fault> {
    serde_json::to_value(mark)
        .map_err(|e| Fault::halt(Stage::Read, Code::Bug, "a bookmark is not JSON").caused_by(e))
}
