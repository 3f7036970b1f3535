//! From a row to a fact: a movement of goods, the stock that is there, an order of a list. Lines of
//! payouts are in `payouts`.

use super::payouts::Control;
use super::row::{Row, Splitter};
use super::settings::{Basis, Content, FieldName, Format, Movement, PositionBy, Role, Settings};
use crate::connectors::manifest;
use crate::connectors::mapping::{self, FileProperty, Forms, bad};
use crate::contract::event::{
    EventMeta, ManifestEntry, OrderStatus, Origin, PositionKind, SnapshotBasis, StockChanged,
    StockReason, StockSnapshot, StockState, SystemRole, Text,
};
use crate::contract::topic;
use crate::domain::{Decimal, Timestamp, compound_key, event_id, order_id};
use crate::pipeline::{Code, Fault, SourceRecord, Stage};
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::{Error as ValueError, StrDeserializer};

/// A checked mapping.
pub struct Mapping {
    instance: String,
    settings: Settings,
    forms: Forms,
    /// Which files of a folder are read.
    pub names: glob::Pattern,
    /// Splits lines.
    pub splitter: Splitter,
}

/// What a row tells.
pub enum Fact {
    /// Something by itself.
    Record(SourceRecord),
    /// A line of a payout.
    Line {
        /// The payout.
        payout: String,
        /// The line.
        record: SourceRecord,
    },
    /// What a payout sums to, and of how many lines, where the row says so.
    Payout {
        /// The payout.
        payout: String,
        /// What it sums to.
        control: Control,
        /// Its lines.
        count: Option<i64>,
    },
    /// An order of a list.
    Listed(ManifestEntry),
}

/// Where a row was found.
pub struct Place<'a> {
    /// The file's name.
    pub file: &'a str,
    /// How many other files had this name before.
    pub generation: u32,
    /// Number of its line, from 1.
    pub line: u64,
    /// When the file was last changed.
    pub modified: Timestamp,
}

impl Mapping {
    /// # Errors
    /// All that is wrong with the settings.
    pub fn new(instance: &str, settings: &Settings) -> Result<Self, Fault> {
        let mut wrong = check_fields(settings);
        let time_zone = mapping::time_zone(&settings.time_zone).unwrap_or_else(|why| {
            wrong.push(why);
            jiff::tz::TimeZone::UTC
        });
        let names = settings.names.as_deref().unwrap_or("*");
        let names = glob::Pattern::new(names).unwrap_or_else(|e| {
            wrong.push(format!("names {names:?} is no pattern: {e}"));
            glob::Pattern::default()
        });
        match Splitter::new(settings) {
            Ok(splitter) if wrong.is_empty() => Ok(Mapping {
                instance: instance.to_owned(),
                settings: settings.clone(),
                forms: Forms {
                    decimal_mark: settings.decimal_mark,
                    group_mark: settings.group_mark,
                    time_format: settings.time_format.clone(),
                    time_zone,
                },
                names,
                splitter,
            }),
            result => {
                wrong.extend(result.err().into_iter().flatten());
                let message = format!("settings of {instance}: {}", wrong.join("; "));
                Err(Fault::halt(Stage::Read, Code::Configuration, message))
            }
        }
    }

    /// The columns that the settings name and a file lacks.
    pub fn missing<'a>(&'a self, columns: &[String]) -> Vec<&'a str> {
        let fields = self.settings.fields.values();
        let named = fields
            .filter_map(|f| f.column.as_ref())
            .chain(self.settings.skip.iter().map(|s| &s.column))
            .chain(&self.settings.identity);
        let mut missing: Vec<&str> = named
            .filter(|c| !columns.contains(c))
            .map(String::as_str)
            .collect();
        missing.sort_unstable();
        missing.dedup();
        missing
    }

    /// Whether the configuration leaves the line out.
    pub fn skips(&self, row: &Row) -> bool {
        self.settings.skip.iter().any(|s| {
            let value = row.value(&s.column).unwrap_or_default();
            s.equals.contains(&value)
                || s.unlike.as_ref().is_some_and(|p| !p.fits(&value))
                || (s.without_digit && !value.contains(|c: char| c.is_ascii_digit()))
        })
    }

    /// The fact that a row tells, with this place in the order of reading.
    ///
    /// # Errors
    /// A reject that names field and value.
    pub fn fact(&self, row: &Row, place: &Place<'_>, sequence: i64) -> Result<Fact, Fault> {
        let fields = Fields {
            row: Some(row),
            ..self.at(place)
        };
        match self.settings.content {
            Content::Settlement => return fields.settlement(sequence),
            Content::Orders => return fields.listed().map(Fact::Listed),
            Content::Movements | Content::Stock => {}
        }
        let sku = Text::from(fields.needed(FieldName::Sku)?);
        let location = Text::from(fields.needed(FieldName::Location)?);
        let key = compound_key(&[&sku, &location]);
        Ok(Fact::Record(match self.settings.content {
            Content::Stock => SourceRecord {
                topic: topic::STOCK_SNAPSHOT,
                key,
                event: fields.stock(sku, location, sequence)?.into(),
            },
            _ => SourceRecord {
                topic: topic::STOCK_CHANGE,
                key,
                event: fields.movement(sku, location, sequence)?.into(),
            },
        }))
    }

    /// What a file says by itself, without a row.
    pub fn at<'a>(&'a self, place: &'a Place<'a>) -> Fields<'a> {
        Fields {
            mapping: self,
            row: None,
            place,
        }
    }

    /// What the system is to the orders that it lists, if it lists any.
    pub fn role(&self) -> Option<SystemRole> {
        let role = self.settings.role.map(|role| match role {
            Role::Channel => SystemRole::Channel,
            Role::Erp => SystemRole::Erp,
        });
        role.filter(|_| self.settings.content == Content::Orders)
    }

    /// Name of the connector instance.
    pub fn instance(&self) -> &str {
        &self.instance
    }
}

