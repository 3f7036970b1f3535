//! Confluent's REST API, as producers and consumers use it, against the embedded registry and
//! against Apicurio Registry. Where the two differ, [`Kind`] says how.

use crate::support::{record, served, subject};
use reqwest::Method;
use reqwest::blocking::Client;
use serde_json::{Value, json};

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// Crossdock's own.
    Embedded,
    /// Apicurio Registry 2.6. It differs in this:
    /// - without a rule it takes any schema; the level must be set for each subject;
    /// - its rule for FULL_TRANSITIVE lets a logical type change;
    /// - schemas that differ in layout only get versions of their own unless `normalize=true`;
    /// - a version that is no number is a version that it does not find;
    /// - a text that is no schema is refused with 42201 or 422;
    /// - it has no modes, and it deletes.
    Apicurio,
}

struct Api {
    url: String,
    http: Client,
    kind: Kind,
}

impl Api {
    fn new(url: &str, kind: Kind) -> Self {
        Api {
            url: url.to_owned(),
            http: Client::new(),
            kind,
        }
    }

    fn send(&self, method: Method, path: &str, body: Option<String>) -> (u16, Value) {
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        if let Some(body) = body {
            request = request
                .header("content-type", "application/vnd.schemaregistry.v1+json")
                .body(body);
        }
        let answer = request.send().expect("the registry answers");
        let status = answer.status().as_u16();
        let text = answer.text().expect("a body");
        (
            status,
            serde_json::from_str(&text).unwrap_or(Value::String(text)),
        )
    }

    fn get(&self, path: &str) -> (u16, Value) {
        self.send(Method::GET, path, None)
    }

    fn post(&self, path: &str, schema: &str) -> (u16, Value) {
        let body = json!({"schema": schema, "schemaType": "AVRO"}).to_string();
        self.send(Method::POST, path, Some(body))
    }

    fn full_transitive(&self, subject: &str) {
        let body = json!({"compatibility": "FULL_TRANSITIVE"}).to_string();
        let path = format!("/config/{subject}");
        // Apicurio takes rules only for subjects that exist.
        let (status, answer) = self.send(Method::PUT, &path, Some(body));
        assert_eq!(status, 200, "{answer}");
        assert_eq!(answer["compatibility"], "FULL_TRANSITIVE");
        let (_, answer) = self.get(&path);
        assert_eq!(answer["compatibilityLevel"], "FULL_TRANSITIVE");
    }

    fn registers_once_and_finds_again(&self) {
        let name = subject("once");
        let one = record("Once", &["a:int"]);
        let (status, answer) = self.post(&format!("/subjects/{name}/versions"), &one);
        assert_eq!(status, 200, "{answer}");
        let id = answer["id"].as_u64().expect("an id");
        for _ in 0..2 {
            let (_, again) = self.post(&format!("/subjects/{name}/versions"), &one);
            assert_eq!(again["id"], id);
        }
        let (_, versions) = self.get(&format!("/subjects/{name}/versions"));
        assert_eq!(versions, json!([1]));
        let (status, found) = self.post(&format!("/subjects/{name}"), &one);
        assert_eq!(status, 200, "{found}");
        assert_eq!((&found["id"], &found["version"]), (&json!(id), &json!(1)));
        assert_eq!(found["subject"], name.as_str());
        for version in ["1", "latest"] {
            let (_, found) = self.get(&format!("/subjects/{name}/versions/{version}"));
            assert_eq!(found["id"], id, "{found}");
            assert_same(&found["schema"], &one);
        }
        let (_, found) = self.get(&format!("/schemas/ids/{id}"));
        assert_same(&found["schema"], &one);
        let (_, subjects) = self.get("/subjects");
        let subjects = subjects.as_array().expect("a list");
        assert!(subjects.contains(&json!(name)), "{subjects:?}");
        // The same schema in another subject has the same id.
        let other = subject("once-more");
        let (_, answer) = self.post(&format!("/subjects/{other}/versions"), &one);
        assert_eq!(answer["id"], id);
        let (_, places) = self.get(&format!("/schemas/ids/{id}/versions"));
        let places = places.as_array().expect("a list");
        assert!(places.contains(&json!({"subject": other, "version": 1})));
    }

