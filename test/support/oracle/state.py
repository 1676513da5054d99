"""What a committed state of an oracle database is, and its digest.

Invariants every commit of the writer keeps, and the checker proves:
1. Table `oracle` has one row: seq (one more than the commit before), digest, and the number of rows of all other
   tables together.
2. digest is the XOR of row_digest over every row of every other table, of schema_digest over every schema entry,
   and of seal_digest over the oracle row itself. XOR is commutative, so the writer maintains it row by row, and the
   checker recomputes it from nothing but the file.
3. Every row carries the seq of the commit that last wrote it, and each commit writes at least one row that stays:
   the largest seq of all rows is the oracle's seq.
4. The balances of table `account` add up to 0 (a transfer changes two rows, usually on two pages).
All tables but `oracle` have the same four columns: id, seq, number, payload. Tables whose names begin with
`_litestream_` are not the writer's and count for nothing: Litestream adds them to the databases it replicates.
"""
import sqlite3
import struct
from hashlib import blake2b

ACCOUNTS = 64

SCHEMA = (
    'CREATE TABLE oracle(id INTEGER PRIMARY KEY CHECK (id = 1), seq INTEGER NOT NULL, digest INTEGER NOT NULL, '
    'rows INTEGER NOT NULL)',
    'CREATE TABLE account(id INTEGER PRIMARY KEY, seq INTEGER NOT NULL, number INTEGER NOT NULL, '
    'payload BLOB NOT NULL)',
    'CREATE TABLE item(id INTEGER PRIMARY KEY, seq INTEGER NOT NULL, number INTEGER NOT NULL, '
    'payload BLOB NOT NULL)',
    'CREATE INDEX item_number ON item(number)',
)

OWN = "substr({column}, 1, 12) <> '_litestream_'"

_row_head = struct.Struct('<qqq').pack


def _digest(text):
    return int.from_bytes(blake2b(text, digest_size=8).digest(), 'little', signed=True)


def row_digest(table, id, seq, number, payload):
    """64 bits, signed, of one row; `table` is the table's name as bytes."""
    return int.from_bytes(
        blake2b(table + _row_head(id, seq, number) + payload, digest_size=8).digest(), 'little', signed=True)


def seal_digest(seq, rows):
    return _digest(b'oracle' + struct.pack('<qq', seq, rows))


def schema_digest(connection, name=None):
    """The digest of the schema entries called `name`, or of all."""
    query = ('SELECT type, name, tbl_name, sql FROM sqlite_master '
             f'WHERE sql IS NOT NULL AND {OWN.format(column="tbl_name")}')
    rows = connection.execute(query + ' AND name = ?', (name,)) if name else connection.execute(query)
    digest = 0
    for row in rows:
        digest ^= _digest('\0'.join(row).encode())
    return digest


def tables(connection):
    """The names of the tables whose rows count, in the order of their names."""
    return [name for (name,) in connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name <> 'oracle' "
        f'AND {OWN.format(column="name")} ORDER BY name')]


def row_digests(connection, table):
    """Yields (id, seq, number, digest) of every row of a table."""
    name = table.encode()
    for id, seq, number, payload in connection.execute(f'SELECT id, seq, number, payload FROM {table}'):
        yield id, seq, number, row_digest(name, id, seq, number, payload)


def hexadecimal(digest):
    return format(digest & 0xFFFFFFFFFFFFFFFF, '016x')


class Violation(Exception):
    """An invariant that does not hold; the text says which."""


def prove(connection, integrity=True):
    """Returns (seq, digest, pages) of the committed state in an open database; raises Violation if it is none."""
    try:
        if integrity:
            verdict = [row[0] for row in connection.execute('PRAGMA integrity_check(3)')]
            if verdict != ['ok']:
                raise Violation('integrity_check: ' + '; '.join(verdict))
        recorded = connection.execute('SELECT seq, digest, rows FROM oracle').fetchall()
        if len(recorded) != 1:
            raise Violation(f'table oracle has {len(recorded)} rows, expected 1')
        seq, digest, rows = recorded[0]
        found = schema_digest(connection) ^ seal_digest(seq, rows)
        count = newest = total = 0
        for table in tables(connection):
            for _, row_seq, number, row in row_digests(connection, table):
                found ^= row
                count += 1
                newest = max(newest, row_seq)
                if table == 'account':
                    total += number
        pages = connection.execute('PRAGMA page_count').fetchone()[0]
    except (sqlite3.Error, TypeError, struct.error) as error:
        raise Violation(f'cannot be read: {error}') from error
    if count != rows:
        raise Violation(f'{count} rows, commit {seq} left {rows}')
    if newest != seq:
        raise Violation(f'the newest row was written by commit {newest}, the database says it stands at {seq}')
    if total != 0:
        raise Violation(f'balances add up to {total}, expected 0')
    if found != digest:
        raise Violation(f'digest {hexadecimal(found)}, commit {seq} left {hexadecimal(digest)}')
    return seq, digest, pages
