//! What a file connector can be told. The comments of these types are its documentation.

use crate::connectors::mapping::{FieldSource, Pattern};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Settings of a file connector.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// A file, or a folder whose files are read in the order of their names as they appear, and on
    /// as they grow. Names that end in `.gz` are gzip; names that begin with a dot are left alone.
    /// A file must keep its content: one that begins differently than before is read from its start
    /// as a new one.
    pub path: PathBuf,
    /// Which files of the folder to read, with `*` and `?`: `sales-*.csv`. Without it, all of them.
    /// Have files written under another name and renamed when they are whole.
    pub names: Option<String>,
    /// Form of the lines: `csv` (with a line of column names, unless `columns` gives them) or
    /// `json_lines` (one object on each line).
    pub format: Format,
    /// What the lines tell: `movements` of goods, the `stock` that is there, as in a nightly export,
    /// lines of payouts (`settlement`), as in a provider's report or a bank's statement, or the
    /// `orders` that a system has. Of `stock`, an article that a file leaves out keeps what it had;
    /// an order that a list of `orders` leaves out is missing there.
    #[serde(default)]
    pub content: Content,
    /// What stands between two fields of a CSV line.
    #[serde(default = "comma")]
    pub delimiter: char,
    /// Names of the columns, for CSV files whose first line does not tell them.
    #[serde(default)]
    pub columns: Vec<String>,
    /// Encoding of the text, as in `windows-1252`.
    #[serde(default = "utf_8")]
    pub encoding: String,
    /// What stands before the decimal places of a quantity: `.` or `,`.
    #[serde(default = "point")]
    pub decimal_mark: char,
    /// What stands between the thousands of a quantity, if anything.
    pub group_mark: Option<char>,
    /// Where the values come from, each by `column`, `constant` or `file`. A column of JSON lines that
    /// begins with `/` is a path into the object: `/item/sku`. All need `time`.
    ///
    /// `movements` and `stock` need `sku`, `location` and `quantity`; the former may have `kind`, `unit`,
    /// `order`, `order_line`, `reservation`, `movement` and `document`, the latter `damaged`,
    /// `quality_hold`, `incoming` and `reserved`.
    ///
    /// `settlement` needs `psp`, `payout`, `kind` and `currency`, and amounts as they change what we get:
    /// two of `gross`, `fee` and `net`, or one where there is no fee; where a report has what it takes in
    /// a column of its own, `gross_debit` and `net_debit`. `kind` is one of `capture`, `refund`,
    /// `refund_reversed`, `chargeback`, `chargeback_reversed`, `fee`, `adjustment`, `reserve`, `payout`
    /// (what leaves for the bank, less than zero) and `bank_credit` (what the bank has). `line` names the
    /// line within its payout, else `identity` does; `reference` is the provider's name of the movement
    /// that it settles, as events of payments have it. A payout has as many lines as its `count` says,
    /// else as the file has of it, if it has any.
    ///
    /// `orders` need `channel` and `number` and may have `external` (the system's own name), `status` (as
    /// in `ACCEPTED`) and `amount`; their `time` is that of the file, of its name or `modified`.
    pub fields: BTreeMap<FieldName, FieldSource>,
    /// How times are written, as in `strptime`: `%Y-%m-%d %H:%M:%S`. Without it, RFC 3339.
    pub time_format: Option<String>,
    /// Time zone of times that name none, as in `Europe/London`.
    #[serde(default = "utc")]
    pub time_zone: String,
    /// What a movement with a quantity above zero is; the field `kind` goes before it. One of
    /// `sale`, `return`, `receipt`, `shrink`, `found`, `damage`, `transfer_out`, `transfer_in`.
    #[serde(default)]
    pub positive: Movement,
    /// What a movement with a quantity below zero is.
    #[serde(default = "returned")]
    pub negative: Movement,
    /// What the quantities of `stock` mean: `on_hand`, or `available_net` where the system has taken
    /// its own reservations off already. Without the field `reserved`, the latter is only compared.
    pub basis: Option<Basis>,
    /// Takes nothing over: stock is only compared with what is known, and differences are raised.
    /// For a second opinion on locations whose stock another source tells.
    #[serde(default)]
    pub reconcile_only: bool,
    /// The system whose facts these are. Of each article at each location one system is the
    /// authority; connectors that read several exports of one system name it alike, and then need
    /// `position: time`. Without it, the connector's own name.
    pub source: Option<String>,
    /// What orders the facts: `read`, the order of reading (default of `movements`), or `time`,
    /// their own times (default of `stock`).
    pub position: Option<PositionBy>,
    /// Lines to leave out, such as fees: those that match any of these.
    #[serde(default)]
    pub skip: Vec<Skip>,
    /// What the system is to the `orders` that it lists: the `channel` that sold them, or the `erp`.
    pub role: Option<Role>,
    /// What makes a line the same fact when it is read again: columns whose values name it. Without
    /// it, the file's name and the line's number; give it where a file may be delivered again.
    #[serde(default)]
    pub identity: Vec<String>,
    /// A last line without a line break is taken as whole when the file has not changed for this
    /// many seconds.
    #[serde(default = "last_line_after_s")]
    pub last_line_after_s: u64,
    /// Longest line, in bytes; a longer one is dead-lettered.
    #[serde(default = "line_bytes_max")]
    pub line_bytes_max: usize,
    /// Most lines in one transaction.
    #[serde(default = "batch_lines_max")]
    pub batch_lines_max: usize,
}

impl Settings {
    /// What orders the facts.
    pub fn ordered_by(&self) -> PositionBy {
        self.position.unwrap_or(match self.content {
            Content::Movements | Content::Settlement => PositionBy::Read,
            Content::Stock | Content::Orders => PositionBy::Time,
        })
    }
}

