//! How many requests a piece of work has sent: a budget of calls is kept in requests, and only the client
//! that sends them knows their number.

use std::cell::Cell;

tokio::task_local! {
    static REQUESTS: Cell<u32>;
}

/// A request is sent. Counts for the [`counted`] work that it is part of, if any.
pub fn count() {
    // Outside of counted work nobody asks.
    let _ = REQUESTS.try_with(|requests| requests.set(requests.get().saturating_add(1)));
}

/// Does `work`, and tells how many requests it has sent within its own task.
///
/// Cancel-safe as `work` is.
pub async fn counted<W: Future>(work: W) -> (W::Output, u32) {
    let counting = async {
        let output = work.await;
        (output, REQUESTS.with(Cell::get))
    };
    REQUESTS.scope(Cell::new(0), counting).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::executor::block_on;

    #[test]
    fn requests_count_for_the_work_that_sends_them() {
        count();
        let both = async {
            let one = counted(async { count() });
            let three = counted(async { (0..3).for_each(|_| count()) });
            futures::join!(one, three)
        };
        let (((), one), ((), three)) = block_on(both);
        assert_eq!((one, three), (1, 3));
    }
}
