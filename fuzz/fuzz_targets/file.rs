//! Files: any bytes as a file of any form. Read in one go or line by line, it tells the same, and it comes to an end.
#![no_main]

use crossdock::connectors;
use crossdock::pipeline::Cursor;
use crossdock_fuzz::CODEC;
use libfuzzer_sys::{Corpus, fuzz_target};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

/// In memory where there is such a folder.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let memory = PathBuf::from("/dev/shm");
    let folder = match memory.is_dir() {
        true => tempfile::tempdir_in(memory),
        false => tempfile::tempdir(),
    };
    folder.expect("a folder").keep()
});

fuzz_target!(|data: &[u8]| -> Corpus {
    let &[form, ref content @ ..] = data else {
        return Corpus::Reject;
    };
    let name = if form & 0x80 == 0 {
        "lines"
    } else {
        "lines.gz"
    };
    let path = FOLDER.join(name);
    std::fs::write(&path, content).expect("written");
    // Long ago, so that its last line is whole.
    let then = SystemTime::now() - Duration::from_secs(3_600);
    let file = std::fs::File::options().append(true).open(&path);
    file.and_then(|f| f.set_modified(then)).expect("a time");
    let (whole, slow) = (read(form, &path, 1_000), read(form, &path, 1));
    let _ = std::fs::remove_file(&path);
    assert_eq!(whole, slow, "line by line it is something else");
    Corpus::Keep
});

/// Everything that is told, and what is wrong with what is not.
fn read(form: u8, path: &PathBuf, lines: usize) -> Vec<String> {
    let connector = connectors::find("file").expect("a kind");
    let mut settings = settings(form);
    settings["path"] = json!(path);
    settings["batch_lines_max"] = lines.into();
    let connector = (connector.build)("fuzz", settings).expect("settings");
    let mut source = connector.source().expect("a source");
    let mut cursor: Option<Cursor> = None;
    let (mut told, mut wrong) = (Vec::new(), Vec::new());
    loop {
        let batch = match futures::executor::block_on(source.poll("", cursor.as_ref())) {
            Ok(batch) => batch,
            Err(fault) => {
                wrong.push(fault.message);
                return [told, wrong].concat();
            }
        };
        for record in &batch.records {
            CODEC
                .encode(record.topic, &record.event, &mut Vec::new())
                .expect("an event of its topic");
            told.push(format!("{} {:?}", record.key, record.event));
        }
        let rejects = batch.rejects.iter();
        wrong.extend(rejects.map(|r| format!("{:?} {}", r.origin, r.fault.message)));
        if !batch.more {
            return [told, wrong].concat();
        }
        assert_ne!(
            Some(&batch.cursor.bookmark),
            cursor.as_ref().map(|c| &c.bookmark),
            "it goes on and on"
        );
        cursor = Some(batch.cursor);
    }
}

fn settings(form: u8) -> Value {
    let mut settings = json!({
        "format": "csv",
        "line_bytes_max": 256,
        "fields": {
            "sku": {"column": "sku"}, "location": {"constant": "store"},
            "quantity": {"column": "qty"}, "time": {"column": "at"},
        },
    });
    if form & 1 != 0 {
        settings["format"] = "json_lines".into();
        settings["fields"]["sku"] = json!({"column": "/item/sku"});
    } else if form & 2 != 0 {
        settings["columns"] = json!(["sku", "qty", "at"]);
    }
    if form & 4 != 0 {
        settings["content"] = "stock".into();
        settings["basis"] = "available_net".into();
    }
    if form & 8 != 0 {
        settings["decimal_mark"] = ",".into();
        settings["group_mark"] = ".".into();
        settings["delimiter"] = ";".into();
    }
    if form & 16 != 0 {
        settings["encoding"] = "windows-1252".into();
    }
    if form & 32 != 0 {
        settings["time_format"] = "%d.%m.%Y %H:%M".into();
        settings["time_zone"] = "Europe/London".into();
    }
    if form & 64 != 0 {
        settings["identity"] = json!(["sku", "at"]);
        settings["skip"] = json!([{"column": "sku", "without_digit": true}]);
    }
    settings
}
