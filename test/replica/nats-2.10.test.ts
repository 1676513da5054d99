/** What holds on the server that the other tests run on holds on an older one, too. */

import { serveWith } from '../support/nats-server.js';

serveWith('nats-server-2.10');
for (const tests of [
  './nats',
  './nats-metas',
  './nats-lost-answers',
  './extras',
  './take-back',
  './audit',
  './sweep',
  '../jobs/tidy/lease',
]) {
  await import(new URL(`${tests}.test.js`, import.meta.url).href);
}
