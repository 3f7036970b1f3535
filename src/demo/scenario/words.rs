//! What people and systems do, in sentences.

use super::phrase::{Gaps, Phrase, time};
use super::stage::{Act, Back, Stage};
use crate::contract::event::{
    ChannelType, DeliveryGroup, DeliveryMethod, Disposition, OrderCharge, OrderLine, OrderSnapshot,
    ReturnMethod, Text,
};
use crate::demo::systems::{Node, ReturnedLine, Tricks, id_of, open};
use crate::domain::money::{Currency, Money, Rounding};
use crate::domain::{Decimal, return_id};

/// Seed of how messages go wrong.
const SEED: u64 = 7;

macro_rules! phrase {
    ($form:literal, $means:literal, $make:expr) => {
        Phrase {
            form: $form,
            means: $means,
            make: $make,
        }
    };
}

pub(super) const PHRASES: &[Phrase] = &[
    phrase!(
        "customer orders <items> in <channel> as <order>",
        "An order is placed; `<items>` is `2 of MUG-1 at 9.90 EUR and 1 of TEE-1 at 20 EUR`. It is shipped home, unless further words follow after commas: `to pick up in <location>`, `may wait` (backorder), `all or nothing`, `shipping costs <money>`, `stating a total of <money>` (a wrong one).",
        order
    ),
    phrase!(
        "customer cancels <order>",
        "All of an order is to be cancelled.",
        |g| {
            let order = g.order()?;
            g.alone()?;
            deed(move |stage| cancel(stage, &order, &[]))
        }
    ),
    phrase!(
        "customer cancels <units> of <order>",
        "Some units are to be cancelled; `<units>` is `1 of MUG-1`.",
        |g| {
            let (order, units) = (g.order()?, g.units()?);
            g.alone()?;
            deed(move |stage| cancel(stage, &order, &units))
        }
    ),
    phrase!(
        "<location> confirms <order>",
        "The node has looked whether the goods are there.",
        |g| at_node(g, |node, order| node.acknowledge(order))
    ),
    phrase!("<location> picks <order>", "All of it is found.", |g| {
        at_node(g, |node, order| node.pick(order, &[]))
    }),
    phrase!(
        "<location> picks <order> and misses <units>",
        "These units are not found; the node books them as lost.",
        |g| {
            let (location, order, units) = (g.location()?, g.order()?, g.units()?);
            g.alone()?;
            deed(move |stage| {
                let (_, id) = stage.order(&order)?;
                open(&*stage.node(&location)?).pick(&id, &units)
            })
        }
    ),
    phrase!(
        "<location> has <order> ready",
        "Goods wait at the counter.",
        |g| at_node(g, |node, order| node.ready(order))
    ),
    phrase!(
        "customer collects <order> from <location>",
        "Goods are handed over at the counter.",
        |g| at_node(g, |node, order| node.collect(order))
    ),
    phrase!(
        "nobody collects <order> from <location>",
        "The time for the pick-up is over: back on the shelf.",
        |g| at_node(g, |node, order| node.give_up(order))
    ),
    phrase!(
        "<location> gives up <order>",
        "The node will not do the work.",
        |g| at_node(g, |node, order| node.give_up(order))
    ),
    phrase!(
        "<location> ships <order>",
        "Everything that was picked leaves in a parcel.",
        |g| at_node(g, |node, order| node.ship(order, &[]))
    ),
    phrase!(
        "<location> ships <units> of <order>",
        "A first parcel with these units; the rest stays picked.",
        |g| {
            let (location, order, units) = (g.location()?, g.order()?, g.units()?);
            g.alone()?;
            deed(move |stage| {
                let (_, id) = stage.order(&order)?;
                open(&*stage.node(&location)?).ship(&id, &units)
            })
        }
    ),
    phrase!(
        "carrier delivers <order> from <location>",
        "The parcels from there have arrived.",
        |g| at_node(g, |node, order| node.deliver(order))
    ),
    phrase!(
        "<location> says that <order> is released again",
        "What cannot be after goods have left.",
        |g| at_node(g, |node, order| node.claim_impossible(order))
    ),
    phrase!(
        "service announces the return of <units> of <order>",
        "The customer will send goods back; `in exchange for <order>` may follow after a comma.",
        announce
    ),
    phrase!(
        "customer returns <units> of <order> to <location>",
        "Goods come back there, are accepted and put on the shelf; `damaged` or `not accepted` may follow after a comma.",
        give_back
    ),
    phrase!(
        "<location> receives <quantity> of <sku>",
        "A supplier delivers.",
        |g| goods(g, Node::receive)
    ),
    phrase!(
        "till in <location> sells <quantity> of <sku>",
        "Somebody buys without an order.",
        |g| goods(g, Node::sell)
    ),
    phrase!(
        "<location> counts <quantity> of <sku>",
        "This much is there.",
        |g| goods(g, Node::count)
    ),
    phrase!(
        "<system> is down for <time>",
        "It tells nothing and answers nobody, until so much time has passed. Systems are ERP, PSP, service, the locations and the channels.",
        |g| {
            let (system, time) = (g.system()?, g.time()?);
            g.alone()?;
            deed(move |stage| {
                let until = stage.crew.now().plus(time);
                stage.down.insert(system.clone(), until);
                stage.at_desk(&system, |desk| desk.set_down(true));
                Ok(())
            })
        }
    ),
    phrase!(
        "<system> tells <time> late",
        "What it does from now on is heard only then.",
        |g| {
            let (system, time) = (g.system()?, g.time()?);
            g.alone()?;
            deed(move |stage| {
                stage.at_desk(&system, |desk| desk.set_delay(time));
                Ok(())
            })
        }
    ),
    phrase!(
        "<system> tells in time",
        "What it does from now on is heard at once.",
        |g| {
            let system = g.system()?;
            g.alone()?;
            deed(move |stage| {
                stage.at_desk(&system, |desk| desk.set_delay(std::time::Duration::ZERO));
                Ok(())
            })
        }
    ),
    phrase!(
        "messages come twice and out of order",
        "From now on, of all systems.",
        |g| {
            g.alone()?;
            deed(|stage| {
                for system in stage.world.systems() {
                    let tricks = Tricks {
                        seed: SEED,
                        twice: 0.5,
                    };
                    stage.at_desk(&system, |desk| desk.play(Some(tricks)));
                }
                Ok(())
            })
        }
    ),
    phrase!(
        "<system> takes the next call and does not answer",
        "The call has its effect; Crossdock does not know and calls again.",
        |g| {
            let system = g.system()?;
            g.alone()?;
            deed(move |stage| {
                stage.at_desk(&system, |desk| desk.cut(1));
                Ok(())
            })
        }
    ),
    phrase!("<time> pass", "Time passes: `15 minutes pass`.", pass),
    phrase!("<time> passes", "Time passes: `1 hour passes`.", pass),
    phrase!(
        "ERP closes <order>",
        "The order is over and its books are judged.",
        |g| {
            let order = g.order()?;
            g.alone()?;
            deed(move |stage| {
                let (_, id) = stage.order(&order)?;
                open(&stage.estate.erp).close(&id)
            })
        }
    ),
    phrase!(
        "ERP loses <order>",
        "Its sale is gone, as when a backup was put back.",
        |g| {
            let order = g.order()?;
            g.alone()?;
            deed(move |stage| {
                let (_, id) = stage.order(&order)?;
                open(&stage.estate.erp).lose(&id)
            })
        }
    ),
    phrase!(
        "ERP lists its orders",
        "All that it has, as its connector lists them.",
        |g| {
            g.alone()?;
            deed(|stage| {
                open(&stage.estate.erp).list();
                Ok(())
            })
        }
    ),
    phrase!("ERP writes no credit notes", "Until it does again.", |g| {
        g.alone()?;
        deed(|stage| {
            open(&stage.estate.erp).set_credits(false);
            Ok(())
        })
    }),
];

