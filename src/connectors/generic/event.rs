//! From JSON to events: the contract's own schema says which fields there are and what each must be.
//!
//! An event is written in Avro's binary form, field by field as the schema has them, and read back as
//! the compiled type. So whatever contract there is can be mapped, and nothing that is no value of it
//! comes through.

use super::settings::{EventMapping, Settings};
use crate::connectors::mapping::{self, FieldSource, Forms, bad, plain};
use crate::connectors::webhook::Delivery;
use crate::contract::Catalogue;
use crate::contract::event::{Event, EventMeta, Origin, PositionKind, Text};
use crate::domain::{Timestamp, compound_key, event_id, natural_id, order_id};
use crate::pipeline::{Code, Fault, SourceRecord, Stage};
use serde_json::Value;
use std::collections::BTreeMap;
use uuid::Uuid;

/// Checked mappings.
pub struct Mappings {
    instance: String,
    source: String,
    forms: Forms,
    mappings: Vec<Mapping>,
    ignore: Vec<BTreeMap<String, Vec<String>>>,
}

struct Mapping {
    settings: EventMapping,
    topic: &'static str,
    contract: &'static str,
    schema: Value,
    /// Record types by full name, wherever they are used again.
    named: BTreeMap<String, Value>,
    key: Vec<String>,
}

/// What paths are looked up in.
#[derive(Clone, Copy)]
struct Scope<'a> {
    delivery: &'a Delivery,
    body: &'a Value,
    /// Where paths begin.
    element: &'a Value,
}

impl Scope<'_> {
    fn value(&self, path: &str) -> Option<String> {
        if let Some(header) = path.strip_prefix('@') {
            return self
                .delivery
                .header(&header.to_ascii_lowercase())
                .map(str::to_owned);
        }
        self.at(path).map(plain).filter(|v| !v.is_empty())
    }
    fn at(&self, path: &str) -> Option<&Value> {
        match path.strip_prefix('$') {
            Some(path) => self.body.pointer(path),
            None => self.element.pointer(path),
        }
    }
    fn fits(&self, when: &BTreeMap<String, Vec<String>>) -> bool {
        let fits = |(path, values): (&String, &Vec<String>)| {
            self.value(path).is_some_and(|v| values.contains(&v))
        };
        when.iter().all(fits)
    }
    fn of(&self, source: &FieldSource) -> Option<String> {
        let value = match (&source.column, &source.constant) {
            (Some(path), _) => self.value(path).unwrap_or_default(),
            (None, Some(constant)) => constant.clone(),
            (None, None) => return None,
        };
        source.replaced(value)
    }
}

impl Mappings {
    /// # Errors
    /// All that is wrong with the declared mappings.
    pub fn new(instance: &str, settings: &Settings) -> Result<Self, Fault> {
        let mut wrong = Vec::new();
        let time_zone = mapping::time_zone(&settings.time_zone).unwrap_or_else(|why| {
            wrong.push(why);
            jiff::tz::TimeZone::UTC
        });
        let mut mappings = Vec::new();
        for (at, event) in settings.events.iter().enumerate() {
            match Mapping::new(event) {
                Ok(mapping) => mappings.push(mapping),
                Err(found) => wrong.extend(found.into_iter().map(|w| format!("events.{at}: {w}"))),
            }
        }
        if !wrong.is_empty() {
            let message = format!("settings of {instance}: {}", wrong.join("; "));
            return Err(Fault::halt(Stage::Read, Code::Configuration, message));
        }
        Ok(Mappings {
            instance: instance.to_owned(),
            source: settings
                .source
                .clone()
                .unwrap_or_else(|| instance.to_owned()),
            forms: Forms {
                decimal_mark: settings.decimal_mark,
                group_mark: None,
                time_format: settings.time_format.clone(),
                time_zone,
            },
            mappings,
            ignore: settings.ignore.clone(),
        })
    }

