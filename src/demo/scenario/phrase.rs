//! Sentences with gaps: matching them, and reading what stands in the gaps.

use super::file::World;
use super::stage::Act;
use crate::contract::event::Text;
use crate::domain::Decimal;
use crate::domain::money::{Currency, Money};
use std::collections::BTreeMap;
use std::time::Duration;

/// A sentence that a scenario may have. `<order>`, `<sku>`, `<location>`, `<channel>`, `<system>`,
/// `<reader>` and `<code>` stand for one word, other gaps for several.
pub(super) struct Phrase {
    pub form: &'static str,
    pub means: &'static str,
    pub make: fn(&Gaps<'_>) -> Result<Act, String>,
}

const ONE_WORD: [&str; 9] = [
    "order", "other", "sku", "location", "channel", "system", "reader", "code", "number",
];

/// A quantity of a SKU.
pub(super) type Units = Vec<(Text, Decimal)>;

/// A line to be ordered.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub sku: Text,
    pub quantity: Decimal,
    pub price: Decimal,
    pub currency: Text,
}

/// What stands in the gaps of a sentence, and behind it after commas.
pub(super) struct Gaps<'w> {
    filled: BTreeMap<&'static str, String>,
    /// What follows the first comma, one by one.
    pub further: Vec<String>,
    pub world: &'w World,
}

