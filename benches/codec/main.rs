//! The generated codec against apache-avro's direct serde path: `cargo bench --bench codec`.
//!
//! Both read into types of the same make: texts inline when short, decimals and uuids as numbers.
//! apache-avro's writer and reader are made once. The two take turns in short rounds on one thread,
//! and the lower quartile of the rounds counts, which other load disturbs least. What one writes, the
//! other must read, to the same bytes.

mod library;
#[path = "../support/mod.rs"]
mod support;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::writer::datum::GenericDatumWriter;
use crossdock::contract::event::{
    ChannelType, Contract, DeliveryGroup, DeliveryMethod, EventMeta, OrderCharge, OrderEvent,
    OrderEventType, OrderLine, OrderSnapshot, Origin, PositionKind, StockChanged,
};
use crossdock::domain::{Decimal, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::hint::black_box;
use std::time::Instant;
use support::load::receipt;
use support::{announce, quantile, scaled};

const ROUNDS: usize = 401;
const VALUES_A_ROUND: usize = 2_000;

fn main() {
    announce("the generated codec against apache-avro 0.22's direct serde path");
    println!(
        "{:38} {:>9} {:>9} {:>8} {:>12} {:>12}",
        "", "ours ns", "avro ns", "× faster", "ours allocs", "avro allocs"
    );
    let (_, changed) = receipt(123_456, (4_711, 7), Timestamp(1_767_225_600_000_000));
    compare::<StockChanged, library::StockChanged>("StockChanged", &changed);
    compare::<OrderEvent, library::OrderEvent>("OrderEvent", &order());
}

fn compare<Ours: Contract, Theirs: Serialize + DeserializeOwned>(name: &str, ours: &Ours) {
    let schema = Schema::parse_str(Ours::SCHEMA).expect("a schema");
    let writer = GenericDatumWriter::builder(&schema)
        .human_readable(true)
        .build()
        .expect("a writer");
    let reader = GenericDatumReader::builder(&schema)
        .human_readable(true)
        .build()
        .expect("a reader");
    let mut bytes = Vec::new();
    ours.encode(&mut bytes);
    let theirs: Theirs = reader.read_deser(&mut &bytes[..]).expect("read");
    let again = writer.write_ser_to_vec(&theirs).expect("written");
    assert_eq!(again, bytes, "both write the same");

    let mut out = Vec::with_capacity(4_096);
    versus(
        &format!("{name}, {} bytes, encode", bytes.len()),
        |out| ours.encode(out),
        |out| {
            writer.write_ser(out, &theirs).expect("written");
        },
        &mut out,
    );
    versus(
        &format!("{name}, {} bytes, decode", bytes.len()),
        |_| {
            black_box(Ours::decode(&mut &bytes[..]).expect("read"));
        },
        |_| {
            black_box(reader.read_deser::<Theirs>(&mut &bytes[..]).expect("read"));
        },
        &mut out,
    );
}

/// Lets the two take turns and prints how fast they are.
fn versus(
    name: &str,
    mut ours: impl FnMut(&mut Vec<u8>),
    mut theirs: impl FnMut(&mut Vec<u8>),
    out: &mut Vec<u8>,
) {
    let allocations = |work: &mut dyn FnMut(&mut Vec<u8>), out: &mut Vec<u8>| {
        out.clear();
        allocation_counter::measure(|| work(out)).count_total
    };
    let counts = (allocations(&mut ours, out), allocations(&mut theirs, out));
    let round = |work: &mut dyn FnMut(&mut Vec<u8>), out: &mut Vec<u8>| {
        let started = Instant::now();
        for _ in 0..VALUES_A_ROUND {
            out.clear();
            work(black_box(out));
        }
        started.elapsed().as_nanos() as f64 / VALUES_A_ROUND as f64
    };
    let (mut own, mut library) = (Vec::new(), Vec::new());
    for _ in 0..scaled(ROUNDS).max(21) {
        own.push(round(&mut ours, out));
        library.push(round(&mut theirs, out));
    }
    let (own, library) = (quantile(&own, 0.25), quantile(&library, 0.25));
    println!(
        "{name:38} {own:9.0} {library:9.0} {:8.1} {:12} {:12}",
        library / own,
        counts.0,
        counts.1
    );
}

/// An order of three lines with delivery to the customer's home.
fn order() -> OrderEvent {
    let amount = |text: &str| text.parse::<Decimal>().expect("an amount");
    let placed = Timestamp(1_767_225_600_000_000);
    let line = |number: i32, sku: &str, quantity: i32, price: &str, total: &str| OrderLine {
        line_id: compact_str::format_compact!("L{number}"),
        sku: sku.into(),
        qty: Decimal::from(quantity),
        uom: "EA".into(),
        unit_price: amount(price),
        discount: Decimal::ZERO,
        tax: amount("1.6"),
        tax_code: Some("VAT20".into()),
        line_total: amount(total),
        delivery_group_id: "G1".into(),
        backorder_allowed: false,
        price_version: Some(1_234),
        bundle_parent_line_id: None,
    };
    OrderEvent {
        meta: EventMeta {
            event_type: "OrderPlaced".into(),
            source: "shopify/eu-store".into(),
            source_position: 81_236_712,
            position_kind: PositionKind::Version,
            occurred_at: placed,
            recorded_at: placed,
            tenant_id: "default".into(),
            correlation_id: "5f1f0d35-5c44-4d8f-b0d0-64b3f4c2a3ab".into(),
            causation_id: Some(uuid::Uuid::from_u128(7)),
            origin: Origin::Source,
            ext: [("shop".into(), "eu".into())].into(),
            ..EventMeta::default()
        },
        order_id: "5f1f0d35-5c44-4d8f-b0d0-64b3f4c2a3ab".into(),
        r#type: OrderEventType::Placed,
        entity_version: 3,
        erp_order_id: None,
        order: Some(OrderSnapshot {
            channel_id: "web-eu".into(),
            channel_type: ChannelType::Web,
            channel_order_id: "gid://shopify/Order/5123456789012".into(),
            channel_order_version: 3,
            placed_at: placed,
            customer_id: Some("cust-4711-0815".into()),
            currency: "EUR".into(),
            prices_include_tax: true,
            ship_complete: false,
            lines: vec![
                line(1, "85123A-WHITE-HANGING-HEART", 6, "2.55", "15.30"),
                line(2, "71053-WHITE-METAL-LANTERN", 6, "3.39", "20.34"),
                line(3, "84406B-CREAM-CUPID-HEARTS", 8, "2.75", "22"),
            ],
            charges: vec![OrderCharge {
                charge_id: "C1".into(),
                r#type: "SHIPPING".into(),
                net: amount("4.9"),
                tax: amount("0.98"),
            }],
            delivery_groups: vec![DeliveryGroup {
                group_id: "G1".into(),
                method: DeliveryMethod::ShipToHome,
                pickup_location_id: None,
                address_token: Some("tok_9f3b1c5d7e8a4f60".into()),
                promise_by: Some(Timestamp(placed.0 + 172_800_000_000)),
            }],
            subtotal: amount("57.64"),
            discount_total: Decimal::ZERO,
            charge_total: amount("4.9"),
            tax_total: amount("5.78"),
            grand_total: amount("68.32"),
        }),
        affected: Vec::new(),
        request_id: None,
        reason: None,
        actor: None,
    }
}
