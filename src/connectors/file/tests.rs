//! What a file connector makes of folders and files, as its runtime sees it.

use super::source::FileSource;
use super::{DESCRIPTOR, Settings};
use crate::contract::event::{
    Event, Origin, PositionKind, SnapshotBasis, StockChanged, StockReason, StockSnapshot,
};
use crate::contract::topic;
use crate::domain::{Decimal, Timestamp};
use crate::pipeline::{Code, Cursor, SourceBatch, SourceRecord, Verdict};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// A folder of files, and settings that read it.
struct Folder {
    folder: tempfile::TempDir,
    settings: Value,
}

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let settings = json!({
            "path": folder.path(),
            "format": "csv",
            "fields": {
                "sku": {"column": "sku"},
                "location": {"constant": "store"},
                "quantity": {"column": "qty"},
                "time": {"column": "at"},
            },
        });
        Folder { folder, settings }
    }

    fn with(mut self, more: Value) -> Self {
        for (name, value) in more.as_object().expect("settings") {
            self.settings[name] = value.clone();
        }
        self
    }

    /// Writes a file that was last changed long ago, so that its last line is whole.
    fn put(&self, name: &str, content: impl AsRef<[u8]>) {
        self.put_at(name, content, 3_600);
    }

    /// Writes a file that is still being written, as its time tells.
    fn put_growing(&self, name: &str, content: impl AsRef<[u8]>) {
        self.put(name, content);
        let file = File::options()
            .append(true)
            .open(self.folder.path().join(name))
            .expect("opened");
        let later = SystemTime::now() + Duration::from_secs(3_600);
        file.set_modified(later).expect("time set");
    }

    fn put_at(&self, name: &str, content: impl AsRef<[u8]>, seconds_ago: u64) {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).expect("written");
        let then = SystemTime::now() - Duration::from_secs(seconds_ago);
        let file = File::options().append(true).open(&path).expect("opened");
        file.set_modified(then).expect("time set");
    }

    fn settings(&self) -> Settings {
        serde_json::from_value(self.settings.clone()).expect("settings")
    }

    fn source(&self) -> FileSource {
        FileSource::new("files", self.settings())
    }

    /// Reads until there is nothing more, each batch by a source that starts anew.
    fn read(&self, reading: &mut Reading) {
        loop {
            let batch = self.source().read(reading.cursor.as_ref()).expect("read");
            let more = batch.more;
            reading.take(batch);
            if !more {
                return;
            }
        }
    }

    fn all(&self) -> Reading {
        let mut reading = Reading::default();
        self.read(&mut reading);
        reading
    }
}

/// What was read, and how far.
#[derive(Default)]
struct Reading {
    records: Vec<SourceRecord>,
    /// Place, code and message of what could not be mapped.
    rejects: Vec<(String, Code, String)>,
    raw: Vec<Vec<u8>>,
    cursor: Option<Cursor>,
}

impl Reading {
    fn take(&mut self, batch: SourceBatch) {
        self.records.extend(batch.records);
        for reject in batch.rejects {
            let origin = reject.origin;
            assert_eq!(reject.fault.verdict, Verdict::Reject);
            self.rejects.push((
                format!("{} {}", origin.container, origin.item),
                reject.fault.code,
                reject.fault.message,
            ));
            self.raw.push(reject.raw.to_vec());
        }
        self.cursor = Some(batch.cursor);
    }

    fn skus(&self) -> Vec<&str> {
        let key = |r: &'_ SourceRecord| r.key.find('|').expect("a compound key");
        self.records.iter().map(|r| &r.key[..key(r)]).collect()
    }

    fn bad_places(&self) -> Vec<&str> {
        self.rejects
            .iter()
            .map(|(place, ..)| place.as_str())
            .collect()
    }

    fn movement(&self, index: usize) -> &StockChanged {
        match &self.records[index].event {
            Event::StockChanged(event) => event,
            other => panic!("{other:?}"),
        }
    }

    fn stock(&self, index: usize) -> &StockSnapshot {
        match &self.records[index].event {
            Event::StockSnapshot(event) => event,
            other => panic!("{other:?}"),
        }
    }
}

const HEADER: &str = "sku,qty,at\n";

fn line(sku: &str, quantity: &str) -> String {
    format!("{sku},{quantity},2026-11-26T10:00:00Z\n")
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).expect("compressed");
    encoder.finish().expect("finished")
}

