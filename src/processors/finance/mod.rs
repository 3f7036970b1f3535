//! What the processors of an order's money have in common: from events to facts and back.

pub(super) mod facts;
pub(super) mod postings;
