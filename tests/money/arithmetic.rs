//! Exact amounts, rounding, sharing out, and the rules of data quality.

use super::decimal;
use crossdock::domain::Decimal;
use crossdock::domain::money::rules::{
    Broken, Line, TaxMode, check_order, check_payout, check_refund, line_total, tax_contained,
};
use crossdock::domain::money::{Currency, Money, MoneyError, Rounding, written};
use proptest::prelude::*;

fn currency(code: &str) -> Currency {
    Currency::parse(code).expect("a currency")
}

fn money(text: &str, code: &str) -> Money {
    Money::new(decimal(text), currency(code)).expect("an amount")
}

#[test]
fn an_amount_is_a_whole_number_of_minor_units() {
    for (code, places, fits, too_fine) in [
        ("EUR", 2, "0.01", "0.001"),
        ("JPY", 0, "1", "0.1"),
        ("KWD", 3, "0.001", "0.0001"),
        ("CLF", 4, "0.0001", "0"),
    ] {
        assert_eq!(currency(code).exponent(), places);
        assert!(Money::new(decimal(fits), currency(code)).is_ok());
        if too_fine != "0" {
            let refused = Money::new(decimal(too_fine), currency(code));
            assert!(
                matches!(refused, Err(MoneyError::Precision { .. })),
                "{refused:?}"
            );
        }
    }
    assert_eq!(money("7", "EUR").to_string(), "7.00 EUR");
    assert_eq!(money("-0.5", "EUR").to_string(), "-0.50 EUR");
    assert_eq!(money("1200", "JPY").to_string(), "1200 JPY");
}

#[test]
fn what_cannot_be_paid_in_is_no_currency() {
    for code in ["", "eur", "EURO", "ZZZ", "XAU", "XXX", "E€"] {
        let refused = Currency::parse(code);
        assert_eq!(refused, Err(MoneyError::UnknownCurrency(code.into())));
    }
}

#[test]
fn currencies_never_mix_and_sums_never_wrap() {
    let (euro, yen) = (money("1", "EUR"), money("1", "JPY"));
    let mixed = MoneyError::Mixed {
        left: currency("EUR"),
        right: currency("JPY"),
    };
    assert_eq!(euro.plus(yen), Err(mixed.clone()));
    assert_eq!(euro.minus(yen), Err(mixed));
    let largest = Money::round(
        Decimal::from_units(Decimal::LIMIT),
        currency("CLF"),
        Rounding::HalfUp,
    )
    .expect("the largest");
    assert_eq!(
        largest.plus(money("0.0001", "CLF")),
        Err(MoneyError::Overflow)
    );
    assert_eq!(
        largest.times(decimal("2"), Rounding::HalfUp),
        Err(MoneyError::Overflow)
    );
}

#[test]
fn halves_go_up_or_to_the_even_neighbour() {
    for (amount, up, even) in [
        ("0.005", "0.01", "0"),
        ("0.015", "0.02", "0.02"),
        ("-0.005", "-0.01", "0"),
        ("-0.015", "-0.02", "-0.02"),
        ("0.0149", "0.01", "0.01"),
    ] {
        let rounded =
            |r| Money::round(decimal(amount), currency("EUR"), r).map(|m| m.amount().to_string());
        assert_eq!(rounded(Rounding::HalfUp).as_deref(), Ok(up), "{amount} up");
        assert_eq!(
            rounded(Rounding::HalfEven).as_deref(),
            Ok(even),
            "{amount} even"
        );
    }
}

#[test]
fn tax_is_in_the_price_or_beside_it() {
    let line = Line {
        id: "1",
        quantity: decimal("3"),
        unit_price: decimal("9.99"),
        discount: decimal("2"),
        tax: decimal("4.47"),
        total: decimal("27.97"),
    };
    let total = |mode| line_total(&line, mode, currency("EUR")).map(|m| m.to_string());
    assert_eq!(total(TaxMode::Inclusive).as_deref(), Ok("27.97 EUR"));
    assert_eq!(total(TaxMode::Exclusive).as_deref(), Ok("32.44 EUR"));
    let tax = tax_contained(money("119", "EUR"), decimal("0.19"));
    assert_eq!(tax, Ok(money("19", "EUR")));
    assert!(tax_contained(money("119", "EUR"), decimal("-1")).is_err());
}

