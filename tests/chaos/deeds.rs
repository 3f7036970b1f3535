//! How each fault is made, and unmade.

use crate::plan::{Kind, Plan};
use crate::proxy::{AtEndTxn, Proxy, Way};
use crate::stage::{BROKERS, POLL_INTERVAL_MAX, Part, SESSION_MS, Sharing, Slot, Stage, lock};
use crossdock::pipeline::FakeFault;
use rand::prelude::*;
use rand_chacha::ChaCha8Rng;
use std::sync::Mutex;
use std::sync::mpsc::Receiver;
use std::time::Duration;
use tokio::sync::oneshot;

/// Does what one hand has planned, until the time is over.
pub fn play(stage: &Stage, plan: Plan) {
    for deed in plan {
        stage.pass(deed.rest);
        if stage.is_over() {
            return;
        }
        if make(stage, deed.kind, deed.dice) {
            stage.count(deed.kind);
        }
    }
}

/// Whether it could be done.
fn make(stage: &Stage, kind: Kind, mut dice: ChaCha8Rng) -> bool {
    use Kind::*;
    let dice = &mut dice;
    let word = kind.name();
    match kind {
        Kill => kill(stage, dice),
        RollingRestart => rolling_restart(stage, dice),
        StormRange => storm(stage, dice, Sharing::Range),
        StormCooperative => storm(stage, dice, Sharing::Cooperative),
        StormServer => storm(stage, dice, Sharing::Server),
        Zombie => zombie(stage, dice),
        DiskFull => return disk_full(stage, kind),
        RegistryOutage => registry_outage(stage, dice),
        BrokerStopped => {
            let node = node(dice);
            stage.tell(&format!("{word}: {node}"));
            stage.kafka.control(&["stop", &node]);
            stage.pass(millis(dice, 2_000..8_000));
            stage.kafka.control(&["cont", &node]);
        }
        BrokerKilled => {
            let node = node(dice);
            stage.tell(&format!("{word}: {node}"));
            stage.kafka.control(&["kill", &node]);
            stage.pass(millis(dice, 0..5_000));
            stage.kafka.control(&["restart", &node]);
        }
        CoordinatorKilled => return coordinator_killed(stage),
        SlowNetwork => {
            let proxy = proxy(stage, dice);
            stage.tell(&format!("{word}: port {}", proxy.port));
            proxy.set(Way::Slow(millis(dice, 50..400)));
            stage.pass(millis(dice, 2_000..6_000));
            proxy.set(Way::Open);
        }
        HalfOpenNetwork => {
            let proxy = proxy(stage, dice);
            stage.tell(&format!("{word}: port {}", proxy.port));
            proxy.set(Way::HalfOpen);
            stage.pass(millis(dice, 2_000..9_000));
            proxy.set(Way::Open);
        }
        CutNetwork => {
            stage.tell(&word);
            for _ in 0..dice.random_range(1..4) {
                proxy(stage, dice).cut();
            }
        }
        EndTxnLost => return at_end_txn(stage, &word, || AtEndTxn::CutBefore),
        EndTxnUnanswered => return at_end_txn(stage, &word, || AtEndTxn::CutAfter),
        EndTxnLate => {
            let time = millis(dice, 500..12_000);
            return at_end_txn(stage, &word, || AtEndTxn::Late(time));
        }
        EndTxnSwallowed => return at_end_txn(stage, &word, || AtEndTxn::Swallowed),
        Target429 => target(
            stage,
            dice,
            &word,
            FakeFault::Status(429, Some(Duration::from_secs(1))),
        ),
        Target500 => target(stage, dice, &word, FakeFault::Status(500, None)),
        TargetCut => target(stage, dice, &word, FakeFault::AppliedThenCut),
        TargetLate => target(stage, dice, &word, FakeFault::Slow(Duration::from_secs(2))),
        TargetGarbage => target(stage, dice, &word, FakeFault::Garbage),
        TargetDown => {
            stage.tell(&word);
            stage.shop.set_down(true);
            stage.pass(millis(dice, 1_000..6_000));
            stage.shop.heal();
        }
    }
    true
}

fn millis(dice: &mut ChaCha8Rng, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(dice.random_range(range))
}

fn node(dice: &mut ChaCha8Rng) -> String {
    dice.random_range(1..=BROKERS).to_string()
}

fn proxy<'s>(stage: &'s Stage, dice: &mut ChaCha8Rng) -> &'s Proxy {
    stage.network.proxies.choose(dice).expect("brokers")
}

/// Slots whose instance should run.
fn running(stage: &Stage) -> Vec<&Mutex<Slot>> {
    stage.slots.iter().filter(|s| lock(s).is_wanted).collect()
}

fn kill(stage: &Stage, dice: &mut ChaCha8Rng) {
    let count = dice.random_range(1..4);
    let victims: Vec<_> = running(stage).sample(dice, count).copied().collect();
    for victim in &victims {
        let slot = &mut *lock(victim);
        stage.tell(&format!("kill: {}", slot.name));
        slot.is_wanted = false;
        if let Some(mut worker) = slot.worker.take() {
            worker.kill();
        }
    }
    // Back before anybody has noticed, or after others have taken over.
    if dice.random_bool(0.5) {
        stage.pass(Duration::from_millis(SESSION_MS + 500));
    }
    for victim in victims {
        stage.run(&mut lock(victim));
        stage.wait_ready(victim);
    }
}

