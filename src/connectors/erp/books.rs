//! The books of an ERP's stand-in: tables whose rows carry the start of the transaction that wrote them,
//! and transactions that are kept open. Rows of an open one appear with its end, behind newer ones;
//! ids of one that was given up are never used.

use crate::domain::Timestamp;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A row.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Start of the transaction that made it.
    pub created_at: Timestamp,
    /// Start of the transaction that wrote it last.
    pub written_at: Timestamp,
    /// What it says.
    pub values: Map<String, Value>,
}

impl Stored {
    /// A text; empty where there is none.
    pub fn text(&self, field: &str) -> &str {
        let value = self.values.get(field).and_then(Value::as_str);
        value.unwrap_or_default()
    }

    /// A number; 0 where there is none.
    pub fn number(&self, field: &str) -> f64 {
        let value = self.values.get(field).and_then(Value::as_f64);
        value.unwrap_or_default()
    }

    /// An id; 0 where there is none.
    pub fn id(&self, field: &str) -> i64 {
        let value = self.values.get(field).and_then(Value::as_i64);
        value.unwrap_or_default()
    }

    /// Ids.
    pub fn ids(&self, field: &str) -> Vec<i64> {
        let list = self.values.get(field).and_then(Value::as_array);
        let list = list.into_iter().flatten();
        list.filter_map(Value::as_i64).collect()
    }
}

/// Rows by model and id.
pub type Tables = BTreeMap<&'static str, BTreeMap<i64, Stored>>;

/// Rows that others cannot see yet.
pub struct Transaction {
    /// The stamp of what it writes.
    pub started_at: Timestamp,
    /// The tables as they are for it.
    pub tables: Tables,
    written: BTreeSet<(&'static str, i64)>,
}

impl Transaction {
    /// A row.
    pub fn get(&self, model: &str, id: i64) -> Option<&Stored> {
        self.tables.get(model)?.get(&id)
    }

    /// The rows of a table, by id.
    pub fn rows(&self, model: &str) -> impl Iterator<Item = (i64, &Stored)> {
        let rows = self.tables.get(model).into_iter().flatten();
        rows.map(|(id, row)| (*id, row))
    }

    /// Writes some values of a row that there is.
    pub fn write(&mut self, model: &'static str, id: i64, values: Value) -> Result<(), String> {
        let row = self.tables.get_mut(model).and_then(|t| t.get_mut(&id));
        let row = row.ok_or_else(|| format!("{model} has no row {id}"))?;
        row.written_at = self.started_at;
        if let Value::Object(values) = values {
            row.values.extend(values);
        }
        self.written.insert((model, id));
        Ok(())
    }

    /// Takes a row out.
    pub fn delete(&mut self, model: &'static str, id: i64) {
        self.tables.get_mut(model).and_then(|t| t.remove(&id));
        self.written.insert((model, id));
    }
}

/// All tables, and who writes them.
pub struct Books {
    /// What everybody sees.
    pub tables: Tables,
    /// The clock of the stand-in.
    pub now: Timestamp,
    /// How far it goes on with each transaction.
    tick: Duration,
    /// Last id given out, by model: also by transactions that came to nothing.
    last_ids: BTreeMap<&'static str, i64>,
    open: BTreeMap<String, Transaction>,
}

impl Books {
    /// Empty books.
    pub fn new(now: Timestamp, tick: Duration) -> Self {
        Books {
            tables: Tables::new(),
            now,
            tick,
            last_ids: BTreeMap::new(),
            open: BTreeMap::new(),
        }
    }

    /// The next id of a model.
    pub fn next_id(&mut self, model: &'static str) -> i64 {
        let last = self.last_ids.entry(model).or_default();
        *last += 1;
        *last
    }

    /// Makes a row.
    pub fn create(&mut self, t: &mut Transaction, model: &'static str, values: Value) -> i64 {
        let id = self.next_id(model);
        let row = Stored {
            created_at: t.started_at,
            written_at: t.started_at,
            values: match values {
                Value::Object(values) => values,
                _ => Map::new(),
            },
        };
        t.tables.entry(model).or_default().insert(id, row);
        t.written.insert((model, id));
        id
    }

    /// A transaction that is over at once needs no copy of the books: it takes them, and
    /// [`Books::put_back`] ends it. Whoever begins it writes nothing before all is checked.
    pub fn at_once(&mut self) -> Transaction {
        self.now = self.now.plus(self.tick);
        Transaction {
            started_at: self.now,
            tables: std::mem::take(&mut self.tables),
            written: BTreeSet::new(),
        }
    }

    /// Ends a transaction of [`Books::at_once`].
    pub fn put_back(&mut self, t: Transaction) {
        self.tables = t.tables;
    }

    /// The transaction that this act is a part of: with `"in": NAME` one that is open, else one that
    /// is over at once. [`Books::end`] ends the part.
    pub fn part(&mut self, action: &Value) -> Result<Transaction, String> {
        match action["in"].as_str() {
            Some(name) => self.open.remove(name).ok_or_else(|| missing(name)),
            None => Ok(self.at_once()),
        }
    }

    /// Ends the part of a transaction that an act was.
    pub fn end(&mut self, action: &Value, t: Transaction) {
        match action["in"].as_str() {
            Some(name) => {
                self.open.insert(name.to_owned(), t);
            }
            None => self.put_back(t),
        }
    }

    /// `begin`, `commit`, `rollback` and `at`; `None` when the act is about something else.
    pub fn control(&mut self, action: &Value) -> Option<Result<Value, String>> {
        if let Some(at) = action["at"].as_i64() {
            self.now = Timestamp(at);
        }
        if let Some(name) = action["begin"].as_str() {
            self.now = self.now.plus(self.tick);
            let transaction = Transaction {
                started_at: self.now,
                tables: self.tables.clone(),
                written: BTreeSet::new(),
            };
            self.open.insert(name.to_owned(), transaction);
            return Some(Ok(Value::Null));
        }
        for end in ["commit", "rollback"] {
            let Some(name) = action[end].as_str() else {
                continue;
            };
            let Some(t) = self.open.remove(name) else {
                return Some(Err(missing(name)));
            };
            if end == "commit" {
                self.commit(t);
            }
            return Some(Ok(Value::Null));
        }
        match action.as_object() {
            Some(fields) if fields.keys().all(|k| k == "at") => Some(Ok(json!(null))),
            _ => None,
        }
    }

    fn commit(&mut self, mut t: Transaction) {
        for (model, id) in std::mem::take(&mut t.written) {
            let row = t.tables.get_mut(model).and_then(|rows| rows.remove(&id));
            let table = self.tables.entry(model).or_default();
            match row {
                Some(row) => table.insert(id, row),
                None => table.remove(&id),
            };
        }
    }
}

fn missing(name: &str) -> String {
    format!("no transaction {name} is open")
}
