//! `ledger`: what is booked for payments, invoices and refunds.

use super::*;
use crossdock::processors::Ledger;
use rand::prelude::*;

type Balances = BTreeMap<(LedgerAccount, String), i64>;

/// Sums what was posted, in cents, and checks each posting.
fn balances(said: &[Event]) -> Balances {
    let mut sums = Balances::new();
    let mut ids = BTreeSet::new();
    for event in said {
        let Event::LedgerPosting(p) = event else {
            continue;
        };
        assert!(ids.insert(p.posting_id), "a posting is made once");
        let mut difference = 0;
        for e in &p.entries {
            assert!(e.amount.is_positive(), "{p:?}");
            let signed = match e.side {
                LedgerSide::Debit => e.amount.units(),
                LedgerSide::Credit => -e.amount.units(),
                LedgerSide::Unknown => panic!("a side"),
            };
            difference += signed;
            *sums.entry((e.account, p.currency.to_string())).or_default() += signed / 100;
        }
        assert_eq!(difference, 0, "debit = credit in {p:?}");
        assert!(p.entries.len() >= 2);
    }
    sums.retain(|_, amount| *amount != 0);
    sums
}

fn euro(account: LedgerAccount, cents: i64) -> ((LedgerAccount, String), i64) {
    ((account, "EUR".into()), cents)
}

fn appeasement(gross: i64) -> RefundAllocation {
    RefundAllocation {
        order_line_id: None,
        r#type: RefundType::Appeasement,
        ..item("1", 0, gross, 0)
    }
}

fn cancellation(gross: i64, tax: i64) -> RefundAllocation {
    RefundAllocation {
        r#type: RefundType::Cancellation,
        ..item("2", 1, gross, tax)
    }
}

#[test]
fn an_order_that_is_sold_cancelled_in_part_returned_and_soothed_leaves_nothing_open() {
    let mut books = of_order(Ledger::new());
    books.one(captured("p", "c1", 11_900));
    // One line was cancelled before the invoice, one came back, and there was goodwill.
    books.one(refund(
        "cancel",
        3,
        RefundStatus::Completed,
        vec![cancellation(2_380, 380)],
    ));
    books.one(invoice(InvoiceKind::Invoice, "i1", 9_520, 1_520));
    books.one(refund(
        "return",
        4,
        RefundStatus::Completed,
        vec![item("1", 1, 1_190, 190)],
    ));
    let mut note = invoice(InvoiceKind::CreditNote, "n1", 1_190, 190);
    note.refund_id = Some(id("return"));
    books.one(note);
    books.one(refund(
        "sorry",
        3,
        RefundStatus::Completed,
        vec![appeasement(500)],
    ));
    books.one(closed(9));
    books.pass(HOUR);
    let expected = Balances::from([
        euro(LedgerAccount::PspClearing, 11_900 - 2_380 - 1_190 - 500),
        euro(LedgerAccount::Revenue, -8_000),
        euro(LedgerAccount::Returns, 1_000),
        euro(LedgerAccount::TaxPayable, -1_330),
        euro(LedgerAccount::Appeasements, 500),
    ]);
    assert_eq!(balances(&books.said), expected);
    assert!(books.open().is_empty(), "{:?}", books.open());
}

#[test]
fn a_residual_at_closure_is_an_exception_that_names_its_cause_and_goes_when_the_fact_comes() {
    let mut books = of_order(Ledger::new());
    books.one(captured("p", "c1", 5_000));
    books.one(refund(
        "r",
        4,
        RefundStatus::Completed,
        vec![item("1", 1, 2_000, 0)],
    ));
    books.one(closed(9));
    assert!(
        books.open().is_empty(),
        "facts of the last minutes may be late"
    );
    books.pass(HOUR);
    let causes: Vec<String> = books
        .open()
        .into_iter()
        .map(|(code, cause)| format!("{code} {cause}"))
        .collect();
    assert_eq!(
        causes,
        [
            "LEDGER_RESIDUAL CustomerDeposits|EUR",
            "LEDGER_RESIDUAL RefundLiability|EUR"
        ]
    );
    let told = books.said.iter().filter_map(|e| match e {
        Event::BusinessException(e) => e.actual.as_ref().map(ToString::to_string),
        _ => None,
    });
    let told: Vec<String> = told.collect();
    assert_eq!(
        told,
        [
            "CustomerDeposits -50 EUR: captured, but neither invoiced nor cancelled (captured 50, invoiced 0, cancelled 0)",
            "RefundLiability 20 EUR: refunded without a credit note, cancellation or appeasement (credited 0, approved 0, refunded 20)"
        ]
    );
    books.one(invoice(InvoiceKind::Invoice, "i1", 5_000, 0));
    books.one(invoice(InvoiceKind::CreditNote, "n1", 2_000, 0));
    assert!(books.open().is_empty(), "{:?}", books.open());
}