fn rolling_restart(stage: &Stage, dice: &mut ChaCha8Rng) {
    let parts = [Part::Ledger, Part::Availability, Part::Orders, Part::Edge];
    let part = *parts.choose(dice).expect("parts");
    stage.tell(&format!("rolling-restart: {part:?}"));
    for slot in stage.slots_of(part) {
        if lock(slot).is_wanted && !stage.has_failed() {
            stage.end(&mut lock(slot));
            stage.run(&mut lock(slot));
            stage.wait_ready(slot);
        }
    }
}

/// One instance, four, two. Where the group shares otherwise than before, it ends and begins anew.
fn storm(stage: &Stage, dice: &mut ChaCha8Rng, sharing: Sharing) {
    let part = match sharing {
        Sharing::Cooperative => Part::Availability,
        _ if dice.random_bool(0.5) => Part::Availability,
        _ => Part::Ledger,
    };
    let slots = stage.slots_of(part);
    stage.tell(&format!("storm: {part:?}, {sharing:?}, one instance"));
    for slot in &slots {
        stage.end(&mut lock(slot));
    }
    stage.set_sharing(part, sharing);
    stage.run(&mut lock(slots[0]));
    stage.wait_ready(slots[0]);
    stage.tell("storm: four");
    for slot in &slots[1..] {
        stage.run(&mut lock(slot));
    }
    for slot in &slots[1..] {
        stage.wait_ready(slot);
    }
    stage.tell("storm: two");
    for slot in slots {
        if !lock(slot).is_regular {
            stage.end(&mut lock(slot));
        }
    }
}

fn zombie(stage: &Stage, dice: &mut ChaCha8Rng) {
    let victim = *running(stage).choose(dice).expect("some run");
    let signal = |name: &str| {
        let slot = &mut *lock(victim);
        stage.tell(&format!("zombie: {} {name}", slot.name));
        if let Some(worker) = &mut slot.worker
            && worker.ended().is_none()
        {
            worker.signal(name);
        }
    };
    signal("STOP");
    stage.pass(POLL_INTERVAL_MAX + Duration::from_secs(2));
    signal("CONT");
    stage.wait_ready(victim);
}

fn disk_full(stage: &Stage, kind: Kind) -> bool {
    let slots = stage.slots_of(Part::Ledger);
    let Some(filler) = stage.fill_disk() else {
        stage.give_up(kind, "no disk may be mounted here");
        return false;
    };
    stage.tell("disk-full");
    stage.end(&mut lock(slots[0]));
    stage.run(&mut lock(slots[0]));
    stage.wait_ready(slots[0]);
    stage.end(&mut lock(slots[0]));
    std::fs::remove_file(filler).expect("removed");
    stage.run(&mut lock(slots[0]));
    stage.wait_ready(slots[0]);
    true
}

fn registry_outage(stage: &Stage, dice: &mut ChaCha8Rng) {
    let victim = *running(stage).choose(dice).expect("some run");
    stage.kill_registry();
    {
        let slot = &mut *lock(victim);
        stage.tell(&format!("registry-outage; {} begins", slot.name));
        slot.worker = None;
        stage.run(slot);
    }
    stage.pass(millis(dice, 500..5_000));
    stage.start_registry();
    stage.wait("the registry serves", || stage.has_registry());
    stage.wait_ready(victim);
}

/// Does it to the next transaction that ends anywhere; `false` where none did before the run ended.
fn at_end_txn(stage: &Stage, word: &str, mut what: impl FnMut() -> AtEndTxn) -> bool {
    let armed = stage.network.proxies.iter().map(|p| p.arm(what()));
    let armed: Vec<Receiver<()>> = armed.collect();
    let met = wait_met(stage, &armed);
    if let Some(broker) = met {
        stage.tell(&format!("{word}: broker {}", broker + 1));
    }
    met.is_some()
}

/// The first broker that meets an EndTxn; the others are disarmed.
fn wait_met(stage: &Stage, armed: &[Receiver<()>]) -> Option<usize> {
    let mut found = None;
    while found.is_none() && !stage.is_over() {
        found = armed.iter().position(|met| met.try_recv().is_ok());
        stage.pass(Duration::from_millis(1));
    }
    stage.network.proxies.iter().for_each(Proxy::disarm);
    found
}

fn coordinator_killed(stage: &Stage) -> bool {
    let mut releases = Vec::new();
    let armed: Vec<_> = stage
        .network
        .proxies
        .iter()
        .map(|proxy| {
            let (release, held) = oneshot::channel();
            releases.push(release);
            proxy.arm(AtEndTxn::Held(held))
        })
        .collect();
    let Some(broker) = wait_met(stage, &armed) else {
        return false;
    };
    let node = (broker + 1).to_string();
    stage.tell(&format!("coordinator-killed: {node}"));
    stage.kafka.control(&["kill", &node]);
    drop(releases);
    stage.kafka.control(&["restart", &node]);
    true
}

/// The target answers like that to so many calls, or for so long: one that is rarely asked has
/// its bad time too, and it ends.
fn target(stage: &Stage, dice: &mut ChaCha8Rng, word: &str, fault: FakeFault) {
    let times = dice.random_range(1..20);
    stage.tell(word);
    stage.shop.inject(vec![fault; times]);
    stage.pass(millis(dice, 1_000..6_000));
    stage.shop.heal();
}