/// One row under work.
pub struct Fields<'a> {
    mapping: &'a Mapping,
    row: Option<&'a Row>,
    place: &'a Place<'a>,
}

impl Fields<'_> {
    fn movement(&self, sku: Text, location: Text, sequence: i64) -> Result<StockChanged, Fault> {
        let settings = &self.mapping.settings;
        let quantity = self.quantity(FieldName::Quantity)?.unwrap_or_default();
        if quantity.is_zero() {
            return Err(bad("quantity is 0: nothing moved".to_owned()));
        }
        let kind = match self.optional(FieldName::Kind) {
            Some(kind) => kind_of(&kind)?,
            None if quantity.is_negative() => settings.negative,
            None => settings.positive,
        };
        let (from_state, to_state, reason) = meaning_of(kind);
        let record_id = self.record_id()?;
        let order_id = self.text(FieldName::Order);
        let reservation_id = match self.optional(FieldName::Reservation) {
            None => None,
            Some(id) => Some(
                id.parse()
                    .map_err(|e| bad(format!("reservation {id:?} is no UUID: {e}")))?,
            ),
        };
        let correlation = order_id
            .clone()
            .unwrap_or_else(|| record_id.as_str().into());
        Ok(StockChanged {
            meta: self.meta("StockChanged", &record_id, correlation, sequence)?,
            movement_id: self
                .text(FieldName::Movement)
                .unwrap_or_else(|| record_id.as_str().into()),
            sku,
            location_id: location,
            from_state,
            to_state,
            qty: match quantity.is_negative() {
                true => -quantity,
                false => quantity,
            },
            uom: self.text(FieldName::Unit).unwrap_or_else(|| "EA".into()),
            reason,
            document_ref: self.text(FieldName::Document).or_else(|| order_id.clone()),
            order_id,
            order_line_id: self.text(FieldName::OrderLine),
            reservation_id,
            ..StockChanged::default()
        })
    }

    fn stock(&self, sku: Text, location: Text, sequence: i64) -> Result<StockSnapshot, Fault> {
        let settings = &self.mapping.settings;
        let quantity = self.quantity(FieldName::Quantity)?;
        let record_id = self.record_id()?;
        let correlation = record_id.as_str().into();
        let mut meta = self.meta("StockSnapshot", &record_id, correlation, sequence)?;
        meta.origin = match settings.reconcile_only {
            true => Origin::Reconciliation,
            false => Origin::Snapshot,
        };
        Ok(StockSnapshot {
            snapshot_id: compound_key(&[&self.mapping.instance, &record_id]),
            sku,
            location_id: location,
            basis: match settings.basis {
                Some(Basis::AvailableNet) => SnapshotBasis::AvailableNet,
                _ => SnapshotBasis::OnHand,
            },
            sellable: quantity.ok_or_else(|| empty(FieldName::Quantity))?,
            damaged: self.quantity(FieldName::Damaged)?,
            quality_hold: self.quantity(FieldName::QualityHold)?,
            in_transit_in: self.quantity(FieldName::Incoming)?,
            source_reserved: self.quantity(FieldName::Reserved)?,
            as_of_epoch: meta.source_epoch,
            as_of_position: meta.source_position,
            as_of: meta.occurred_at,
            meta,
        })
    }

    /// An order that the system has.
    fn listed(&self) -> Result<ManifestEntry, Fault> {
        let channel = self.needed(FieldName::Channel)?;
        let number = self.needed(FieldName::Number)?;
        let status = match self.optional(FieldName::Status) {
            None => None,
            Some(status) => match OrderStatus::from_symbol(&status) {
                Some(known) if known != OrderStatus::Unknown => Some(known.symbol()),
                _ => {
                    return Err(bad(format!(
                        "status {status:?} is none of an order, such as PLACED, ACCEPTED, SHIPPED or CANCELLED; name it in the map of the field status"
                    )));
                }
            },
        };
        let external = self.optional(FieldName::External).unwrap_or(number.clone());
        let order = order_id("default", &channel, &number).to_string();
        let amount = self.quantity(FieldName::Amount)?;
        Ok(manifest::entry(
            &order,
            &external,
            self.time()?,
            status,
            amount,
        ))
    }

    /// The file, also where others had its name before.
    pub fn file(&self) -> String {
        match (self.place.file, self.place.generation) {
            (file, 0) => file.to_owned(),
            (file, n) => format!("{file}~{n}"),
        }
    }

    pub fn meta(
        &self,
        event_type: &str,
        record_id: &str,
        correlation_id: Text,
        sequence: i64,
    ) -> Result<EventMeta, Fault> {
        let at = (self.time()?, sequence);
        Ok(self.meta_at(event_type, record_id, correlation_id, at))
    }

    pub fn meta_at(
        &self,
        event_type: &str,
        record_id: &str,
        correlation_id: Text,
        (occurred_at, sequence): (Timestamp, i64),
    ) -> EventMeta {
        let settings = &self.mapping.settings;
        let instance = self.mapping.instance.as_str();
        let (source_position, position_kind) = match settings.ordered_by() {
            PositionBy::Read => (sequence, PositionKind::Sequence),
            PositionBy::Time => (occurred_at.0, PositionKind::TimestampMicros),
        };
        EventMeta {
            event_id: event_id(instance, 0, record_id, "", event_type),
            event_type: event_type.into(),
            source: settings.source.as_deref().unwrap_or(instance).into(),
            source_position,
            position_kind,
            occurred_at,
            tenant_id: "default".into(),
            correlation_id,
            origin: Origin::Source,
            ..EventMeta::default()
        }
    }

    /// The source's own identity of the fact.
    pub fn record_id(&self) -> Result<String, Fault> {
        let columns = &self.mapping.settings.identity;
        if columns.is_empty() {
            return Ok(format!("{}:{}", self.file(), self.place.line));
        }
        // A fee has no reference, where a capture has one.
        let may_lack = self.mapping.settings.content == Content::Settlement;
        let part = |column: &String| {
            let found = self.value(column).filter(|v| may_lack || !v.is_empty());
            found.ok_or_else(|| {
                bad(format!(
                    "column {column}, which identity names, is empty or missing"
                ))
            })
        };
        let parts: Vec<String> = columns.iter().map(part).collect::<Result<_, _>>()?;
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        Ok(compound_key(&parts).into())
    }

    pub fn needed(&self, name: FieldName) -> Result<String, Fault> {
        self.optional(name).ok_or_else(|| empty(name))
    }

    pub fn text(&self, name: FieldName) -> Option<Text> {
        self.optional(name).map(Text::from)
    }

    pub fn optional(&self, name: FieldName) -> Option<String> {
        let field = self.mapping.settings.fields.get(&name)?;
        let value = match (&field.column, &field.constant, field.file) {
            (Some(column), ..) => self.value(column)?,
            (_, Some(constant), _) => constant.clone(),
            (_, _, Some(FileProperty::Name)) => self.place.file.to_owned(),
            _ => return None,
        };
        field.replaced(value)
    }

    fn value(&self, column: &str) -> Option<String> {
        self.row?.value(column)
    }

    pub fn quantity(&self, name: FieldName) -> Result<Option<Decimal>, Fault> {
        let text = self.optional(name);
        let read = |text: String| self.mapping.forms.decimal(name.word(), &text);
        text.map(read).transpose()
    }

    pub fn time(&self) -> Result<Timestamp, Fault> {
        let settings = &self.mapping.settings;
        let source = settings.fields.get(&FieldName::Time);
        if source.and_then(|s| s.file) == Some(FileProperty::Modified) {
            return Ok(self.place.modified);
        }
        let text = self.needed(FieldName::Time)?;
        self.time_of("time", &text)
    }

    pub fn time_of(&self, name: &str, text: &str) -> Result<Timestamp, Fault> {
        self.mapping.forms.time(name, text)
    }
}