#[test]
fn bad_lines_are_told_by_number_and_reason_and_stop_nobody() {
    let folder = Folder::new().with(json!({"line_bytes_max": 200}));
    let mut text = HEADER.as_bytes().to_vec();
    text.extend(line("A", "1").bytes());
    text.extend(b"B,1\r\n");
    text.extend(line("C", "many").bytes());
    text.extend(b"\"D,1,2026-11-26T10:00:00Z\n");
    text.extend(line("E", "0").bytes());
    text.extend(b"M\xfcller,1,2026-11-26T10:00:00Z\n");
    text.extend(format!("{},1,now\n", "x".repeat(300)).bytes());
    text.extend(b"\n");
    text.extend(b"G,1,yesterday\n,1,2026-11-26T10:00:00Z\n");
    text.extend(line("H", "2").trim_end().bytes());
    folder.put("a.csv", &text);
    let read = folder.all();
    assert_eq!(read.skus(), ["A", "H"]);
    let expected = [
        (3, Code::DataQuality, "2 fields where there are 3 columns"),
        (4, Code::DataQuality, "quantity \"many\""),
        (5, Code::DataQuality, "a quoted field begins here"),
        (6, Code::DataQuality, "quantity is 0"),
        (7, Code::DataQuality, "byte 2 is not UTF-8"),
        (8, Code::Oversize, "longer than 200 bytes"),
        (
            10,
            Code::DataQuality,
            "time \"yesterday\" is not of the form",
        ),
        (11, Code::DataQuality, "sku is empty"),
    ];
    assert_eq!(read.rejects.len(), expected.len(), "{:?}", read.rejects);
    for ((place, code, message), (number, expected_code, cause)) in
        read.rejects.iter().zip(expected)
    {
        assert_eq!(*place, format!("a.csv line {number}"));
        assert_eq!(*code, expected_code, "{message}");
        assert!(message.contains(cause), "{message}");
    }
    assert_eq!(
        read.raw[1], b"C,many,2026-11-26T10:00:00Z",
        "the original bytes"
    );
}

#[test]
fn a_stray_quote_does_not_take_its_neighbours_along() {
    let folder = Folder::new();
    let text = format!(
        "{HEADER}\"A,1,2026-11-26T10:00:00Z\n{}\"C\",3,2026-11-26T10:00:00Z\n{}",
        line("B", "2"),
        line("D", "4")
    );
    folder.put("a.csv", text);
    let read = folder.all();
    assert_eq!(read.skus(), ["B", "C", "D"]);
    assert_eq!(read.bad_places(), ["a.csv line 2"]);
}

#[test]
fn encodings_marks_and_signs_of_other_countries_are_read() {
    let folder = Folder::new().with(json!({
        "encoding": "windows-1252", "delimiter": ";", "decimal_mark": ",", "group_mark": ".",
        "time_format": "%d.%m.%Y %H:%M", "time_zone": "Europe/Berlin",
    }));
    folder.put(
        "a.csv",
        b"sku;qty;at\r\nM\xfcller;1.234,5;26.11.2026 11:00\r\nB;2-;26.11.2026 11:00\r\n",
    );
    let read = folder.all();
    assert_eq!(read.rejects, []);
    assert_eq!(read.skus(), ["Müller", "B"]);
    assert_eq!(
        read.movement(0).qty,
        "1234.5".parse::<Decimal>().expect("a number")
    );
    assert_eq!(
        read.movement(1).reason,
        StockReason::Return,
        "the sign stands behind"
    );
    let expected: jiff::Timestamp = "2026-11-26T10:00:00Z".parse().expect("a time");
    let expected = Timestamp(expected.as_microsecond());
    assert_eq!(read.movement(0).meta.occurred_at, expected);
    let folder = Folder::new().with(json!({"decimal_mark": ","}));
    folder.put("a.csv", format!("{HEADER}{}", line("A", "1.5")));
    let read = folder.all();
    assert!(
        read.rejects[0].2.contains("decimal_mark"),
        "{:?}",
        read.rejects
    );
}

#[test]
fn times_with_an_offset_of_their_own_are_not_taken_for_local_ones() {
    let folder = Folder::new().with(json!({
        "time_format": "%Y-%m-%d %H:%M %z", "time_zone": "Europe/Berlin",
    }));
    folder.put("a.csv", format!("{HEADER}A,1,2026-11-26 12:00 +0200\n"));
    let expected: jiff::Timestamp = "2026-11-26T10:00:00Z".parse().expect("a time");
    let read = folder.all();
    assert_eq!(
        read.movement(0).meta.occurred_at,
        Timestamp(expected.as_microsecond())
    );
}

