"""Seeds an empty Medusa through its admin API: region, tax, stock locations, shipping, API keys, products, stock, customers.

Writes the connectors' secret API key to $MEDUSA_SECRET_KEY_FILE and the shop's publishable key beside it.
"""
import json
import os
import sys
import urllib.error
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..'))
import catalogue

URL = f"http://127.0.0.1:{os.environ['LANDSCAPE_MEDUSA_PORT']}"
headers = {'content-type': 'application/json'}


def call(method, path, body=None):
    request = urllib.request.Request(URL + path, None if body is None else json.dumps(body).encode(), headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=300) as response:
            return json.loads(response.read())
    except urllib.error.HTTPError as error:
        raise SystemExit(f'medusa refused {method} {path}: {error.code} {error.read().decode()[:2000]}') from None


def get(path):
    return call('GET', path)


def post(path, **body):
    return call('POST', path, body)


def chunks(items, size):
    return [items[i:i + size] for i in range(0, len(items), size)]


login = post('/auth/user/emailpass', email='admin@example.com', password='admin-password')
headers['authorization'] = f"Bearer {login['token']}"

channels = get('/admin/sales-channels')['sales_channels']
channel = channels[0]['id'] if channels else post('/admin/sales-channels', name='Web')['sales_channel']['id']
shop = get('/admin/stores')['stores'][0]['id']
post(f'/admin/stores/{shop}', supported_currencies=[dict(currency_code='eur', is_default=True)],
     default_sales_channel_id=channel)
post('/admin/regions', name='Europe', currency_code='eur', countries=['fr'], payment_providers=['pp_system_default'])
post('/admin/tax-regions', country_code='fr', provider_id='tp_system',
     default_tax_rate=dict(rate=20, name='VAT', code='VAT20'))
profiles = get('/admin/shipping-profiles')['shipping_profiles']
profile = profiles[0]['id'] if profiles else \
    post('/admin/shipping-profiles', name='Default', type='default')['shipping_profile']['id']

locations = {}
for name in catalogue.LOCATIONS:
    location = post('/admin/stock-locations', name=name, address=dict(address_1='1 Quay', country_code='fr'))['stock_location']['id']
    locations[name] = location
    post(f'/admin/stock-locations/{location}/fulfillment-providers', add=['manual_manual'])
    post(f'/admin/stock-locations/{location}/sales-channels', add=[channel])
    sets = post(f'/admin/stock-locations/{location}/fulfillment-sets?fields=*fulfillment_sets',
                name=f'{name} shipping', type='shipping')['stock_location']['fulfillment_sets']
    zones = post(f"/admin/fulfillment-sets/{sets[-1]['id']}/service-zones", name=f'{name} France',
                 geo_zones=[dict(type='country', country_code='fr')])['fulfillment_set']['service_zones']
    post('/admin/shipping-options', name=f'Standard {name}', service_zone_id=zones[-1]['id'], shipping_profile_id=profile,
         provider_id='manual_manual', price_type='flat', type=dict(label='Standard', description='Standard', code='standard'),
         prices=[dict(currency_code='eur', amount=5)],
         rules=[dict(attribute='enabled_in_store', operator='eq', value='true'),
                dict(attribute='is_return', operator='eq', value='false')])

publishable = post('/admin/api-keys', title='web', type='publishable')['api_key']
post(f"/admin/api-keys/{publishable['id']}/sales-channels", add=[channel])
secret = post('/admin/api-keys', title='connector', type='secret')['api_key']  # its token is shown this once only
secret_file = os.environ['MEDUSA_SECRET_KEY_FILE']
catalogue.secret_file(secret_file, secret['token'])
catalogue.secret_file(os.path.join(os.path.dirname(secret_file), 'publishable.key'), publishable['token'])

products = catalogue.products()
for some in chunks(products, 50):
    post('/admin/products/batch', create=[dict(
        title=product.name, handle=product.sku.lower(), status='published', shipping_profile_id=profile,
        sales_channels=[dict(id=channel)], options=[dict(title='Size', values=['one'])],
        variants=[dict(title='one', sku=product.sku, manage_inventory=True, options=dict(Size='one'),
                       prices=[dict(currency_code='eur', amount=product.price_cents / 100)])]) for product in some])
items = {item['sku']: item['id'] for item in get('/admin/inventory-items?limit=10000&fields=id,sku')['inventory_items']}
for some in chunks(products, 100):
    post('/admin/inventory-items/location-levels/batch', create=[dict(
        inventory_item_id=items[product.sku], location_id=locations[name], stocked_quantity=count)
        for product in some for name, count in product.opening.items()])
for customer in catalogue.customers():
    post('/admin/customers', email=customer.email, first_name=customer.code, last_name='Customer')