    fn names_what_is_missing(&self) {
        let name = subject("missing");
        let one = record("Missing", &["a:int"]);
        let codes = |(status, answer): (u16, Value)| (status, answer["error_code"].clone());
        for path in ["versions", "versions/1", "versions/latest"] {
            let answer = codes(self.get(&format!("/subjects/{name}/{path}")));
            assert_eq!(answer, (404, json!(40401)), "{path}");
        }
        let answer = codes(self.post(&format!("/subjects/{name}"), &one));
        assert_eq!(answer, (404, json!(40401)));
        let answer = codes(self.get("/schemas/ids/1999999999"));
        assert_eq!(answer, (404, json!(40403)));
        self.post(&format!("/subjects/{name}/versions"), &one);
        let answer = codes(self.get(&format!("/subjects/{name}/versions/7")));
        assert_eq!(answer, (404, json!(40402)));
        let answer = codes(self.get(&format!("/subjects/{name}/versions/seven")));
        let expected = match self.kind {
            Kind::Embedded => (422, json!(42202)),
            Kind::Apicurio => (404, json!(40402)),
        };
        assert_eq!(answer, expected);
        let other = record("Missing", &["b:int"]);
        let answer = codes(self.post(&format!("/subjects/{name}"), &other));
        assert_eq!(answer, (404, json!(40403)));
    }

    fn refuses_what_is_no_schema(&self) {
        let name = subject("bad");
        for schema in ["{", r#"{"type":"record"}"#, r#"{"type":"nonsense"}"#] {
            let (status, answer) = self.post(&format!("/subjects/{name}/versions"), schema);
            let code = answer["error_code"].as_u64().expect("a code");
            assert_eq!(status, 422, "{schema}: {answer}");
            assert!(code == 42201 || self.kind == Kind::Apicurio, "{answer}");
        }
        let (_, answer) = self.get(&format!("/subjects/{name}/versions"));
        assert_eq!(answer["error_code"], 40401);
    }

    fn holds_compatibility(&self) {
        let name = subject("evolution");
        let versions = format!("/subjects/{name}/versions");
        let status = |fields: &[&str]| self.post(&versions, &record("Evolution", fields));
        assert_eq!(status(&["a:int"]).0, 200);
        self.full_transitive(&name);
        // Fields with defaults come and go.
        assert_eq!(status(&["a:int", "b:int=0"]).0, 200);
        let (code, answer) = status(&["a:int", "b:int=0", "c:int"]);
        assert_eq!(
            (code, &answer["error_code"]),
            (409, &json!(409)),
            "{answer}"
        );
        let (code, _) = status(&["a:string"]);
        assert_eq!(code, 409);
        // Transitive: against every version, not only the newest.
        let (code, _) = status(&["b:int=0"]);
        assert_eq!(code, 409);
        let verdict = |fields: &[&str], version: &str| {
            let path = format!("/compatibility/subjects/{name}/versions{version}");
            let (code, answer) = self.post(&path, &record("Evolution", fields));
            assert_eq!(code, 200, "{answer}");
            answer["is_compatible"].clone()
        };
        for version in ["", "/latest", "/1"] {
            assert_eq!(verdict(&["a:int", "d:int=0"], version), true, "{version}");
            assert_eq!(verdict(&["a:int", "d:int"], version), false, "{version}");
        }
        let (_, all) = self.get(&versions);
        assert_eq!(all, json!([1, 2]));
    }

