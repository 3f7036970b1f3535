//! Sources that are heard of, and that fall silent.

use super::*;
use crossdock::processors::FeedWatch;

fn beat(seconds: i64) -> Event {
    SourceHeartbeat {
        meta: meta("erp", "SourceHeartbeat", &seconds.to_string(), seconds),
        entity_type: "source".into(),
        scope: "main".into(),
        watermark_at: at(seconds),
        ..SourceHeartbeat::default()
    }
    .into()
}

fn driven() -> Driven<FeedWatch> {
    Driven::at(FeedWatch::new(), "erp|main", at(0))
}

fn told(driven: &Driven<FeedWatch>) -> Vec<FeedState> {
    let of = |e: &Event| match e {
        Event::FeedStatus(e) => Some(e.status),
        _ => None,
    };
    driven.said.iter().filter_map(of).collect()
}

#[test]
fn whatever_the_order_and_repetition_silence_of_five_minutes_is_told_once_and_ended_by_a_beat() {
    use FeedState::{Fresh, Stale};
    for seed in 0..300 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut events = Vec::new();
        let (mut now, mut silences) = (0, 0);
        for _ in 0..random.random_range(2..40) {
            events.push((now, beat(now)));
            // A beat that overtook the next, or comes again, changes nothing.
            if random.random_bool(0.3) {
                events.push((now + 1, beat(now)));
                events.push((now + 2, beat((now - 30).max(0))));
            }
            let silent = random.random_bool(0.2);
            silences += usize::from(silent);
            now += if silent {
                20 * MINUTE
            } else {
                random.random_range(30..4 * MINUTE)
            };
        }
        events.push((now, beat(now)));
        let mut feed = driven();
        deliver(&mut feed, events);
        let expected: Vec<FeedState> = std::iter::once(Fresh)
            .chain((0..silences).flat_map(|_| [Stale, Fresh]))
            .collect();
        assert_eq!(told(&feed), expected, "seed {seed}");
        assert!(feed.codes().is_empty(), "seed {seed}");
        feed.pass(Duration::from_secs(6 * 60));
        assert_eq!(feed.codes(), ["FEED_STALE"], "seed {seed}");
        assert!(feed.refused.is_empty(), "seed {seed}");
    }
}

#[test]
fn whoever_was_away_himself_reads_what_waits_before_he_judges() {
    let mut feed = driven();
    feed.one(beat(0));
    // Nobody ran for an hour; the timer fires late.
    feed.now = at(HOUR);
    feed.pass(Duration::from_secs(1));
    assert!(feed.codes().is_empty());
    feed.one(beat(HOUR - MINUTE));
    feed.pass(Duration::from_secs(4 * 60));
    assert_eq!(told(&feed), [FeedState::Fresh], "it was never silent");
    feed.pass(Duration::from_secs(6 * 60));
    assert_eq!(feed.codes(), ["FEED_STALE"]);
}