#[test]
fn a_correction_posts_its_difference_and_a_cancelled_document_what_takes_it_back() {
    let mut books = of_order(Ledger::new());
    books.one(invoice(InvoiceKind::Invoice, "i1", 1_190, 190));
    let mut corrected = invoice(InvoiceKind::Invoice, "i1", 2_380, 380);
    corrected.invoice_version = 2;
    corrected.meta = meta("InvoiceEvent", "i1", 2);
    books.one(corrected.clone());
    assert_eq!(
        balances(&books.said)[&euro(LedgerAccount::Revenue, 0).0],
        -2_000
    );
    corrected.invoice_version = 3;
    corrected.meta = meta("InvoiceEvent", "i1", 3);
    corrected.status = InvoiceStatus::Cancelled;
    books.one(corrected);
    assert_eq!(balances(&books.said), Balances::new());
}

#[test]
fn a_refund_that_came_back_is_owed_again() {
    let mut books = of_order(Ledger::new());
    books.one(refund(
        "sorry",
        4,
        RefundStatus::Completed,
        vec![appeasement(700)],
    ));
    books.one(refund(
        "sorry",
        5,
        RefundStatus::Reversed,
        vec![appeasement(700)],
    ));
    let expected = Balances::from([
        euro(LedgerAccount::Appeasements, 700),
        euro(LedgerAccount::RefundLiability, -700),
    ]);
    assert_eq!(balances(&books.said), expected);
}

#[test]
fn amounts_that_are_none_are_refused_by_name_and_touch_nothing() {
    let mut books = of_order(Ledger::new());
    let mut fine = captured("p", "c1", 100);
    fine.amount.currency = "ZZZ".into();
    books.one(fine);
    let mut fine = captured("p", "c1", 100);
    fine.amount.amount = decimal("1.001");
    books.one(fine);
    let mut unequal = invoice(InvoiceKind::Invoice, "i1", 100, 10);
    unequal.gross = cents(101);
    books.one(unequal);
    let mut future = captured("p", "c1", 100);
    future.meta.occurred_at = at(10_000);
    books.one(future);
    let mut other = captured("p", "c1", 100);
    other.order_id = "another".into();
    books.one(other);
    let expected = [
        Code::UnknownReference,
        Code::DataQuality,
        Code::DataQuality,
        Code::DataQuality,
        Code::WrongKey,
    ];
    assert_eq!(books.refused, expected);
    assert!(books.said.is_empty());
}

