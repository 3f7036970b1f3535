"""Seeds a new Odoo database: two warehouses, products, customers, opening stock, a till in the store."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..'))
import catalogue
import client

with open(os.path.join(os.environ['ODOO_HOME'], 'api.key')) as file:
    session = client.Session(file.read())


def warehouse(code):
    return session.find('stock.warehouse', [('code', '=', code)], ['lot_stock_id', 'pos_type_id'])[0]


session.create('stock.warehouse', [{'name': 'Store', 'code': 'STORE'}])
tax, = session.create('account.tax', [dict(name='VAT 20%', amount=20, amount_type='percent', type_tax_use='sale')])
session.create('product.template', [dict(
    name=product.name, default_code=product.sku, type='consu', is_storable=True, list_price=product.price_cents / 100,
    available_in_pos=True, invoice_policy='delivery', taxes_id=[(6, 0, [tax])]) for product in catalogue.products()])
session.create('res.partner', [dict(
    name=f'Customer {customer.code}', ref=customer.code, street=customer.street, city='Paris', zip=customer.postal_code,
    email=customer.email) for customer in catalogue.customers()])
ids = {row['default_code']: row['id'] for row in session.find(
    'product.product', [('default_code', '=like', 'SKU-%')], ['default_code'])}
for name, code in zip(catalogue.LOCATIONS, ('WH', 'STORE')):
    place = warehouse(code)['lot_stock_id'][0]
    # Absolute, and applied in the same call; without inventory_mode it would be a second row beside the first.
    session('stock.quant', 'create', {'inventory_mode': True}, vals_list=[dict(
        product_id=ids[product.sku], location_id=place, inventory_quantity_auto_apply=product.opening[name])
        for product in catalogue.products()])
session('pos.config', 'load_onboarding_retail_scenario')
till = session.find('pos.config', [])[0]['id']
session('pos.config', 'write', ids=[till], vals={'picking_type_id': warehouse('STORE')['pos_type_id'][0]})
# Stock moves with the sale, not with the end of the session.
session('res.company', 'write', ids=[1], vals={'point_of_sale_update_stock_quantities': 'real'})