    /// The system whose facts these are.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The events that a delivery tells; the first has the position `sequence`.
    ///
    /// # Errors
    /// A rejection of the whole delivery that names field and value.
    pub fn events(&self, delivery: &Delivery, sequence: i64) -> Result<Vec<SourceRecord>, Fault> {
        let body = delivery.json()?;
        let whole = Scope {
            delivery,
            body: &body,
            element: &body,
        };
        let mut found = Vec::new();
        let mut is_known = self.ignore.iter().any(|when| whole.fits(when));
        for mapping in &self.mappings {
            if !whole.fits(&mapping.settings.when) {
                continue;
            }
            is_known = true;
            let elements: Vec<&Value> = match &mapping.settings.each {
                None => vec![&body],
                Some(path) => match body.pointer(path).and_then(Value::as_array) {
                    Some(list) => list.iter().collect(),
                    None => return Err(bad(format!("there is no list at {path}"))),
                },
            };
            for element in elements {
                let scope = Scope { element, ..whole };
                let position = sequence + found.len() as i64;
                found.push(self.event(mapping, scope, position)?);
            }
        }
        match is_known {
            true => Ok(found),
            false => Err(bad(
                "none of the declared events fits it; declare one, or have it left out with `ignore`"
                    .to_owned(),
            )),
        }
    }

    fn event(
        &self,
        mapping: &Mapping,
        scope: Scope<'_>,
        position: i64,
    ) -> Result<SourceRecord, Fault> {
        let settings = &mapping.settings;
        let mut parts = Vec::new();
        for path in &settings.identity {
            let part = scope.value(path);
            parts.push(part.ok_or_else(|| bad(format!("{path}, which identity names, is empty")))?);
        }
        let record_id = compound_key(&parts.iter().map(String::as_str).collect::<Vec<_>>());
        let time = scope.of(&settings.time);
        let time = time.ok_or_else(|| bad("time is empty".to_owned()))?;
        let occurred_at = self.forms.time("time", &time)?;
        let order = match &settings.order {
            None => None,
            Some(order) => {
                let needed = |name: &str, source: &FieldSource| {
                    let value = scope.of(source);
                    value.ok_or_else(|| bad(format!("order.{name} is empty")))
                };
                let channel = needed("channel", &order.channel)?;
                let number = needed("number", &order.number)?;
                Some(order_id("default", &channel, &number).to_string())
            }
        };
        let writer = Writer {
            mappings: self,
            mapping,
            order: order.as_deref(),
        };
        let mut bytes = Vec::new();
        writer.record(&mapping.schema, "", &settings.fields, scope, &mut bytes)?;
        let decoded = Event::decode(mapping.contract, &mut bytes.as_slice());
        let mut event = match decoded {
            Some(Ok(event)) => event,
            Some(Err(e)) => return Err(bad(format!("not a {}", mapping.contract)).caused_by(e)),
            None => return Err(bad(format!("{} is not known", mapping.contract))),
        };
        let event_type = mapping.contract.rsplit('.').next().unwrap_or_default();
        *event.meta_mut() = EventMeta {
            event_id: event_id(&self.instance, 0, &record_id, "", event_type),
            event_type: event_type.into(),
            source: self.source.as_str().into(),
            source_position: position,
            position_kind: PositionKind::Sequence,
            occurred_at,
            tenant_id: "default".into(),
            correlation_id: order.as_deref().map_or(record_id, Text::from),
            origin: Origin::Source,
            ..EventMeta::default()
        };
        let json = serde_json::to_value(&event).unwrap_or_default();
        let mut key = Vec::new();
        for part in &mapping.key {
            let value = json.get(part).map(plain).filter(|v| !v.is_empty());
            key.push(value.ok_or_else(|| bad(format!("{part}, which the key needs, is empty")))?);
        }
        Ok(SourceRecord {
            topic: mapping.topic,
            key: compound_key(&key.iter().map(String::as_str).collect::<Vec<_>>()),
            event,
        })
    }
}

