//! Members of groups with a name of their own, and those without work.

use super::{Case, PATIENCE, WAIT, own};
use crossdock::log::{GroupProtocol, LogError};
use std::time::{Duration, Instant};

pub(super) fn a_static_member_returns_to_its_partitions(case: &Case<'_>) {
    let topic = case.topic("in", 4);
    let mut one = case.consumer(&[&topic], Some("one"), GroupProtocol::Range);
    let mut two = case.consumer(&[&topic], Some("two"), GroupProtocol::Range);
    own(&mut [&mut one, &mut two], &[2, 2]);
    let before = two.owned();
    drop(two);
    let mut seen = Vec::new();
    one.poll(0, Duration::from_millis(300), &mut seen)
        .expect("polled");
    assert_eq!(
        one.owned().len(),
        2,
        "the partitions of a static member wait for it"
    );
    let mut two = case.consumer(&[&topic], Some("two"), GroupProtocol::Range);
    own(&mut [&mut one, &mut two], &[2, 2]);
    assert_eq!(two.owned(), before);
}

pub(super) fn a_static_member_that_is_replaced_is_told(case: &Case<'_>) {
    let topic = case.topic("in", 2);
    let mut former = case.consumer(&[&topic], Some("same"), GroupProtocol::Range);
    own(&mut [&mut former], &[2]);
    let owned = former.owned();
    let mut present = case.consumer(&[&topic], Some("same"), GroupProtocol::Range);
    let deadline = Instant::now() + PATIENCE;
    let told = loop {
        assert!(
            Instant::now() < deadline,
            "the former member was never told"
        );
        present.poll(0, WAIT, &mut Vec::new()).expect("polled");
        if let Err(error) = former.poll(0, WAIT, &mut Vec::new()) {
            break error;
        }
    };
    assert!(matches!(told, LogError::Replaced(_)), "{told:?}");
    let again = former.poll(0, WAIT, &mut Vec::new());
    assert!(matches!(again, Err(LogError::Replaced(_))), "{again:?}");
    // Whatever else it asks for, it hears the same, and at once.
    for partition in &owned {
        let sought = former.seek(partition, 0);
        assert!(matches!(sought, Err(LogError::Replaced(_))), "{sought:?}");
    }
    own(&mut [&mut present], &[2]);
}

pub(super) fn a_member_without_partitions_knows_that_it_has_joined(case: &Case<'_>) {
    let topic = case.topic("in", 1);
    let mut one = case.consumer(&[&topic], None, GroupProtocol::Range);
    assert!(!one.is_joined(), "before the first poll");
    own(&mut [&mut one], &[1]);
    let mut two = case.consumer(&[&topic], None, GroupProtocol::Range);
    let deadline = Instant::now() + PATIENCE;
    loop {
        for consumer in [&mut one, &mut two] {
            consumer
                .poll(0, Duration::from_millis(20), &mut Vec::new())
                .expect("polled");
        }
        if one.is_joined() && two.is_joined() && one.owned().len() + two.owned().len() == 1 {
            return;
        }
        assert!(Instant::now() < deadline, "the group never formed");
    }
}