/// All that is wrong with where the values come from.
fn check_fields(settings: &Settings) -> Vec<String> {
    let mut wrong = Vec::new();
    let content = settings.content;
    for (name, word) in FieldName::WORDS {
        let (contents, is_needed) = name.of();
        let Some(field) = settings.fields.get(&name) else {
            if is_needed && contents.contains(&content) {
                wrong.push(format!("fields lacks {word}; say where it comes from"));
            }
            continue;
        };
        if field.given() != 1 {
            wrong.push(format!(
                "field {word} needs one of column, constant and file"
            ));
        }
        if field.file == Some(FileProperty::Modified) && name != FieldName::Time {
            wrong.push(format!("field {word}: only time can come from modified"));
        }
        if !contents.contains(&content) {
            let of: Vec<&str> = contents.iter().map(|c| c.word()).collect();
            let of = of.join(" and ");
            wrong.push(format!("field {word} is of content: {of} only"));
        }
    }
    let has = |name| settings.fields.contains_key(&name);
    if content == Content::Settlement {
        let amounts = [FieldName::Gross, FieldName::GrossDebit, FieldName::Fee];
        let amounts = amounts
            .into_iter()
            .chain([FieldName::Net, FieldName::NetDebit]);
        if !amounts.into_iter().any(has) {
            wrong.push("fields lacks gross, fee and net; give two of them".to_owned());
        }
        if !has(FieldName::Kind) {
            wrong.push("fields lacks kind; say where it comes from".to_owned());
        }
        if !has(FieldName::Line) && settings.identity.is_empty() {
            wrong.push(
                "fields lacks line: give it, or identity, so that a report that comes again is the same"
                    .to_owned(),
            );
        }
    }
    if content == Content::Orders
        && let Some(time) = settings.fields.get(&FieldName::Time)
        && time.column.is_some()
    {
        wrong.push(
            "field time: a list of orders has one time: take it from file: name or modified"
                .to_owned(),
        );
    }
    if (content == Content::Orders) != settings.role.is_some() {
        wrong.push(
            "content: orders needs role, channel or erp; no other content has one".to_owned(),
        );
    }
    match (settings.content, settings.basis) {
        (Content::Stock, None) => wrong.push(
            "content: stock needs a basis: on_hand, or available_net where the system's own reservations are off already".to_owned(),
        ),
        (Content::Stock, Some(_)) | (_, None) => {}
        (_, Some(_)) => wrong.push("basis is of content: stock only".to_owned()),
    }
    if settings.reconcile_only && settings.content != Content::Stock {
        wrong.push("reconcile_only is of content: stock only".to_owned());
    }
    if settings.source.is_some() && settings.ordered_by() == PositionBy::Read {
        wrong.push(
            "source needs position: time, for the order of reading is each connector's own"
                .to_owned(),
        );
    }
    if settings.format == Format::JsonLines && !settings.columns.is_empty() {
        wrong.push("columns is of format: csv only".to_owned());
    }
    if settings.group_mark == Some(settings.decimal_mark) {
        wrong.push("group_mark and decimal_mark are the same".to_owned());
    }
    for (name, number) in [
        ("line_bytes_max", settings.line_bytes_max),
        ("batch_lines_max", settings.batch_lines_max),
    ] {
        if number == 0 {
            wrong.push(format!("{name} must be more than 0"));
        }
    }
    wrong
}

fn kind_of(word: &str) -> Result<Movement, Fault> {
    let deserializer: StrDeserializer<'_, ValueError> = word.into_deserializer();
    Movement::deserialize(deserializer)
        .map_err(|e| bad(format!("kind: {e}; name it in the map of the field kind")))
}

fn meaning_of(kind: Movement) -> (StockState, StockState, StockReason) {
    use StockReason as Reason;
    use StockState::{Customer, Damaged, InTransit, Loss, Sellable, Supplier};
    match kind {
        Movement::Sale => (Sellable, Customer, Reason::Sale),
        Movement::Return => (Customer, Sellable, Reason::Return),
        Movement::Receipt => (Supplier, Sellable, Reason::Receipt),
        Movement::Shrink => (Sellable, Loss, Reason::Shrink),
        Movement::Found => (Loss, Sellable, Reason::CountAdjustment),
        Movement::Damage => (Sellable, Damaged, Reason::Damage),
        Movement::TransferOut => (Sellable, InTransit, Reason::TransferOut),
        Movement::TransferIn => (InTransit, Sellable, Reason::TransferIn),
    }
}

/// A value that is needed is not there.
pub fn empty(name: FieldName) -> Fault {
    bad(format!("{} is empty or its column is missing", name.word()))
}