impl Mapping {
    fn new(settings: &EventMapping) -> Result<Self, Vec<String>> {
        let catalogue = Catalogue::compiled();
        let topic = super::EMITS.iter().copied().find(|t| *t == settings.topic);
        let contract = catalogue.contract(&settings.topic);
        let found = Event::CONTRACTS
            .iter()
            .find(|(name, _)| Some(*name) == contract);
        let (Some(topic), Some(&(contract, schema))) = (topic, found) else {
            return Err(vec![format!(
                "topic {:?} cannot be written; write one of {}",
                settings.topic,
                super::EMITS.join(", ")
            )]);
        };
        let schema: Value = serde_json::from_str(schema).map_err(|e| vec![e.to_string()])?;
        let mut named = BTreeMap::new();
        collect(&schema, "", &mut named);
        let key = catalogue.key_parts(topic);
        let mapping = Mapping {
            topic,
            contract,
            key: key
                .into_iter()
                // Settlements that carry no reference are keyed by their payout.
                .map(|part| {
                    if part == "entityKey" {
                        "payoutId"
                    } else {
                        part
                    }
                })
                .map(str::to_owned)
                .collect(),
            schema,
            named,
            settings: settings.clone(),
        };
        let wrong = mapping.mistakes();
        match wrong.is_empty() {
            true => Ok(mapping),
            false => Err(wrong),
        }
    }

    fn mistakes(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.settings.identity.is_empty() {
            wrong.push("identity names nothing; name what makes it the same fact".to_owned());
        }
        let mut check = |name: &str, source: &FieldSource| {
            if source.given() != 1 || source.file.is_some() {
                wrong.push(format!("{name} needs one of column and constant"));
            }
        };
        check("time", &self.settings.time);
        for (name, source) in &self.settings.fields {
            check(name, source);
        }
        if let Some(order) = &self.settings.order {
            check("order.channel", &order.channel);
            check("order.number", &order.number);
        }
        self.unknown(&self.schema, &self.settings.fields, "", &mut wrong);
        self.absent(&self.schema, &self.settings.fields, ("", ""), &mut wrong);
        for (list, mapping) in &self.settings.lists {
            let items = self.walk(&self.schema, list).map(|t| &t["items"]);
            let items = items.map(|t| self.resolve(t));
            let Some(items) = items.filter(|t| t["type"] == "record") else {
                wrong.push(format!("{list} is no list of {}", self.contract));
                continue;
            };
            for (name, source) in &mapping.fields {
                if source.given() != 1 || source.file.is_some() {
                    wrong.push(format!("{list}.{name} needs one of column and constant"));
                }
            }
            let of = format!("{list}.");
            self.unknown(items, &mapping.fields, &of, &mut wrong);
            self.absent(items, &mapping.fields, (&of, ""), &mut wrong);
        }
        wrong
    }

    fn unknown(
        &self,
        record: &Value,
        fields: &BTreeMap<String, FieldSource>,
        of: &str,
        wrong: &mut Vec<String>,
    ) {
        for name in fields.keys() {
            if self.walk(record, name).is_none() || name.starts_with("meta") {
                wrong.push(format!("{} has no field {of}{name}", self.contract));
            }
        }
    }

    /// Names what the contract needs and nothing gives, in the record at `at` of the list or event `of`.
    fn absent(
        &self,
        record: &Value,
        fields: &BTreeMap<String, FieldSource>,
        (of, at): (&str, &str),
        wrong: &mut Vec<String>,
    ) {
        let lists = of.is_empty().then_some(&self.settings.lists);
        for field in record["fields"].as_array().into_iter().flatten() {
            let name = field["name"].as_str().unwrap_or_default();
            let path = format!("{at}{name}");
            let inside = format!("{path}.");
            let has_list = |wanted: &dyn Fn(&str) -> bool| {
                lists.is_some_and(|lists| lists.keys().any(|l| wanted(l)))
            };
            let is_inside = fields.keys().any(|f| f.starts_with(&inside))
                || has_list(&|l| l.starts_with(&inside));
            let is_given = fields.contains_key(&path)
                || has_list(&|l| l == path)
                || (of.is_empty() && path == "orderId" && self.settings.order.is_some());
            if is_inside {
                self.absent(self.resolve(&field["type"]), fields, (of, &inside), wrong);
            } else if path != "meta" && field.get("default").is_none() && !is_given {
                wrong.push(format!("{of}{path} must be given"));
            }
        }
    }

