// A Vendure 3 shop on loopback: SQLite file, dummy payments, manual fulfilment. Its EventBus is written to outbox.jsonl
// and, when WEBHOOK_URL is set, posted there, signed with WEBHOOK_SECRET (base64) by the Standard Webhooks specification.
// Settings come from the environment; see vendure.sh.
const crypto = require('crypto')
const fs = require('fs')
const path = require('path')
process.env.VENDURE_DISABLE_TELEMETRY = 'true'
const core = require('@vendure/core')

const data = process.env.VENDURE_DATA

const pick = (entity, keys) => Object.fromEntries(keys.filter((key) => entity?.[key] !== undefined).map((key) => [key, entity[key]]))
const order = (entity) => pick(entity, ['id', 'code', 'state', 'updatedAt', 'total', 'totalWithTax'])
const movement = (entity) => ({
  ...pick(entity, ['id', 'type', 'quantity']),
  sku: entity.productVariant?.sku,
  location: entity.stockLocationId,
})

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

class OutboxPlugin {
  constructor(bus) {
    this.bus = bus
    this.seq = 0
  }

  onApplicationBootstrap() {
    this.on(core.OrderPlacedEvent, (e) => ({ order: order(e.order) }))
    this.on(core.OrderStateTransitionEvent, (e) => ({ from: e.fromState, to: e.toState, order: order(e.order) }))
    this.on(core.FulfillmentStateTransitionEvent, (e) => ({
      from: e.fromState, to: e.toState, fulfillment: pick(e.fulfillment, ['id', 'trackingCode', 'method']),
    }))
    this.on(core.PaymentStateTransitionEvent, (e) => ({
      from: e.fromState, to: e.toState, order: order(e.order), payment: pick(e.payment, ['id', 'amount', 'transactionId']),
    }))
    this.on(core.RefundStateTransitionEvent, (e) => ({
      from: e.fromState, to: e.toState, order: order(e.order), refund: pick(e.refund, ['id', 'total', 'reason']),
    }))
    this.on(core.OrderLineEvent, (e) => e.type === 'cancelled' && { action: e.type, order: order(e.order) })
    this.on(core.StockMovementEvent, (e) => ({ action: e.type, movements: e.stockMovements.map(movement) }))
    this.on(core.ProductEvent, (e) => ({ action: e.type, product: pick(e.entity, ['id', 'name', 'updatedAt']) }))
    this.on(core.ProductVariantEvent, (e) => ({
      action: e.type, variants: [].concat(e.entity).map((variant) => pick(variant, ['id', 'sku', 'updatedAt'])),
    }))
    this.on(core.CustomerEvent, (e) => ({ action: e.type, customer: pick(e.entity, ['id', 'emailAddress', 'updatedAt']) }))
  }

  on(Event, describe) {
    this.bus.ofType(Event).subscribe((event) => {
      const said = describe(event)
      if (!said) return
      const line = JSON.stringify({ seq: ++this.seq, type: Event.name, at: event.createdAt, ...said })
      fs.appendFileSync(path.join(data, 'outbox.jsonl'), line + '\n')
      if (process.env.WEBHOOK_URL) {
        fetch(process.env.WEBHOOK_URL, { method: 'POST', headers: signed(line), body: line }).catch(() => {})
      }
    })
  }
}
Reflect.defineMetadata('design:paramtypes', [core.EventBus], OutboxPlugin)
core.VendurePlugin({ imports: [core.PluginCommonModule], compatibility: '^3.0.0' })(OutboxPlugin)

// The shop says how many units customers can buy, not only whether there are any.
const exactStock = { getStockLevel: (ctx, variant, saleable) => String(saleable) }

core
  .bootstrap({
    catalogOptions: { stockDisplayStrategy: exactStock },
    logger: new core.DefaultLogger({ level: core.LogLevel.Info, timestamp: true }),
    apiOptions: {
      hostname: '127.0.0.1',
      port: Number(process.env.LANDSCAPE_VENDURE_PORT),
      adminApiPath: 'admin-api',
      shopApiPath: 'shop-api',
    },
    authOptions: {
      tokenMethod: ['bearer', 'cookie', 'api-key'],
      requireVerification: false,
      superadminCredentials: { identifier: 'superadmin', password: 'superadmin' },
      cookieOptions: { secret: 'landscape' },
    },
    dbConnectionOptions: {
      type: 'better-sqlite3',
      database: path.join(data, 'vendure.sqlite'),
      synchronize: process.env.VENDURE_CREATE === 'yes',
      logging: false,
    },
    paymentOptions: { paymentMethodHandlers: [core.dummyPaymentHandler] },
    shippingOptions: { fulfillmentHandlers: [core.manualFulfillmentHandler] },
    plugins: [OutboxPlugin, core.DefaultJobQueuePlugin],
  })
  .then((app) => app.get(core.JobQueueService).start())
  .catch((error) => {
    console.error(error)
    process.exit(1)
  })