    fn holds_the_symbols_of_an_enum(&self) {
        let name = subject("symbols");
        let versions = format!("/subjects/{name}/versions");
        let post = |symbols: &str, default: &str| {
            let kind = format!(r#"e:{{"type":"enum","name":"E","symbols":[{symbols}]{default}}}"#);
            self.post(&versions, &record("Symbols", &[&kind])).0
        };
        assert_eq!(post(r#""A","B""#, ""), 200);
        self.full_transitive(&name);
        assert_eq!(post(r#""A","B","C""#, ""), 409);
    }

    fn holds_the_scale_of_a_decimal(&self) {
        if self.kind == Kind::Apicurio {
            return;
        }
        let name = subject("scale");
        let versions = format!("/subjects/{name}/versions");
        let post = |scale: u8| {
            let kind = format!(
                r#"q:{{"type":"bytes","logicalType":"decimal","precision":18,"scale":{scale}}}"#
            );
            self.post(&versions, &record("Scale", &[&kind]))
        };
        assert_eq!(post(4).0, 200);
        let (status, answer) = post(2);
        assert_eq!(status, 409);
        let message = answer["message"].as_str().expect("a message");
        assert!(message.contains("decimal(18,4)"), "{message}");
    }

    fn says_what_it_is(&self) {
        let (status, types) = self.get("/schemas/types");
        assert_eq!(status, 200);
        assert!(types.as_array().expect("a list").contains(&json!("AVRO")));
        let (status, level) = self.get("/config");
        assert_eq!(status, 200);
        assert!(level["compatibilityLevel"].is_string());
        if self.kind == Kind::Embedded {
            assert_eq!(level["compatibilityLevel"], "FULL_TRANSITIVE");
            assert_eq!(self.get("/mode").1, json!({"mode": "READWRITE"}));
        }
    }

    fn all(&self) {
        self.registers_once_and_finds_again();
        self.names_what_is_missing();
        self.refuses_what_is_no_schema();
        self.holds_compatibility();
        self.holds_the_symbols_of_an_enum();
        self.holds_the_scale_of_a_decimal();
        self.says_what_it_is();
    }
}

fn assert_same(found: &Value, schema: &str) {
    let found: Value =
        serde_json::from_str(found.as_str().expect("a schema's text")).expect("a schema");
    let schema: Value = serde_json::from_str(schema).expect("a schema");
    assert_eq!(found, schema);
}

#[test]
fn the_embedded_registry_speaks_the_api() {
    let served = served();
    Api::new(&served.url(), Kind::Embedded).all();
}

/// The suite against Apicurio Registry at `url`.
pub fn apicurio(url: &str) {
    Api::new(url, Kind::Apicurio).all();
}

#[test]
fn bad_requests_are_refused_in_words() {
    let served = served();
    let api = Api::new(&served.url(), Kind::Embedded);
    let put = |body: &str| api.send(Method::PUT, "/config/s", Some(body.into()));
    let post = |body: &str| api.send(Method::POST, "/subjects/s/versions", Some(body.into()));
    for (answer, status, code, part) in [
        (post("{"), 422, 422, "not the JSON"),
        (post("[]"), 422, 422, "not the JSON"),
        (post("{}"), 422, 422, "schema"),
        (post(r#"{"schema":1}"#), 422, 422, "string"),
        (post(r#"{"schema":""}"#), 422, 42201, "empty"),
        (
            post(r#"{"schema":"\"int\"","schemaType":"JSON"}"#),
            422,
            42201,
            "JSON",
        ),
        (
            post(r#"{"schema":"\"int\"","references":[{"name":"x","subject":"y","version":1}]}"#),
            422,
            42201,
            "references",
        ),
        (post(&"x".repeat(2 << 20)), 413, 413, "larger"),
        (
            put(r#"{"compatibility":"SIDEWAYS"}"#),
            422,
            42203,
            "SIDEWAYS",
        ),
        (api.get("/config/s"), 404, 40408, "s"),
        (api.get("/nowhere"), 404, 404, "no such resource"),
        (api.get("/schemas/ids/minus-one"), 404, 40403, "not an id"),
        (
            api.send(Method::DELETE, "/subjects/s", None),
            405,
            405,
            "nothing is deleted",
        ),
        (
            api.send(Method::DELETE, "/subjects/s/versions/1", None),
            405,
            405,
            "nothing is deleted",
        ),
        (
            api.send(Method::PATCH, "/subjects", None),
            405,
            405,
            "method",
        ),
        (
            api.send(
                Method::POST,
                &format!("/subjects/{}/versions", "s".repeat(300)),
                Some(r#"{"schema":"\"int\""}"#.into()),
            ),
            422,
            42208,
            "subject",
        ),
    ] {
        let (found, body) = answer;
        assert_eq!(
            (found, &body["error_code"]),
            (status, &json!(code)),
            "{body}"
        );
        let message = body["message"].as_str().expect("a message");
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn subjects_may_hold_any_printable_character() {
    let served = served();
    let api = Api::new(&served.url(), Kind::Embedded);
    let encoded = "a%2Fb%20%C3%A9%3F-value";
    let (status, answer) = api.post(&format!("/subjects/{encoded}/versions"), r#""int""#);
    assert_eq!(status, 200, "{answer}");
    assert_eq!(api.get("/subjects").1, json!(["a/b é?-value"]));
    assert_eq!(
        api.get(&format!("/subjects/{encoded}/versions")).1,
        json!([1])
    );
}

#[test]
fn reasons_are_told_when_asked_for() {
    let served = served();
    let api = Api::new(&served.url(), Kind::Embedded);
    api.post("/subjects/s/versions", &record("R", &["a:int"]));
    let (_, answer) = api.post(
        "/compatibility/subjects/s/versions?verbose=true",
        &record("R", &["a:int", "b:int"]),
    );
    assert_eq!(
        answer["messages"],
        json!([
            "the new schema cannot read what version 1 wrote: b: the writer lacks the field and the reader has no default for it"
        ])
    );
}