    /// The type at a path of fields.
    fn walk<'s>(&'s self, record: &'s Value, path: &str) -> Option<&'s Value> {
        let mut at = record;
        for part in path.split('.') {
            at = self.resolve(self.field(at, part)?);
        }
        Some(at)
    }

    /// The type of a field of a record.
    fn field<'s>(&'s self, record: &'s Value, name: &str) -> Option<&'s Value> {
        let mut fields = record["fields"].as_array()?.iter();
        fields.find(|f| f["name"] == name).map(|f| &f["type"])
    }

    /// A type itself: not null, not by name.
    fn resolve<'s>(&'s self, schema: &'s Value) -> &'s Value {
        match schema {
            Value::Array(branches) => branches
                .iter()
                .find(|b| *b != "null")
                .map_or(schema, |b| self.resolve(b)),
            Value::String(name) => self.named.get(name).unwrap_or(schema),
            Value::Object(object) if object["type"].is_object() => self.resolve(&object["type"]),
            other => other,
        }
    }
}

/// Gathers the named types of a schema.
fn collect(schema: &Value, namespace: &str, named: &mut BTreeMap<String, Value>) {
    match schema {
        Value::Array(branches) => branches.iter().for_each(|b| collect(b, namespace, named)),
        Value::Object(object) => {
            let namespace = object
                .get("namespace")
                .and_then(Value::as_str)
                .unwrap_or(namespace);
            if let Some(name) = object.get("name").and_then(Value::as_str)
                && object
                    .get("type")
                    .is_some_and(|t| t == "record" || t == "enum")
            {
                named.insert(format!("{namespace}.{name}"), schema.clone());
                named.insert(name.to_owned(), schema.clone());
            }
            for part in ["type", "items", "fields"] {
                if let Some(inner) = object.get(part) {
                    collect(inner, namespace, named);
                }
            }
        }
        _ => {}
    }
}

/// Writes one event in Avro's binary form.
struct Writer<'a> {
    mappings: &'a Mappings,
    mapping: &'a Mapping,
    order: Option<&'a str>,
}

