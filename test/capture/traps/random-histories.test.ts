/**
 * Whatever applications do, in whatever order, and whenever it is looked at: as soon as capture says that it has
 * everything, what it handed on is the database.
 */
import { test } from 'node:test';
import { runRandomHistory } from '../../support/random-history.js';

const SECONDS = process.env.JETLITE_LONG === '1' ? 120 : 5;

for (const fileEvents of [true, false]) {
  test(`random histories, ${fileEvents ? 'with file events' : 'by the clock'}`, (t) =>
    runRandomHistory(t, fileEvents, SECONDS));
}
