//! An inbox in memory, for sources that are driven without a log.

use crossdock::pipeline::{Code, Fault, Inbox, InboxPage, RawDelivery, Stage};
use std::sync::{Mutex, MutexGuard};

#[derive(Default)]
pub struct MemoryInbox(Mutex<State>);

#[derive(Default)]
struct State {
    kept: Vec<RawDelivery>,
    is_down: bool,
}

impl MemoryInbox {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("whole")
    }
    /// Keeps nothing more (`true`), or works again.
    pub fn set_down(&self, is_down: bool) {
        self.lock().is_down = is_down;
    }
    /// Everything that was kept.
    pub fn kept(&self) -> Vec<RawDelivery> {
        self.lock().kept.clone()
    }
}

impl Inbox for MemoryInbox {
    fn keep(&self, deliveries: &[RawDelivery]) -> Result<(), Fault> {
        let mut state = self.lock();
        if state.is_down {
            return Err(Fault::retry(Stage::Write, Code::Log, "the log is down"));
        }
        state.kept.extend_from_slice(deliveries);
        Ok(())
    }
    fn read(&self, position: i64, max: usize) -> Result<InboxPage, Fault> {
        let state = self.lock();
        let from = (position as usize).min(state.kept.len());
        let to = (from + max).min(state.kept.len());
        let found = state.kept[from..to].iter().enumerate();
        Ok(InboxPage {
            deliveries: found.map(|(n, d)| ((from + n) as i64, d.clone())).collect(),
            next: to as i64,
            more: to < state.kept.len(),
            ..InboxPage::default()
        })
    }
}
