// Subscriber for every event of interest: appends it to outbox.jsonl and, when WEBHOOK_URL is set, posts it there.
const fs = require('fs')

let seq = 0

module.exports.default = async function ({ event }) {
  const line = JSON.stringify({ seq: ++seq, at: new Date().toISOString(), name: event.name, data: event.data })
  fs.appendFileSync(process.env.MEDUSA_OUTBOX, line + '\n')
  if (process.env.WEBHOOK_URL) {
    const headers = { 'content-type': 'application/json' }
    await fetch(process.env.WEBHOOK_URL, { method: 'POST', headers, body: line }).catch(() => {})
  }
}

module.exports.config = {
  event: [
    'order.placed', 'order.updated', 'order.canceled', 'order.completed', 'order.fulfillment_created',
    'order.fulfillment_canceled', 'order.return_requested', 'order.return_received', 'order.claim_created',
    'order.exchange_created', 'shipment.created', 'delivery.created', 'payment.captured', 'payment.refunded',
    'product.created', 'product.updated', 'product-variant.created', 'product-variant.updated', 'customer.created',
    'inventory.inventory-level.updated', 'inventory.inventory-level.created',
    'inventory.reservation-item.created', 'inventory.reservation-item.deleted',
  ],
}
