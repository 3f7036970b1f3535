// Subscriber for every event of interest: appends it to outbox.jsonl and, when WEBHOOK_URL is set, posts it there,
// signed with WEBHOOK_SECRET (base64) by the Standard Webhooks specification.
const crypto = require('crypto')
const fs = require('fs')

let seq = 0

// Headers of a delivery: its name, its time and, with a secret, the signature over both and the body.
function signed(body) {
  const id = crypto.randomUUID()
  const at = Math.floor(Date.now() / 1000)
  const headers = { 'content-type': 'application/json', 'webhook-id': id, 'webhook-timestamp': `${at}` }
  if (process.env.WEBHOOK_SECRET) {
    const mac = crypto.createHmac('sha256', Buffer.from(process.env.WEBHOOK_SECRET, 'base64'))
    headers['webhook-signature'] = `v1,${mac.update(`${id}.${at}.${body}`).digest('base64')}`
  }
  return headers
}

module.exports.default = async function ({ event }) {
  const line = JSON.stringify({ seq: ++seq, at: new Date().toISOString(), name: event.name, data: event.data })
  fs.appendFileSync(process.env.MEDUSA_OUTBOX, line + '\n')
  if (process.env.WEBHOOK_URL) {
    await fetch(process.env.WEBHOOK_URL, { method: 'POST', headers: signed(line), body: line }).catch(() => {})
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
