"""Run by `odoo shell`, which gives env: warehouses, books, and an API key for admin."""
import os
import sys

sys.path.insert(0, os.environ['LANDSCAPE_SCRIPTS'])
import catalogue

company = env['res.company'].browse(1)  # noqa: F821
if not company.country_id:
    company.country_id = env.ref('base.us')  # noqa: F821
if not company.chart_template:
    env['account.chart.template'].try_loading('generic_coa', company, install_demo=False)  # noqa: F821
# What the web client sets in Inventory > Settings.
for group in ('stock.group_stock_multi_locations', 'stock.group_stock_multi_warehouses'):
    env.ref('base.group_user').implied_ids |= env.ref(group)  # noqa: F821
admin = env.ref('base.user_admin')  # noqa: F821
key = env['res.users.apikeys'].with_user(admin).sudo()._generate(None, 'connector', None)  # noqa: F821
env.cr.commit()  # noqa: F821
catalogue.secret_file(os.path.join(os.environ['ODOO_HOME'], 'api.key'), key)
