"""Tryton's JSON-RPC with nothing but the standard library."""
import base64
import datetime as dt
import json
import os
import urllib.error
import urllib.request
from decimal import Decimal

URL = f"http://127.0.0.1:{os.environ.get('LANDSCAPE_TRYTON_PORT', '8300')}"
DATABASE = 'tryton'


class Fault(Exception):
    pass


def encode(value):
    if isinstance(value, Decimal):
        return {'__class__': 'Decimal', 'decimal': str(value)}
    if isinstance(value, dt.date):
        return {'__class__': 'date', 'year': value.year, 'month': value.month, 'day': value.day}
    raise TypeError(value)


def decode(value):
    kind = value.get('__class__')
    if kind == 'Decimal':
        return Decimal(value['decimal'])
    if kind == 'date':
        return dt.date(value['year'], value['month'], value['day'])
    if kind == 'datetime':
        return dt.datetime(*(value[part] for part in ('year', 'month', 'day', 'hour', 'minute', 'second', 'microsecond')))
    return value


def post(path, body, headers=None):
    request = urllib.request.Request(f'{URL}/{DATABASE}/{path}', json.dumps(body, default=encode).encode(),
                                     {'Content-Type': 'application/json', **(headers or {})})
    try:
        with urllib.request.urlopen(request, timeout=300) as response:
            return json.loads(response.read(), object_hook=decode)
    except urllib.error.HTTPError as error:
        raise Fault(error.code, error.read().decode(errors='replace')) from None


class Session:
    """session('model.party.party.create', [values]) or session.find('party.party', domain, fields)"""

    def __init__(self, password, user='admin'):
        self.headers, self.context = {}, {}
        uid, token = self.call('common.db.login', [user, {'password': password}, 'en'])[:2]
        credentials = base64.b64encode(f'{user}:{uid}:{token}'.encode()).decode()
        self.headers = {'Authorization': f'Session {credentials}'}
        self.context = self('model.res.user.get_preferences', True)

    def call(self, method, params):
        answer = post('rpc/', {'id': 1, 'method': method, 'params': params}, self.headers)
        if isinstance(answer, dict) and answer.get('error'):
            raise Fault(*answer['error'])
        return answer['result'] if isinstance(answer, dict) and 'result' in answer else answer

    def __call__(self, method, *params):
        return self.call(method, [*params, self.context])

    def find(self, model, domain, fields=('id',)):
        return self(f'model.{model}.search_read', domain, 0, None, None, list(fields))
