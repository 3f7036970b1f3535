//! `shipment-propagation`: whatever order reports come in, the channel hears the same in the end, and
//! of every milestone.

use crate::*;
use crossdock::processors::ShipmentPropagation;
use rand::prelude::*;

#[derive(Default)]
struct Post {
    processor: ShipmentPropagation,
    state: Entries,
    told: Vec<ShipmentState>,
    outcomes: Vec<Outcome>,
    codes: Vec<Code>,
}

impl Post {
    fn send(&mut self, events: Vec<Event>) {
        let origin = Place {
            topic: "any".into(),
            partition: 0,
            offset: 0,
        };
        let record = Record {
            origin,
            timestamp_ms: 0,
            key: None,
            value: None,
            headers: Headers::default(),
        };
        let inbound: Vec<Inbound> = events
            .into_iter()
            .map(|event| Inbound {
                record: record.clone(),
                event,
            })
            .collect();
        let mut output = Output::default();
        let mut context = Context::new(&mut self.state, &mut output, at(0));
        self.processor
            .process(&key(), &inbound, &mut context)
            .expect("processed");
        assert_eq!(
            output.settlements.len() + output.rejections.len(),
            inbound.len()
        );
        self.outcomes
            .extend(output.settlements.iter().map(|s| s.outcome));
        self.codes
            .extend(output.rejections.iter().map(|(_, f)| f.code));
        for emission in output.emissions {
            match emission.event {
                Event::ShipmentState(e) => self.told.push(e),
                other => panic!("nobody asked for {}", other.contract()),
            }
        }
    }

    fn last(&self) -> &ShipmentState {
        self.told.last().expect("something told")
    }
}

fn kinds(fulfilment: &Fulfilment) -> Vec<MilestoneKind> {
    fulfilment.milestones.iter().map(|m| m.kind).collect()
}

#[test]
fn reports_in_any_order_and_twice_tell_the_same_in_the_end() {
    use ShipmentStatus::*;
    let ways: [&[ShipmentStatus]; 4] = [
        &[
            Released,
            Picked,
            Packed,
            Shipped,
            InTransit,
            OutForDelivery,
            Delivered,
        ],
        &[Released, Acknowledged, Picked, ReadyForPickup, Collected],
        &[Released, Acknowledged, Picked, ReadyForPickup, Cancelled],
        &[
            Released,
            ShortPicked,
            Shipped,
            OutForDelivery,
            DeliveryFailed,
            ReturnedToSender,
        ],
    ];
    for seed in 0..200 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut facts = vec![placed(&[("1", 2)])];
        let (one, other) = (
            ways[random.random_range(0..4)],
            ways[random.random_range(0..4)],
        );
        for (id, way) in [("S", one), ("T", other)] {
            let reports = way.iter().enumerate();
            facts.extend(
                reports.map(|(n, status)| shipment(id, n as i64 + 1, *status, "1", [1, 1, 0, 0])),
            );
        }
        let mut in_turn = Post::default();
        facts
            .iter()
            .for_each(|fact| in_turn.send(vec![fact.clone()]));
        let again = facts
            .sample(&mut random, facts.len() / 2)
            .cloned()
            .collect::<Vec<_>>();
        facts.extend(again);
        facts.shuffle(&mut random);
        let mut shuffled = Post::default();
        let mut rest = facts.as_slice();
        while !rest.is_empty() {
            let (batch, after) = rest.split_at(random.random_range(1..=rest.len().min(4)));
            shuffled.send(batch.to_vec());
            rest = after;
        }
        assert_eq!(
            shuffled.last().fulfilments,
            in_turn.last().fulfilments,
            "seed {seed}"
        );
        let versions: Vec<i64> = shuffled.told.iter().map(|s| s.state_version).collect();
        assert!(
            versions.iter().enumerate().all(|(n, v)| *v == n as i64 + 1),
            "seed {seed}"
        );
        assert_eq!(shuffled.outcomes.len(), facts.len(), "seed {seed}");
        let told = shuffled.told.len();
        shuffled.send(facts);
        assert_eq!(
            shuffled.told.len(),
            told,
            "seed {seed}: a replay says nothing new"
        );
    }
}

#[test]
fn what_the_customer_must_hear_is_not_lost_when_something_newer_overtakes_it() {
    use ShipmentStatus::*;
    let mut post = Post::default();
    post.send(vec![shipment("S", 6, Delivered, "1", [1, 1, 1, 1])]);
    assert!(post.told.is_empty(), "nobody knows yet whom to tell");
    post.send(vec![placed(&[("1", 1)])]);
    let told = post.last();
    assert_eq!(
        (&*told.channel_id, &*told.channel_order_id),
        ("web", "1001")
    );
    assert_eq!(
        kinds(&told.fulfilments[0]),
        [MilestoneKind::Shipped, MilestoneKind::Delivered]
    );
    post.send(vec![shipment("S", 3, Shipped, "1", [1, 1, 1, 0])]);
    let late = &post.last().fulfilments[0];
    assert_eq!(
        (late.status, late.milestones[0].reached_at),
        (Delivered, at(3))
    );
    post.send(vec![shipment("S", 2, Picked, "1", [1, 1, 0, 0])]);
    assert_eq!(post.outcomes.last(), Some(&Outcome::Superseded));
    assert_eq!(post.told.len(), 2, "nothing to tell");
}

#[test]
fn what_cannot_be_told_is_rejected() {
    let mut post = Post::default();
    let mut unplaced = says("shop", OrderEventType::Placed, 1);
    unplaced.order = None;
    let unknown = shipment("S", 1, ShipmentStatus::Unknown, "1", [1, 0, 0, 0]);
    post.send(vec![unplaced.into(), unknown, StockLevel::default().into()]);
    assert_eq!(
        post.codes,
        [Code::DataQuality, Code::UnknownSymbol, Code::WrongContract]
    );
}