/// Reads a sentence by the first phrase whose form it has.
pub(super) fn read(
    sentence: &str,
    world: &World,
    phrases: &[&'static Phrase],
) -> Result<Act, String> {
    let mut parts = sentence.split(", ").map(str::trim);
    let head: Vec<&str> = parts
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let further: Vec<String> = parts.map(str::to_owned).collect();
    let mut first_wrong = None;
    for phrase in phrases {
        let form: Vec<&'static str> = phrase.form.split_whitespace().collect();
        let mut filled = BTreeMap::new();
        if !fits(&form, &head, &mut filled) {
            continue;
        }
        let gaps = Gaps {
            filled,
            further: further.clone(),
            world,
        };
        match (phrase.make)(&gaps) {
            Ok(act) => return Ok(act),
            Err(why) => {
                first_wrong.get_or_insert(why);
            }
        }
    }
    Err(first_wrong.unwrap_or_else(|| {
        let likeness = |p: &&&Phrase| (strsim::normalized_levenshtein(sentence, p.form) * 1e6) as u64;
        let nearest = phrases.iter().max_by_key(likeness);
        format!(
            "no sentence has this form; the nearest is \"{}\" (all are in tests/scenarios/README.md)",
            nearest.map_or("", |p| p.form)
        )
    }))
}

fn fits(
    form: &[&'static str],
    words: &[&str],
    filled: &mut BTreeMap<&'static str, String>,
) -> bool {
    let Some((first, rest)) = form.split_first() else {
        return words.is_empty();
    };
    let gap = first.strip_prefix('<').and_then(|f| f.strip_suffix('>'));
    let Some(gap) = gap else {
        return match words.split_first() {
            Some((word, words)) => word.eq_ignore_ascii_case(first) && fits(rest, words, filled),
            None => false,
        };
    };
    let most = match ONE_WORD.contains(&gap) {
        true => 1.min(words.len()),
        false => words.len(),
    };
    (1..=most).any(|count| {
        let fit = fits(rest, &words[count..], filled);
        if fit {
            filled.insert(gap, words[..count].join(" "));
        }
        fit
    })
}

impl Gaps<'_> {
    pub fn text(&self, gap: &str) -> &str {
        self.filled.get(gap).map_or("", String::as_str)
    }

    /// Nothing may stand behind a comma.
    pub fn alone(&self) -> Result<(), String> {
        match self.further.first() {
            None => Ok(()),
            Some(more) => Err(format!(
                "\"{more}\" says nothing in this sentence; leave it out"
            )),
        }
    }

    pub fn order(&self) -> Result<Text, String> {
        self.named("order", "order", &self.world.orders)
    }
    pub fn location(&self) -> Result<Text, String> {
        self.named("location", "location", &self.world.places())
    }
    pub fn channel(&self) -> Result<Text, String> {
        self.named("channel", "channel", &self.world.sellers())
    }
    pub fn sku(&self) -> Result<Text, String> {
        self.named("sku", "SKU", &self.world.goods())
    }
    pub fn system(&self) -> Result<Text, String> {
        self.named("system", "system", &self.world.systems())
    }

    fn named(&self, gap: &str, what: &str, known: &[Text]) -> Result<Text, String> {
        is_known(self.text(gap), what, known)
    }

    pub fn quantity(&self, gap: &str) -> Result<Decimal, String> {
        quantity(self.text(gap))
    }

    /// `2 of MUG-1 and 1 of TEE-1`
    pub fn units(&self) -> Result<Units, String> {
        let part = |part: &str| {
            let words: Vec<&str> = part.split_whitespace().collect();
            let [units, "of", sku] = words.as_slice() else {
                return Err(format!("\"{part}\" is not of the form \"2 of SKU\""));
            };
            Ok((is_known(sku, "SKU", &self.world.goods())?, quantity(units)?))
        };
        self.text("units").split(" and ").map(part).collect()
    }

    /// `2 of MUG-1 at 9.90 EUR and 1 of TEE-1 at 20 EUR`
    pub fn items(&self) -> Result<Vec<Item>, String> {
        let part = |part: &str| {
            let words: Vec<&str> = part.split_whitespace().collect();
            let [units, "of", sku, "at", price, currency] = words.as_slice() else {
                return Err(format!(
                    "\"{part}\" is not of the form \"2 of SKU at 9.90 EUR\""
                ));
            };
            let (price, currency) = self.amount(&format!("{price} {currency}"))?;
            Ok(Item {
                sku: is_known(sku, "SKU", &self.world.goods())?,
                quantity: quantity(units)?,
                price,
                currency,
            })
        };
        self.text("items").split(" and ").map(part).collect()
    }

    pub fn money(&self) -> Result<(Decimal, Text), String> {
        self.amount(self.text("money"))
    }

    /// `9.90 EUR`
    pub fn amount(&self, text: &str) -> Result<(Decimal, Text), String> {
        let Some((amount, currency)) = text.split_once(' ') else {
            return Err(format!(
                "\"{text}\" is not an amount with its currency, such as 9.90 EUR"
            ));
        };
        let currency = is_known(currency, "currency", &self.world.monies())?;
        let amount: Decimal = amount
            .parse()
            .map_err(|e| format!("\"{amount}\" is no amount: {e}"))?;
        if let Ok(known) = Currency::parse(&currency) {
            Money::new(amount, known).map_err(|e| format!("\"{text}\": {e}"))?;
        }
        Ok((amount, currency))
    }

    /// `90 minutes`
    pub fn time(&self) -> Result<Duration, String> {
        time(self.text("time"))
    }
}

pub(super) fn quantity(text: &str) -> Result<Decimal, String> {
    match text.parse::<Decimal>() {
        Ok(quantity) if quantity.is_positive() => Ok(quantity),
        Ok(_) => Err(format!("\"{text}\" is not more than 0")),
        Err(e) => Err(format!("\"{text}\" is no quantity: {e}")),
    }
}

pub(super) fn time(text: &str) -> Result<Duration, String> {
    let wrong =
        || format!("\"{text}\" is no time; write it as 30 seconds, 15 minutes, 1 hour or 3 days");
    let (count, unit) = text.split_once(' ').ok_or_else(wrong)?;
    let count: u64 = count.parse().map_err(|_| wrong())?;
    let seconds = match unit.trim_end_matches('s') {
        "second" => 1,
        "minute" => 60,
        "hour" => 3_600,
        "day" => 86_400,
        _ => return Err(wrong()),
    };
    Ok(Duration::from_secs(count * seconds))
}

/// A name among those that the file knows.
pub(super) fn is_known(name: &str, what: &str, known: &[Text]) -> Result<Text, String> {
    if known.iter().any(|k| k == name) {
        return Ok(name.into());
    }
    let allowed: Vec<&str> = known.iter().map(Text::as_str).collect();
    Err(match allowed.is_empty() {
        true => format!("there is no {what} {name}: none was told of before"),
        false => format!("there is no {what} {name}; there is {}", allowed.join(", ")),
    })
}