#[test]
fn a_byte_order_mark_belongs_to_no_column_and_no_object() {
    let folder = Folder::new();
    folder.put("a.csv", format!("\u{feff}{HEADER}{}", line("A", "1")));
    assert_eq!(folder.all().skus(), ["A"]);
    let folder = Folder::new().with(json!({"format": "json_lines"}));
    let object = json!({"sku": "A", "qty": 1, "at": "2026-11-26T10:00:00Z"});
    folder.put("a.jsonl", format!("\u{feff}{object}\n"));
    let read = folder.all();
    assert_eq!((read.skus(), read.rejects.len()), (vec!["A"], 0));
}

#[test]
fn json_lines_may_hold_objects_within_objects_and_nulls() {
    let mut folder = Folder::new().with(json!({"format": "json_lines"}));
    folder.settings["fields"]["sku"] = json!({"column": "/item/sku"});
    folder.settings["fields"]["order"] = json!({"column": "order"});
    let good =
        json!({"item": {"sku": "A"}, "qty": 2.5, "at": "2026-11-26T10:00:00Z", "order": null});
    let bad = json!({"item": {"sku": null}, "qty": 1, "at": "2026-11-26T10:00:00Z"});
    folder.put("a.jsonl", format!("{good}\n{bad}\n[1]\n{{\"item\n"));
    let read = folder.all();
    assert_eq!(
        (read.movement(0).qty.to_string(), &read.movement(0).order_id),
        ("2.5".into(), &None)
    );
    assert_eq!(
        read.bad_places(),
        ["a.jsonl line 2", "a.jsonl line 3", "a.jsonl line 4"]
    );
}

#[test]
fn a_last_line_without_a_break_is_read_once_the_file_has_settled() {
    let folder = Folder::new();
    let mut read = Reading::default();
    let whole = format!("{HEADER}{}", line("A", "1"));
    folder.put_growing("a.csv", format!("{whole}B,12"));
    folder.read(&mut read);
    assert_eq!(read.skus(), ["A"], "the rest may still be written");
    folder.put_at(
        "a.csv",
        format!("{whole}{}", line("B", "125").trim_end()),
        60,
    );
    folder.read(&mut read);
    assert_eq!(
        (read.skus(), read.movement(1).qty),
        (vec!["A", "B"], Decimal::from(125))
    );
    assert_eq!(read.rejects, []);
}

#[test]
fn files_are_read_whenever_they_come_and_on_as_they_grow() {
    let folder = Folder::new();
    let mut read = Reading::default();
    folder.put("b.csv", format!("{HEADER}{}", line("B1", "1")));
    folder.read(&mut read);
    // Its name stands before one that was read already.
    folder.put("a.csv.gz", gzip(&format!("{HEADER}{}", line("A1", "1"))));
    folder.read(&mut read);
    folder.put(
        "b.csv",
        format!("{HEADER}{}{}", line("B1", "1"), line("B2", "1")),
    );
    folder.read(&mut read);
    assert_eq!(read.skus(), ["B1", "A1", "B2"]);
    folder.read(&mut read);
    assert_eq!(read.records.len(), 3, "nothing is read twice");
    let ids: std::collections::BTreeSet<_> =
        (0..3).map(|i| read.movement(i).meta.event_id).collect();
    assert_eq!(ids.len(), 3);
    let sequence: Vec<i64> = (0..3)
        .map(|i| read.movement(i).meta.source_position)
        .collect();
    assert_eq!(sequence, [1, 2, 3], "one order over all files");
}

#[test]
fn a_file_that_was_read_may_go_and_one_that_was_not_is_missed() {
    let folder = Folder::new().with(json!({"batch_lines_max": 1}));
    let mut read = Reading::default();
    folder.put("a.csv", format!("{HEADER}{}", line("A", "1")));
    folder.read(&mut read);
    std::fs::remove_file(folder.folder.path().join("a.csv")).expect("removed");
    folder.put(
        "b.csv",
        format!("{HEADER}{}{}", line("B1", "1"), line("B2", "1")),
    );
    let batch = folder.source().read(read.cursor.as_ref()).expect("read");
    read.take(batch);
    std::fs::remove_file(folder.folder.path().join("b.csv")).expect("removed");
    folder.put("c.csv", format!("{HEADER}{}", line("C", "1")));
    let mut fault = None;
    for _ in 0..5 {
        match folder.source().read(read.cursor.as_ref()) {
            Ok(batch) => read.take(batch),
            Err(f) => fault = Some(f),
        }
    }
    assert_eq!(read.skus(), ["A", "B1", "C"], "the others go on");
    let fault = fault.expect("said in the end");
    assert!(matches!(fault.verdict, Verdict::Retry { .. }));
    assert!(
        fault.message.contains("b.csv went from"),
        "{}",
        fault.message
    );
    assert!(
        fault.message.contains("line 3 is next"),
        "{}",
        fault.message
    );
}

