"""What the oracle writer's transactions contain. Keeps a model of the rows (their digests only) in memory, so that
each commit costs what it changes. Everything of a transaction is kept apart until its commit has succeeded."""
import random

import state


class Table:
    """The committed rows of one table: their ids, for picking one at random, and their digests."""

    def __init__(self, name):
        self.name = name.encode()
        self.ids = []
        self.place = {}
        self.digests = {}

    def put(self, id, digest):
        if digest is None:
            place = self.place.pop(id)
            last = self.ids.pop()
            if last != id:
                self.ids[place] = last
                self.place[last] = place
            del self.digests[id]
        else:
            if id not in self.place:
                self.place[id] = len(self.ids)
                self.ids.append(id)
            self.digests[id] = digest


class Model:
    """The committed state, and the transaction under way on top of it."""

    def __init__(self, options):
        self.random = random.Random(options['seed'])
        self.payload = options['payload']
        self.large_payload = options['largePayload']
        self.large_share = options['largePayloadShare']
        self.low, self.high = options['rows']
        self.growing = True
        self.pool = self.random.randbytes(1 << 20) + bytes(1 << 18)
        self.connection = None

    def create(self, connection, seq):
        """The schema and the first commit."""
        connection.execute('BEGIN IMMEDIATE')
        for statement in state.SCHEMA:
            connection.execute(statement)
        digest = state.schema_digest(connection) ^ state.seal_digest(seq, state.ACCOUNTS)
        for id in range(1, state.ACCOUNTS + 1):
            digest ^= state.row_digest(b'account', id, seq, 0, b'\0' * 200)
            connection.execute('INSERT INTO account VALUES (?, ?, 0, ?)', (id, seq, b'\0' * 200))
        connection.execute('INSERT INTO oracle VALUES (1, ?, ?, ?)', (seq, digest, state.ACCOUNTS))
        connection.execute('COMMIT')

    def load(self, connection):
        """Takes over the state that a database holds, after proving it."""
        self.connection = connection
        self.seq, self.digest, _ = state.prove(connection, integrity=False)
        self.item = Table('item')
        for id, _, _, digest in state.row_digests(connection, 'item'):
            self.item.put(id, digest)
        self.account = {id: (number, digest) for id, _, number, digest in state.row_digests(connection, 'account')}
        self.extras = {}
        for name in state.tables(connection):
            if name not in ('item', 'account'):
                self.extras[name] = [row[3] for row in state.row_digests(connection, name)]
        self.rows = len(self.item.ids) + len(self.account) + sum(map(len, self.extras.values()))
        self.next_id = max(self.item.ids, default=0) + 1
        self.next_extra = 1 + max((int(name[6:]) for name in self.extras), default=0)

    def attach(self, connection):
        """Goes on with a connection that was opened anew; the database must hold exactly what was left in it."""
        self.connection = connection
        found = connection.execute('SELECT seq, digest FROM oracle').fetchone()
        if found != (self.seq, self.digest):
            raise state.Violation(f'reopened at commit {found[0]}, left at {self.seq}')

    # --- one transaction: begin, any of the changes, then seal; and applied only after COMMIT succeeded

    def begin(self):
        self.change = {}
        self.account_change = {}
        self.extra_change = {}
        self.fresh = []
        self.delta = 0
        self.row_delta = 0
        self.new_seq = self.seq + 1
        self.new_id = self.next_id

    def mark(self):
        """What a savepoint must bring back."""
        return (dict(self.change), dict(self.account_change), dict(self.extra_change), list(self.fresh), self.delta,
                self.row_delta)

    def back_to(self, mark):
        (self.change, self.account_change, self.extra_change, self.fresh, self.delta, self.row_delta) = (
            dict(mark[0]), dict(mark[1]), dict(mark[2]), list(mark[3]), mark[4], mark[5])

    def _payload(self):
        low, high = self.payload
        if self.large_share and self.random.random() < self.large_share:
            low, high = self.large_payload
        length = int(low + (high - low) * self.random.random())
        if length <= 1 << 18:
            start = int(self.random.random() * (1 << 20))
            return self.pool[start:start + length]
        return self.random.randbytes(length)

    def _pick(self):
        """An existing row's id and digest; rows of this same transaction now and then."""
        if self.fresh and self.random.random() < 0.1:
            id = self.fresh[int(self.random.random() * len(self.fresh))]
            if self.change.get(id) is not None:
                return id, self.change[id]
        ids = self.item.ids
        if ids:
            for _ in range(4):
                id = ids[int(self.random.random() * len(ids))]
                digest = self.change.get(id, 0)
                if digest == 0:
                    return id, self.item.digests[id]
                if digest is not None:
                    return id, digest
        return None

    def insert(self):
        id = self.new_id
        self.new_id = id + 1
        number = int(self.random.random() * 0x7FFFFFFF)
        payload = self._payload()
        digest = state.row_digest(b'item', id, self.new_seq, number, payload)
        self.connection.execute('INSERT INTO item VALUES (?, ?, ?, ?)', (id, self.new_seq, number, payload))
        self.change[id] = digest
        self.fresh.append(id)
        self.delta ^= digest
        self.row_delta += 1

    def update(self):
        picked = self._pick()
        if picked is None:
            return self.insert()
        id, old = picked
        number = int(self.random.random() * 0x7FFFFFFF)
        payload = self._payload()
        digest = state.row_digest(b'item', id, self.new_seq, number, payload)
        self.connection.execute('UPDATE item SET seq = ?, number = ?, payload = ? WHERE id = ?',
                                (self.new_seq, number, payload, id))
        self.change[id] = digest
        self.delta ^= old ^ digest

    def delete(self):
        picked = self._pick()
        if picked is None:
            return self.insert()
        id, old = picked
        self.connection.execute('DELETE FROM item WHERE id = ?', (id,))
        self.change[id] = None
        self.delta ^= old
        self.row_delta -= 1

    def transfer(self):
        first = int(self.random.random() * state.ACCOUNTS) + 1
        second = (first + int(self.random.random() * (state.ACCOUNTS - 1))) % state.ACCOUNTS + 1
        amount = int(self.random.random() * 1000) + 1
        for id, change in ((first, -amount), (second, amount)):
            number, old = self.account_change.get(id) or self.account[id]
            number += change
            digest = state.row_digest(b'account', id, self.new_seq, number, b'\0' * 200)
            self.connection.execute('UPDATE account SET seq = ?, number = ? WHERE id = ?',
                                    (self.new_seq, number, id))
            self.account_change[id] = (number, digest)
            self.delta ^= old ^ digest

    def change_schema(self):
        """Creates a table with some rows and an index, or drops one made before."""
        standing = [name for name in self.extras if name not in self.extra_change]
        if standing and (len(standing) > 4 or self.random.random() < 0.4):
            name = self.random.choice(standing)
            self.delta ^= state.schema_digest(self.connection, name)
            self.delta ^= state.schema_digest(self.connection, f'{name}_number')
            for digest in self.extras[name]:
                self.delta ^= digest
            self.row_delta -= len(self.extras[name])
            self.connection.execute(f'DROP TABLE {name}')
            self.extra_change[name] = None
            return
        name = f'extra_{self.next_extra}'
        self.next_extra += 1
        self.connection.execute(f'CREATE TABLE {name}(id INTEGER PRIMARY KEY, seq INTEGER NOT NULL, '
                                'number INTEGER NOT NULL, payload BLOB NOT NULL)')
        self.connection.execute(f'CREATE INDEX {name}_number ON {name}(number)')
        digests = []
        for id in range(1, self.random.randint(1, 60) + 1):
            payload = self._payload()
            digests.append(state.row_digest(name.encode(), id, self.new_seq, id * 7, payload))
            self.connection.execute(f'INSERT INTO {name} VALUES (?, ?, ?, ?)', (id, self.new_seq, id * 7, payload))
            self.delta ^= digests[-1]
        self.row_delta += len(digests)
        self.delta ^= state.schema_digest(self.connection, name)
        self.delta ^= state.schema_digest(self.connection, f'{name}_number')
        self.extra_change[name] = digests

    def seal(self):
        """The last change of a transaction: records the state that the commit will leave."""
        if not any(digest is not None for digest in self.change.values()) and not self.account_change:
            self.transfer()
        self.new_rows = self.rows + self.row_delta
        self.new_digest = (self.digest ^ self.delta ^ state.seal_digest(self.seq, self.rows)
                           ^ state.seal_digest(self.new_seq, self.new_rows))
        self.connection.execute('UPDATE oracle SET seq = ?, digest = ?, rows = ?',
                                (self.new_seq, self.new_digest, self.new_rows))

    def applied(self):
        """COMMIT has succeeded: the transaction becomes the committed state."""
        for id, digest in self.change.items():
            if digest is not None or id in self.item.place:
                self.item.put(id, digest)
        self.account.update(self.account_change)
        for name, digests in self.extra_change.items():
            if digests is None:
                del self.extras[name]
            else:
                self.extras[name] = digests
        self.seq, self.digest, self.rows, self.next_id = self.new_seq, self.new_digest, self.new_rows, self.new_id

    def random_changes(self, rows):
        """About `rows` changed rows. The database grows to `high` rows, shrinks to `low`, and so on."""
        count = len(self.item.ids)
        if count >= self.high:
            self.growing = False
        elif count <= self.low:
            self.growing = True
        insert, update = (0.5, 0.9) if self.growing else (0.1, 0.5)
        if rows == 1 and self.random.random() < 0.1:
            return self.transfer()
        for _ in range(rows):
            draw = self.random.random()
            if draw < insert:
                self.insert()
            elif draw < update:
                self.update()
            else:
                self.delete()
