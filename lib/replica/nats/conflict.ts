/** Who stands in the way, and since when, in words: of a name, or of a lease. */

import { ConflictError, LeaseLostError } from '../../errors.js';
import type { Bucket } from './bucket.js';
import { writerOfObject } from './listing.js';
import { isUnreadable, type StoredObject } from './objects.js';

/** The error for a lease of which `last` is the last meta. */
export function leaseLost(bucket: Bucket, name: string, last: StoredObject | undefined): LeaseLostError {
  const who =
    last === undefined || last.deleted
      ? 'was given back or removed'
      : `was taken by ${writerOfObject(last) || 'another program'} at ${new Date(last.storedMs).toISOString()}`;
  return new LeaseLostError(`${name} in bucket ${bucket.name} ${who}`);
}

/** Another writer's version of an object stands in the way; `how` it does, where that is not by its own name. */
export function conflictWith(bucket: Bucket, last: StoredObject, how = ''): ConflictError {
  const when = new Date(last.storedMs).toISOString();
  const who = writerOfObject(last) || 'another program';
  const put = isUnreadable(last) ? 'holds what is no object, and' : '';
  const what = last.deleted
    ? `was removed at ${when}, and its name is taken for good`
    : `${put} was put by ${who} at ${when}`.trimStart();
  return new ConflictError(`${last.name} in bucket ${bucket.name} ${what}${how}`, {
    hint: 'Only one program may write a replica: stop one of them, or give each its own prefix.',
  });
}