#[test]
fn another_file_under_the_same_name_tells_new_facts() {
    let folder = Folder::new();
    let mut read = Reading::default();
    folder.put(
        "sales.csv",
        format!("{HEADER}{}{}", line("A", "1"), line("B", "1")),
    );
    folder.read(&mut read);
    // The same content again, only later: nothing new.
    folder.put_at(
        "sales.csv",
        format!("{HEADER}{}{}", line("A", "1"), line("B", "1")),
        60,
    );
    folder.read(&mut read);
    assert_eq!(read.records.len(), 2);
    folder.put("sales.csv", format!("{HEADER}{}", line("C", "1")));
    folder.read(&mut read);
    assert_eq!(read.skus(), ["A", "B", "C"]);
    let (a, c) = (read.movement(0), read.movement(2));
    assert_ne!(
        a.meta.event_id, c.meta.event_id,
        "line 2 of another file is another fact"
    );
}

#[test]
fn a_file_that_was_cut_is_not_read_on() {
    let folder = Folder::new();
    let mut read = Reading::default();
    let long: String = (0..500).map(|n| line(&format!("A{n}"), "1")).collect();
    folder.put("a.csv", format!("{HEADER}{long}"));
    folder.read(&mut read);
    folder.put("a.csv", &format!("{HEADER}{long}")[..6_000]);
    let mut fault = None;
    for _ in 0..2 {
        match folder.source().read(read.cursor.as_ref()) {
            Ok(batch) => read.take(batch),
            Err(f) => fault = Some(f),
        }
    }
    let message = fault.expect("said").message;
    assert!(
        message.contains("it was cut") && message.contains("put the whole file back"),
        "{message}"
    );
    assert_eq!(read.records.len(), 500);
}

#[test]
fn a_compressed_file_that_is_not_whole_is_read_as_far_as_it_goes() {
    let folder = Folder::new();
    let many: String = (0..20_000u32)
        .map(|n| line(&format!("A{}", n.wrapping_mul(2_654_435_761)), "1"))
        .collect();
    let whole = gzip(&format!("{HEADER}{many}"));
    folder.put("a.csv.gz", &whole[..whole.len() / 2]);
    folder.put("b.csv", format!("{HEADER}{}", line("B", "1")));
    let mut read = Reading::default();
    let mut fault = None;
    for _ in 0..30 {
        match folder.source().read(read.cursor.as_ref()) {
            Ok(batch) => read.take(batch),
            Err(f) => fault = Some(f),
        }
    }
    assert!(read.skus().contains(&"B"), "the others go on");
    let so_far = read.records.len();
    assert!(so_far > 1_000, "{so_far} lines");
    let fault = fault.expect("said");
    assert!(
        fault.message.contains("ends within its gzip stream"),
        "{}",
        fault.message
    );
    folder.put("a.csv.gz", &whole);
    folder.read(&mut read);
    assert_eq!(read.records.len(), 20_001);
    assert_eq!(read.rejects, []);
}

