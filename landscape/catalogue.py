"""The products, stock locations, opening stock and customers that every system of the landscape is seeded with."""
import os

PRODUCTS = int(os.environ.get('LANDSCAPE_PRODUCTS', 300))
CUSTOMERS = int(os.environ.get('LANDSCAPE_CUSTOMERS', 50))
LOCATIONS = ('Warehouse', 'Store')


class Product:
    """Product number i. Its opening stock differs from its neighbours', so that a mixed-up SKU shows."""

    def __init__(self, i):
        self.sku = f'SKU-{i:04d}'
        self.name = f'Product {i:04d}'
        self.price_cents = 500 + i
        self.opening = {'Warehouse': 50 + i % 97, 'Store': 10 + i % 31}


class Customer:
    def __init__(self, i):
        self.code = f'C{i:03d}'
        self.email = f'c{i:03d}@example.com'
        self.street = f'{i} Main Street'
        self.postal_code = f'75{i:03d}'


def products():
    return [Product(i) for i in range(PRODUCTS)]


def customers():
    return [Customer(i) for i in range(CUSTOMERS)]


def secret_file(path, text):
    """Writes a credential that only the owner may read."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 'w') as file:
        file.write(text)