impl Writer<'_> {
    fn record(
        &self,
        record: &Value,
        at: &str,
        fields: &BTreeMap<String, FieldSource>,
        scope: Scope<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        for field in record["fields"].as_array().into_iter().flatten() {
            let name = field["name"].as_str().unwrap_or_default();
            let path = format!("{at}{name}");
            let schema = &field["type"];
            if path == "meta" {
                self.empty(self.mapping.resolve(schema), out);
                continue;
            }
            if let Some(list) = self.mapping.settings.lists.get(&path) {
                self.list(schema, &path, list, scope, out)?;
                continue;
            }
            let written = self.value(schema, &path, fields, scope, out)?;
            if !written {
                match field.get("default") {
                    Some(default) => self.default(schema, default, out),
                    None => return Err(bad(format!("{path} is empty or missing"))),
                }
            }
        }
        Ok(())
    }

    /// Writes a value where there is one; gives whether there was.
    fn value(
        &self,
        schema: &Value,
        path: &str,
        fields: &BTreeMap<String, FieldSource>,
        scope: Scope<'_>,
        out: &mut Vec<u8>,
    ) -> Result<bool, Fault> {
        let prefix = format!("{path}.");
        let resolved = self.mapping.resolve(schema);
        let text = match fields.get(path) {
            Some(source) => scope.of(source),
            None if path == "orderId" => self.order.map(str::to_owned),
            None => None,
        };
        let mut bytes = Vec::new();
        let lists = self.mapping.settings.lists.iter();
        let mut lists = lists
            .filter(|(name, _)| name.starts_with(&prefix))
            .peekable();
        let inside: Vec<&FieldSource> = fields
            .iter()
            .filter(|(name, _)| name.starts_with(&prefix))
            .map(|(_, source)| source)
            .collect();
        if resolved["type"] == "record" && (!inside.is_empty() || lists.peek().is_some()) {
            // What is constant says nothing about whether it is there.
            let is_there = inside
                .iter()
                .any(|source| source.constant.is_none() && scope.of(source).is_some())
                || lists.any(|(_, list)| scope.at(&list.each).is_some());
            if schema.is_array() && !is_there {
                return Ok(false);
            }
            self.record(resolved, &prefix, fields, scope, &mut bytes)?;
        } else if let Some(text) = text {
            self.scalar(resolved, path, &text, &mut bytes)?;
        } else {
            return Ok(false);
        }
        if let Some(branches) = schema.as_array() {
            let branch = branches
                .iter()
                .position(|b| b != "null")
                .unwrap_or_default();
            long(branch as i64, out);
        }
        out.extend(bytes);
        Ok(true)
    }

    fn list(
        &self,
        schema: &Value,
        name: &str,
        list: &super::settings::ListMapping,
        scope: Scope<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        let elements = scope.at(&list.each).and_then(Value::as_array);
        let elements =
            elements.ok_or_else(|| bad(format!("{name}: there is no list at {}", list.each)))?;
        let items = self.mapping.resolve(&self.mapping.resolve(schema)["items"]);
        if !elements.is_empty() {
            long(elements.len() as i64, out);
        }
        for (at, element) in elements.iter().enumerate() {
            let scope = Scope { element, ..scope };
            self.element(items, &list.fields, scope, out)
                .map_err(|fault| Fault {
                    message: format!("{name} {}: {}", at + 1, fault.message),
                    ..fault
                })?;
        }
        long(0, out);
        Ok(())
    }

    fn element(
        &self,
        record: &Value,
        fields: &BTreeMap<String, FieldSource>,
        scope: Scope<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        for field in record["fields"].as_array().into_iter().flatten() {
            let name = field["name"].as_str().unwrap_or_default();
            let schema = &field["type"];
            if !self.value(schema, name, fields, scope, out)? {
                match field.get("default") {
                    Some(default) => self.default(schema, default, out),
                    None => return Err(bad(format!("{name} is empty or missing"))),
                }
            }
        }
        Ok(())
    }

    fn scalar(
        &self,
        schema: &Value,
        path: &str,
        text: &str,
        out: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        let kind = schema["type"]
            .as_str()
            .or(schema.as_str())
            .unwrap_or_default();
        let wrong = |what: &str| bad(format!("{path} {text:?} is not {what}"));
        match (kind, schema["logicalType"].as_str()) {
            ("string", Some("uuid")) => {
                let id = Uuid::parse_str(text);
                let id = id.unwrap_or_else(|_| natural_id(&[&self.mappings.source, path, text]));
                string(&id.to_string(), out);
            }
            ("string", _) => string(text, out),
            ("long", Some("timestamp-micros")) => {
                let Timestamp(micros) = self.mappings.forms.time(path, text)?;
                long(micros, out);
            }
            ("int", Some("date")) => {
                let day: jiff::civil::Date =
                    text.parse().map_err(|_| wrong("a date as in 2026-11-26"))?;
                let since = day - jiff::civil::date(1970, 1, 1);
                long(i64::from(since.get_days()), out);
            }
            ("int", _) => long(
                i64::from(text.parse::<i32>().map_err(|_| wrong("a whole number"))?),
                out,
            ),
            ("long", _) => long(text.parse().map_err(|_| wrong("a whole number"))?, out),
            ("boolean", _) => match text {
                "true" => out.push(1),
                "false" => out.push(0),
                _ => return Err(wrong("true or false")),
            },
            ("bytes", Some("decimal")) => {
                let units = self.mappings.forms.decimal(path, text)?.units();
                let scale = schema["scale"].as_u64().unwrap_or(4).saturating_sub(4);
                let units = i128::from(units) * 10i128.pow(scale as u32);
                decimal(units, out);
            }
            ("enum", _) => {
                let symbols = schema["symbols"].as_array().map_or(&[][..], Vec::as_slice);
                let at = symbols
                    .iter()
                    .position(|s| s == text)
                    .filter(|_| text != "UNKNOWN");
                let at =
                    at.ok_or_else(|| wrong("a word of the contract; name it in the field's map"))?;
                long(at as i64, out);
            }
            _ => return Err(wrong("something that can be mapped")),
        }
        Ok(())
    }

    /// The schema's own default.
    fn default(&self, schema: &Value, default: &Value, out: &mut Vec<u8>) {
        if let Some(branches) = schema.as_array() {
            // The default of a union is of its first branch.
            long(0, out);
            if let Some(first) = branches.first().filter(|b| *b != "null") {
                self.default(first, default, out);
            }
            return;
        }
        let resolved = self.mapping.resolve(schema);
        let kind = resolved["type"]
            .as_str()
            .or(resolved.as_str())
            .unwrap_or_default();
        match (kind, default) {
            ("string", Value::String(text)) => string(text, out),
            ("enum", Value::String(text)) => {
                let symbols = resolved["symbols"]
                    .as_array()
                    .map_or(&[][..], Vec::as_slice);
                long(
                    symbols.iter().position(|s| s == text).unwrap_or_default() as i64,
                    out,
                );
            }
            ("boolean", Value::Bool(value)) => out.push(u8::from(*value)),
            ("int" | "long", Value::Number(number)) => {
                long(number.as_i64().unwrap_or_default(), out)
            }
            _ => self.empty(resolved, out),
        }
    }

    /// A value of the type that says nothing.
    fn empty(&self, schema: &Value, out: &mut Vec<u8>) {
        if schema.is_array() {
            return long(0, out);
        }
        let resolved = self.mapping.resolve(schema);
        match resolved["type"]
            .as_str()
            .or(resolved.as_str())
            .unwrap_or_default()
        {
            "record" => {
                for field in resolved["fields"].as_array().into_iter().flatten() {
                    self.empty(&field["type"], out);
                }
            }
            "string" if resolved["logicalType"] == "uuid" => string(&Uuid::nil().to_string(), out),
            "bytes" => decimal(0, out),
            "null" => {}
            "boolean" => out.push(0),
            // An empty text, the number 0, the first word, no element.
            _ => long(0, out),
        }
    }
}

/// Avro's variable-length number.
fn long(value: i64, out: &mut Vec<u8>) {
    let mut zigzag = ((value << 1) ^ (value >> 63)) as u64;
    while zigzag >= 0x80 {
        out.push((zigzag as u8) | 0x80);
        zigzag >>= 7;
    }
    out.push(zigzag as u8);
}

fn string(text: &str, out: &mut Vec<u8>) {
    long(text.len() as i64, out);
    out.extend_from_slice(text.as_bytes());
}

/// The shortest two's complement, big-endian.
fn decimal(units: i128, out: &mut Vec<u8>) {
    let bytes = units.to_be_bytes();
    let mut from = 0;
    while from < bytes.len() - 1 {
        let (here, next) = (bytes[from], bytes[from + 1]);
        let is_padding = (here == 0 && next < 0x80) || (here == 0xff && next >= 0x80);
        if !is_padding {
            break;
        }
        from += 1;
    }
    long((bytes.len() - from) as i64, out);
    out.extend_from_slice(&bytes[from..]);
}
