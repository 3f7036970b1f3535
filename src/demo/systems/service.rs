//! Customer service: announces returns and asks for refunds.

use super::amount;
use super::desk::{Desk, System};
use super::node::{ReturnedLine, return_event, return_line};
use crate::contract::event::{
    RefundAllocation, RefundRequest, RefundType, ReturnMethod, ReturnStatus, Text,
};
use crate::contract::topic;
use crate::domain::{Decimal, natural_id};
use serde_json::json;
use uuid::Uuid;

/// Customer service.
pub(crate) struct Service {
    desk: Desk,
    asked: i64,
}

/// What money is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Allocation {
    pub line: Option<Text>,
    pub quantity: Decimal,
    pub net: Decimal,
    pub tax: Decimal,
    pub kind: RefundType,
}

impl Service {
    pub fn new(desk: Desk) -> Self {
        Service { desk, asked: 0 }
    }

    /// A return by post is announced and approved.
    pub fn announce(
        &mut self,
        order: &str,
        id: &str,
        lines: &[ReturnedLine],
        exchange: Option<Text>,
    ) {
        let mut event = return_event(&self.desk, order, id, 1, ReturnStatus::Approved);
        event.method = ReturnMethod::Mail;
        event.exchange_order_id = exchange;
        event.lines = lines
            .iter()
            .map(|l| return_line(l, ReturnStatus::Approved))
            .collect();
        self.desk.write(
            "return",
            json!({"order": order, "return": id, "version": 1, "status": "APPROVED",
                "lines": lines.iter().map(|l| json!({"line": l.line, "sku": l.sku, "requested": l.quantity})).collect::<Vec<_>>()}),
        );
        self.desk.tell(topic::RETURN_EVENT, order, event);
    }

    /// Asks for money to go back; the amount is stated apart, so that it can be wrong.
    pub fn ask_refund(
        &mut self,
        order: &str,
        refund: Uuid,
        (total, currency): (Decimal, &str),
        allocations: &[Allocation],
        (return_id, reason): (Option<Text>, Option<Text>),
    ) {
        self.asked += 1;
        let request = natural_id(&[
            "request",
            order,
            &refund.to_string(),
            &self.asked.to_string(),
        ]);
        let stated = allocations.iter().map(|a| {
            json!({"line": a.line, "quantity": a.quantity, "net": a.net, "tax": a.tax, "type": a.kind.symbol()})
        });
        self.desk.write(
            "refund-request",
            json!({"order": order, "request": request, "refund": refund, "return": return_id,
                "amount": total, "currency": currency, "allocations": stated.collect::<Vec<_>>()}),
        );
        let allocations = allocations.iter().map(|a| RefundAllocation {
            order_line_id: a.line.clone(),
            qty: a.quantity,
            net: a.net,
            tax: a.tax,
            r#type: a.kind,
        });
        let event = RefundRequest {
            meta: self.desk.meta("RefundRequest", &request.to_string(), 1),
            order_id: order.into(),
            request_id: request,
            refund_id: refund,
            return_id,
            amount: amount(total, currency),
            allocations: allocations.collect(),
            requested_by: "service".into(),
            reason,
            ..RefundRequest::default()
        };
        self.desk.tell(topic::REFUND_REQUEST, order, event);
    }
}

impl System for Service {
    fn desk(&self) -> &Desk {
        &self.desk
    }
    fn desk_mut(&mut self) -> &mut Desk {
        &mut self.desk
    }
}