#[test]
fn an_order_adds_up_within_a_minor_unit_for_each_line() {
    let line = |total| Line {
        id: "1",
        quantity: decimal("3"),
        unit_price: decimal("3.3333"),
        discount: decimal("0"),
        tax: decimal("0"),
        total: decimal(total),
    };
    let check = |lines: &[Line<'_>], charges: &[(Decimal, Decimal)], total| {
        check_order(
            lines,
            charges,
            decimal(total),
            TaxMode::Inclusive,
            currency("EUR"),
        )
    };
    assert_eq!(check(&[line("10")], &[], "10"), Ok(()));
    assert_eq!(check(&[line("9.99")], &[], "10"), Ok(()), "a cent off");
    let charge = (decimal("4"), decimal("0.76"));
    assert_eq!(check(&[line("10")], &[charge], "14.76"), Ok(()));
    assert!(matches!(
        check(&[line("9.98")], &[], "9.98"),
        Err(Broken::LineTotal { .. })
    ));
    let broken = check(&[line("10"), line("10")], &[charge], "24.79");
    let Err(broken @ Broken::GrandTotal { .. }) = broken else {
        panic!("{broken:?}")
    };
    assert_eq!(
        broken.to_string(),
        "lines and charges make 24.76 EUR, grandTotal says 24.79 EUR"
    );
    assert!(matches!(
        check(&[line("10.001")], &[], "10"),
        Err(Broken::Amount { .. })
    ));
}

#[test]
fn a_refund_and_a_payout_are_exact_sums() {
    let parts = [
        (decimal("10"), decimal("1.9")),
        (decimal("-2"), decimal("0")),
    ];
    assert_eq!(check_refund(money("9.90", "EUR"), &parts), Ok(()));
    assert!(check_refund(money("9.91", "EUR"), &parts).is_err());
    let sum = money("7.5", "EUR");
    assert_eq!(check_payout(2, sum, 2, sum), Ok(()));
    assert!(check_payout(2, sum, 3, sum).is_err());
    assert!(check_payout(2, sum, 2, money("7.51", "EUR")).is_err());
    assert!(check_payout(2, sum, 2, money("7", "JPY")).is_err());
}

proptest! {
    #[test]
    fn parts_sum_to_the_whole_and_are_within_a_minor_unit(
        minor in -10_000_000i64..10_000_000,
        weights in prop::collection::vec(0i64..1_000_000, 1..20),
        code in prop::sample::select(vec!["EUR", "JPY", "KWD"]),
    ) {
        let unit = currency(code).minor_unit().units();
        let whole = Money::new(Decimal::from_units(minor * unit), currency(code)).expect("money");
        let decimals: Vec<Decimal> = weights.iter().map(|w| Decimal::from_units(*w)).collect();
        let sum: i64 = weights.iter().sum();
        if sum == 0 {
            prop_assert_eq!(whole.apportion(&decimals), Err(MoneyError::Weights));
        } else {
            let parts = whole.apportion(&decimals).expect("shared");
            let total: i64 = parts.iter().map(|p| p.amount().units() / unit).sum();
            prop_assert_eq!(total, minor);
            for (part, weight) in parts.iter().zip(&weights) {
                let exact = minor as f64 * *weight as f64 / sum as f64;
                let got = (part.amount().units() / unit) as f64;
                prop_assert!((got - exact).abs() < 1.0 + 1e-6, "{got} for {exact}");
            }
        }
    }

    #[test]
    fn a_product_is_the_nearest_amount(cents in -1_000_000i64..1_000_000, thousandths in 0i64..50_000) {
        let price = Money::new(Decimal::from_units(cents * 100), currency("EUR")).expect("money");
        let product = price.times(Decimal::from_units(thousandths * 10), Rounding::HalfUp).expect("money");
        let exact = i128::from(cents) * i128::from(thousandths);
        let got = i128::from(product.amount().units() / 100) * 1_000;
        prop_assert!((got - exact).abs() * 2 <= 1_000);
    }
}

#[test]
fn amounts_are_written_with_the_places_of_their_currency() {
    let amount = |text: &str| text.parse::<Decimal>().expect("a decimal");
    for (given, currency, wanted) in [
        ("27.9", "GBP", "27.90"),
        ("279", "EUR", "279.00"),
        ("-0.5", "EUR", "-0.50"),
        ("500", "JPY", "500"),
        ("1.25", "KWD", "1.250"),
        ("1.2345", "EUR", "1.2345"),
        ("3.1", "???", "3.1"),
    ] {
        assert_eq!(
            written(amount(given), currency),
            wanted,
            "{given} {currency}"
        );
    }
}
