//! What happens to money, in sentences.

use super::phrase::{Gaps, Phrase};
use super::stage::{Act, Stage};
use super::words::deed;
use crate::contract::event::{OrderSnapshot, RefundType, Text};
use crate::demo::systems::{Allocation, Issued, open, share};
use crate::domain::{Decimal, refund_id};

pub(super) const PHRASES: &[Phrase] = &[
    Phrase {
        form: "customer pays for <order>",
        means: "The provider takes the order's total.",
        make: |g| {
            let order = g.order()?;
            g.alone()?;
            deed(move |stage| {
                let (sold, id) = stage.order(&order)?;
                open(&stage.estate.psp).capture(&id, sold.grand_total, &sold.currency);
                Ok(())
            })
        },
    },
    Phrase {
        form: "customer pays <money> for <order>",
        means: "The provider takes a part, or more.",
        make: |g| {
            let (order, (amount, currency)) = (g.order()?, g.money()?);
            g.alone()?;
            deed(move |stage| {
                let (_, id) = stage.order(&order)?;
                open(&stage.estate.psp).capture(&id, amount, &currency);
                Ok(())
            })
        },
    },
    Phrase {
        form: "customer promises to pay for <order>",
        means: "The provider has the order's total authorised.",
        make: |g| {
            let order = g.order()?;
            g.alone()?;
            deed(move |stage| {
                let (sold, id) = stage.order(&order)?;
                open(&stage.estate.psp).authorise(&id, sold.grand_total, &sold.currency);
                Ok(())
            })
        },
    },
    Phrase {
        form: "service asks to refund what came back of <order>",
        means: "Goods of the return last begun, at the price paid. Asked for again, it is the same refund.",
        make: |g| {
            let order = g.order()?;
            g.alone()?;
            deed(move |stage| refund_returned(stage, &order))
        },
    },
    Phrase {
        form: "service asks to refund <units> cancelled of <order>",
        means: "Goods that were cancelled, at the price paid.",
        make: |g| {
            let (order, units) = (g.order()?, g.units()?);
            g.alone()?;
            deed(move |stage| {
                let (sold, id) = stage.order(&order)?;
                let mut parts = Vec::new();
                for (sku, quantity) in &units {
                    let line = super::words::line_of(&sold, sku)?;
                    parts.push(goods(&sold, &line, *quantity, RefundType::Cancellation)?);
                }
                ask(stage, &sold, &id, ("cancellation", ""), parts, None, None)
            })
        },
    },
    Phrase {
        form: "service asks to refund shipping of <order>",
        means: "What the customer paid for shipping.",
        make: |g| {
            let order = g.order()?;
            g.alone()?;
            deed(move |stage| {
                let (sold, id) = stage.order(&order)?;
                let parts = sold.charges.iter().map(|c| Allocation {
                    line: None,
                    quantity: Decimal::ZERO,
                    net: c.net,
                    tax: c.tax,
                    kind: RefundType::Shipping,
                });
                let parts = parts.collect();
                ask(stage, &sold, &id, ("shipping", ""), parts, None, None)
            })
        },
    },
    Phrase {
        form: "service gives <money> of goodwill for <order>",
        means: "Money without goods; `because <reason>` must follow after a comma, or it is refused.",
        make: goodwill,
    },
    Phrase {
        form: "<channel> refunds <money> of <order> by itself",
        means: "The storefront has the provider pay back before anyone asked Crossdock, and tells of it then.",
        make: |g| {
            let (channel, order, (sum, currency)) = (g.channel()?, g.order()?, g.money()?);
            g.alone()?;
            deed(move |stage| {
                let (_, id) = stage.order(&order)?;
                let reference = open(&stage.estate.psp).refund_by_hand(&id, sum)?;
                open(&*stage.front(&channel)?).issued(&Issued {
                    order: &id,
                    amount: sum,
                    currency: &currency,
                    reference: Some(reference),
                });
                Ok(())
            })
        },
    },
    Phrase {
        form: "bank charges back <money> of <order>",
        means: "The customer disputes the payment.",
        make: |g| {
            let (order, (sum, _)) = (g.order()?, g.money()?);
            g.alone()?;
            deed(move |stage| {
                let (_, id) = stage.order(&order)?;
                open(&stage.estate.psp).charge_back(&id, sum);
                Ok(())
            })
        },
    },
    Phrase {
        form: "bank gives back <money> of <order>",
        means: "The dispute was won.",
        make: |g| {
            let (order, (sum, _)) = (g.order()?, g.money()?);
            g.alone()?;
            deed(move |stage| {
                let (_, id) = stage.order(&order)?;
                open(&stage.estate.psp).reverse_charge_back(&id, sum);
                Ok(())
            })
        },
    },
    Phrase {
        form: "PSP refuses the next refund",
        means: "A definite no, as when a card was closed.",
        make: |g| {
            g.alone()?;
            deed(|stage| {
                open(&stage.estate.psp).refuse(1);
                Ok(())
            })
        },
    },
    Phrase {
        form: "PSP does not know what became of the next refund",
        means: "It is paid all the same, and found when asked for again.",
        make: |g| {
            g.alone()?;
            deed(|stage| {
                open(&stage.estate.psp).doubt(1);
                Ok(())
            })
        },
    },
    Phrase {
        form: "PSP pays out",
        means: "Everything since the last time is settled, and comes in the bank; `<money> short` may follow after a comma.",
        make: pay_out,
    },
];