/// Facts of a random order in two currencies, with versions that correct one another, and the
/// balances that they end in, worked out in cents from the newest versions.
fn random_facts(random: &mut StdRng) -> (Vec<Event>, Balances) {
    let mut facts: Vec<Event> = Vec::new();
    let mut sums = Balances::new();
    let mut book = |currency: &str, debit: LedgerAccount, credit: LedgerAccount, amount: i64| {
        *sums.entry((debit, currency.to_owned())).or_default() += amount;
        *sums.entry((credit, currency.to_owned())).or_default() -= amount;
    };
    use LedgerAccount::*;
    for n in 0..random.random_range(1..5) {
        let currency = ["EUR", "SEK"][random.random_range(0..2)];
        let kind = [
            PaymentKind::Captured,
            PaymentKind::Chargeback,
            PaymentKind::ChargebackReversed,
            PaymentKind::Authorised,
        ][random.random_range(0..4)];
        let amount = random.random_range(1..10_000);
        facts.push(payment(kind, "p", &format!("c{n}"), money(amount, currency)).into());
        match kind {
            PaymentKind::Captured => book(currency, PspClearing, CustomerDeposits, amount),
            PaymentKind::Chargeback => book(currency, Disputes, PspClearing, amount),
            PaymentKind::ChargebackReversed => book(currency, PspClearing, Disputes, amount),
            _ => {}
        }
    }
    for n in 0..random.random_range(0..4) {
        let kind = [
            InvoiceKind::Invoice,
            InvoiceKind::CreditNote,
            InvoiceKind::DebitNote,
        ][random.random_range(0..3)];
        let versions = random.random_range(1..4);
        for version in 1..=versions {
            let tax = random.random_range(0..500);
            let gross = tax + random.random_range(1..5_000);
            let mut document = invoice(kind, &format!("i{n}"), gross, tax);
            document.meta = meta("InvoiceEvent", &format!("i{n}"), version);
            document.invoice_version = version;
            let live = random.random_bool(0.8);
            if !live {
                document.status = InvoiceStatus::Cancelled;
            }
            facts.push(document.into());
            if version < versions || !live {
                continue;
            }
            match kind {
                InvoiceKind::Invoice => {
                    book("EUR", CustomerDeposits, Revenue, gross - tax);
                    book("EUR", CustomerDeposits, TaxPayable, tax);
                }
                InvoiceKind::DebitNote => {
                    book("EUR", Receivables, Revenue, gross - tax);
                    book("EUR", Receivables, TaxPayable, tax);
                }
                _ => {
                    book("EUR", Returns, RefundLiability, gross - tax);
                    book("EUR", TaxPayable, RefundLiability, tax);
                }
            }
        }
    }
    for n in 0..random.random_range(0..4) {
        let gross = random.random_range(1..4_000);
        let (allocation, from) = match random.random_range(0..3) {
            0 => (item("1", 1, gross, 0), None),
            1 => (cancellation(gross, 0), Some(CustomerDeposits)),
            _ => (appeasement(gross), Some(Appeasements)),
        };
        let life = [
            RefundStatus::Requested,
            RefundStatus::Approved,
            RefundStatus::Submitted,
            RefundStatus::Completed,
            RefundStatus::Reversed,
        ];
        let last = random.random_range(0..life.len());
        for (version, status) in life[..=last].iter().enumerate() {
            facts.push(
                refund(
                    &format!("r{n}"),
                    version as i64 + 1,
                    *status,
                    vec![allocation.clone()],
                )
                .into(),
            );
        }
        if let (true, Some(from)) = (last > 0, from) {
            book("EUR", from, RefundLiability, gross);
        }
        if life[last] == RefundStatus::Completed {
            book("EUR", RefundLiability, PspClearing, gross);
        }
    }
    sums.retain(|_, amount| *amount != 0);
    (facts, sums)
}

#[test]
fn any_order_and_repetition_of_facts_ends_in_the_same_books() {
    for seed in 0..500 {
        let mut random = StdRng::seed_from_u64(seed);
        let (mut facts, expected) = random_facts(&mut random);
        let again: Vec<Event> = facts
            .sample(&mut random, facts.len() / 2)
            .cloned()
            .collect();
        facts.extend(again);
        facts.shuffle(&mut random);
        let mut books = of_order(Ledger::new());
        while !facts.is_empty() {
            let size = random.random_range(1..=facts.len().min(4));
            books.send(facts.drain(..size).collect());
            books.pass(Duration::from_secs(random.random_range(0..600)));
        }
        assert_eq!(balances(&books.said), expected, "seed {seed}");
        assert!(books.refused.is_empty(), "seed {seed}: {:?}", books.refused);
    }
}

#[test]
fn an_order_is_forgotten_when_nothing_was_heard_of_it_for_its_retention() {
    let mut books = of_order(Ledger::new());
    books.one(captured("p", "c1", 100));
    books.pass(HOUR * 24 * 399);
    assert_eq!(books.state.0.len(), 1);
    books.pass(HOUR * 24 * 2);
    assert!(books.state.0.is_empty());
}