pub(super) fn deed(
    deed: impl Fn(&mut Stage) -> Result<(), String> + 'static,
) -> Result<Act, String> {
    Ok(Act::Do(Box::new(deed), Vec::new()))
}

fn pass(g: &Gaps<'_>) -> Result<Act, String> {
    g.alone()?;
    Ok(Act::Pass(time(g.text("time"))?))
}

fn at_node(g: &Gaps<'_>, work: fn(&mut Node, &str) -> Result<(), String>) -> Result<Act, String> {
    let (location, order) = (g.location()?, g.order()?);
    g.alone()?;
    deed(move |stage| {
        let (_, id) = stage.order(&order)?;
        work(&mut open(&*stage.node(&location)?), &id)
    })
}

fn goods(g: &Gaps<'_>, work: fn(&mut Node, &str, Decimal)) -> Result<Act, String> {
    let (location, sku, quantity) = (g.location()?, g.sku()?, g.quantity("quantity")?);
    g.alone()?;
    deed(move |stage| {
        work(&mut open(&*stage.node(&location)?), &sku, quantity);
        Ok(())
    })
}

fn order(g: &Gaps<'_>) -> Result<Act, String> {
    let (items, channel, name) = (g.items()?, g.channel()?, Text::from(g.text("order")));
    if g.world.orders.contains(&name) {
        return Err(format!(
            "there is an order {name} already; give this one another name"
        ));
    }
    let currency = items
        .first()
        .map(|i| i.currency.clone())
        .unwrap_or_default();
    if items.iter().any(|i| i.currency != currency) {
        return Err("an order has one currency".into());
    }
    let exact = Currency::parse(&currency).ok();
    let taxed = |gross: Decimal| {
        let whole = Decimal::ONE + g.world.tax;
        let gross = exact.and_then(|c| Money::new(gross, c).ok());
        let tax = gross.and_then(|m| m.share(g.world.tax, whole, Rounding::HalfUp).ok());
        tax.map(Money::amount).unwrap_or_default()
    };
    let mut group = DeliveryGroup {
        group_id: "1".into(),
        method: DeliveryMethod::ShipToHome,
        address_token: Some("address-1".into()),
        ..DeliveryGroup::default()
    };
    let mut order = OrderSnapshot {
        channel_id: channel.clone(),
        channel_type: ChannelType::Web,
        channel_order_id: name.clone(),
        channel_order_version: 1,
        currency,
        prices_include_tax: true,
        ..OrderSnapshot::default()
    };
    let (mut may_wait, mut stated) = (false, None);
    for more in &g.further {
        if let Some(location) = more.strip_prefix("to pick up in ") {
            let location = super::phrase::is_known(location, "location", &g.world.places())?;
            group.method = DeliveryMethod::PickupInStore;
            group.pickup_location_id = Some(location);
        } else if more == "may wait" {
            may_wait = true;
        } else if more == "all or nothing" {
            order.ship_complete = true;
        } else if let Some(money) = more.strip_prefix("shipping costs ") {
            let (gross, _) = g.amount(money)?;
            order.charges.push(OrderCharge {
                charge_id: "shipping".into(),
                r#type: "SHIPPING".into(),
                net: gross - taxed(gross),
                tax: taxed(gross),
            });
        } else if let Some(money) = more.strip_prefix("stating a total of ") {
            stated = Some(g.amount(money)?.0);
        } else {
            return Err(format!(
                "\"{more}\" says nothing of an order; there is: to pick up in <location>, may wait, all or nothing, shipping costs <money>, stating a total of <money>"
            ));
        }
    }
    for (n, item) in items.iter().enumerate() {
        let total = item.price.times(item.quantity);
        order.lines.push(OrderLine {
            line_id: compact_str::format_compact!("{}", n + 1),
            sku: item.sku.clone(),
            qty: item.quantity,
            uom: "EA".into(),
            unit_price: item.price,
            tax: taxed(total),
            line_total: total,
            delivery_group_id: "1".into(),
            backorder_allowed: may_wait,
            ..OrderLine::default()
        });
    }
    order.delivery_groups.push(group);
    let lines: Decimal = order.lines.iter().map(|l| l.line_total).sum();
    let charges: Decimal = order.charges.iter().map(|c| c.net + c.tax).sum();
    let tax = order
        .lines
        .iter()
        .map(|l| l.tax)
        .chain(order.charges.iter().map(|c| c.tax));
    order.tax_total = tax.sum();
    (order.subtotal, order.charge_total) = (lines, charges);
    order.grand_total = stated.unwrap_or(lines + charges);
    let orders = vec![name.clone()];
    let place = move |stage: &mut Stage| {
        let mut order = order.clone();
        order.placed_at = stage.crew.now();
        stage.orders.insert(name.clone(), order.clone());
        open(&*stage.front(&channel)?).order(order);
        Ok(())
    };
    Ok(Act::Do(Box::new(place), orders))
}

