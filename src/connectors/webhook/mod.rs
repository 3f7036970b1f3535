//! Webhooks: the way in for deliveries that other systems make over HTTP, shared by the connectors
//! that take them.
//!
//! A delivery goes through the `door`: size, signature over the exact bytes, time, form, name. Then
//! it is sealed and kept in the connector's [`Inbox`](crate::pipeline::Inbox), and only when the log has it is it answered.
//! The connector's source takes it from there in the order of arrival, by [`Ingress::take`]; what it
//! makes of it can fail and be done again without the sender knowing.
//!
//! | answer | what happened |
//! |-|-|
//! | 200 | it is durable, or was before |
//! | 400 | it is not JSON, is nested too deep, or has no name: the same again will not help |
//! | 401 | no secret verifies it, or its time is not within the window |
//! | 404, 405 | wrong path or method |
//! | 413 | its body is too large; it was not held |
//! | 503 with `Retry-After` | it could not be kept now; send it again |
//!
//! **Once.** A delivery with a name that one of the latest [`REMEMBERED`] deliveries had is answered
//! 200 and makes no second event. The memory is the inbox itself: a source that begins at a cursor
//! reads back the names before it, so a restart, a takeover and a replay judge alike. What comes
//! again later than that makes the same event, with the same id, and is known by that further on.
//!
//! **Rotation.** One or two secrets are live; both are always tried, in constant time.
//!
//! **Privacy.** Path, headers and body are encrypted before they are kept, each delivery with a key of
//! its own, and so are dead letters made of them ([`Delivery::reject`]); the log keeps them for seven
//! days.
//!
//! How a source uses it:
//!
//! - [`Ingress::new`] where the connector is built: it checks the settings and listens to nothing.
//! - [`Ingress::open`] in [`Source::open`](crate::pipeline::Source::open): it listens from then on.
//! - [`Ingress::woken`] in [`Source::woken`](crate::pipeline::Source::woken).
//! - [`Ingress::take`] in [`Source::poll`](crate::pipeline::Source::poll), from the position that the
//!   bookmark holds (0 at first); [`Taken::next`] goes into the next bookmark, also when nothing was
//!   taken. Every instance takes deliveries in, the owner of the shard works on them.
//! - [`Delivery::reject`] for a delivery that can never become an event.
//!
//! `settings` and `signature` say what is expected, `door` serves, [`crate::config::seal`] encrypts, `ingress` remembers.

mod door;
mod ingress;
mod settings;
mod signature;
#[cfg(test)]
mod tests;

pub use ingress::{Delivery, Ingress, REMEMBERED, Taken};
pub use settings::{DeliveryId, Encoding, Form, Signing, Webhook};
pub use signature::{Headers, Refused, sign};