/// Form of the lines.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Comma-separated values with a line of column names.
    Csv,
    /// One JSON object on each line.
    JsonLines,
}

/// What the lines tell.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// Movements of goods.
    #[default]
    Movements,
    /// What is there.
    Stock,
    /// Lines of payouts.
    Settlement,
    /// Orders that a system has.
    Orders,
}

impl Content {
    /// As the settings write it.
    pub fn word(self) -> &'static str {
        match self {
            Content::Movements => "movements",
            Content::Stock => "stock",
            Content::Settlement => "settlement",
            Content::Orders => "orders",
        }
    }
}

/// What a system is to the orders that it lists.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It sold them.
    Channel,
    /// It keeps their books.
    Erp,
}

/// What the quantities of stock mean.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// All that is there and can be sold, reservations included.
    OnHand,
    /// Less what the system itself has reserved.
    AvailableNet,
}

/// What orders the facts.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum PositionBy {
    /// The order of reading.
    Read,
    /// Their own times.
    Time,
}

/// A value of a line.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum FieldName {
    Sku,
    Location,
    Quantity,
    Time,
    Kind,
    Unit,
    Order,
    OrderLine,
    Reservation,
    Movement,
    Document,
    Damaged,
    QualityHold,
    Incoming,
    Reserved,
    Psp,
    Payout,
    Line,
    Reference,
    Gross,
    GrossDebit,
    Fee,
    Net,
    NetDebit,
    Currency,
    ValueDate,
    Count,
    Channel,
    Number,
    External,
    Status,
    Amount,
}

impl FieldName {
    /// Of which contents it is, and whether it is needed there.
    pub fn of(self) -> (&'static [Content], bool) {
        use Content::{Movements, Orders, Settlement, Stock};
        use FieldName as F;
        match self {
            F::Time => (&[Movements, Stock, Settlement, Orders], true),
            F::Sku | F::Location | F::Quantity => (&[Movements, Stock], true),
            F::Kind => (&[Movements, Settlement], false),
            F::Unit | F::Order | F::OrderLine | F::Reservation | F::Movement | F::Document => {
                (&[Movements], false)
            }
            F::Damaged | F::QualityHold | F::Incoming | F::Reserved => (&[Stock], false),
            F::Psp | F::Payout | F::Currency => (&[Settlement], true),
            F::Line | F::Reference | F::Gross | F::GrossDebit | F::Fee | F::Net | F::NetDebit => {
                (&[Settlement], false)
            }
            F::ValueDate | F::Count => (&[Settlement], false),
            F::Channel | F::Number => (&[Orders], true),
            F::External | F::Status | F::Amount => (&[Orders], false),
        }
    }

    /// As the settings write it.
    pub fn word(self) -> &'static str {
        FieldName::WORDS
            .iter()
            .find(|(name, _)| *name == self)
            .map_or("", |(_, word)| word)
    }

    /// All of them, with their words.
    pub const WORDS: [(FieldName, &'static str); 32] = [
        (FieldName::Sku, "sku"),
        (FieldName::Location, "location"),
        (FieldName::Quantity, "quantity"),
        (FieldName::Time, "time"),
        (FieldName::Kind, "kind"),
        (FieldName::Unit, "unit"),
        (FieldName::Order, "order"),
        (FieldName::OrderLine, "order_line"),
        (FieldName::Reservation, "reservation"),
        (FieldName::Movement, "movement"),
        (FieldName::Document, "document"),
        (FieldName::Damaged, "damaged"),
        (FieldName::QualityHold, "quality_hold"),
        (FieldName::Incoming, "incoming"),
        (FieldName::Reserved, "reserved"),
        (FieldName::Psp, "psp"),
        (FieldName::Payout, "payout"),
        (FieldName::Line, "line"),
        (FieldName::Reference, "reference"),
        (FieldName::Gross, "gross"),
        (FieldName::GrossDebit, "gross_debit"),
        (FieldName::Fee, "fee"),
        (FieldName::Net, "net"),
        (FieldName::NetDebit, "net_debit"),
        (FieldName::Currency, "currency"),
        (FieldName::ValueDate, "value_date"),
        (FieldName::Count, "count"),
        (FieldName::Channel, "channel"),
        (FieldName::Number, "number"),
        (FieldName::External, "external"),
        (FieldName::Status, "status"),
        (FieldName::Amount, "amount"),
    ];
}

/// What a line means for the stock.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Movement {
    /// Goods go to a customer.
    #[default]
    Sale,
    /// Goods come back from a customer.
    Return,
    /// Goods come from a supplier.
    Receipt,
    /// Goods are lost.
    Shrink,
    /// Goods are found, as in a count.
    Found,
    /// Goods are damaged.
    Damage,
    /// Goods leave for another location.
    TransferOut,
    /// Goods arrive from another location.
    TransferIn,
}

/// Lines to leave out.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Skip {
    /// Column that is looked at.
    pub column: String,
    /// Values that leave the line out.
    #[serde(default)]
    pub equals: Vec<String>,
    /// Leaves out lines whose value holds no digit: codes that are no article numbers.
    #[serde(default)]
    pub without_digit: bool,
    /// Leaves out lines whose value holds nothing that this regular expression matches.
    #[serde(default)]
    pub unlike: Option<Pattern>,
}

fn comma() -> char {
    ','
}
fn point() -> char {
    '.'
}
fn utf_8() -> String {
    "utf-8".to_owned()
}
fn utc() -> String {
    "UTC".to_owned()
}
fn returned() -> Movement {
    Movement::Return
}
fn last_line_after_s() -> u64 {
    10
}
fn line_bytes_max() -> usize {
    1 << 18
}
fn batch_lines_max() -> usize {
    1_000
}