fn cancel(stage: &mut Stage, name: &str, units: &[(Text, Decimal)]) -> Result<(), String> {
    let (order, id) = stage.order(name)?;
    let mut lines = Vec::new();
    for (sku, quantity) in units {
        lines.push((line_of(&order, sku)?, *quantity));
    }
    open(&*stage.front(&order.channel_id)?).cancel(&id, &lines);
    Ok(())
}

/// The line of an order that is of this SKU.
pub(super) fn line_of(order: &OrderSnapshot, sku: &str) -> Result<Text, String> {
    let line = order.lines.iter().find(|l| l.sku == sku);
    line.map(|l| l.line_id.clone())
        .ok_or_else(|| format!("the order has no {sku}"))
}

fn announce(g: &Gaps<'_>) -> Result<Act, String> {
    let (order, units) = (g.order()?, g.units()?);
    let exchange = match g.further.as_slice() {
        [] => None,
        [more] => {
            let other = more.strip_prefix("in exchange for ").ok_or_else(|| {
                format!("\"{more}\" says nothing of a return; there is: in exchange for <order>")
            })?;
            Some(super::phrase::is_known(other, "order", &g.world.orders)?)
        }
        _ => return Err("one exchange at most".into()),
    };
    deed(move |stage| {
        let exchange = match &exchange {
            Some(other) => Some(id_of(&stage.order(other)?.0)),
            None => None,
        };
        let back = begin(stage, &order, &units, "service")?;
        let lines = returned(&back, Decimal::ZERO, Disposition::Restock);
        let (_, id) = stage.order(&order)?;
        open(&stage.estate.service).announce(&id, &back.id, &lines, exchange);
        stage.returns.entry(order.clone()).or_default().push(back);
        Ok(())
    })
}