fn pay_out(g: &Gaps<'_>) -> Result<Act, String> {
    let short = match g.further.as_slice() {
        [] => Decimal::ZERO,
        [more] => {
            let money = more.strip_suffix(" short").ok_or_else(|| {
                format!("\"{more}\" says nothing of a payout; there is: <money> short")
            })?;
            g.amount(money)?.0
        }
        _ => return Err("a payout is short once".into()),
    };
    deed(move |stage| {
        open(&stage.estate.psp).pay_out(short);
        Ok(())
    })
}

fn goodwill(g: &Gaps<'_>) -> Result<Act, String> {
    let (order, (sum, _)) = (g.order()?, g.money()?);
    let reason = match g.further.as_slice() {
        [] => None,
        [more] => Some(Text::from(more.strip_prefix("because ").ok_or_else(
            || format!("\"{more}\" says nothing of goodwill; there is: because <reason>"),
        )?)),
        _ => return Err("goodwill has one reason".into()),
    };
    deed(move |stage| {
        let (sold, id) = stage.order(&order)?;
        let parts = vec![Allocation {
            line: None,
            quantity: Decimal::ZERO,
            net: sum,
            tax: Decimal::ZERO,
            kind: RefundType::Appeasement,
        }];
        stage.asked += 1;
        let name = stage.asked.to_string();
        ask(
            stage,
            &sold,
            &id,
            ("appeasement", &name),
            parts,
            None,
            reason.clone(),
        )
    })
}

fn refund_returned(stage: &mut Stage, name: &str) -> Result<(), String> {
    let (sold, id) = stage.order(name)?;
    let all = stage.returns.get(name).and_then(|r| r.last()).cloned();
    let back = all.ok_or_else(|| format!("nothing of {name} came back"))?;
    let mut parts = Vec::new();
    for (line, _, quantity) in &back.units {
        parts.push(goods(&sold, line, *quantity, RefundType::Item)?);
    }
    let return_id = Some(back.id.clone());
    ask(
        stage,
        &sold,
        &id,
        ("return", &back.id),
        parts,
        return_id,
        None,
    )
}

fn goods(
    sold: &OrderSnapshot,
    line: &Text,
    quantity: Decimal,
    kind: RefundType,
) -> Result<Allocation, String> {
    let (net, tax) = share(sold, line, Decimal::ZERO, quantity)
        .ok_or_else(|| format!("the order has no line {line} whose price could be shared"))?;
    Ok(Allocation {
        line: Some(line.clone()),
        quantity,
        net,
        tax,
        kind,
    })
}

fn ask(
    stage: &mut Stage,
    sold: &OrderSnapshot,
    id: &str,
    (cause, cause_id): (&str, &str),
    parts: Vec<Allocation>,
    return_id: Option<Text>,
    reason: Option<Text>,
) -> Result<(), String> {
    let total: Decimal = parts.iter().map(|p| p.net + p.tax).sum();
    let refund = refund_id(id, cause, cause_id, 0);
    let money = (total, sold.currency.as_str());
    open(&stage.estate.service).ask_refund(id, refund, money, &parts, (return_id, reason));
    Ok(())
}