#[test]
fn a_nightly_export_tells_what_is_there() {
    let mut folder = Folder::new().with(json!({
        "content": "stock", "basis": "available_net", "source": "erp",
        "names": "stock-*.csv", "time_format": "stock-%Y%m%d.csv", "time_zone": "UTC",
    }));
    folder.settings["fields"]["time"] = json!({"file": "name"});
    folder.settings["fields"]["reserved"] = json!({"column": "reserved"});
    folder.put("README.txt", "no export");
    folder.put(
        "stock-20261126.csv",
        "sku,qty,reserved\nA,5,2\nB,0,\nC,-1,0\n",
    );
    let mut read = folder.all();
    assert_eq!(read.skus(), ["A", "B", "C"]);
    assert_eq!(read.rejects, []);
    assert!(
        read.records
            .iter()
            .all(|r| r.topic == topic::STOCK_SNAPSHOT)
    );
    let stock = read.stock(0);
    assert_eq!(
        (stock.sellable, stock.source_reserved),
        (Decimal::from(5), Some(Decimal::from(2)))
    );
    assert_eq!(
        (stock.basis, stock.meta.origin),
        (SnapshotBasis::AvailableNet, Origin::Snapshot)
    );
    let midnight: jiff::Timestamp = "2026-11-26T00:00:00Z".parse().expect("a time");
    assert_eq!(stock.as_of, Timestamp(midnight.as_microsecond()));
    assert_eq!(stock.as_of_position, midnight.as_microsecond());
    assert_eq!(stock.meta.position_kind, PositionKind::TimestampMicros);
    assert_eq!(
        (stock.meta.source.as_str(), read.stock(1).source_reserved),
        ("erp", None)
    );
    // The next night's export comes under a name of its own, and one that has a name in common
    // with an earlier one is told anew.
    folder.put("stock-20261127.csv", "sku,qty,reserved\nA,4,2\n");
    folder.put_at(
        "stock-20261126.csv",
        "sku,qty,reserved\nA,6,2\nB,0,\nC,-1,0\n",
        60,
    );
    folder.read(&mut read);
    assert_eq!(read.skus(), ["A", "B", "C", "A", "B", "C", "A"]);
    assert_ne!(read.stock(0).meta.event_id, read.stock(3).meta.event_id);
    folder.read(&mut read);
    assert_eq!(read.records.len(), 7);
}

#[test]
fn stock_for_comparison_only_says_so() {
    let folder = Folder::new().with(json!({
        "content": "stock", "basis": "on_hand", "reconcile_only": true,
    }));
    folder.put("a.csv", format!("{HEADER}{}", line("A", "1")));
    assert_eq!(folder.all().stock(0).meta.origin, Origin::Reconciliation);
}

#[test]
fn the_kind_of_a_movement_may_stand_in_the_line() {
    let mut folder = Folder::new();
    folder.settings["columns"] = json!(["sku", "qty", "at", "kind"]);
    folder.settings["fields"]["kind"] =
        json!({"column": "kind", "map": {"V": "sale", "W": "receipt"}});
    let lines: String = [("A", "V"), ("B", "W"), ("C", "transfer_out"), ("D", "X")]
        .map(|(sku, kind)| format!("{sku},-3,2026-11-26T10:00:00Z,{kind}\n"))
        .concat();
    folder.put("a.csv", lines);
    let read = folder.all();
    let reasons: Vec<_> = (0..3).map(|i| read.movement(i).reason).collect();
    assert_eq!(
        reasons,
        [
            StockReason::Sale,
            StockReason::Receipt,
            StockReason::TransferOut
        ]
    );
    assert_eq!(read.movement(0).qty, Decimal::from(3));
    assert!(
        read.rejects[0].2.contains("unknown variant `X`"),
        "{:?}",
        read.rejects
    );
}

#[test]
fn a_file_without_the_columns_is_named_with_those_it_has() {
    let folder = Folder::new();
    folder.put("a.csv", "article,qty,at\nA,1,2026-11-26T10:00:00Z\n");
    folder.put("b.csv", format!("{HEADER}{}", line("B", "1")));
    let mut read = Reading::default();
    let mut fault = None;
    for _ in 0..3 {
        match folder.source().read(read.cursor.as_ref()) {
            Ok(batch) => read.take(batch),
            Err(f) => fault = Some(f),
        }
    }
    assert_eq!(read.skus(), ["B"]);
    let message = fault.expect("said").message;
    assert!(
        message.contains("no column sku; its columns are article, qty, at"),
        "{message}"
    );
    folder.put("a.csv", b"\xff\xfes\0k\0u\0");
    let message = folder
        .source()
        .read(read.cursor.as_ref())
        .expect_err("UTF-16")
        .message;
    assert!(message.contains("a.csv is UTF-16"), "{message}");
}

#[test]
fn everything_wrong_with_the_settings_is_told_at_once() {
    let mut folder = Folder::new().with(json!({
        "delimiter": "€", "encoding": "klingon", "time_zone": "Mars/North", "names": "a[",
        "basis": "on_hand", "source": "erp", "reconcile_only": true, "batch_lines_max": 0,
    }));
    folder.settings["fields"] = json!({
        "sku": {"column": "a", "constant": "b"}, "location": {}, "reserved": {"column": "r"},
        "order": {"file": "modified"},
    });
    let fault = (DESCRIPTOR.build)("files", folder.settings.clone())
        .err()
        .expect("refused");
    assert_eq!(
        (fault.verdict, fault.code),
        (Verdict::Halt, Code::Configuration)
    );
    for part in [
        "delimiter",
        "klingon",
        "Mars/North",
        "a[",
        "basis is of content: stock",
        "source needs position: time",
        "reconcile_only",
        "batch_lines_max",
        "fields lacks quantity",
        "fields lacks time",
        "field sku needs one of",
        "field location needs one of",
        "field reserved is of content: stock",
        "field order: only time",
    ] {
        assert!(fault.message.contains(part), "{part}: {}", fault.message);
    }
}

