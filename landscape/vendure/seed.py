"""Seeds an empty Vendure through its admin API: zone, tax, channel, shipping, payment, stock locations, products, customers."""
import json
import os
import sys
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..'))
import catalogue

URL = f"http://127.0.0.1:{os.environ['LANDSCAPE_VENDURE_PORT']}/admin-api"
token = None


def call(query, **variables):
    global token
    headers = {'content-type': 'application/json', **({'authorization': f'Bearer {token}'} if token else {})}
    request = urllib.request.Request(URL, json.dumps({'query': query, 'variables': variables}).encode(), headers)
    with urllib.request.urlopen(request, timeout=120) as response:
        token = response.headers.get('vendure-auth-token') or token
        answer = json.loads(response.read())
    if answer.get('errors'):
        raise SystemExit(f'vendure refused the seed: {json.dumps(answer["errors"])[:2000]}')
    (value,) = answer['data'].values()
    return value


def create(kind, value):
    """One create mutation of the regular form; answers the new id."""
    return call(f'mutation($input: Create{kind}Input!) {{ create{kind}(input: $input) {{ id }} }}', input=value)['id']


def english(name, **more):
    return [dict(languageCode='en', name=name, **more)]


def argument(name, value):
    return dict(name=name, value=value)


call('mutation { login(username: "superadmin", password: "superadmin") { __typename } }')
france = create('Country', dict(code='FR', enabled=True, translations=english('France')))
zone = create('Zone', dict(name='Europe', memberIds=[france]))
category = create('TaxCategory', dict(name='Standard', isDefault=True))
create('TaxRate', dict(name='VAT 20', enabled=True, value=20, categoryId=category, zoneId=zone))
call('mutation($input: UpdateChannelInput!) { updateChannel(input: $input) { __typename } }', input=dict(
    id=call('{ activeChannel { id } }')['id'], defaultTaxZoneId=zone, defaultShippingZoneId=zone, pricesIncludeTax=False,
    availableCurrencyCodes=['EUR'], defaultCurrencyCode='EUR', trackInventory=True))
create('ShippingMethod', dict(
    code='standard', fulfillmentHandler='manual-fulfillment', translations=english('Standard', description=''),
    checker=dict(code='default-shipping-eligibility-checker', arguments=[argument('orderMinimum', '0')]),
    calculator=dict(code='default-shipping-calculator', arguments=[
        argument('rate', '500'), argument('includesTax', 'auto'), argument('taxRate', '20')])))
create('PaymentMethod', dict(
    code='dummy', enabled=True, translations=english('Dummy', description=''),
    handler=dict(code='dummy-payment-handler', arguments=[argument('automaticSettle', 'true')])))

# a new Vendure has one stock location already
first = call('{ stockLocations { items { id } } }')['items'][0]['id']
call('mutation($input: UpdateStockLocationInput!) { updateStockLocation(input: $input) { id } }',
     input=dict(id=first, name=catalogue.LOCATIONS[0]))
locations = {catalogue.LOCATIONS[0]: first}
for name in catalogue.LOCATIONS[1:]:
    locations[name] = create('StockLocation', dict(name=name))

for product in catalogue.products():
    parent = create('Product', dict(enabled=True, translations=english(product.name, slug=product.sku.lower(), description='')))
    call('mutation($input: [CreateProductVariantInput!]!) { createProductVariants(input: $input) { id } }', input=[dict(
        productId=parent, sku=product.sku, price=product.price_cents, trackInventory='TRUE', optionIds=[],
        translations=english(product.name),
        stockLevels=[dict(stockLocationId=locations[name], stockOnHand=count) for name, count in product.opening.items()])])
for customer in catalogue.customers():
    call('mutation($input: CreateCustomerInput!) { createCustomer(input: $input, password: "customer") { __typename } }',
         input=dict(firstName=customer.code, lastName='Customer', emailAddress=customer.email))
