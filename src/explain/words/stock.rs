//! Facts, claims and levels of stock.

use super::order::held;
use super::{time, units};
use crate::contract::event::{
    ReservationCommand, ReservationDecision, StockChanged, StockLevel, StockPolicy, StockReason,
    StockSnapshot,
};
use std::fmt::Write as _;

pub(super) fn movement(e: &StockChanged) -> String {
    let what = match e.reason {
        StockReason::Sale => "sold",
        StockReason::Shipment => "shipped",
        StockReason::Return => "returned",
        StockReason::Receipt => "received",
        StockReason::TransferOut => "sent to another location",
        StockReason::TransferIn => "arrived from another location",
        StockReason::CountAdjustment => "corrected by a count",
        StockReason::Shrink => "lost",
        StockReason::Damage => "damaged",
        StockReason::QcHold => "held for inspection",
        StockReason::QcRelease => "released by inspection",
        StockReason::ReconCorrection => "corrected by reconciliation",
        StockReason::InitialLoad => "opening stock",
        StockReason::Unknown => "moved",
    };
    let (from, to) = (e.from_state.symbol(), e.to_state.symbol());
    // UN/ECE Rec 20: EA is each, C62 one.
    let quantity = match &*e.uom {
        "" | "EA" | "C62" => units(e.qty),
        unit => format!("{} {unit}", e.qty),
    };
    let mut words = format!("{quantity} {what} ({from} to {to})");
    for (name, value) in [
        ("order", &e.order_id),
        ("return", &e.return_id),
        ("document", &e.document_ref),
    ] {
        if let Some(value) = value {
            let _ = write!(words, ", {name} {value}");
        }
    }
    words
}

pub(super) fn snapshot(e: &StockSnapshot) -> String {
    format!(
        "snapshot {}: {} sellable ({}) as of {}:{}",
        e.snapshot_id,
        units(e.sellable),
        e.basis.symbol(),
        e.as_of_epoch,
        e.as_of_position
    )
}

/// What a policy lays down.
pub(in crate::explain) fn policy(e: &StockPolicy) -> String {
    let mut words = format!("safety stock {}", units(e.safety_stock));
    for a in &e.allocations {
        if let Some(quantity) = a.hard_qty {
            let _ = write!(words, ", {} kept for {}", units(quantity), a.channel_id);
        }
        if let Some(share) = a.share_pct {
            let _ = write!(words, ", at most {share} % for {}", a.channel_id);
        }
        if let Some(buffer) = a.buffer {
            let _ = write!(words, ", buffer of {} for {}", units(buffer), a.channel_id);
        }
    }
    let _ = write!(words, ", oversell {}", e.oversell.symbol());
    if let Some(limit) = e.backorder_limit {
        let _ = write!(words, " to {}", units(limit));
    }
    words
}

pub(super) fn command(e: &ReservationCommand) -> String {
    let until = e.expires_at.map(|at| format!(", until {}", time(at)));
    format!(
        "{} asks to {} {} ({}) for order {}{}",
        e.channel_id,
        e.action.symbol(),
        units(e.qty),
        e.mode.symbol(),
        e.order_id,
        until.unwrap_or_default()
    )
}

pub(super) fn decision(e: &ReservationDecision) -> String {
    let mut words = format!(
        "decision {}: {} for order {}, {} asked for, {}; {} available before",
        e.ledger_sequence,
        e.status.symbol(),
        e.order_id,
        units(e.qty_requested),
        held(e.qty_held, e.qty_requested),
        units(e.ats_before)
    );
    if e.qty_backordered.is_positive() {
        let _ = write!(words, ", {} on backorder", units(e.qty_backordered));
    }
    words
}

pub(super) fn level(e: &StockLevel) -> String {
    let channels: Vec<String> = e
        .ats_by_channel
        .iter()
        .map(|(channel, ats)| format!("{channel} {ats}"))
        .collect();
    let mut words = format!(
        "level {}: {} sellable, {} claimed, {} available",
        e.level_version,
        units(e.sellable),
        e.reserved,
        e.ats
    );
    if !channels.is_empty() {
        let _ = write!(words, " ({})", channels.join(", "));
    }
    words
}