#[test]
fn what_is_remembered_of_files_is_bounded() {
    let folder = Folder::new();
    let mut read = Reading::default();
    for n in 0..1_005 {
        folder.put(
            &format!("{n:04}.csv"),
            format!("{HEADER}{}", line(&n.to_string(), "1")),
        );
    }
    folder.read(&mut read);
    assert_eq!(read.records.len(), 1_005);
    let bookmark = read.cursor.as_ref().expect("a cursor").bookmark.to_string();
    assert!(bookmark.len() < 250_000, "{} bytes", bookmark.len());
    folder.read(&mut read);
    assert_eq!(
        read.records.len(),
        1_005,
        "what is forgotten is not read again"
    );
}

#[tokio::test]
async fn a_check_tries_the_first_lines() {
    let folder = Folder::new();
    let check = async || {
        let connector = (DESCRIPTOR.build)("files", folder.settings.clone()).expect("built");
        let checks = connector.check().await;
        checks
            .into_iter()
            .next_back()
            .expect("a check of lines")
            .result
    };
    assert_eq!(check().await, Ok("no line yet".to_owned()));
    folder.put("a.csv", format!("{HEADER}{}", line("A", "1")));
    assert_eq!(check().await, Ok("the first 1 are understood".to_owned()));
    folder.put("b.csv", format!("{HEADER}{}", line("B", "x")));
    let wrong = check().await.expect_err("a bad line");
    assert!(
        wrong.starts_with("1 of the first 2 are not understood; line 2 of b.csv: quantity"),
        "{wrong}"
    );
}

/// Where a file is cut into two deliveries, and at how many lines a batch ends.
fn grows(text: &[u8], cut: usize, batch: usize) -> Reading {
    let folder = Folder::new().with(json!({"batch_lines_max": batch, "line_bytes_max": 60}));
    let mut read = Reading::default();
    folder.put_growing("a.csv", &text[..cut]);
    folder.read(&mut read);
    folder.put("a.csv", text);
    folder.read(&mut read);
    read
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever stands in a file and however it comes, each of its lines becomes one fact or one
    /// dead letter, and the same ones.
    #[test]
    fn every_line_ends_once_however_the_file_grows(
        lines in proptest::collection::vec(
            prop_oneof![
                Just(line("A", "1").into_bytes()),
                Just(line("\"B\nB\"", "2").into_bytes()),
                Just(b"\"C,1,2026-11-26T10:00:00Z\n".to_vec()),
                proptest::collection::vec(any::<u8>(), 0..80),
            ],
            0..12,
        ),
        cut in 0.0f64..1.0,
        batch in 1usize..5,
    ) {
        let mut text = HEADER.as_bytes().to_vec();
        text.extend(lines.concat());
        let cut = (text.len() as f64 * cut) as usize;
        let told = |read: &Reading| {
            let ids: Vec<_> = (0..read.records.len()).map(|i| read.movement(i).meta.event_id).collect();
            (ids, read.rejects.clone())
        };
        let at_once = grows(&text, text.len(), 1_000);
        let bit_by_bit = grows(&text, cut, batch);
        prop_assert_eq!(told(&at_once), told(&bit_by_bit));
    }
}

#[test]
fn the_real_data_set_becomes_sales_and_returns() {
    let text = include_str!("../../../config/online-retail.yaml");
    let example: Value = serde_norway::from_str(text).expect("the example");
    let mut settings = example["connectors"][0]["settings"].clone();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/online_retail_slice.csv.gz");
    settings["path"] = json!(path);
    let settings: Settings = serde_json::from_value(settings).expect("settings");
    let mut source = FileSource::new("tills", settings);
    let (mut read, mut more) = (Reading::default(), true);
    while more {
        let batch = source.read(read.cursor.as_ref()).expect("read");
        more = batch.more;
        read.take(batch);
    }
    let returns = (0..read.records.len())
        .filter(|i| read.movement(*i).reason == StockReason::Return)
        .count();
    assert!(
        read.records.len() > 10_000 && returns > 100,
        "{} {returns}",
        read.records.len()
    );
    assert_eq!(read.rejects, []);
}
