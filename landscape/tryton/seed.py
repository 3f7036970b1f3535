"""Seeds a new Tryton database: company, chart, tax, a second warehouse with a till, products, opening stock, customers, REST key.

The books are set up with proteus and the scenario helpers of Tryton's own modules, the many rows by bulk RPC.
"""
import datetime as dt
import os
import sys
from decimal import Decimal

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..'))
import catalogue
import client
from proteus import Model, config
from trytond.modules.account.tests.tools import create_chart, create_fiscalyear, create_tax, get_accounts
from trytond.modules.account_invoice.tests.tools import create_payment_term, set_fiscalyear_invoice_sequences
from trytond.modules.company.tests.tools import create_company

HOME = os.environ['TRYTON_HOME']
with open(os.path.join(HOME, 'password')) as file:
    PASSWORD = file.read().strip()


def set_up_books():
    create_company()
    create_chart()
    accounts = get_accounts()
    this_year = dt.date.today().year
    for year in (this_year, this_year + 1):  # the seeded copy outlives New Year's Eve
        fiscal_year = set_fiscalyear_invoice_sequences(
            create_fiscalyear(today=(dt.date(year, 1, 1), dt.date(year, 12, 31))))
        fiscal_year.save()
        fiscal_year.click('create_period')
    tax = create_tax(Decimal('.20'))
    tax.save()
    create_payment_term().save()
    goods = Model.get('product.category')(
        name='Goods', accounting=True, account_expense=accounts['expense'], account_revenue=accounts['revenue'])
    goods.customer_taxes.append(tax)
    goods.save()
    journal, = Model.get('account.journal').find([('type', '=', 'cash')], limit=1)
    Model.get('account.invoice.payment.method')(
        name='Cash', journal=journal, credit_account=accounts['cash'], debit_account=accounts['cash']).save()
    return accounts


def set_up_store(accounts):
    """The second warehouse, code STORE with storage STORE-STO, and its till."""
    Location = Model.get('stock.location')
    parts = {}
    for part in ('IN', 'OUT', 'STO'):
        parts[part] = Location(name=f'Store {part}', code=f'STORE-{part}', type='storage')
        parts[part].save()
    store = Location(name='Store', code='STORE', type='warehouse', input_location=parts['IN'],
                     output_location=parts['OUT'], storage_location=parts['STO'])
    store.lost_found_location, = Location.find([('type', '=', 'lost_found')], limit=1)
    store.save()

    till = Model.get('sale.point')(name='Till 1')
    till.journal, = Model.get('account.journal').find([('type', '=', 'revenue')], limit=1)
    numbers, = Model.get('ir.sequence.type').find([('name', '=', 'POS')], limit=1)
    till.sequence = Model.get('ir.sequence.strict')(name='POS', company=till.company, sequence_type=numbers)
    till.sequence.save()
    till.storage_location = till.return_location = parts['STO']
    till.customer_location, = Location.find([('code', '=', 'CUS')])
    till.save()
    Model.get('sale.point.payment.method')(name='Cash', account=accounts['cash'], cash=True).save()
    for origin in ('sale.sale', 'sale.line', 'account.invoice'):
        model, = Model.get('ir.model').find([('name', '=', origin)])
        Model.get('sale.complaint.type')(name=f'Return {origin}', origin=model).save()


def create_rows(session):
    category = session.find('product.category', [['accounting', '=', True]])[0]['id']
    unit = session.find('product.uom', [['name', '=', 'Unit']])[0]['id']
    products = catalogue.products()
    session('model.product.template.create', [dict(
        name=product.name, code=product.sku, type='goods', default_uom=unit, sale_uom=unit, salable=True,
        purchasable=True, purchase_uom=unit, list_price=Decimal(product.price_cents) / 100, account_category=category,
        products=[['create', [{}]]]) for product in products])
    session('model.party.party.create', [dict(name='Supplier', code='SUPPLIER', addresses=[['create', [dict(city='Lyon')]]])] + [
        dict(name=f'Customer {customer.code}', code=customer.code,
             addresses=[['create', [dict(street=customer.street, city='Paris', postal_code=customer.postal_code)]]],
             contact_mechanisms=[['create', [dict(type='email', value=customer.email)]]])
        for customer in catalogue.customers()])
    ids = {row['code']: row['id'] for row in session.find('product.product', [['code', 'like', 'SKU-%']], ['code'])}
    for name, code in zip(catalogue.LOCATIONS, ('STO', 'STORE-STO')):
        location = session.find('stock.location', [['code', '=', code]])[0]['id']
        count, = session('model.stock.inventory.create', [dict(
            location=location, date=dt.date.today(), empty_quantity='keep', lines=[['create', [
                dict(product=ids[product.sku], quantity=float(product.opening[name])) for product in products]]])])
        session('model.stock.inventory.confirm', [count])


def create_rest_key(session):
    """A REST key is asked for by the user, then validated by the user."""
    key = client.post('r/user/application/', {'user': 'admin', 'application': 'rest'})
    request, = session.find('res.user.application', [['state', '=', 'requested']])
    session('model.res.user.application.validate_', [request['id']])
    catalogue.secret_file(os.path.join(HOME, 'rest.key'), key)


with config.set_xmlrpc_session(f'{client.URL}/{client.DATABASE}/rpc/', 'admin', PASSWORD):
    set_up_store(set_up_books())
session = client.Session(PASSWORD)
create_rows(session)
create_rest_key(session)
