//! Encoding takes no memory of its own: counted, for every contract.

use crate::{schema, values, write};
use crossdock::contract::event::Event;
use rand::SeedableRng;
use rand::rngs::StdRng;

#[test]
fn no_contract_allocates_to_be_encoded() {
    let mut out = Vec::with_capacity(1 << 20);
    for (name, text) in Event::CONTRACTS {
        let schema = schema(text);
        for seed in 0..20 {
            let value = values::value(&schema, &mut StdRng::seed_from_u64(seed), 0);
            let bytes = write(&schema, value);
            let event = Event::decode(name, &mut &bytes[..])
                .expect("compiled in")
                .unwrap_or_else(|e| panic!("{name} seed {seed}: {e}"));
            out.clear();
            let counted = allocation_counter::measure(|| event.encode(&mut out));
            assert_eq!(counted.count_total, 0, "{name} seed {seed}");
            assert!(!out.is_empty(), "{name} seed {seed}");
        }
    }
}

#[test]
fn what_is_counted_are_allocations() {
    let counted = allocation_counter::measure(|| {
        std::hint::black_box(vec![0u8; 100]);
    });
    assert_eq!(counted.count_total, 1);
}