fn give_back(g: &Gaps<'_>) -> Result<Act, String> {
    let (order, units, location) = (g.order()?, g.units()?, g.location()?);
    let (mut disposition, mut accepted) = (Disposition::Restock, true);
    for more in &g.further {
        match more.as_str() {
            "damaged" => disposition = Disposition::Damaged,
            "not accepted" => accepted = false,
            _ => {
                return Err(format!(
                    "\"{more}\" says nothing of a return; there is: damaged, not accepted"
                ));
            }
        }
    }
    deed(move |stage| {
        let (_, id) = stage.order(&order)?;
        let known = stage.returns.entry(order.clone()).or_default();
        let announced = known.iter_mut().find(|r| !r.here);
        let (back, method) = match announced {
            Some(back) => {
                back.here = true;
                (back.clone(), ReturnMethod::Mail)
            }
            None => {
                let mut back = begin(stage, &order, &units, &location)?;
                back.here = true;
                let known = stage.returns.entry(order.clone()).or_default();
                known.push(back.clone());
                (back, ReturnMethod::Store)
            }
        };
        let mut lines = returned(&back, Decimal::ZERO, disposition);
        if !accepted {
            lines.iter_mut().for_each(|l| l.rejected = l.quantity);
        }
        open(&*stage.node(&location)?).take_back(&id, &back.id, &lines, method);
        Ok(())
    })
}

/// A return of its own.
fn begin(stage: &Stage, name: &str, units: &[(Text, Decimal)], by: &str) -> Result<Back, String> {
    let (order, id) = stage.order(name)?;
    let number = stage.returns.get(name).map_or(0, Vec::len) + 1;
    let mut back = Vec::new();
    for (sku, quantity) in units {
        back.push((line_of(&order, sku)?, sku.clone(), *quantity));
    }
    Ok(Back {
        id: return_id(&id, by, &number.to_string()).to_string().into(),
        units: back,
        here: false,
    })
}

fn returned(back: &Back, rejected: Decimal, disposition: Disposition) -> Vec<ReturnedLine> {
    let line = |(line, sku, quantity): &(Text, Text, Decimal)| ReturnedLine {
        line: line.clone(),
        sku: sku.clone(),
        quantity: *quantity,
        rejected,
        disposition,
    };
    back.units.iter().map(line).collect()
}
